//! A lock beside an output, `.NAME.llada.lock`, that lives as long as the process that took it.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Seek, Write},
    path::{Path, PathBuf},
};

use super::{place, without_waiting};

/// The end of the names of locks.
const END: &str = ".llada.lock";

/// How the content of our locks begins.
const MARK: &str = "llada lock of process ";

/// A held lock; its file goes when it is dropped.
#[derive(Debug)]
pub(super) struct Lock {
    path: PathBuf,
    file: File,
    /// Whether others are really kept out: some file systems know no locks.
    pub(super) excludes: bool,
}

/// Why a lock is not to be had.
#[derive(Debug)]
pub(super) enum Refusal {
    /// Another process holds it.
    Held(Option<u32>),
    /// What has its name is not ours.
    Foreign,
    /// The system says no.
    Io(io::Error),
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Lock {
    /// Takes the lock at `path`. An existing file is neither followed as a link nor changed unless
    /// it is a lock of ours that nobody holds.
    pub(super) fn take(path: &Path) -> Result<Self, Refusal> {
        loop {
            let mut file = open(path)?;
            let excludes = match file.try_lock() {
                Ok(()) => true,
                Err(TryLockError::WouldBlock) => return Err(Refusal::Held(holder(&mut file))),
                Err(TryLockError::Error(e)) if e.kind() == io::ErrorKind::Unsupported => false,
                Err(TryLockError::Error(e)) => return Err(e.into()),
            };
            // The one who held it before has removed it just now.
            if excludes && !is_at(path, &file) {
                continue;
            }
            if !is_mark(&read(&mut file)?) {
                return Err(Refusal::Foreign);
            }
            file.set_len(0)?;
            file.rewind()?;
            // It says who holds it, and holds without saying so: a full disk is told of later.
            let _ = writeln!(file, "{MARK}{}", std::process::id());
            return Ok(Self { path: path.to_path_buf(), file, excludes });
        }
    }
}

/// The name of the lock of an output.
pub(super) fn name_of(target: &Path) -> String {
    format!(".{}{END}", place::label(target))
}

/// The label of the output that a name of a lock belongs to.
pub(super) fn owner(name: &str) -> Option<&str> {
    name.strip_prefix('.')?.strip_suffix(END)
}

/// Whether the content of a lock is ours. That of a run that was killed right there, or whose disk was
/// full, is cut short.
fn is_mark(content: &[u8]) -> bool {
    content.starts_with(MARK.as_bytes()) || MARK.as_bytes().starts_with(content)
}

/// Whether a lock of ours is at `path`, held or not.
pub(super) fn is_ours(path: &Path) -> bool {
    let is_file = fs::symlink_metadata(path).is_ok_and(|kind| kind.is_file());
    let file = is_file.then(|| without_waiting().read(true).open(path).ok()).flatten();
    // Some systems keep others from reading what is locked.
    file.is_some_and(|mut file| read(&mut file).map_or(true, |content| is_mark(&content)))
}

/// Whether a process holds the lock at `path`, and which one where that is known. Nothing is made
/// or changed.
pub(super) fn held(path: &Path) -> Option<Option<u32>> {
    let is_file = fs::symlink_metadata(path).is_ok_and(|kind| kind.is_file());
    let mut file = is_file.then(|| without_waiting().read(true).open(path).ok())??;
    match file.try_lock_shared() {
        Err(TryLockError::WouldBlock) => Some(holder(&mut file)),
        _ => None,
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        if is_at(&self.path, &self.file) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn open(path: &Path) -> Result<File, Refusal> {
    // Both at once would take a link for a new file.
    match OpenOptions::new().read(true).write(true).create_new(true).open(path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
        made => return Ok(made?),
    }
    match fs::symlink_metadata(path) {
        Ok(kind) if !kind.is_file() => return Err(Refusal::Foreign),
        // Removed since: the name is free again.
        Err(e) if e.kind() == io::ErrorKind::NotFound => return open(path),
        Err(e) => return Err(e.into()),
        Ok(_) => {}
    }
    let file = match without_waiting().read(true).write(true).open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return open(path),
        opened => opened?,
    };
    match is_at(path, &file) || fs::symlink_metadata(path).is_err() {
        true => Ok(file),
        false => Err(Refusal::Foreign),
    }
}

/// The beginning of a file, from its start.
fn read(file: &mut File) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    file.rewind()?;
    file.take(64).read_to_end(&mut content)?;
    Ok(content)
}

fn holder(file: &mut File) -> Option<u32> {
    let content = String::from_utf8(read(file).ok()?).ok()?;
    content.strip_prefix(MARK)?.trim().parse().ok()
}

/// Whether `path` is a name of this open file, and no link to one.
pub(super) fn is_at(path: &Path, file: &File) -> bool {
    let Ok(named) = fs::symlink_metadata(path) else { return false };
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        file.metadata().is_ok_and(|own| (own.dev(), own.ino()) == (named.dev(), named.ino()))
    }
    #[cfg(not(unix))]
    {
        let _ = file;
        named.is_file()
    }
}
