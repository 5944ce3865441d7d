//! `ORG/REPO[@REVISION][:FILE]`: the name of a model of the hub.

use std::{fmt, str::FromStr};

use super::HubError;

/// Characters of a part of a name, at most; the hub's own bound.
const MAX_PART: usize = 96;

/// Characters of a path in a repository, at most.
const MAX_PATH: usize = 512;

/// Names that Windows gives to devices, whatever their ending.
const DEVICES: [&str; 4] = ["con", "prn", "aux", "nul"];

/// A repository of models: `ORG/REPO`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Repo {
    org: String,
    name: String,
}

impl Repo {
    /// Who publishes it.
    pub fn org(&self) -> &str {
        &self.org
    }

    /// Its name among the publisher's.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The name of its folder in a cache: `models--ORG--REPO`.
    pub fn folder(&self) -> String {
        format!("models--{}--{}", self.org, self.name)
    }

    /// The repository of a cache's folder.
    pub fn of_folder(folder: &str) -> Option<Self> {
        let (org, name) = folder.strip_prefix("models--")?.split_once("--")?;
        format!("{org}/{name}").parse().ok()
    }
}

impl fmt::Display for Repo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.org, self.name)
    }
}

impl FromStr for Repo {
    type Err = HubError;

    fn from_str(text: &str) -> Result<Self, HubError> {
        let wrong = |what| HubError::Name { text: text.to_owned(), what };
        let (org, name) = text.split_once('/').ok_or(wrong("it has no `/`"))?;
        for part in [org, name] {
            if part.is_empty() || part.len() > MAX_PART {
                return Err(wrong("both parts of ORG/REPO have 1 to 96 characters"));
            }
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            if !part.chars().all(plain) {
                return Err(wrong("names have letters, digits, `-`, `_` and `.`"));
            }
            // The hub has no such names, and a cache's folders could not tell them apart.
            if part.contains("--") || part.contains("..") {
                return Err(wrong("names have no `--` and no `..`"));
            }
            if part.starts_with(['-', '.']) || part.ends_with(['-', '.']) {
                return Err(wrong("names do not begin or end with `-` or `.`"));
            }
        }
        Ok(Self { org: org.to_owned(), name: name.to_owned() })
    }
}

/// A model of the hub: `ORG/REPO[@REVISION][:FILE]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    repo: Repo,
    revision: Option<String>,
    file: Option<String>,
}

impl Reference {
    /// The repository.
    pub fn repo(&self) -> &Repo {
        &self.repo
    }

    /// The branch, tag or commit; the main branch where none is named.
    pub fn revision(&self) -> &str {
        self.revision.as_deref().unwrap_or("main")
    }

    /// The GGUF file, or the quantisation that its name ends in.
    pub fn file(&self) -> Option<&str> {
        self.file.as_deref()
    }

    /// The same repository at the same revision.
    pub fn without_file(&self) -> Self {
        Self { file: None, ..self.clone() }
    }

    /// The same at another revision.
    ///
    /// # Errors
    /// If it is no name of a revision.
    pub fn at(&self, revision: &str) -> Result<Self, HubError> {
        let wrong = |what| HubError::Name { text: revision.to_owned(), what };
        if !is_revision(revision) {
            return Err(wrong("a revision is a branch, a tag or a commit"));
        }
        Ok(Self { revision: Some(revision.to_owned()), ..self.clone() })
    }
}

impl From<Repo> for Reference {
    fn from(repo: Repo) -> Self {
        Self { repo, revision: None, file: None }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.repo.fmt(f)?;
        if let Some(revision) = &self.revision {
            write!(f, "@{revision}")?;
        }
        match &self.file {
            Some(file) => write!(f, ":{file}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Reference {
    type Err = HubError;

    /// Reads the name; the address of its page on the hub will do too.
    fn from_str(text: &str) -> Result<Self, HubError> {
        let wrong = |what| HubError::Name { text: text.to_owned(), what };
        let bare = ["https://", "http://"].iter().find_map(|scheme| text.strip_prefix(scheme));
        let hosts = ["huggingface.co/", "www.huggingface.co/", "hf.co/"];
        let page = hosts.iter().find_map(|host| bare.unwrap_or(text).strip_prefix(host));
        if bare.is_some() && page.is_none() {
            return Err(wrong("it is an address of another place"));
        }
        let (rest, file) = match page.unwrap_or(text).split_once(':') {
            Some((rest, file)) => (rest, Some(file)),
            None => (page.unwrap_or(text), None),
        };
        let (repo, revision) = match (rest.split_once('@'), rest.split_once("/tree/")) {
            (Some((repo, revision)), _) => (repo, Some(revision)),
            (None, Some((repo, revision))) if page.is_some() => (repo, Some(revision)),
            _ => (rest, None),
        };
        let repo = if page.is_some() { repo.trim_end_matches('/') } else { repo };
        let reference = Self::from(Repo::from_str(repo).map_err(|error| match error {
            HubError::Name { what, .. } => wrong(what),
            other => other,
        })?);
        if file.is_some_and(|file| !is_plain_path(file)) {
            return Err(wrong("what follows `:` is the name of a file or of a quantisation"));
        }
        let reference = Self { file: file.map(str::to_owned), ..reference };
        match revision {
            Some(revision) if !is_revision(revision) => {
                Err(wrong("what follows `@` is a branch, a tag or a commit"))
            }
            Some(revision) => reference.at(revision),
            None => Ok(reference),
        }
    }
}

fn is_revision(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/' | '+');
    text.chars().all(plain) && is_plain_path(text)
}

/// Whether `path` names a file below the folder that it is read from, on every system: parts that
/// `/` divides, of which none leads upwards, is hidden, names a drive or a device, or has characters
/// that a system reads otherwise.
pub fn is_plain_path(path: &str) -> bool {
    let odd =
        |c: char| c.is_control() || matches!(c, '\\' | ':' | '*' | '?' | '"' | '<' | '>' | '|');
    let plain = |part: &str| {
        let stem = part.split('.').next().unwrap_or_default().to_ascii_lowercase();
        let port = ["com", "lpt"].iter().any(|port| {
            stem.strip_prefix(port).is_some_and(|n| n.len() == 1 && n.parse::<u8>().is_ok())
        });
        !part.is_empty()
            && !part.starts_with(['.', ' '])
            && !part.ends_with(['.', ' '])
            && !part.contains(odd)
            && !port
            && !DEVICES.contains(&stem.as_str())
    };
    path.len() <= MAX_PATH && path.split('/').all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (String, String, Option<String>) {
        let read: Reference = text.parse().unwrap();
        (read.repo().to_string(), read.revision().to_owned(), read.file().map(str::to_owned))
    }

    #[test]
    fn names_have_three_parts() {
        let all = |repo: &str, revision: &str, file: Option<&str>| {
            (repo.to_owned(), revision.to_owned(), file.map(str::to_owned))
        };
        assert_eq!(read("A-1/B_2.c"), all("A-1/B_2.c", "main", None));
        assert_eq!(read("a/b@v1.0"), all("a/b", "v1.0", None));
        assert_eq!(read("a/b@refs/pr/3"), all("a/b", "refs/pr/3", None));
        assert_eq!(read("a/b:Q4_K_M"), all("a/b", "main", Some("Q4_K_M")));
        assert_eq!(read("a/b@c:d/e.gguf"), all("a/b", "c", Some("d/e.gguf")));
        assert_eq!(read("https://huggingface.co/a/b"), all("a/b", "main", None));
        assert_eq!(read("hf.co/a/b/tree/dev"), all("a/b", "dev", None));
        for text in ["a/b", "a/b@c", "a/b:d", "a/b@c:d"] {
            assert_eq!(text.parse::<Reference>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_names_no_model_says_why() {
        let long = format!("a/{}", "b".repeat(97));
        let wrong = [
            "",
            "a",
            "/",
            "a/",
            "/b",
            "a/b/c",
            "../b",
            "a/..",
            "a--b/c",
            "-a/b",
            "a/b.",
            "a b/c",
            "a/b@",
            "a/b@../x",
            "a/b@/x",
            "a/b:",
            "a/b:../x",
            "a/b:/etc/passwd",
            "a/b:c:d",
            "a/b@x@y",
            "C:/a/b",
            "https://example.org/a/b",
            "a/b\n",
            "é/b",
            &long,
        ];
        for text in wrong {
            let error = text.parse::<Reference>().unwrap_err();
            assert!(error.to_string().contains("does not name a model"), "{text}: {error}");
            assert!(error.hint().is_some());
        }
    }

    #[test]
    fn folders_of_a_cache_and_back() {
        let repo: Repo = "GSAI-ML/LLaDA-8B-Base".parse().unwrap();
        assert_eq!(repo.folder(), "models--GSAI-ML--LLaDA-8B-Base");
        assert_eq!(Repo::of_folder(&repo.folder()), Some(repo));
        for folder in ["models--a", "datasets--a--b", "models--..--b", "models--a--b--c", "x"] {
            assert_eq!(Repo::of_folder(folder), None, "{folder}");
        }
    }

    #[test]
    fn paths_stay_below_their_folder_on_every_system() {
        for path in ["config.json", "a/b.gguf", "model-00001-of-00006.safetensors", "naïve 1.txt"]
        {
            assert!(is_plain_path(path), "{path}");
        }
        let long = "x/".repeat(400) + "x";
        let wrong = [
            "",
            ".",
            "..",
            "../a",
            "a/../b",
            "/a",
            "a/",
            "a//b",
            "C:a",
            "C:\\a",
            "a\\b",
            "\\\\h\\s",
            ".git/config",
            "a/.hidden",
            "nul",
            "NUL.txt",
            "a/con.json",
            "com1",
            "a.",
            "a ",
            "a\0b",
            "a\nb",
            "a:stream",
            &long,
        ];
        for path in wrong {
            assert!(!is_plain_path(path), "{path:?}");
        }
    }
}
