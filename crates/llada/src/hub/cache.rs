//! The cache on this machine: which file or folder a name stands for.

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Component, Path, PathBuf},
};

use super::{
    HubError, Reference, Repo,
    folder::{is_gguf, missing_file},
};
use crate::files;

/// A commit in full has so many hexadecimal digits.
const COMMIT: usize = 40;

/// So many of them may stand for it, where no other begins like that.
const SHORT_COMMIT: usize = 7;

/// Bytes of a file in `refs/`, at most.
const MAX_REF: u64 = 256;

/// What llama.cpp takes where nobody names a quantisation.
const USUAL_QUANTISATION: &str = "q4_k_m";

/// The folder that all programs which use the hub share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cache {
    dir: PathBuf,
}

/// A model in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its folder or GGUF file.
    pub path: PathBuf,
    /// The first of its files that was never fetched.
    pub missing: Option<String>,
}

impl Cache {
    /// The cache in `dir`.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// The cache that the environment names (`HF_HUB_CACHE`, `HUGGINGFACE_HUB_CACHE`, `HF_HOME`,
    /// `XDG_CACHE_HOME`), or else the one below the home folder.
    ///
    /// # Errors
    /// If none is named and there is no home folder.
    pub fn from_env() -> Result<Self, HubError> {
        Self::named_by(set, home()).ok_or(HubError::NoCache)
    }

    fn named_by(set: impl Fn(&str) -> Option<OsString>, home: Option<PathBuf>) -> Option<Self> {
        let expanded = |key: &str| {
            let path = PathBuf::from(set(key)?);
            match (path.strip_prefix("~"), &home) {
                (Ok(rest), Some(home)) => Some(home.join(rest)),
                _ => Some(path),
            }
        };
        expanded("HF_HUB_CACHE")
            .or_else(|| expanded("HUGGINGFACE_HUB_CACHE"))
            .or_else(|| Some(expanded("HF_HOME")?.join("hub")))
            .or_else(|| Some(expanded("XDG_CACHE_HOME")?.join("huggingface/hub")))
            .or_else(|| Some(home.as_ref()?.join(".cache/huggingface/hub")))
            .map(Self::new)
    }

    /// Where it is.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The folder of a repository, whether it is there or not.
    pub fn repo_dir(&self, repo: &Repo) -> PathBuf {
        self.dir.join(repo.folder())
    }

    /// The repositories in alphabetical order.
    pub fn repos(&self) -> Vec<Repo> {
        let mut repos: Vec<Repo> =
            names(&self.dir).iter().filter_map(|name| Repo::of_folder(name)).collect();
        repos.sort();
        repos
    }

    /// The commits of which there are files.
    pub fn commits(&self, repo: &Repo) -> Vec<String> {
        let mut commits = names(&self.repo_dir(repo).join("snapshots"));
        commits.retain(|name| is_commit(name));
        commits.sort();
        commits
    }

    /// The commit of a branch, a tag or the beginning of a commit.
    pub fn commit(&self, reference: &Reference) -> Option<String> {
        let (repo, revision) = (reference.repo(), reference.revision());
        if is_commit(revision) {
            return Some(revision.to_owned());
        }
        let path = self.repo_dir(repo).join("refs").join(revision);
        if let Ok(text) = files::read_text(&path, MAX_REF) {
            return Some(text.trim().to_owned()).filter(|commit| is_commit(commit));
        }
        let digits = revision.bytes().all(|b| b.is_ascii_hexdigit());
        let mut like = self.commits(repo);
        like.retain(|commit| commit.starts_with(revision));
        match like.as_slice() {
            [one] if digits && revision.len() >= SHORT_COMMIT => Some(one.clone()),
            _ => None,
        }
    }

    /// The folder with the files of a commit, by their names.
    pub fn snapshot(&self, repo: &Repo, commit: &str) -> PathBuf {
        self.repo_dir(repo).join("snapshots").join(commit)
    }

    /// The model that a name stands for: the repository's folder, or a GGUF file of it.
    ///
    /// # Errors
    /// If nothing of it is there, or several files could be meant.
    pub fn find(&self, reference: &Reference) -> Result<Found, HubError> {
        let absent = || HubError::NotCached(Box::new(reference.clone()));
        let commit = self.commit(reference).ok_or_else(absent)?;
        let snapshot = self.snapshot(reference.repo(), &commit);
        let listed = gguf_files(&snapshot);
        let chosen = |wanted| {
            quantised_file(&listed, wanted).map_err(|files| {
                let reference = Box::new(reference.clone());
                HubError::Ambiguous { reference, files }
            })
        };
        if let Some(wanted) = reference.file() {
            let file = chosen(Some(wanted))?.ok_or_else(absent)?;
            return Ok(Found { path: snapshot.join(file), missing: None });
        }
        let missing = missing_file(&snapshot);
        match (missing.is_some(), chosen(None)) {
            (true, Ok(Some(file))) => Ok(Found { path: snapshot.join(file), missing: None }),
            (true, Err(error)) => Err(error),
            _ if names(&snapshot).is_empty() => Err(absent()),
            _ => Ok(Found { path: snapshot, missing }),
        }
    }
}

/// The value of a variable of the environment; an empty one is not set.
pub fn set(key: &str) -> Option<OsString> {
    env::var_os(key).filter(|value| !value.is_empty())
}

fn home() -> Option<PathBuf> {
    env::home_dir().filter(|home| !home.as_os_str().is_empty())
}

/// The repository of a path into a cache.
pub fn repo_of(path: &Path) -> Option<Repo> {
    let parts: Vec<&str> = path
        .components()
        .filter_map(|part| match part {
            Component::Normal(name) => name.to_str(),
            _ => None,
        })
        .collect();
    parts.windows(2).rev().find_map(|pair| match pair[1] {
        "snapshots" => Repo::of_folder(pair[0]),
        _ => None,
    })
}

/// Of the files of a repository, the GGUF file that is `wanted` by its name or its quantisation
/// (`Q8_0`), or the usual one; none if there is no such file.
///
/// # Errors
/// Several could be meant, which are given.
pub fn quantised_file<'a>(
    files: &'a [String],
    wanted: Option<&str>,
) -> Result<Option<&'a str>, Vec<String>> {
    let stem = |file: &str| {
        let name = file.rsplit('/').next().unwrap_or(file).to_ascii_lowercase();
        name.strip_suffix(".gguf").map(str::to_owned)
    };
    let all: Vec<(&String, String)> =
        files.iter().filter_map(|file| Some((file, stem(file)?))).collect();
    if let Some((file, _)) = all.iter().find(|(file, _)| Some(file.as_str()) == wanted) {
        return Ok(Some(file));
    }
    let quantised = |as_said: &str, exact: bool| -> Vec<&'a str> {
        let said = as_said.to_ascii_lowercase();
        let has = |stem: &str| {
            stem.rmatch_indices(said.as_str()).any(|(at, _)| {
                let end = &stem[at + said.len()..];
                let begins = at == 0 || stem[..at].ends_with(['-', '.', '_']);
                begins && (end.is_empty() || (!exact && end.starts_with(['-', '.', '_'])))
            })
        };
        all.iter().filter(|(_, stem)| has(stem)).map(|(file, _)| file.as_str()).collect()
    };
    let candidates = match wanted {
        Some(wanted) => match quantised(wanted, true) {
            exact if exact.is_empty() => quantised(wanted, false),
            exact => exact,
        },
        None => match quantised(USUAL_QUANTISATION, true) {
            usual if usual.len() == 1 => usual,
            _ => all.iter().map(|(file, _)| file.as_str()).collect(),
        },
    };
    match candidates.as_slice() {
        [] => Ok(None),
        [one] => Ok(Some(one)),
        several => Err(several.iter().map(|&file| file.to_owned()).collect()),
    }
}

/// The GGUF files of a snapshot, also those one folder down.
fn gguf_files(snapshot: &Path) -> Vec<String> {
    let below = |name: String| match snapshot.join(&name).is_dir() {
        true => names(&snapshot.join(&name)).iter().map(|file| format!("{name}/{file}")).collect(),
        false => vec![name],
    };
    let mut files: Vec<String> = names(snapshot).into_iter().flat_map(below).collect();
    files.retain(|file| is_gguf(&snapshot.join(file)));
    files.retain(|file| snapshot.join(file).is_file());
    files.sort();
    files
}

/// The names in a folder, none where there is no such folder.
fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

fn is_commit(text: &str) -> bool {
    text.len() == COMMIT && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAIN: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    const OLD: &str = "abcdefabcdefabcdefabcdefabcdefabcdefabcd";

    /// A cache with the files of two commits of `o/r`.
    fn cache(main: &[&str], old: &[&str]) -> (tempfile::TempDir, Cache) {
        let dir = tempfile::tempdir().unwrap();
        let repo = dir.path().join("models--o--r");
        fs::create_dir_all(repo.join("refs/refs/pr")).unwrap();
        fs::write(repo.join("refs/main"), MAIN).unwrap();
        fs::write(repo.join("refs/refs/pr/1"), OLD).unwrap();
        for (commit, files) in [(MAIN, main), (OLD, old)] {
            for file in files {
                let path = repo.join("snapshots").join(commit).join(file);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, "{}").unwrap();
            }
        }
        let cache = Cache::new(dir.path());
        (dir, cache)
    }

    fn find(cache: &Cache, name: &str) -> Result<(String, Option<String>), HubError> {
        let Found { path, missing } = cache.find(&name.parse().unwrap())?;
        let snapshots = cache.dir().join("models--o--r/snapshots");
        let path = path.strip_prefix(snapshots).unwrap();
        Ok((path.to_string_lossy().replace('\\', "/"), missing))
    }

    #[test]
    fn the_environment_names_the_cache() {
        let home = || Some(PathBuf::from("/h"));
        let of = |pairs: &[(&str, &str)], home| {
            let pairs: Vec<(String, OsString)> =
                pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).into())).collect();
            let set = move |key: &str| pairs.iter().find(|p| p.0 == key).map(|p| p.1.clone());
            Cache::named_by(set, home).map(|cache| cache.dir)
        };
        let all = [
            ("HF_HUB_CACHE", "/a"),
            ("HUGGINGFACE_HUB_CACHE", "/b"),
            ("HF_HOME", "/c"),
            ("XDG_CACHE_HOME", "/d"),
        ];
        assert_eq!(of(&all, None), Some("/a".into()));
        assert_eq!(of(&all[1..], None), Some("/b".into()));
        assert_eq!(of(&all[2..], None), Some("/c/hub".into()));
        assert_eq!(of(&all[3..], None), Some("/d/huggingface/hub".into()));
        assert_eq!(of(&[], home()), Some("/h/.cache/huggingface/hub".into()));
        assert_eq!(of(&[("HF_HOME", "~/x")], home()), Some("/h/x/hub".into()));
        assert_eq!(of(&[], None), None);
    }

    #[test]
    fn a_folder_is_found_by_branch_tag_and_commit() {
        let (_dir, cache) = cache(&["config.json", "model.safetensors"], &["config.json"]);
        assert_eq!(find(&cache, "o/r").unwrap(), (MAIN.into(), None));
        assert_eq!(find(&cache, "o/r@aaaaaaa").unwrap(), (MAIN.into(), None));
        let old = (OLD.to_owned(), Some("model.safetensors".to_owned()));
        for revision in ["refs/pr/1", OLD, "abcdefab"] {
            assert_eq!(find(&cache, &format!("o/r@{revision}")).unwrap(), old);
        }
        for name in ["o/r@abc", "o/r@v1", "o/other", "o/r:Q8_0", &format!("o/r@{}", "b".repeat(40))]
        {
            let error = find(&cache, name).unwrap_err();
            assert!(matches!(error, HubError::NotCached(_)), "{name}: {error}");
            assert_eq!(error.hint().unwrap(), format!("`llada pull {name}` fetches it"));
        }
        assert_eq!(cache.repos().len(), 1);
        assert_eq!(cache.commits(&cache.repos()[0]), [MAIN, OLD]);
    }

    #[test]
    fn a_damaged_reference_is_none() {
        let (dir, cache) = cache(&["config.json"], &[]);
        for text in ["../../../etc", "", "short", &"x".repeat(10_000)] {
            fs::write(dir.path().join("models--o--r/refs/main"), text).unwrap();
            assert!(matches!(find(&cache, "o/r"), Err(HubError::NotCached(_))), "{text}");
        }
    }

    #[test]
    fn quantised_files_are_found_by_name_or_ending() {
        let (_dir, cache) = cache(&["config.json", "m-Q8_0.gguf", "q4/m.Q4_K_M.gguf"], &["x.gguf"]);
        let main = |file: &str| (format!("{MAIN}/{file}"), None);
        assert_eq!(find(&cache, "o/r:Q8_0").unwrap(), main("m-Q8_0.gguf"));
        assert_eq!(find(&cache, "o/r:m-Q8_0.gguf").unwrap(), main("m-Q8_0.gguf"));
        assert_eq!(find(&cache, "o/r:q4_k").unwrap(), main("q4/m.Q4_K_M.gguf"));
        // The usual quantisation, since the folder itself has no weights.
        assert_eq!(find(&cache, "o/r").unwrap(), main("q4/m.Q4_K_M.gguf"));
        assert_eq!(find(&cache, "o/r@refs/pr/1").unwrap().0, format!("{OLD}/x.gguf"));
    }

    #[test]
    fn several_files_are_not_guessed_among() {
        let files = ["a-Q4_K_S.gguf", "a-Q4_0.gguf", "a-Q8_0.gguf"].map(str::to_owned);
        let one = |wanted| quantised_file(&files, wanted);
        assert_eq!(one(Some("Q4_K")), Ok(Some("a-Q4_K_S.gguf")));
        assert_eq!(one(Some("Q4")), Err(vec![files[0].clone(), files[1].clone()]));
        assert_eq!(one(Some("0")).unwrap_err().len(), 2);
        assert_eq!(one(Some("K_S.gg")), Ok(None));
        assert_eq!(one(Some("Q5_0")), Ok(None));
        assert_eq!(one(None).unwrap_err().len(), 3);
        assert_eq!(quantised_file(&files[..1], None), Ok(Some("a-Q4_K_S.gguf")));
        assert_eq!(quantised_file(&[], None), Ok(None));
    }

    #[test]
    fn a_path_into_a_cache_has_a_repository() {
        let path = Path::new("/c/models--GSAI-ML--LLaDA-1.5/snapshots/abc/m.gguf");
        assert_eq!(repo_of(path).unwrap().to_string(), "GSAI-ML/LLaDA-1.5");
        assert_eq!(repo_of(Path::new("/c/models--a--b/blobs/abc")), None);
        assert_eq!(repo_of(Path::new("models/storyteller")), None);
    }
}
