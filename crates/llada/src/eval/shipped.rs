//! The task files that come with the program.

use std::path::Path;

use super::{EvalError, Task};
use crate::{Result, files::read_text};

/// Largest task file.
const MAX_TASK: u64 = 1 << 20;

macro_rules! shipped {
    ($($name:literal),* $(,)?) => {
        [$(($name, include_str!(concat!("../../tasks/", $name, ".toml")))),*]
    };
}

/// Name and text of every task that ships.
pub const SHIPPED: [(&str, &str); 13] = shipped![
    "arc_challenge",
    "bbh",
    "countdown",
    "gsm8k",
    "humaneval",
    "lambada",
    "mbpp",
    "mmlu",
    "piqa",
    "sudoku",
    "tale_questions",
    "tale_words",
    "wikitext",
];

/// The text of a task: a shipped one, with `-` for `_` if one likes, or a file.
///
/// # Errors
/// When there is neither.
pub fn text(name: &str) -> Result<String> {
    let canonical = name.to_ascii_lowercase().replace('-', "_");
    if let Some((_, text)) = SHIPPED.iter().find(|(known, _)| *known == canonical) {
        return Ok((*text).to_owned());
    }
    let path = Path::new(name);
    if path.extension().is_some_and(|e| e == "toml") || path.is_file() {
        return read_text(path, MAX_TASK);
    }
    let known = SHIPPED.map(|(name, _)| name).join(", ");
    Err(EvalError::NoTask { name: name.into(), known }.into())
}

/// A task by its name or file.
///
/// # Errors
/// As [`text`], and when the file is not valid.
pub fn task(name: &str) -> Result<Task> {
    Ok(Task::parse(&text(name)?, name)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shipped_task_is_valid_and_named_as_its_file() {
        for (name, text) in SHIPPED {
            let task = Task::parse(text, name).unwrap();
            assert_eq!(task.name, name);
            assert!(!task.about.is_empty() && !task.source.is_empty(), "{name}");
            assert!(!task.metrics().is_empty(), "{name}");
        }
        assert_eq!(task("ARC-challenge").unwrap().name, "arc_challenge");
        let error = task("mmul").unwrap_err();
        assert!(error.to_string().contains("`mmul`"), "{error}");
        assert!(error.hint().unwrap().contains("mmlu"));
    }
}
