//! The questions: prompts, some with the answer that is right.

use std::{path::Path, sync::LazyLock};

use serde::Deserialize;

use crate::{
    Error, Result,
    data::parse_json,
    eval::{
        EvalError,
        extract::{Extract, Extractor},
    },
    files,
};

/// Largest file of questions: they are held in memory.
const MAX_QUESTIONS: u64 = 1 << 30;

/// Something to go on from.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Question {
    /// The text before the answer, or the message to answer.
    pub prompt: String,
    /// Whether it is a message, which the chat template wraps.
    #[serde(default)]
    pub chat: bool,
    /// The right answer; without it any is, and only its likelihood counts.
    #[serde(default)]
    pub response: Option<String>,
}

/// The questions of a file that has one as a JSON object on each line; other fields are passed over.
///
/// # Errors
/// If the file cannot be read, a line is no question, or there are none.
pub fn questions(path: &Path) -> Result<Vec<Question>> {
    let failed = |what: String| EvalError::Questions { path: path.to_owned(), what };
    let text = files::read_text(path, MAX_QUESTIONS).map_err(|e| match e {
        Error::Io { source, .. } => failed(source.to_string()),
        other => failed(other.to_string()),
    })?;
    let mut questions = Vec::new();
    for (i, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let question = parse_json(line.as_bytes()).and_then(serde_json::from_value);
        questions.push(question.map_err(|e| failed(format!("line {}: {e}", i + 1)))?);
    }
    match questions.is_empty() {
        true => Err(failed("it has none".into()).into()),
        false => Ok(questions),
    }
}

/// Whether an answer is the right one but for case, punctuation and articles.
pub fn is_right(answer: &str, response: &str) -> bool {
    static EXTRACTOR: LazyLock<std::result::Result<Extractor, String>> = LazyLock::new(|| {
        let ignore = [r"[^\w\s]", r"\b(?:[Tt]he|[Aa]n?)\b"].map(String::from).to_vec();
        Extractor::new(&Extract { ignore, ignore_case: true, trim: true, ..Extract::default() })
    });
    EXTRACTOR.as_ref().is_ok_and(|extractor| extractor.agrees(answer, response))
}
