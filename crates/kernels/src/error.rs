//! What an operation refuses.

/// The result of an operation.
pub type Result<T> = std::result::Result<T, KernelError>;

/// Why an operation could not run. Operations never panic on their arguments.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// A buffer does not have the length that the shape asks for.
    #[error("{op}: `{what}` has {found} elements, the shape needs {expected}")]
    Length {
        /// The operation.
        op: &'static str,
        /// The argument.
        what: &'static str,
        /// Elements that the shape needs.
        expected: usize,
        /// Elements found.
        found: usize,
    },
    /// An argument has a value that the operation cannot take.
    #[error("{op}: {what}")]
    Argument {
        /// The operation.
        op: &'static str,
        /// What is wrong and what would be right.
        what: String,
    },
    /// A file could not be mapped.
    #[error("cannot map `{path}`: {source}")]
    Map {
        /// The file.
        path: std::path::PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
}

/// Checks the length of one buffer against its shape. Every operation multiplies its sizes here and
/// nowhere before, so that no product of them has wrapped.
pub(crate) fn check(
    op: &'static str,
    what: &'static str,
    found: usize,
    shape: &[usize],
) -> Result<()> {
    match elements(shape) {
        Some(expected) if expected == found => Ok(()),
        Some(expected) => Err(KernelError::Length { op, what, expected, found }),
        None => {
            let what = format!("`{what}` of shape {shape:?} has more elements than memory can");
            Err(KernelError::Argument { op, what })
        }
    }
}

/// The elements of a shape; `None` where they are too many to be counted.
pub(crate) fn elements(shape: &[usize]) -> Option<usize> {
    if shape.contains(&0) {
        return Some(0);
    }
    shape.iter().try_fold(1usize, |product, &size| product.checked_mul(size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_multiplied_without_wrapping() {
        const HALF: usize = 1 << (usize::BITS / 2);
        assert_eq!(elements(&[]), Some(1));
        assert_eq!(elements(&[3, 5, 7]), Some(105));
        assert_eq!(elements(&[usize::MAX, usize::MAX, 0]), Some(0));
        assert_eq!(elements(&[HALF, HALF - 1]), Some(usize::MAX - HALF + 1));
        assert_eq!(elements(&[HALF, HALF]), None);
        assert!(check("op", "x", 0, &[HALF, HALF]).unwrap_err().to_string().contains("memory"));
        assert!(check("op", "x", 6, &[2, 3]).is_ok() && check("op", "x", 5, &[2, 3]).is_err());
    }
}
