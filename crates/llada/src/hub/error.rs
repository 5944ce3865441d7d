//! What can go wrong with a model of the hub before any network is used.

use super::Reference;

/// Why a model of the hub cannot be named or found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// A text that names no model of the hub.
    #[error("`{text}` does not name a model of the hub: {what}")]
    Name {
        /// The text.
        text: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// Neither a cache is named in the environment nor a home folder known.
    #[error("there is no home folder to look for models of the hub in")]
    NoCache,
    /// The repository, or the revision of it, was never fetched.
    #[error("`{0}` is not on this machine")]
    NotCached(Box<Reference>),
    /// Some of the files of the model were never fetched.
    #[error("of `{reference}` only a part is on this machine: `{missing}` is missing")]
    Partial {
        /// The model.
        reference: Box<Reference>,
        /// The first file that is missing.
        missing: String,
    },
    /// Several files of the repository could be meant.
    #[error("`{reference}` has several models: {}", list(files))]
    Ambiguous {
        /// The model.
        reference: Box<Reference>,
        /// The files.
        files: Vec<String>,
    },
}

impl HubError {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Name { .. } => {
                "write ORG/REPO, as in `GSAI-ML/LLaDA-8B-Instruct`, with @REVISION for another than \
                 the newest and :FILE for one GGUF file"
                    .into()
            }
            Self::NoCache => "set HF_HOME to a folder".into(),
            Self::NotCached(reference) => format!("`llada pull {reference}` fetches it"),
            Self::Partial { reference, .. } => format!("`llada pull {reference}` fetches the rest"),
            Self::Ambiguous { reference, files } => match files.first() {
                Some(file) => format!("name one, as in `{}:{file}`", reference.without_file()),
                None => "name one".into(),
            },
        })
    }
}

fn list(files: &[String]) -> String {
    let quoted: Vec<String> = files.iter().map(|file| format!("`{file}`")).collect();
    quoted.join(", ")
}
