//! The checksums that the hub names files by.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use sha1::Sha1;
use sha2::{Digest, Sha256};

/// What the bytes of a file must come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Checksum {
    /// SHA-256 of a large file.
    Sha256(String),
    /// SHA-1 of a small file, as Git computes it: over its length too.
    GitBlob(String),
}

impl Checksum {
    /// The checksum that an ETag of the hub is.
    pub fn of_etag(etag: &str) -> Option<Self> {
        let is_hex = etag.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        match etag.len() {
            64 if is_hex => Some(Self::Sha256(etag.to_owned())),
            40 if is_hex => Some(Self::GitBlob(etag.to_owned())),
            _ => None,
        }
    }

    /// Whether the bytes of a file come to it.
    pub fn is_of(&self, path: &Path) -> io::Result<bool> {
        let mut file = File::open(path)?;
        let mut hasher = Hasher::new(self, file.metadata()?.len());
        let mut buffer = vec![0; 1 << 18];
        loop {
            match file.read(&mut buffer) {
                Ok(0) => return Ok(hasher.matches()),
                Ok(n) => hasher.update(&buffer[..n]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// A checksum under way.
pub enum Hasher {
    /// SHA-256.
    Sha256(Box<Sha256>, String),
    /// Git's SHA-1.
    GitBlob(Box<Sha1>, String),
}

impl Hasher {
    /// Begins with a file of `size` bytes.
    pub fn new(expected: &Checksum, size: u64) -> Self {
        match expected {
            Checksum::Sha256(hex) => Self::Sha256(Box::default(), hex.clone()),
            Checksum::GitBlob(hex) => {
                let header = format!("blob {size}\0");
                Self::GitBlob(Box::new(Sha1::new_with_prefix(header)), hex.clone())
            }
        }
    }

    /// Goes on with the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hasher, _) => hasher.update(bytes),
            Self::GitBlob(hasher, _) => hasher.update(bytes),
        }
    }

    /// Whether the bytes were the right ones.
    pub fn matches(self) -> bool {
        match self {
            Self::Sha256(hasher, expected) => hex(&hasher.finalize()) == expected,
            Self::GitBlob(hasher, expected) => hex(&hasher.finalize()) == expected,
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_right(etag: &str, bytes: &[u8]) -> bool {
        let mut hasher = Hasher::new(&Checksum::of_etag(etag).unwrap(), bytes.len() as u64);
        bytes.chunks(3).for_each(|chunk| hasher.update(chunk));
        hasher.matches()
    }

    #[test]
    fn known_sums() {
        // `printf 'hello\n' | git hash-object --stdin`, `| sha256sum`.
        let git = "ce013625030ba8dba906f756967f9e9ca394464a";
        let sha256 = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
        for etag in [git, sha256] {
            assert!(is_right(etag, b"hello\n"));
            assert!(!is_right(etag, b"hellO\n"));
        }
        for etag in ["", "abc", &git.to_uppercase(), &format!("{git}-2")] {
            assert_eq!(Checksum::of_etag(etag), None, "{etag}");
        }
    }
}
