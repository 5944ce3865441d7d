//! Failures as a person reads them: `error: …`, what caused it, one hint; and the exit code.

use std::{fmt, process::ExitCode};

use crate::term;

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

    /// The command line asks for something impossible (exit code 2).
    pub fn usage(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { usage: true, ..Self::new(message, hint) }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// Prints the failure to stderr and gives its exit code.
pub fn report(error: &anyhow::Error) -> ExitCode {
    if error.is::<StdoutClosed>() {
        return ExitCode::SUCCESS;
    }
    if error.is::<Interrupted>() {
        return ExitCode::from(130);
    }
    term::error_line(&render(error));
    let usage = error.chain().filter_map(|e| e.downcast_ref::<Failure>()).any(|f| f.usage);
    ExitCode::from(if usage { 2 } else { 1 })
}

/// The lines that [`report`] prints.
fn render(error: &anyhow::Error) -> String {
    let mut last = error.to_string();
    let mut lines = vec![format!("error: {last}")];
    for cause in error.chain().skip(1).map(ToString::to_string) {
        // Many messages already end with their cause.
        if !last.ends_with(&cause) {
            lines.push(format!("  caused by: {cause}"));
            last = cause;
        }
    }
    if let Some(hint) = hint(error) {
        lines.push(format!("  hint: {hint}"));
    }
    lines.join("\n")
}

/// The first remedy along the chain of causes.
fn hint(error: &anyhow::Error) -> Option<String> {
    error.chain().find_map(|cause| {
        if let Some(failure) = cause.downcast_ref::<Failure>() {
            return Some(failure.hint.clone());
        }
        cause.downcast_ref::<llada::Error>()?.hint()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::{Context, anyhow};

    #[test]
    fn a_failure_prints_its_causes_and_one_hint() {
        let error = anyhow!(Failure::new("no model", "give one")).context("cannot start");
        assert_eq!(render(&error), "error: cannot start\n  caused by: no model\n  hint: give one");
    }

    #[test]
    fn a_cause_already_in_the_message_is_not_repeated() {
        let source = std::io::Error::new(std::io::ErrorKind::NotFound, "no such file");
        let error = Err::<(), _>(source).context("cannot read `x`: no such file").unwrap_err();
        assert_eq!(render(&error), "error: cannot read `x`: no such file");
    }

    #[test]
    fn hints_of_the_library_are_shown() {
        let source = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
        let error = anyhow!(llada::Error::Io { action: "read", path: "x".into(), source });
        assert!(render(&error).contains("\n  hint: check the permissions"), "{}", render(&error));
    }
}
