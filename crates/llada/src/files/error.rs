//! Why an output cannot be written.

use std::path::PathBuf;

/// An output that is not to be had, or not without a loss.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OutputError {
    /// Another process writes it.
    #[error(
        "`{path}` is being written by another process{}",
        by.map(|id| format!(" ({id})")).unwrap_or_default()
    )]
    Busy {
        /// The output.
        path: PathBuf,
        /// The number of that process, where it is known.
        by: Option<u32>,
    },
    /// Something is there, and was not to be replaced.
    #[error("`{path}` is there already")]
    Exists {
        /// The output.
        path: PathBuf,
    },
    /// A folder that is to be replaced is no output of this kind.
    #[error("`{path}` was not written by this command, and its `{name}` would be lost")]
    Foreign {
        /// The output.
        path: PathBuf,
        /// What would be replaced.
        name: String,
    },
    /// The name of the lock is taken by something else.
    #[error("`{path}` is in the way of a lock, and is none")]
    NoLock {
        /// What has the name.
        path: PathBuf,
    },
    /// A folder that keeps its place: its content cannot be swapped at once.
    #[error(
        "`{path}` cannot be replaced as a whole: it is the working folder, a mount point, or in a \
         folder that cannot be written"
    )]
    Fixed {
        /// The output.
        path: PathBuf,
    },
}

impl OutputError {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        Some(
            match self {
                Self::Busy { .. } => "wait until it has ended, stop it, or write somewhere else",
                Self::Exists { .. } => "choose another name, or remove it first",
                Self::Foreign { .. } => "write to a new folder, or move the file away",
                Self::NoLock { .. } => "move it away, or write somewhere else",
                Self::Fixed { .. } => "write to a new folder in it, or empty it first",
            }
            .into(),
        )
    }
}
