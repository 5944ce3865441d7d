//! The right to write one output.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{
    Existing, OutputError, Staging,
    leftovers::{self, entries},
    lock::{self, Lock, Refusal, held},
    place::{self, Place},
    staging::is_forbidden,
};
use crate::{Error, Result, io};

/// The right to write one output, a file or a folder: other processes that ask for it, by whatever
/// path, are refused until this one is dropped or its process ends.
///
/// It is a locked file `.NAME.llada.lock` beside the output (in it, when it is a folder whose own
/// folder cannot be written), which is removed at the end. Folders above the output are made, and
/// those of them that are empty at the end are removed again.
#[derive(Debug)]
pub struct Output {
    asked: PathBuf,
    place: Place,
    lock: Option<Lock>,
    /// Folders made for it, inner ones first.
    made: Vec<PathBuf>,
}

impl Output {
    /// Takes the right to write at `path`, and removes what a killed run left there unfinished.
    ///
    /// # Errors
    /// When another process has it, or nothing can be written there.
    pub fn lock(path: &Path) -> Result<Self> {
        let failed = || io("write", path);
        let asked = path.to_path_buf();
        let mut place = place::resolve(path).map_err(failed())?;
        let Place::At(target) = &place else {
            return Ok(Self { asked, place, lock: None, made: Vec::new() });
        };
        let above = place::folder(target).ancestors();
        let made: Vec<_> = above.take_while(|dir| !dir.exists()).map(Path::to_path_buf).collect();
        let mut output = Self { asked, place: place.clone(), lock: None, made };
        fs::create_dir_all(place::folder(target)).map_err(failed())?;
        if !output.made.is_empty() {
            place = place::resolve(path).map_err(failed())?;
            output.place = place.clone();
        }
        if let Place::At(target) = &place {
            let lock = output.take(target)?;
            if lock.excludes {
                leftovers::recover_output(target, place::folder(target))?;
                if target.is_dir() {
                    leftovers::recover_output(target, target)?;
                }
            }
            output.lock = Some(lock);
        }
        Ok(output)
    }

    fn take(&self, target: &Path) -> Result<Lock> {
        let name = lock::name_of(target);
        let mut path = place::folder(target).join(&name);
        let lock = match Lock::take(&path) {
            Err(Refusal::Io(e)) if is_forbidden(&e) && target.is_dir() => {
                path = target.join(&name);
                Lock::take(&path)
            }
            lock => lock,
        };
        lock.map_err(|refusal| match refusal {
            Refusal::Held(by) => OutputError::Busy { path: self.asked.clone(), by }.into(),
            Refusal::Foreign => OutputError::NoLock { path }.into(),
            Refusal::Io(e) => io("write", &*self.asked)(e),
        })
    }

    /// The output as it was asked for.
    pub fn path(&self) -> &Path {
        &self.asked
    }

    /// Checks that a folder in this place may be replaced: that it is an output of the same kind, or
    /// has no file that would go, and that no other output in it is being written. `goes` is as in
    /// [`Existing::Replace`].
    ///
    /// # Errors
    /// When the user's own files would go, or another process writes below the folder.
    pub fn check_own(&self, is_own: bool, goes: &dyn Fn(&str) -> bool) -> Result<()> {
        let names = entries(&self.asked).unwrap_or_default();
        let mut names = names.iter().map(|name| name.to_string_lossy().into_owned());
        match names.find(|name| !is_own && goes(name)) {
            Some(name) => Err(OutputError::Foreign { path: self.asked.clone(), name }.into()),
            None => self.check_idle(),
        }
    }

    /// Has `write` make a file or a folder at the path that it is given, which is beside the
    /// output, and puts it in its place when it is whole. Errors name the output itself.
    ///
    /// # Errors
    /// Those of `write`, and as [`Staging::commit`]: what was there is there still. Also when another
    /// process writes below the folder that would be replaced.
    pub fn fill<T>(
        &self,
        existing: Existing<'_>,
        write: impl FnOnce(&Path) -> Result<T>,
    ) -> Result<T> {
        let Place::At(target) = &self.place else { return write(&self.asked) };
        let staging = Staging::new(target).map_err(|e| self.named(e, target))?;
        let path = staging.path();
        let given = write(&path).map_err(|e| self.named(e, &path))?;
        // One may have begun in the meantime.
        self.check_idle()?;
        staging.commit(existing).map_err(|e| self.named(e, target))?;
        Ok(given)
    }

    /// Fails when another output below this one is being written: its lock would go with the folder.
    fn check_idle(&self) -> Result<()> {
        let Place::At(target) = &self.place else { return Ok(()) };
        match busy_below(target) {
            Some((below, by)) => {
                let rest = below.strip_prefix(target).unwrap_or(&below);
                Err(OutputError::Busy { path: self.asked.join(rest), by }.into())
            }
            None => Ok(()),
        }
    }

    /// An error of the output rather than of the place where it is made.
    fn named(&self, mut error: Error, from: &Path) -> Error {
        if let Some(path) = error.written()
            && let Ok(rest) = path.strip_prefix(from)
        {
            let is_whole = rest.as_os_str().is_empty();
            *path = if is_whole { self.asked.clone() } else { self.asked.join(rest) };
        }
        error
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        self.lock = None;
        // Only an empty folder can be removed so.
        self.made.iter().for_each(|dir| drop(fs::remove_dir(dir)));
    }
}

/// Writes a file that a user named: [`super::replace_with`], under its [`Output`].
///
/// # Errors
/// When another process writes it, or the disk refuses; the previous file is kept then.
pub fn write(path: &Path, content: &[u8]) -> Result<()> {
    let _held = Output::lock(path)?;
    super::replace_with(path, content)
}

/// Whether something is at `path`: a file, or a folder that holds more than locks and unfinished
/// work.
pub fn is_occupied(path: &Path) -> bool {
    match entries(path) {
        Ok(names) => !names.is_empty(),
        Err(_) => fs::symlink_metadata(path).is_ok(),
    }
}

/// Puts back an output that a killed run had set aside, on a system where two names cannot be
/// swapped at once. For readers that do not find it.
pub fn restore(path: &Path) {
    if let Ok(Place::At(target)) = place::resolve(path)
        && fs::symlink_metadata(&target).is_err()
        && leftovers::is_set_aside(&target)
    {
        drop(Output::lock(path));
    }
}

/// An output somewhere in a folder that a process writes, and which process.
fn busy_below(target: &Path) -> Option<(PathBuf, Option<u32>)> {
    // A folder whose neighbours cannot be written has its own lock in it.
    let own = target.join(lock::name_of(target));
    let mut folders = vec![target.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let (name, path) = (entry.file_name(), entry.path());
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push(path);
            } else if let Some(label) = name.to_str().and_then(lock::owner)
                && path != own
                && let Some(by) = held(&path)
            {
                let is_in_itself = path == folder.join(lock::name_of(&folder));
                return Some((if is_in_itself { folder } else { folder.join(label) }, by));
            }
        }
    }
    None
}
