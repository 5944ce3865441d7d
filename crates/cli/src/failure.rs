//! Failures that are the program's own, each with its remedy.

use std::fmt;

use llada::diffusion::{SamplerError, Spelling};

/// The reader of stdout went away (`llada … | head`): end quietly.
#[derive(Debug, thiserror::Error)]
#[error("stdout was closed")]
pub struct StdoutClosed;

/// Ctrl-C, after the work was saved.
#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
pub struct Interrupted;

/// A failure with its remedy, at the place where both are known.
#[derive(Debug)]
pub struct Failure {
    message: String,
    hint: String,
    usage: bool,
}

impl Failure {
    /// Something failed (exit code 1).
    pub fn new(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { message: message.into(), hint: hint.into(), usage: false }
    }

    /// The command line, or a command, asks for a sampler that cannot be (exit code 2).
    pub fn sampler(error: SamplerError, spelling: Spelling) -> anyhow::Error {
        let hint = error.hint_for(spelling).unwrap_or_else(|| "see `llada run --help-all`".into());
        match error {
            SamplerError::Proposed(ref cause) => {
                let cause = Self::usage(cause.to_string(), hint);
                anyhow::Error::from(cause).context(error.to_string())
            }
            // Of the prompt, which may be of a file.
            SamplerError::NoRoom { .. } => Self::new(error.to_string(), hint).into(),
            error => Self::usage(error.to_string(), hint).into(),
        }
    }

    /// The command line asks for something impossible (exit code 2).
    pub fn usage(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { usage: true, ..Self::new(message, hint) }
    }

    /// What to do about it.
    pub fn hint(&self) -> &str {
        &self.hint
    }

    /// Whether the command line is at fault.
    pub fn is_usage(&self) -> bool {
        self.usage
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}
