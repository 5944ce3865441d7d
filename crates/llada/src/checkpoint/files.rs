//! Small files read with a bound, and files replaced as a whole or not at all.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Read, Write},
    path::{Path, PathBuf},
};

use crate::{
    Error, Result,
    content::{Content, EMPTY, HEAD},
    io,
};

/// The length of a file, which must be a regular one: a folder or a pipe cannot be mapped.
pub(crate) fn regular_len(path: &Path) -> Result<u64> {
    let kind = fs::metadata(path).map_err(io("read", path))?;
    match kind.is_file() {
        true => Ok(kind.len()),
        false if kind.is_dir() => Err(io("read", path)(io::ErrorKind::IsADirectory.into())),
        false => Err(io("read", path)(io::Error::other("not a regular file"))),
    }
}

/// Reads a text file of at most `limit` bytes, so that a wrong file cannot fill the memory.
pub(crate) fn read_text(path: &Path, limit: u64) -> Result<String> {
    let read = || {
        let file = File::open(path)?;
        let kind = file.metadata()?;
        if kind.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        if !kind.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        let mut bytes = Vec::new();
        file.take(limit + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > limit {
            return Err(io::Error::other(format!("larger than {limit} bytes")));
        }
        Ok(bytes)
    };
    let bytes = read().map_err(io("read", path))?;
    let head = &bytes[..bytes.len().min(HEAD)];
    let is_json = path.extension().is_some_and(|ending| ending == "json");
    let other = if is_json { Content::of_data(head) } else { Content::of(head) };
    match other {
        Some(content) => Err(content.error(path)),
        None if is_json && bytes.is_empty() => Err(EMPTY.error(path)),
        None => String::from_utf8(bytes)
            .map_err(|e| io("read", path)(io::Error::new(io::ErrorKind::InvalidData, e))),
    }
}

/// Writes `path` through a temporary file beside it that takes its place only when it is complete
/// and on the disk: a failure, a full disk or a crash leaves the previous file as it was.
pub(crate) fn replace(path: &Path, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    let temporary = temporary(path);
    let result = write_and_rename(path, &temporary, write);
    if result.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    result
}

/// [`replace`] with the whole content in hand.
pub(crate) fn replace_with(path: &Path, content: &[u8]) -> Result<()> {
    replace(path, |out| out.write_all(content).map_err(io("write", path)))
}

fn write_and_rename(
    path: &Path,
    temporary: &Path,
    write: impl FnOnce(&mut dyn Write) -> Result<()>,
) -> Result<()> {
    let failed = || io("write", path);
    let file = File::create(temporary).map_err(failed())?;
    let mut out = BufWriter::with_capacity(1 << 20, file);
    if let Err(error) = write(&mut out) {
        // The buffered rest is dropped, not flushed: the file is about to be removed.
        let _ = out.into_parts();
        return Err(error);
    }
    let file = out.into_inner().map_err(|e| failed()(e.into_error()))?;
    file.sync_all().map_err(failed())?;
    drop(file);
    fs::rename(temporary, path).map_err(failed())?;
    // A rename lasts once its folder is on the disk; not every system can open a folder to say so.
    if let Some(folder) = path.parent().and_then(|dir| File::open(dir).ok()) {
        let _ = folder.sync_all();
    }
    Ok(())
}

fn temporary(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".tmp");
    name.into()
}

/// Makes a folder and those above it.
pub(crate) fn create_dir(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).map_err(|source| Error::Io {
        action: "create",
        path: dir.to_path_buf(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_keeps_the_previous_file_and_leaves_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        replace_with(&path, b"before").unwrap();
        let error = replace(&path, |out| {
            out.write_all(&[0; 1 << 21]).unwrap();
            Err(io("write", &path)(io::ErrorKind::StorageFull.into()))
        })
        .unwrap_err();
        assert!(error.to_string().contains("config.json"), "{error}");
        assert!(error.hint().unwrap().contains("free some space"));
        assert_eq!(fs::read(&path).unwrap(), b"before");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_full_disk_is_an_error_that_names_the_file() {
        // `/dev/full` refuses every write, as a full disk does.
        if !Path::new("/dev/full").exists() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.safetensors");
        fs::write(&path, b"before").unwrap();
        #[cfg(unix)]
        std::os::unix::fs::symlink("/dev/full", temporary(&path)).unwrap();
        let error = replace_with(&path, b"after").unwrap_err();
        let Error::Io { path: named, source, .. } = &error else { panic!("{error}") };
        assert_eq!((named, source.kind()), (&path, io::ErrorKind::StorageFull));
        assert_eq!(fs::read(&path).unwrap(), b"before");
    }

    #[test]
    fn text_is_read_up_to_its_limit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        fs::write(&path, "12345").unwrap();
        assert_eq!(read_text(&path, 5).unwrap(), "12345");
        assert!(read_text(&path, 4).unwrap_err().to_string().contains("larger than 4"));
        fs::write(&path, [0xff]).unwrap();
        assert!(read_text(&path, 4).is_err());
        assert!(read_text(dir.path(), 4).is_err());
    }
}
