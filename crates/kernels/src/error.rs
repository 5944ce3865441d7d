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

/// Checks the length of one buffer against its shape.
pub(crate) fn check(
    op: &'static str,
    what: &'static str,
    found: usize,
    expected: usize,
) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    Err(KernelError::Length { op, what, expected, found })
}
