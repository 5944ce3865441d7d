//! Files as this library reads and writes them: small ones with a bound, and outputs that appear
//! whole or not at all.
//!
//! Nothing is removed or overwritten but what was asked for. What is not finished lies beside its
//! place in a folder that nobody else has, `.NAME.llada-RANDOM.tmp`, with a marker in it that is locked
//! for as long as its writer lives. So what a killed run left can be told from what a living one
//! needs, and from what merely has such a name, and the next run for the same output removes it.
//!
//! * [`Output`] is the right to write one output: it excludes other processes, and
//!   [`Output::fill`] puts a file or a folder in its place.
//! * [`replace`] and [`Replacement`] write one file, for example in a folder whose [`Output`] is
//!   held.
//! * [`Staging`] does the same for a folder, and [`recover`] removes what killed runs left anywhere
//!   in a folder that the caller alone writes to: a run folder, under its lock.
//! * [`read_text`] and [`read_bytes`] take regular files of a bounded size, and never wait for
//!   someone to write into a pipe.
//!
//! A folder of checkpoints, held for a whole run, goes like this:
//!
//! ```
//! use std::path::Path;
//!
//! use llada::files::{self, Existing, Output, Staging};
//!
//! # fn main() -> llada::Result<()> {
//! # let place = tempfile::tempdir().unwrap();
//! # let run: &Path = &place.path().join("run");
//! let held = Output::lock(run)?; // one process at a time
//! files::create_dir(run)?;
//! files::recover(run)?; // what a killed run left
//! let staging = Staging::new(&run.join("step-10"))?;
//! files::create_dir(&staging.path())?;
//! files::replace_with(&staging.path().join("model.safetensors"), b"weights")?;
//! staging.commit(Existing::Replace(&|_| true))?; // an older `step-10` goes, all of it
//! drop(held);
//! # Ok(())
//! # }
//! ```

mod error;
mod leftovers;
mod lock;
mod output;
mod place;
mod replace;
mod staging;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Read},
    path::Path,
};

pub use error::OutputError;
pub use leftovers::recover;
pub use output::{Output, is_occupied, restore, write};
pub use replace::{Replacement, replace, replace_with};
pub use staging::{Existing, Staging};

use crate::{
    Error, Result,
    content::{Content, EMPTY, HEAD},
    io,
};

/// The checksums of files by their names.
pub(crate) type Marks = BTreeMap<String, u32>;

/// The length of a file, which must be a regular one: a folder or a pipe cannot be mapped.
pub(crate) fn regular_len(path: &Path) -> Result<u64> {
    let kind = fs::metadata(path).map_err(io("read", path))?;
    regular(&kind).map_err(io("read", path))?;
    Ok(kind.len())
}

/// Opens a regular file for reading. A folder, a pipe or a device is refused at once, without
/// waiting for someone at the other end.
///
/// # Errors
/// When it is not there, is no regular file, or may not be read.
pub fn open_regular(path: &Path) -> Result<File> {
    let open = || {
        // Opening some devices already does something, and so they are not opened at all.
        regular(&fs::metadata(path)?)?;
        let file = without_waiting().read(true).open(path)?;
        regular(&file.metadata()?)?;
        Ok(file)
    };
    open().map_err(io("read", path))
}

/// Reads a file of at most `limit` bytes, so that a wrong file cannot fill the memory.
///
/// # Errors
/// As [`open_regular`], and when it is larger.
pub fn read_bytes(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let file = open_regular(path)?;
    let mut bytes = Vec::new();
    let read = file.take(limit.saturating_add(1)).read_to_end(&mut bytes);
    read.map_err(io("read", path))?;
    match bytes.len() as u64 > limit {
        true => Err(io("read", path)(io::Error::other(format!("larger than {limit} bytes")))),
        false => Ok(bytes),
    }
}

/// The length and the CRC-32C of a regular file, read piece by piece.
pub(crate) fn sum(path: &Path) -> Result<(u64, u32)> {
    let mut file = open_regular(path)?;
    let (mut buffer, mut bytes, mut crc32c) = (vec![0; 1 << 20], 0, 0);
    loop {
        match file.read(&mut buffer).map_err(io("read", path))? {
            0 => return Ok((bytes, crc32c)),
            n => {
                bytes += n as u64;
                crc32c = crc32c::crc32c_append(crc32c, &buffer[..n]);
            }
        }
    }
}

/// [`read_bytes`] of a text.
///
/// # Errors
/// As [`read_bytes`], and when it is not UTF-8, or evidently something else than text.
pub fn read_text(path: &Path, limit: u64) -> Result<String> {
    let bytes = read_bytes(path, limit)?;
    as_text(&bytes, path)?;
    // Just seen to be UTF-8.
    Ok(String::from_utf8(bytes).unwrap_or_default())
}

/// The text that `bytes` are, which the file at `path` holds.
///
/// # Errors
/// As [`read_text`].
pub(crate) fn as_text<'a>(bytes: &'a [u8], path: &Path) -> Result<&'a str> {
    let head = &bytes[..bytes.len().min(HEAD)];
    let is_json = path.extension().is_some_and(|ending| ending == "json");
    let other = if is_json { Content::of_data(head) } else { Content::of(head) };
    match other {
        Some(content) => return Err(content.error(path)),
        None if is_json && bytes.is_empty() => return Err(EMPTY.error(path)),
        None => {}
    }
    str::from_utf8(bytes).map_err(|_| {
        let source =
            io::Error::new(io::ErrorKind::InvalidData, "stream did not contain valid UTF-8");
        io("read", path)(source)
    })
}

/// Makes a folder and those above it.
///
/// # Errors
/// When the system refuses.
pub fn create_dir(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).map_err(|source| Error::Io {
        action: "create",
        path: dir.to_path_buf(),
        source,
    })
}

fn regular(kind: &fs::Metadata) -> io::Result<()> {
    match kind {
        kind if kind.is_file() => Ok(()),
        kind if kind.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
        _ => Err(io::Error::other("not a regular file")),
    }
}

/// Options that do not wait for the other end of a pipe.
fn without_waiting() -> OpenOptions {
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.custom_flags(rustix::fs::OFlags::NONBLOCK.bits() as i32);
    }
    options
}

/// A rename lasts once its folder is on the disk; not every system can open a folder to say so.
fn sync_dir(dir: &Path) {
    if let Ok(dir) = File::open(dir) {
        let _ = dir.sync_all();
    }
}
