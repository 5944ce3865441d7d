//! Files mapped into memory, read-only.

use std::{
    fs::File,
    ops::{Deref, Range},
    path::Path,
};

use crate::{KernelError, Result, fault};

/// A file mapped read-only: its bytes are paged in as they are touched and never copied.
#[derive(Debug)]
pub struct Mapping {
    bytes: memmap2::Mmap,
    /// Length that counts; memory of no file may have a byte more.
    len: usize,
    /// Where they are, if they can be had again from a file.
    place: Option<fault::Place>,
}

impl Mapping {
    /// Maps the whole of `path`.
    pub fn open(path: &Path) -> Result<Self> {
        let map = |source| KernelError::Map { path: path.to_path_buf(), source };
        let file = File::open(path).map_err(map)?;
        // SAFETY: the mapping is read-only and private; files of weights and tokens are replaced by
        // renaming a new file over them, never truncated in place, so the bytes stay as they are. Where
        // somebody else truncates one all the same, the system stops the program (see `fault`).
        let bytes = unsafe { memmap2::Mmap::map(&file) }.map_err(map)?;
        let place = Some(fault::Place::new(bytes.as_ptr_range(), path));
        Ok(Self { len: bytes.len(), bytes, place })
    }

    /// Memory that belongs to no file, zeroed and then written once by `fill`. It stands in for a
    /// mapped file where its bytes are needed in another order.
    pub fn filled(len: usize, fill: impl FnOnce(&mut [u8])) -> Result<Self> {
        let map = |source| KernelError::Map { path: "(memory)".into(), source };
        // The system maps no empty memory.
        let mut memory = memmap2::MmapMut::map_anon(len.max(1)).map_err(map)?;
        fill(&mut memory[..len]);
        Ok(Self { bytes: memory.make_read_only().map_err(map)?, len, place: None })
    }

    /// Lets the system take the memory of these bytes of a file back; when they are touched again
    /// they are read again. Nothing happens where there is no file, or no such bytes.
    pub fn release(&self, bytes: Range<usize>) {
        if self.place.is_none() || bytes.end > self.len || bytes.is_empty() {
            return;
        }
        #[cfg(unix)]
        // SAFETY: the range is inside the mapping, and the pages are those of a file mapped
        // read-only, so that dropping them loses nothing: the same bytes come back.
        let _ = unsafe {
            let advice = memmap2::UncheckedAdvice::DontNeed;
            self.bytes.unchecked_advise_range(advice, bytes.start, bytes.len())
        };
    }
}

impl Deref for Mapping {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_released_come_back() {
        let path = std::env::temp_dir().join(format!("llada-map-{}", std::process::id()));
        let content: Vec<u8> = (0..100_000u32).map(|n| n as u8).collect();
        std::fs::write(&path, &content).unwrap();
        let file = Mapping::open(&path).unwrap();
        for range in [0..100_000, 5000..50_001, 1..2, 99_999..100_000, 7..7, 0..100_001] {
            assert!(file[..] == content[..]);
            file.release(range);
        }
        assert!(file[..] == content[..]);
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn memory_of_no_file_stays_as_it_was_filled() {
        for len in [0, 1, 5000] {
            let fill = |out: &mut [u8]| {
                assert_eq!(out.len(), len);
                out.iter_mut().zip(1u32..).for_each(|(byte, n)| *byte = n as u8);
            };
            let memory = Mapping::filled(len, fill).unwrap();
            memory.release(0..len);
            assert_eq!(memory.len(), len);
            assert!(memory.iter().zip(1u32..).all(|(&byte, n)| byte == n as u8));
        }
    }
}
