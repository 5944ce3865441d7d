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

    /// Memory that belongs to no file, zeroed and then written once by `fill`. It stands in for a
    /// mapped file where its bytes are needed in another order.
    pub fn filled(len: usize, fill: impl FnOnce(&mut [u8])) -> Result<Self> {
        let map = |source| KernelError::Map { path: "(memory)".into(), source };
        // The system maps no empty memory.
        let mut memory = memmap2::MmapMut::map_anon(len.max(1)).map_err(map)?;
        fill(&mut memory[..len]);
        memory.make_read_only().map(Self).map_err(map)
    }
}

impl Deref for Mapping {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}
