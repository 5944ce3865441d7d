//! One file replaced as a whole or not at all.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use super::{
    Existing, Staging,
    place::{self, Place},
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
    staging: Option<Staging>,
}

impl Replacement {
    /// Begins a file for `path`; folders above it are made.
    ///
    /// # Errors
    /// When nothing can be written there.
    pub fn create(path: &Path) -> Result<Self> {
        let (file, staging) = match place::resolve(path).map_err(io("write", path))? {
            Place::Straight => (OpenOptions::new().append(true).open(path), None),
            Place::At(target) => {
                check(&target).map_err(io("write", path))?;
                let staging = Staging::new(path)?;
                (File::create_new(staging.path()), Some(staging))
            }
        };
        let out = BufWriter::with_capacity(1 << 20, file.map_err(io("write", path))?);
        Ok(Self { path: path.to_path_buf(), out, staging })
    }

    /// Whether what is written can be changed later: not where it goes as it comes.
    pub(crate) fn can_patch(&self) -> bool {
        self.staging.is_some()
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
        let Self { path, out, staging } = self;
        let file = out.into_inner().map_err(io::IntoInnerError::into_error);
        drop(file.map_err(io("write", path))?);
        staging.map_or(Ok(()), |staging| staging.commit(Existing::Replace(&|_| true)))
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

/// Finds before anything is written that `target` cannot be replaced by a file, and makes its folder.
fn check(target: &Path) -> io::Result<()> {
    match fs::metadata(target) {
        Ok(kind) if kind.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
        Ok(kind) if kind.permissions().readonly() => {
            Err(io::Error::new(io::ErrorKind::PermissionDenied, "it is write-protected"))
        }
        Ok(_) => Ok(()),
        Err(_) => fs::create_dir_all(place::folder(target)),
    }
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
