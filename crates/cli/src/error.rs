//! Failures as a person reads them: `error: …`, what caused it, one hint; and the exit code.

use std::{
    panic::{self, AssertUnwindSafe},
    process::ExitCode,
    sync::{Mutex, PoisonError},
};

use clap::{
    builder::StyledStr,
    error::{ContextKind, ContextValue, ErrorKind},
};

use llada::ranks::RankError;

pub use crate::failure::{Failure, Interrupted, StdoutClosed};
use crate::{args, term};

/// Runs `command`; a panic in it becomes a failure like any other. Those of dependencies that the
/// library catches and turns into errors leave no trace on stderr. `RUST_BACKTRACE` brings back
/// Rust's own messages.
pub fn without_panics(command: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
    static LAST: Mutex<String> = Mutex::new(String::new());
    let last = || LAST.lock().unwrap_or_else(PoisonError::into_inner);
    if term::variable("RUST_BACKTRACE").is_none() {
        panic::set_hook(Box::new(move |info| *last() = info.to_string()));
    }
    panic::catch_unwind(AssertUnwindSafe(command)).unwrap_or_else(|_| {
        let message = format!("a fault of the program: {}", last());
        let hint = "please report it, with the command and this message";
        Err(Failure::new(message, hint).into())
    })
}

/// Prints the failure to stderr and gives its exit code.
pub fn report(error: &anyhow::Error) -> ExitCode {
    if error.is::<StdoutClosed>() {
        return ExitCode::SUCCESS;
    }
    if error.is::<Interrupted>() {
        return ExitCode::from(130);
    }
    // Another rank has said why.
    if let Some(llada::Error::Rank(RankError::Elsewhere { .. })) = error.downcast_ref() {
        return ExitCode::from(1);
    }
    term::error_line(&render(error));
    let usage = error.chain().filter_map(|e| e.downcast_ref::<Failure>()).any(Failure::is_usage);
    ExitCode::from(if usage { 2 } else { 1 })
}

/// Prints a failure that does not end the program.
pub fn show(error: &anyhow::Error) {
    term::error_line(&render(error));
}

/// Prints what clap says: help to stdout, a wrong command line in the form of all other errors.
pub fn usage(error: clap::Error) -> ExitCode {
    let error = with_visible_words(error);
    if !error.use_stderr() || error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        // Help that nobody reads to its end is no failure.
        let _ = error.print();
    } else {
        let words: Vec<String> =
            std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
        let unknown = match error.get(ContextKind::InvalidArg) {
            Some(ContextValue::String(flag)) if error.kind() == ErrorKind::UnknownArgument => {
                Some(flag.as_str())
            }
            _ => None,
        };
        let habit = args::explained(&words, unknown);
        term::error_line(&match habit {
            Some((flag, hint)) => format!("error: there is no `{flag}` here\n  hint: {hint}"),
            None => render_usage(&error.to_string(), unknown),
        });
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}

/// Makes the words of the command line that a message of clap's repeats visible, each on one line.
fn with_visible_words(mut error: clap::Error) -> clap::Error {
    let words = error.context().filter_map(|(kind, value)| match value {
        ContextValue::String(word) => Some((kind, ContextValue::String(term::visible_line(word)))),
        ContextValue::Strings(words) => {
            let words = words.iter().map(|word| term::visible_line(word)).collect();
            Some((kind, ContextValue::Strings(words)))
        }
        ContextValue::StyledStrs(words) => {
            let plain = |word: &StyledStr| term::visible_line(&word.to_string()).into();
            Some((kind, ContextValue::StyledStrs(words.iter().map(plain).collect())))
        }
        _ => None,
    });
    for (kind, word) in words.collect::<Vec<_>>() {
        error.insert(kind, word);
    }
    error
}

/// Clap's message with one hint: its own `tip:`, or the way to the help. `unknown` is the flag that
/// is none.
fn render_usage(message: &str, unknown: Option<&str>) -> String {
    let mut lines: Vec<&str> = Vec::new();
    let in_capitals = unknown.filter(|flag| flag.chars().any(char::is_uppercase));
    let mut hint = match in_capitals {
        Some(flag) => format!("names of flags are in lower case: `{}`", flag.to_lowercase()),
        None => "`--help` lists what can be given".to_owned(),
    };
    for line in message.lines().filter(|line| !line.trim().is_empty()) {
        match line.trim_start().strip_prefix("tip: ") {
            Some(_) if in_capitals.is_some() => {}
            // A flag that is none is seldom meant as a text.
            Some(tip) if tip.starts_with("to pass '") => {
                hint.push_str("; a text that begins with `-` goes after `--`");
            }
            Some(tip) => hint = tip.to_owned(),
            None if line.starts_with("For more information") => {}
            // Flags are spelt wrongly; words are a text without its quotes.
            None if line.starts_with("error: unexpected argument '") && !line.contains("'-") => {
                hint = "put a text of several words in quotes".to_owned();
                lines.push(line);
            }
            None => lines.push(line),
        }
    }
    let mut message = lines.join("\n");
    for (theirs, ours) in NUMBERS {
        message = message.replace(theirs, ours);
    }
    format!("{message}\n  hint: {hint}")
}

/// What Rust says of a text that is no number, and what is meant.
const NUMBERS: [(&str, &str); 5] = [
    (": invalid digit found in string", ": it is not a whole number"),
    (": cannot parse integer from empty string", ": it is empty"),
    (": number too large to fit in target type", ": it is too large a number"),
    (": number too small to fit in target type", ": it is too small a number"),
    (": invalid float literal", ": it is not a number"),
];

/// The lines that [`report`] prints.
fn render(error: &anyhow::Error) -> String {
    let mut messages = vec![error.to_string().trim_end().to_owned()];
    for cause in error.chain().skip(1).map(ToString::to_string) {
        // Many messages already end with their cause, and many causes begin with the message.
        match messages.last_mut() {
            Some(last) if last.ends_with(&cause) => {}
            Some(last) if cause.starts_with(last.as_str()) => *last = cause,
            _ => messages.push(cause),
        }
    }
    let line = |(at, message): (usize, &String)| {
        format!("{}: {}", if at == 0 { "error" } else { "  caused by" }, indented(message))
    };
    let mut lines: Vec<String> = messages.iter().enumerate().map(line).collect();
    if let Some(hint) = hint(error) {
        lines.push(format!("  hint: {}", indented(&hint)));
    }
    lines.join("\n")
}

/// Bytes of a message of several lines.
const MOST_OF_A_MESSAGE: usize = 4000;

/// A message whose further lines stand below its first: what a file holds cannot pass for a line of
/// ours.
fn indented(message: &str) -> String {
    term::shortened(message.trim_end(), MOST_OF_A_MESSAGE).replace('\n', "\n      ")
}

/// The first remedy along the chain of causes.
fn hint(error: &anyhow::Error) -> Option<String> {
    error.chain().find_map(|cause| {
        if let Some(failure) = cause.downcast_ref::<Failure>() {
            return Some(failure.hint().to_owned());
        }
        if let Some(io) = cause.downcast_ref::<std::io::Error>() {
            return llada::io_hint(io).map(Into::into);
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
    fn no_message_makes_lines_of_its_own() {
        let error = anyhow!("the name `x\n  hint: run this\x1b[2J` is none");
        assert_eq!(render(&error), "error: the name `x\n        hint: run this\x1b[2J` is none");
    }

    #[test]
    fn a_cause_already_in_the_message_is_not_repeated() {
        let source = std::io::Error::new(std::io::ErrorKind::NotFound, "no such file");
        let error = Err::<(), _>(source).context("cannot read `x`: no such file").unwrap_err();
        let expected = "error: cannot read `x`: no such file\n  hint: check the spelling";
        assert!(render(&error).starts_with(expected), "{}", render(&error));
        let error = anyhow!("cannot write `x`: disk full").context("cannot write `x`");
        assert_eq!(render(&error), "error: cannot write `x`: disk full");
    }

    #[test]
    fn a_wrong_command_line_has_one_hint() {
        let text = "error: unexpected argument\n\n  tip: a similar argument exists: '--x'\n\n\
                    Usage: llada run\n\nFor more information, try '--help'.\n";
        assert_eq!(
            render_usage(text, None),
            "error: unexpected argument\nUsage: llada run\n  hint: a similar argument exists: '--x'"
        );
        assert!(
            render_usage("error: no\n", None)
                .ends_with("\n  hint: `--help` lists what can be given")
        );
    }

    #[test]
    fn what_is_no_number_is_said_so() {
        let text = "error: invalid value 'abc' for '--threads <N>': invalid digit found in string";
        let shown = render_usage(text, None);
        assert!(shown.contains("'--threads <N>': it is not a whole number\n"), "{shown}");
    }

    #[test]
    fn a_panic_is_a_failure_with_a_hint() {
        let previous = panic::take_hook();
        let error = without_panics(|| panic!("oh")).unwrap_err();
        panic::set_hook(previous);
        let lines = render(&error);
        assert!(lines.starts_with("error: a fault of the program"), "{lines}");
        assert!(lines.contains("\n  hint: please report it"), "{lines}");
    }

    #[test]
    fn values_of_any_length_leave_the_message_readable() {
        let long = "é\n".repeat(1_000_000);
        let error =
            anyhow!(Failure::new(format!("`seed` is `{long}`, no number"), "give a number"));
        let shown = render(&error);
        assert!(shown.len() < 20_000, "{} bytes", shown.len());
        assert!(shown.starts_with("error: `seed` is `é"), "{}", &shown[..40]);
        assert!(shown.ends_with("`, no number\n  hint: give a number"));
        let line = "x".repeat(3_000_000) + "!";
        let short = term::shortened(&line, 2000);
        assert!(short.len() < 2100 && short.ends_with("x!") && short.contains(" bytes…] "));
        assert_eq!(term::shortened("short", 2000), "short");
    }

    #[test]
    fn errors_of_the_system_have_a_hint() {
        let error = Err::<(), _>(std::io::Error::from(std::io::ErrorKind::StorageFull))
            .context("cannot write `x`")
            .unwrap_err();
        assert!(render(&error).contains("\n  hint: free some space"), "{}", render(&error));
    }

    #[test]
    fn hints_of_the_library_are_shown() {
        let source = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
        let error = anyhow!(llada::Error::Io { action: "read", path: "x".into(), source });
        assert!(render(&error).contains("\n  hint: check the permissions"), "{}", render(&error));
    }
}
