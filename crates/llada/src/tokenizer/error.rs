//! What can go wrong with a tokenizer.

use std::path::PathBuf;

/// Why a tokenizer cannot be read, trained or applied.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenizerError {
    /// The folder has no `tokenizer.json`.
    #[error("`{dir}` has no `tokenizer.json`")]
    Missing {
        /// The folder.
        dir: PathBuf,
    },
    /// A file is not what it should be.
    #[error("cannot use `{file}`: {what}")]
    File {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// Text or ids could not be converted.
    #[error("the tokenizer cannot {action} this: {what}")]
    Apply {
        /// `encode` or `decode`.
        action: &'static str,
        /// What went wrong.
        what: String,
    },
    /// Text that should be plain gives a special token all the same.
    #[error("the text contains `{token}`, which this tokenizer cannot read as plain text")]
    Special {
        /// The special token.
        token: String,
    },
    /// The tokenizer has ids that the model has no embedding for.
    #[error(
        "the tokenizer has the token `{token}` with id {id}, the model has only {embedding_size} \
         embeddings"
    )]
    Vocabulary {
        /// The token with the largest id.
        token: String,
        /// Its id.
        id: u32,
        /// Rows of the model's embedding.
        embedding_size: usize,
    },
    /// The vocabulary asked for cannot hold every byte and the special tokens.
    #[error("a byte-level vocabulary has at least {least} entries, {asked} were asked for")]
    Size {
        /// Entries asked for.
        asked: usize,
        /// The smallest number that works.
        least: usize,
    },
    /// There is no text to train on.
    #[error("there is no text to train a tokenizer on")]
    NoText,
}

impl TokenizerError {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Missing { .. } => {
                "fetch the checkpoint's `tokenizer.json`, or train one with `llada tokenizer train`"
            }
            Self::File { .. } => "fetch the file again, or save it with the `tokenizers` library",
            Self::Vocabulary { .. } => "use the tokenizer that belongs to the checkpoint",
            Self::Special { .. } => "remove it from the text",
            Self::Size { .. } => "ask for a larger vocabulary, or for a character tokenizer",
            Self::NoText => "give text files that are not empty",
            Self::Apply { .. } => return None,
        };
        Some(hint.into())
    }
}
