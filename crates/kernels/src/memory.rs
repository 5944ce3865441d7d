//! Memory that is asked for and may be refused: an error and not the end of the program.

use bytemuck::{Zeroable, allocation::try_zeroed_vec};

use crate::{KernelError, Result};

/// `len` zeros, untouched until they are used, as `vec!` gives them.
///
/// # Errors
/// [`KernelError::Argument`] when the system does not give that much.
pub(crate) fn zeros<T: Zeroable>(op: &'static str, len: usize) -> Result<Vec<T>> {
    try_zeroed_vec(len).map_err(|()| KernelError::Argument {
        op,
        what: format!("the system has no memory for {len} numbers of {} bytes", size_of::<T>()),
    })
}

#[cfg(test)]
mod tests {
    use half::bf16;

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
