//! The folder of a program, which goes away with whatever was left in it.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

/// Most entries that are counted.
const COUNTED: usize = 10_000;

/// A fresh folder that nobody else can read.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> io::Result<Self> {
        // Not deleted on drop, because `remove` knows what to do where `TempDir` gives up.
        Ok(Self(tempfile::Builder::new().prefix("llada-check-").tempdir()?.keep()))
    }

    pub fn path(&self) -> &Path {
        &self.0
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
        if fs::remove_dir_all(&self.0).is_err() {
            let _ = remove(&self.0);
        }
    }
}

/// Removes a folder however its own folders are locked and nested: each gives its entries to the
/// top, so that no path becomes long, and is then empty.
fn remove(top: &Path) -> io::Result<()> {
    let mut count = 0_u64;
    fs::set_permissions(top, fs::Permissions::from_mode(0o700))?;
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
            fs::set_permissions(&path, fs::Permissions::from_mode(0o700))?;
            for entry in fs::read_dir(&path)?.flatten() {
                // A folder can be moved only by who may write it.
                if entry.file_type()?.is_dir() {
                    fs::set_permissions(entry.path(), fs::Permissions::from_mode(0o700))?;
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
            fs::set_permissions(locked, fs::Permissions::from_mode(0o000)).unwrap();
        }
        remove(&path).unwrap();
        assert!(!path.exists());
        let folder = Folder::new().unwrap();
        let path = folder.path().to_owned();
        drop(folder);
        assert!(!path.exists());
    }
}
