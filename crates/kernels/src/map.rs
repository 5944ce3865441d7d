//! Files mapped into memory, read-only.

use std::{fs::File, ops::Deref, path::Path};

use crate::{KernelError, Result};

/// A file mapped read-only: its bytes are paged in as they are touched and never copied.
#[derive(Debug)]
pub struct Mapping(memmap2::Mmap);

impl Mapping {
    /// Maps the whole of `path`.
    pub fn open(path: &Path) -> Result<Self> {
        let map = |source| KernelError::Map { path: path.to_path_buf(), source };
        let file = File::open(path).map_err(map)?;
        // SAFETY: the mapping is read-only and private; files of weights and tokens are replaced by
        // renaming a new file over them, never truncated in place, so the bytes stay as they are.
        unsafe { memmap2::Mmap::map(&file) }.map(Self).map_err(map)
    }
}

impl Deref for Mapping {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}
