//! One file replaced as a whole or not at all.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use tempfile::TempPath;

use super::{
    leftovers::{hold, name_for},
    place::{self, Place},
    sync_dir,
};
use crate::{Result, io};

/// A file on its way: written beside its place, where [`commit`](Self::commit) puts it; dropped
/// before that, it is gone and the previous file is as it was.
///
/// A link is followed and what it leads to is replaced, with the permissions that it had. Pipes,
/// devices and open files such as `/dev/stdout` cannot be replaced: they are written as it comes.
#[derive(Debug)]
pub struct Replacement {
    path: PathBuf,
    out: BufWriter<File>,
    /// The temporary file and the place that it is to take.
    move_to: Option<(TempPath, PathBuf)>,
}

impl Replacement {
    /// Begins a file for `path`; folders above it are made.
    ///
    /// # Errors
    /// When nothing can be written there.
    pub fn create(path: &Path) -> Result<Self> {
        let begin = || {
            let (file, move_to) = match place::resolve(path)? {
                Place::Straight => (OpenOptions::new().append(true).open(path)?, None),
                Place::At(target) => {
                    fs::create_dir_all(place::folder(&target))?;
                    let (file, temporary) = temporary(&target)?;
                    (file, Some((temporary, target)))
                }
            };
            let out = BufWriter::with_capacity(1 << 20, file);
            Ok(Self { path: path.to_path_buf(), out, move_to })
        };
        begin().map_err(io("write", path))
    }

    /// Whether what is written can be changed later: not where it goes as it comes.
    pub(crate) fn can_patch(&self) -> bool {
        self.move_to.is_some()
    }

    /// Writes `bytes` over those that were written at `at`.
    pub(crate) fn patch(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.out.seek(SeekFrom::Start(at))?;
        self.out.write_all(bytes)?;
        self.out.seek(SeekFrom::End(0)).map(drop)
    }

    /// Puts the file in its place when all of it is on the disk.
    ///
    /// # Errors
    /// When the disk refuses; the previous file is kept then.
    pub fn commit(self) -> Result<()> {
        let Self { path, out, move_to } = self;
        let finish = || {
            let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
            let Some((temporary, target)) = move_to else { return Ok(()) };
            file.sync_all()?;
            if let Ok(old) = fs::metadata(&target) {
                place::like(&old, &temporary)?;
            }
            temporary.persist(&target).map_err(|e| e.error)?;
            sync_dir(place::folder(&target));
            Ok(())
        };
        finish().map_err(io("write", path.clone()))
    }
}

impl Write for Replacement {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// A file for `target`, held under a name of its own beside it.
fn temporary(target: &Path) -> io::Result<(File, TempPath)> {
    match fs::metadata(target) {
        Ok(kind) if kind.is_dir() => return Err(io::ErrorKind::IsADirectory.into()),
        Ok(kind) if kind.permissions().readonly() => {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "it is write-protected"));
        }
        _ => {}
    }
    let made = name_for(target, |builder| {
        // As any new file has them: the user's mask takes away what it should.
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            builder.permissions(fs::Permissions::from_mode(0o666));
        }
        builder.tempfile_in(place::folder(target))
    })?;
    let (file, temporary) = made.into_parts();
    hold(&file)?;
    Ok((file, temporary))
}

/// Writes `path` by `write`, as a [`Replacement`]: a failure, a full disk or a crash leaves the
/// previous file as it was.
///
/// # Errors
/// Those of `write`, and when the disk refuses.
pub fn replace(path: &Path, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    let mut replacement = Replacement::create(path)?;
    write(&mut replacement)?;
    replacement.commit()
}

/// [`replace`] with the whole content in hand.
///
/// # Errors
/// When the disk refuses.
pub fn replace_with(path: &Path, content: &[u8]) -> Result<()> {
    replace(path, |out| out.write_all(content).map_err(io("write", path)))
}
