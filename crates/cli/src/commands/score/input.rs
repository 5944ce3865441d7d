//! What is to be scored: prompts with their answers.

use std::path::Path;

use anyhow::Result;
use llada::data;

use crate::{commands::read_text, error::Failure};

/// A prompt and its answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Its line in the file, from 1.
    pub line: Option<usize>,
    /// What is given.
    pub prompt: String,
    /// At least one.
    pub answers: Vec<String>,
}

/// Rows, and why others could not be read.
#[derive(Debug)]
pub struct Input {
    /// The good ones.
    pub rows: Vec<Row>,
    /// One line of text about each of the others.
    pub bad: Vec<String>,
}

impl Input {
    /// One row.
    pub fn of(row: Row) -> Self {
        Self { rows: vec![row], bad: Vec::new() }
    }
}

/// Reads JSON Lines; empty lines are passed over.
pub fn read(file: &Path) -> Result<Input> {
    let text = read_text(file)?;
    let mut input = Input { rows: Vec::new(), bad: Vec::new() };
    for (i, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        match parse(line) {
            Ok((prompt, answers)) => {
                input.rows.push(Row { line: Some(i + 1), prompt, answers });
            }
            Err(reason) => input.bad.push(format!("line {}: {reason}", i + 1)),
        }
    }
    if input.rows.is_empty() && input.bad.is_empty() {
        let message = format!("`{}` has no rows", file.display());
        let hint = r#"write one object on each line: {"prompt": "…", "answer": "…"}"#;
        return Err(Failure::new(message, hint).into());
    }
    Ok(input)
}

/// A line of the file. What it has besides prompt and answers is nobody's concern.
#[derive(serde::Deserialize)]
struct Line {
    prompt: String,
    answer: Option<String>,
    answers: Option<Vec<String>>,
}

fn parse(line: &str) -> Result<(String, Vec<String>), String> {
    let row = data::parse_json(line.as_bytes()).map_err(|e| format!("not JSON ({e})"))?;
    if !row.is_object() {
        return Err("not a JSON object".into());
    }
    let row = serde_json::from_value(row).map_err(|e| e.to_string())?;
    let Line { prompt, answer, answers } = row;
    match (answer, answers) {
        (Some(answer), None) => Ok((prompt, vec![answer])),
        (None, Some(answers)) if !answers.is_empty() => Ok((prompt, answers)),
        (None, Some(_)) => Err("`answers` is empty".into()),
        (None, None) => Err("there is neither `answer` nor `answers`".into()),
        (Some(_), Some(_)) => Err("there are both `answer` and `answers`".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read() {
        let one = parse(r#"{"prompt": "a", "answer": "b", "id": 7}"#).unwrap();
        assert_eq!(one, ("a".into(), vec!["b".into()]));
        let many = parse(r#"{"prompt": "", "answers": ["b", "c"]}"#).unwrap();
        assert_eq!(many, (String::new(), vec!["b".into(), "c".into()]));
    }

    #[test]
    fn other_lines_are_explained() {
        for (line, reason) in [
            ("{", "not JSON (EOF"),
            ("[\"a\", \"b\", null]", "not a JSON object"),
            (r#"{"answer": "b"}"#, "missing field `prompt`"),
            (r#"{"prompt": "a"}"#, "neither"),
            (r#"{"prompt": "a", "answers": []}"#, "is empty"),
            (r#"{"prompt": "a", "answers": "b"}"#, "expected a sequence"),
            (r#"{"prompt": "a", "answer": "b", "answers": ["c"]}"#, "both"),
        ] {
            let found = parse(line).unwrap_err();
            assert!(found.contains(reason), "{line}: {found}");
        }
    }
}
