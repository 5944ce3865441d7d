//! Memory that is asked for and may be refused: an error and not the end of the program.

use std::alloc::{Layout, alloc_zeroed};

use half::bf16;

use crate::{KernelError, Result};

/// Numbers whose bits are all 0 where they are 0.
///
/// # Safety
/// Memory of zeros must be valid numbers.
pub(crate) unsafe trait Zero: Copy {}

// SAFETY: the bits of 0.
unsafe impl Zero for f32 {}
// SAFETY: as above.
unsafe impl Zero for bf16 {}

/// `len` zeros, untouched until they are used, as `vec!` gives them.
///
/// # Errors
/// [`KernelError::Argument`] when the system does not give that much.
pub(crate) fn zeros<T: Zero>(op: &'static str, len: usize) -> Result<Vec<T>> {
    let refuse = || KernelError::Argument {
        op,
        what: format!("the system has no memory for {len} numbers of {} bytes", size_of::<T>()),
    };
    let layout = Layout::array::<T>(len).map_err(|_| refuse())?;
    if layout.size() == 0 {
        return Ok(Vec::new());
    }
    // SAFETY: the layout is not empty.
    let memory = unsafe { alloc_zeroed(layout) }.cast::<T>();
    if memory.is_null() {
        return Err(refuse());
    }
    // SAFETY: the memory comes from the global allocator with the layout of `len` elements, all of
    // which are valid as zeros.
    Ok(unsafe { Vec::from_raw_parts(memory, len, len) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_are_zeros_and_can_be_written() {
        for len in [0, 1, 17, 100_000] {
            let mut found = zeros::<f32>("test", len).unwrap();
            assert_eq!(found, vec![0.0; len]);
            found.push(1.0);
            found.iter_mut().for_each(|x| *x += 2.0);
            assert_eq!((found.len(), found.last()), (len + 1, Some(&3.0)));
            assert!(zeros::<bf16>("test", len).unwrap().iter().all(|&x| x == bf16::ZERO));
        }
    }

    #[test]
    fn more_than_there_is_is_refused() {
        for len in [usize::MAX, usize::MAX / 2, usize::MAX / 4, usize::MAX / 8] {
            let error = zeros::<f32>("test", len).unwrap_err().to_string();
            assert!(error.contains("no memory"), "{error}");
        }
    }
}
