//! A file or a folder that is filled beside its place, and takes it when it is whole.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File, OpenOptions},
    io,
    path::{Path, PathBuf},
};

use super::{
    OutputError,
    leftovers::{self, REPLACED, entries, name_for},
    place::{self, Place},
    sync_dir,
};
use crate::{Error, Result, io};

/// What to do where something is in the place of an output already.
#[derive(Clone, Copy)]
pub enum Existing<'a> {
    /// To refuse to write: it stays as it is. An empty folder is filled.
    Refuse,
    /// It is replaced. Of a folder, the files go whose names are told by this function; the others,
    /// and all folders, are the user's, and are found in the new folder too. One of them that the new folder
    /// has already is a reason to replace nothing.
    Replace(&'a dyn Fn(&str) -> bool),
}

/// Work that is not finished, in a folder of its own beside its place (or in it, where a folder
/// cannot be moved). Dropped before [`commit`](Self::commit), it is gone.
#[derive(Debug)]
pub struct Staging {
    /// The folder around it, which marks it as unfinished.
    folder: PathBuf,
    target: PathBuf,
    /// As the caller spells the target.
    asked: PathBuf,
    /// Whether it lies in its target.
    inside: bool,
    /// Locked as long as the work goes on.
    _marker: File,
}

impl Staging {
    /// Begins a file or a folder that is to stand at `target`. Nothing is at [`path`](Self::path)
    /// yet. Whoever calls this is the only writer of the target: see [`super::Output`].
    ///
    /// # Errors
    /// When nothing can be written there.
    pub fn new(target: &Path) -> Result<Self> {
        let begin = || {
            let asked = target.to_path_buf();
            let Place::At(target) = place::resolve(target)? else {
                return Err(io::Error::other("not a regular file"));
            };
            if target.file_name().is_none() {
                return Err(io::ErrorKind::IsADirectory.into());
            }
            let make = |folder: &Path| {
                name_for(&target, |builder| builder.tempdir_in(folder)).map(|made| made.keep())
            };
            let (folder, inside) = match place::is_fixed(&target) {
                true => (make(&target)?, true),
                false => match make(place::folder(&target)) {
                    Err(e) if is_forbidden(&e) && target.is_dir() => (make(&target)?, true),
                    made => (made?, false),
                },
            };
            let marker = leftovers::mark(&folder).inspect_err(|_| leftovers::clear(&folder))?;
            Ok(Self { folder, target, asked, inside, _marker: marker })
        };
        begin().map_err(io("write", target))
    }

    /// Where the file or the folder is to be made.
    pub fn path(&self) -> PathBuf {
        self.folder.join(self.target.file_name().unwrap_or(OsStr::new("output")))
    }

    /// Puts it in its place when all of it is on the disk. A kill at any moment leaves either what
    /// was there or what is new, and both are whole.
    ///
    /// # Errors
    /// When something is there that is to be kept, or the system refuses: what was there is there
    /// still.
    pub fn commit(self, existing: Existing<'_>) -> Result<()> {
        let made = self.path();
        sync(&made).map_err(io("write", &*self.asked))?;
        match (fs::metadata(&self.target), made.is_dir()) {
            (Err(_), _) => rename_new(&made, &self.target).map_err(|e| self.refused(e))?,
            (Ok(old), true) if old.is_dir() => self.put_folder(&made, &old, existing)?,
            (Ok(old), false) if old.is_file() => self.put_file(&made, &old, existing)?,
            (Ok(old), _) => {
                let kind = match old.is_dir() {
                    true => io::ErrorKind::IsADirectory,
                    false => io::ErrorKind::NotADirectory,
                };
                return Err(io("replace", &*self.asked)(kind.into()));
            }
        }
        sync_dir(place::folder(&self.target));
        Ok(())
    }

    fn put_file(&self, made: &Path, old: &fs::Metadata, existing: Existing<'_>) -> Result<()> {
        let Existing::Replace(_) = existing else { return Err(self.exists()) };
        let put = || match old.permissions().readonly() {
            true => Err(io::ErrorKind::PermissionDenied.into()),
            false => place::like(old, made).and_then(|()| fs::rename(made, &self.target)),
        };
        put().map_err(io("replace", &*self.asked))
    }

    fn put_folder(&self, made: &Path, old: &fs::Metadata, existing: Existing<'_>) -> Result<()> {
        let refused = |e| self.refused(e);
        if self.inside {
            return self.move_in(made, existing);
        }
        place::like(old, made).map_err(refused)?;
        let occupied = !entries(&self.target).map_err(refused)?.is_empty();
        match existing {
            Existing::Refuse if occupied => Err(self.exists()),
            Existing::Replace(goes) if occupied => {
                carry(&self.target, made, goes).map_err(refused)?;
                swap(made, &self.target, &self.folder.join(REPLACED)).map_err(refused)?;
                return_late(&self.folder, &self.target, goes);
                Ok(())
            }
            _ => rename_over_empty(made, &self.target).map_err(refused),
        }
    }

    /// Moves the entries one by one into a folder that cannot be moved itself, descriptions last:
    /// nothing reads weights or shards before them.
    fn move_in(&self, made: &Path, existing: Existing<'_>) -> Result<()> {
        let old = entries(&self.target).map_err(|e| self.refused(e))?;
        match existing {
            Existing::Refuse if !old.is_empty() => return Err(self.exists()),
            Existing::Replace(goes)
                if old
                    .iter()
                    .any(|name| is_going(&self.target, name, goes) || made.join(name).exists()) =>
            {
                return Err(OutputError::Fixed { path: self.asked.clone() }.into());
            }
            _ => {}
        }
        let mut names = entries(made).map_err(|e| self.refused(e))?;
        names.sort_by_key(|name| {
            (Path::new(name).extension() == Some("json".as_ref()), name.clone())
        });
        for name in names {
            let moved = rename_new(&made.join(&name), &self.target.join(&name));
            moved.map_err(|e| self.refused(e))?;
        }
        sync_dir(&self.target);
        Ok(())
    }

    fn exists(&self) -> Error {
        OutputError::Exists { path: self.asked.clone() }.into()
    }

    fn refused(&self, error: io::Error) -> Error {
        match error.kind() {
            io::ErrorKind::AlreadyExists | io::ErrorKind::DirectoryNotEmpty => self.exists(),
            _ => io("replace", &*self.asked)(error),
        }
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        leftovers::clear(&self.folder);
    }
}

pub(super) fn is_forbidden(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
}

/// Writes a file, or a folder with all that is in it, to the disk.
fn sync(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        for name in entries(path)? {
            sync(&path.join(name))?;
        }
        sync_dir(path);
        return Ok(());
    }
    OpenOptions::new().write(true).open(path)?.sync_all()
}

/// Puts `new` in the place of `old`, which is found where `new` was, or at `aside`.
fn swap(new: &Path, old: &Path, aside: &Path) -> io::Result<()> {
    if exchange(new, old)? { Ok(()) } else { swap_in_two(new, old, aside) }
}

/// A kill between the two leaves the old one aside: the next run or reader puts it back.
fn swap_in_two(new: &Path, old: &Path, aside: &Path) -> io::Result<()> {
    fs::rename(old, aside)?;
    fs::rename(new, old).inspect_err(|_| drop(fs::rename(aside, old)))
}

/// Whether an entry of a replaced folder goes: a folder in it is the user's, whatever its name.
fn is_going(folder: &Path, name: &OsStr, goes: &dyn Fn(&str) -> bool) -> bool {
    let is_folder = fs::symlink_metadata(folder.join(name)).is_ok_and(|kind| kind.is_dir());
    !is_folder && goes(&name.to_string_lossy())
}

/// What a folder holds that is to stay, made to be found in the new one too: the same files under a
/// second name, or copies where the file system knows no such thing.
fn carry(old: &Path, new: &Path, goes: &dyn Fn(&str) -> bool) -> io::Result<()> {
    let stays = |name: &OsString| !is_going(old, name, goes);
    entries(old)?.into_iter().filter(stays).try_for_each(|name| {
        let to = new.join(&name);
        match fs::symlink_metadata(&to) {
            Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
            Err(_) => link(&old.join(&name), &to),
        }
    })
}

fn link(from: &Path, to: &Path) -> io::Result<()> {
    let kind = fs::symlink_metadata(from)?;
    if kind.is_dir() {
        fs::create_dir(to)?;
        for entry in fs::read_dir(from)? {
            let name = entry?.file_name();
            link(&from.join(&name), &to.join(&name))?;
        }
        return place::like(&kind, to);
    }
    match fs::hard_link(from, to) {
        Err(_) if kind.is_file() => fs::copy(from, to).map(drop).and_then(|()| sync(to)),
        linked => linked,
    }
}

/// Moves what came into the old folder while it was being replaced to the new one.
fn return_late(folder: &Path, target: &Path, goes: &dyn Fn(&str) -> bool) {
    let swapped = folder.join(target.file_name().unwrap_or_default());
    let aside = folder.join(REPLACED);
    let old = if swapped.exists() { swapped } else { aside };
    for name in entries(&old).unwrap_or_default() {
        if !is_going(&old, &name, goes) {
            let _ = rename_new(&old.join(&name), &target.join(&name));
        }
    }
}

/// Whether a system knows nothing of a way to rename.
#[cfg(unix)]
fn is_unknown(error: rustix::io::Errno) -> bool {
    use rustix::io::Errno;
    [Errno::INVAL, Errno::NOSYS, Errno::OPNOTSUPP, Errno::NOTSUP].contains(&error)
}

/// Swaps two names at once; `false` where the system or the file system cannot.
fn exchange(a: &Path, b: &Path) -> io::Result<bool> {
    #[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
    {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        match renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE) {
            Ok(()) => return Ok(true),
            Err(e) if is_unknown(e) => {}
            Err(e) => return Err(e.into()),
        }
    }
    let _ = (a, b);
    Ok(false)
}

/// Renames to a name that nothing has.
fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    #[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
    {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
            Err(e) if is_unknown(e) => {}
            done => return Ok(done?),
        }
    }
    match fs::symlink_metadata(to) {
        Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
        Err(_) => fs::rename(from, to),
    }
}

/// Renames a folder over an empty one.
fn rename_over_empty(from: &Path, to: &Path) -> io::Result<()> {
    if cfg!(not(unix)) {
        // Only an empty folder can be removed so.
        fs::remove_dir(to)?;
    }
    fs::rename(from, to)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder `old` and, half-made, what is to replace it.
    fn half_made() -> (tempfile::TempDir, PathBuf, Staging) {
        let dir = tempfile::tempdir().unwrap();
        let old = dir.path().join("old");
        fs::create_dir(&old).unwrap();
        fs::write(old.join("a"), "old").unwrap();
        let staging = Staging::new(&old).unwrap();
        fs::create_dir(staging.path()).unwrap();
        fs::write(staging.path().join("a"), "new").unwrap();
        (dir, old, staging)
    }

    #[test]
    fn where_nothing_can_be_swapped_two_renames_do() {
        let (dir, old, staging) = half_made();
        let aside = staging.folder.join(REPLACED);
        swap_in_two(&staging.path(), &old, &aside).unwrap();
        assert_eq!(fs::read(old.join("a")).unwrap(), b"new");
        assert_eq!(fs::read(aside.join("a")).unwrap(), b"old");
        // The second one fails, and the first is undone.
        assert!(swap_in_two(&dir.path().join("none"), &old, &dir.path().join("aside")).is_err());
        assert_eq!(fs::read(old.join("a")).unwrap(), b"new");
        drop(staging);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_a_kill_between_two_renames_left_aside_is_put_back() {
        for by_reader in [false, true] {
            let (dir, old, staging) = half_made();
            fs::rename(&old, staging.folder.join(REPLACED)).unwrap();
            // As a kill does: the lock is gone, and nothing is tidied up.
            let folder = staging.folder.clone();
            let Staging { _marker, .. } = &staging;
            _marker.unlock().unwrap();
            std::mem::forget(staging);
            assert!(!old.exists() && folder.exists());
            if by_reader {
                super::super::restore(&old);
            } else {
                drop(super::super::Output::lock(&old).unwrap());
            }
            assert_eq!(fs::read(old.join("a")).unwrap(), b"old");
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        }
    }
}
