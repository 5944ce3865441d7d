//! The folder of a program, which goes away with whatever was left in it: when its check ends, or with
//! the next check where the process was killed.

use std::{
    env,
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use rustix::{fs::OFlags, process::geteuid};

/// Most entries that are counted.
const COUNTED: usize = 10_000;
/// How the names of such folders begin.
const PREFIX: &str = "llada-check-";
/// The file beside the program's own folder that marks both as ours, locked as long as they are used.
const MARKER: &str = ".llada-check";
/// Its content, which is written once it is locked.
const MARKER_TEXT: &str = "made by llada to check a program; removed by the next check\n";
/// The program's own folder.
const CELL: &str = "cell";

/// A fresh folder that nobody else can read.
#[derive(Debug)]
pub struct Folder {
    /// The folder around it, in which the program cannot write unless it runs as this user.
    outer: PathBuf,
    cell: PathBuf,
    _held: File,
}

impl Folder {
    pub fn new() -> io::Result<Self> {
        Self::new_in(&env::temp_dir())
    }

    fn new_in(place: &Path) -> io::Result<Self> {
        let made = tempfile::Builder::new().prefix(PREFIX).tempdir_in(place)?;
        let mut marker = OpenOptions::new();
        let marker = marker.write(true).create_new(true).mode(0o600);
        let mut held = marker.open(made.path().join(MARKER))?;
        held.try_lock()?;
        held.write_all(MARKER_TEXT.as_bytes())?;
        let cell = made.path().join(CELL);
        DirBuilder::new().mode(0o700).create(&cell)?;
        // The program, which may be another user, goes through it.
        fs::set_permissions(made.path(), Permissions::from_mode(0o711))?;
        // Not deleted on drop, because `remove` knows what to do where `TempDir` gives up.
        Ok(Self { outer: made.keep(), cell, _held: held })
    }

    pub fn path(&self) -> &Path {
        &self.cell
    }

    /// Bytes of all that is in it; very many entries count as very many bytes.
    pub fn bytes(&self) -> u64 {
        let (mut open, mut bytes, mut entries) = (vec![self.path().to_owned()], 0, 0);
        while let Some(folder) = open.pop() {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                entries += 1;
                if entries > COUNTED {
                    return u64::MAX;
                }
                match entry.metadata() {
                    Ok(meta) if meta.is_dir() => open.push(entry.path()),
                    Ok(meta) => bytes += meta.len(),
                    Err(_) => {}
                }
            }
        }
        bytes
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        discard(&self.outer);
    }
}

/// Removes what processes that were killed have left.
pub fn remove_leftovers() {
    remove_leftovers_in(&env::temp_dir());
}

fn remove_leftovers_in(place: &Path) {
    for entry in fs::read_dir(place).into_iter().flatten().flatten() {
        let is_named = entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX));
        if is_named && let Some(_held) = claim(&entry.path()) {
            discard(&entry.path());
        }
    }
}

/// Locks a folder of this user's that has our mark and is in no use.
fn claim(outer: &Path) -> Option<File> {
    let own = |kind: &fs::Metadata| kind.uid() == geteuid().as_raw() && kind.mode() & 0o022 == 0;
    fs::symlink_metadata(outer).ok().filter(|kind| kind.is_dir() && own(kind))?;
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32;
    let marker = OpenOptions::new().read(true).custom_flags(flags).open(outer.join(MARKER));
    let marker = marker.ok()?;
    marker.metadata().ok().filter(|kind| kind.is_file() && own(kind))?;
    let mut text = String::new();
    (&marker).take(MARKER_TEXT.len() as u64 + 1).read_to_string(&mut text).ok()?;
    (text == MARKER_TEXT && marker.try_lock().is_ok()).then_some(marker)
}

/// Removes both folders, the mark last: a kill leaves something to go on with.
fn discard(outer: &Path) {
    let cell = outer.join(CELL);
    if fs::remove_dir_all(&cell).is_err() {
        let _ = remove(&cell);
    }
    if fs::symlink_metadata(&cell).is_err() {
        let _ = fs::remove_file(outer.join(MARKER));
        let _ = fs::remove_dir(outer);
    }
}

/// Removes a folder however its own folders are locked and nested: each gives its entries to the
/// top, so that no path becomes long, and is then empty.
fn remove(top: &Path) -> io::Result<()> {
    let mut count = 0_u64;
    fs::set_permissions(top, Permissions::from_mode(0o700))?;
    loop {
        let entries: Vec<PathBuf> = fs::read_dir(top)?.flatten().map(|e| e.path()).collect();
        if entries.is_empty() {
            return fs::remove_dir(top);
        }
        for path in entries {
            if !fs::symlink_metadata(&path)?.is_dir() {
                fs::remove_file(&path)?;
                continue;
            }
            fs::set_permissions(&path, Permissions::from_mode(0o700))?;
            for entry in fs::read_dir(&path)?.flatten() {
                // A folder can be moved only by who may write it.
                if entry.file_type()?.is_dir() {
                    fs::set_permissions(entry.path(), Permissions::from_mode(0o700))?;
                }
                fs::rename(entry.path(), top.join(format!(".llada-removed-{count}")))?;
                count += 1;
            }
            fs::remove_dir(&path)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt};

    #[test]
    fn whatever_is_left_goes_away() {
        let folder = Folder::new().unwrap();
        let path = folder.path().to_owned();
        let mut deep = path.clone();
        for _ in 0..30 {
            deep.push("d");
        }
        fs::create_dir_all(&deep).unwrap();
        fs::write(deep.join(OsStr::from_bytes(b"\xff\n\x1b[2J")), "x").unwrap();
        fs::write(path.join(".llada-removed-9"), "x").unwrap();
        assert_eq!(folder.bytes(), 2);
        for locked in [path.join("d/d"), path.join("d"), path.clone()] {
            fs::set_permissions(locked, Permissions::from_mode(0o000)).unwrap();
        }
        remove(&path).unwrap();
        assert!(!path.exists());
        let outer = folder.outer.clone();
        drop(folder);
        assert!(!outer.exists());
    }

    /// As a kill leaves it: nobody holds it, and nothing was tidied up.
    fn killed(folder: Folder) -> PathBuf {
        folder._held.unlock().unwrap();
        let outer = folder.outer.clone();
        std::mem::forget(folder);
        outer
    }

    #[test]
    fn what_a_killed_process_left_is_removed_and_nothing_else() {
        let place = tempfile::tempdir().unwrap();
        let place = place.path();
        let living = Folder::new_in(place).unwrap();
        let left = killed(Folder::new_in(place).unwrap());
        fs::create_dir(left.join("cell/locked")).unwrap();
        fs::write(left.join("cell/locked/a"), "x").unwrap();
        fs::set_permissions(left.join("cell/locked"), Permissions::from_mode(0o000)).unwrap();
        // What merely has such a name, another text, or a mark that is a link is the user's.
        let mine = ["plain", "marked", "linked", "open"].map(|name| {
            let dir = place.join(format!("{PREFIX}{name}"));
            fs::create_dir_all(dir.join(CELL)).unwrap();
            fs::write(dir.join(CELL).join("thesis"), "mine").unwrap();
            dir
        });
        fs::write(mine[1].join(MARKER), "mine\n").unwrap();
        std::os::unix::fs::symlink(living.outer.join(MARKER), mine[2].join(MARKER)).unwrap();
        fs::write(mine[3].join(MARKER), MARKER_TEXT).unwrap();
        fs::set_permissions(&mine[3], Permissions::from_mode(0o777)).unwrap();
        fs::write(place.join(format!("{PREFIX}file")), "mine").unwrap();
        std::os::unix::fs::symlink(&mine[0], place.join(format!("{PREFIX}link"))).unwrap();
        remove_leftovers_in(place);
        assert!(!left.exists());
        assert!(living.path().is_dir() && living.outer.join(MARKER).is_file());
        assert!(mine.iter().all(|dir| dir.join(CELL).join("thesis").is_file()));
        assert!(place.join(format!("{PREFIX}file")).exists());
        assert!(place.join(format!("{PREFIX}link")).exists());
        drop(living);
        assert_eq!(fs::read_dir(place).unwrap().count(), mine.len() + 2);
    }
}
