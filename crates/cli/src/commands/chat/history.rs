//! The history of chats: where what was typed is saved.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rustyline::history::{FileHistory, History as _};

use crate::term;

/// Messages that are kept.
pub const MOST: usize = 1000;
/// Longest message that is kept, in bytes: more is a file that was pasted.
const LONGEST: usize = 16 << 10;
/// A file of more bytes than these messages can have is not one of ours.
const LARGEST: u64 = (MOST * LONGEST * 2) as u64;

/// The file, or none where there is no place for it.
#[derive(Debug)]
pub struct Store(Option<PathBuf>);

impl Store {
    /// The file of this user; none unless `is_wanted`.
    pub fn open(is_wanted: bool) -> Self {
        let dir =
            if is_wanted { state_dir(|key| term::variable(key).map(PathBuf::from)) } else { None };
        Self(dir.map(|dir| dir.join("llada").join("history")))
    }

    /// Reads what was kept. What cannot be read is as good as nothing.
    pub fn load(&self, history: &mut FileHistory) {
        let is_ours = |path: &&PathBuf| {
            fs::metadata(path).is_ok_and(|data| data.is_file() && data.len() <= LARGEST)
        };
        if let Some(path) = self.0.as_ref().filter(is_ours) {
            let _ = history.load(path);
        }
    }

    /// Adds a message to what can be recalled, and saves it; a file that cannot be written costs
    /// nothing but that.
    pub fn add(&self, history: &mut FileHistory, message: &str) {
        let is_kept = message.len() <= LONGEST && history.add(message).unwrap_or(false);
        let Some(path) = self.0.as_deref().filter(|_| is_kept) else { return };
        if path.parent().is_none_or(|dir| make_private(dir).is_err()) {
            return;
        }
        if history.append(path).is_ok() {
            let _ = only_for_owner(path, 0o600);
        }
    }
}

/// `$XDG_STATE_HOME`, or what stands for it. Paths that are not absolute are not looked at, as the
/// standard asks.
fn state_dir(variable: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    let absolute = |key: &str| variable(key).filter(|path| path.is_absolute());
    absolute("XDG_STATE_HOME")
        .or_else(|| Some(absolute("HOME")?.join(".local").join("state")))
        .or_else(|| absolute("LOCALAPPDATA"))
}

/// Makes a folder that nobody else can look into.
fn make_private(dir: &Path) -> std::io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(dir)?;
    only_for_owner(dir, 0o700)
}

#[cfg(unix)]
fn only_for_owner(path: &Path, mode: u32) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

/// Elsewhere the folders of a user are private by themselves.
#[cfg(not(unix))]
fn only_for_owner(_: &Path, _: u32) -> std::io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recalled(store: &Store) -> Vec<String> {
        let mut history = FileHistory::new();
        store.load(&mut history);
        history.iter().cloned().collect()
    }

    #[test]
    fn messages_are_kept_for_the_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new").join("history");
        let store = Store(Some(path.clone()));
        let mut history = FileHistory::new();
        for message in ["one", "two\nlines \\ and", &"x".repeat(LONGEST + 1)] {
            store.add(&mut history, message);
        }
        assert_eq!(recalled(&store), ["one", "two\nlines \\ and"]);
        let mut other = FileHistory::new();
        store.load(&mut other);
        store.add(&mut other, "three");
        store.add(&mut history, "four");
        assert_eq!(recalled(&store), ["one", "two\nlines \\ and", "three", "four"]);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
            assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        }
    }

    #[test]
    fn what_cannot_be_kept_is_no_failure() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        for store in [Store(None), Store(Some(dir.path().join("file").join("history")))] {
            let mut history = FileHistory::new();
            store.load(&mut history);
            store.add(&mut history, "one");
            assert_eq!((history.len(), recalled(&store).len()), (1, 0));
        }
        let folder = Store(Some(dir.path().to_owned()));
        folder.load(&mut FileHistory::new());
    }

    #[test]
    fn the_place_follows_the_environment() {
        fn place(pairs: &[(&str, &str)]) -> Option<PathBuf> {
            state_dir(|key| pairs.iter().find(|pair| pair.0 == key).map(|pair| pair.1.into()))
        }
        let home = ("HOME", "/home/a");
        assert_eq!(place(&[("XDG_STATE_HOME", "/s"), home]), Some("/s".into()));
        let usual = Some("/home/a/.local/state".into());
        assert_eq!(place(&[("XDG_STATE_HOME", "s"), home]), usual);
        assert_eq!(place(&[("HOME", "here")]), None);
        assert_eq!(place(&[]), None);
    }
}
