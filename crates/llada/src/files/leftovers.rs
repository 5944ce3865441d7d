//! What is not finished: how it is named and held, and what becomes of it when its writer was
//! killed.

use std::{
    ffi::OsString,
    fs::{self, File, TryLockError},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use tempfile::Builder;

use super::{
    lock::{self, is_at},
    open_regular, place, without_waiting,
};
use crate::{Result, io};

const MARK: &str = ".llada-";
const END: &str = ".tmp";
const RANDOM: usize = 8;

/// The file in a folder of unfinished work that marks it as ours, and is locked by its writer.
const MARKER: &str = ".llada-staging";
const MARKER_TEXT: &str = "unfinished work of llada; removed by its next run for the same output\n";
/// In such a folder, what is being replaced where two folders cannot be swapped at once.
pub(super) const REPLACED: &str = ".llada-replaced";

/// Calls `make` with a builder of names for what is to stand at `target`.
pub(super) fn name_for<T>(target: &Path, make: impl FnOnce(&mut Builder<'_, '_>) -> T) -> T {
    let prefix = format!(".{}{MARK}", place::label(target));
    make(Builder::new().prefix(&prefix).suffix(END).rand_bytes(RANDOM))
}

/// The label of the output that a name of something unfinished belongs to.
pub(super) fn owner(name: &str) -> Option<&str> {
    let (label, rest) = name.strip_prefix('.')?.rsplit_once(MARK)?;
    let random = rest.strip_suffix(END)?;
    let is_ours = random.len() == RANDOM && random.bytes().all(|b| b.is_ascii_alphanumeric());
    (is_ours && !label.is_empty()).then_some(label)
}

/// Whether `path` is unfinished work of ours: a name alone is none.
pub(super) fn is_marked(path: &Path) -> bool {
    path.file_name().and_then(|name| name.to_str()).and_then(owner).is_some()
        && fs::symlink_metadata(path).is_ok_and(|kind| kind.is_dir())
        && open_regular(&path.join(MARKER)).is_ok_and(|mut marker| is_mark(&mut marker))
}

/// The names in a folder, but for locks and unfinished work.
pub(super) fn entries(folder: &Path) -> io::Result<Vec<OsString>> {
    let is_ours = |name: &OsString| {
        let path = folder.join(name);
        let has_name_of_lock = name.to_str().and_then(lock::owner).is_some();
        is_marked(&path) || (has_name_of_lock && lock::is_ours(&path))
    };
    let names = fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name()));
    let names = names.collect::<io::Result<Vec<_>>>()?;
    Ok(names.into_iter().filter(|name| !is_ours(name)).collect())
}

/// Whether the content of a marker is ours. That of a run that was killed right there is cut short,
/// and some systems keep others from reading what is locked.
fn is_mark(marker: &mut File) -> bool {
    let mut text = Vec::new();
    let read = marker.take(MARKER_TEXT.len() as u64 + 1).read_to_end(&mut text);
    read.is_err() || MARKER_TEXT.as_bytes().starts_with(&text)
}

/// Marks an empty folder as unfinished work; it is held until the file is dropped.
pub(super) fn mark(folder: &Path) -> io::Result<File> {
    let mut marker = File::create_new(folder.join(MARKER))?;
    hold(&marker)?;
    marker.write_all(MARKER_TEXT.as_bytes())?;
    Ok(marker)
}

/// Locks something unfinished, where the file system knows locks.
pub(super) fn hold(file: &File) -> io::Result<()> {
    match file.try_lock() {
        Err(TryLockError::Error(e)) if e.kind() != io::ErrorKind::Unsupported => Err(e),
        _ => Ok(()),
    }
}

/// Removes what killed runs left unfinished in `folder`, after putting back what they had set
/// aside. To be called by whoever alone writes to that folder; what a living process holds, and
/// what is not of this library's making, stays.
///
/// # Errors
/// When the folder cannot be read, or something not be put back.
pub fn recover(folder: &Path) -> Result<()> {
    recover_where(folder, &|label| Some(folder.join(label)))
}

/// [`recover`] for a single output, whose unfinished work lies in `folder`.
pub(super) fn recover_output(target: &Path, folder: &Path) -> Result<()> {
    let label = place::label(target);
    recover_where(folder, &|found| (found == label).then(|| target.to_path_buf()))
}

/// What is unfinished in `folder`, with what it was to become.
fn unfinished(
    folder: &Path,
    target: &dyn Fn(&str) -> Option<PathBuf>,
) -> io::Result<Vec<(fs::DirEntry, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if let Some(target) = name.to_str().and_then(owner).and_then(target) {
            found.push((entry, target));
        }
    }
    Ok(found)
}

fn recover_where(folder: &Path, target: &dyn Fn(&str) -> Option<PathBuf>) -> Result<()> {
    for (entry, target) in unfinished(folder, target).map_err(io("read", folder))? {
        let path = entry.path();
        // A file of such a name is the user's: all that is unfinished lies in a folder with a mark.
        if entry.file_type().map_err(io("read", &path))?.is_dir() {
            recover_folder(&path, &target)?;
        }
    }
    Ok(())
}

/// Whether a killed run left the only copy of `target` aside.
pub(super) fn is_set_aside(target: &Path) -> bool {
    let label = place::label(target);
    let wanted = |found: &str| (found == label).then(PathBuf::new);
    let found = unfinished(place::folder(target), &wanted).unwrap_or_default();
    let mut found = found.iter().map(|(entry, _)| entry.path());
    found.any(|path| is_marked(&path) && path.join(REPLACED).exists())
}

fn recover_folder(folder: &Path, target: &Path) -> Result<()> {
    let marker = folder.join(MARKER);
    if fs::symlink_metadata(&marker).is_err() {
        // Killed before it was marked or after it was cleared; anything else in it is not ours.
        let _ = fs::remove_dir(folder);
        return Ok(());
    }
    let Some(mut held) = claim(&marker) else { return Ok(()) };
    if !is_mark(&mut held) {
        return Ok(());
    }
    let aside = folder.join(REPLACED);
    if aside.exists() && fs::symlink_metadata(target).is_err() {
        fs::rename(&aside, target).map_err(io("put back", target))?;
    }
    clear(folder);
    Ok(())
}

/// Removes a folder of unfinished work, its mark last: a kill leaves something to go on with.
pub(super) fn clear(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_name() != MARKER {
            let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
            let path = entry.path();
            let _ = if is_dir { fs::remove_dir_all(path) } else { fs::remove_file(path) };
        }
    }
    let is_cleared = fs::read_dir(folder).is_ok_and(|entries| entries.count() <= 1);
    if is_cleared && fs::remove_file(folder.join(MARKER)).is_ok() {
        let _ = fs::remove_dir(folder);
    }
}

/// Opens and locks a file that no living process holds.
fn claim(path: &Path) -> Option<File> {
    let file = without_waiting().read(true).write(true).open(path).ok()?;
    (file.metadata().is_ok_and(|kind| kind.is_file())
        && is_at(path, &file)
        && file.try_lock().is_ok())
    .then_some(file)
}
