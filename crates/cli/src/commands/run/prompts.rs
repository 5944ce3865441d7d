//! Prompts of a file: lines of text, or JSON Lines with a seed for each.

use std::path::Path;

use anyhow::{Context, Result};
use llada::data;
use serde::Deserialize;

use crate::{commands::read_text, error::Failure};

/// Prompts that share one batch at most.
const MOST: usize = 1 << 16;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Ask {
    /// The text to continue.
    pub(super) prompt: String,
    /// The seed of its draws, if not that of the run.
    pub(super) seed: Option<u64>,
}

impl From<String> for Ask {
    fn from(prompt: String) -> Self {
        Self { prompt, seed: None }
    }
}

/// The prompts of a file: in JSON Lines (`.jsonl`) an object `{"prompt": "...", "seed": 7}` on each
/// line, else the lines themselves.
pub(super) fn read(file: &Path) -> Result<Vec<Ask>> {
    let name = file.display();
    let source = read_text(file)?;
    let extension = file.extension().map(|e| e.to_string_lossy().to_ascii_lowercase());
    let prompts = match extension.as_deref() {
        Some("jsonl" | "ndjson") => {
            let rows = source.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
            let ask = |(i, line): (usize, &str)| {
                let at_line = || format!("`{name}`, line {}", i + 1);
                let row = data::parse_json(line.as_bytes()).and_then(serde_json::from_value);
                row.with_context(at_line)
            };
            rows.take(MOST + 1).map(ask).collect::<Result<Vec<Ask>>>()?
        }
        _ => source.lines().take(MOST + 1).map(|line| Ask::from(line.to_owned())).collect(),
    };
    match prompts.len() {
        0 => {
            let message = format!("`{name}` has no prompts");
            Err(Failure::new(message, "write one prompt on each line").into())
        }
        n if n > MOST => {
            let message = format!("`{name}` has more than {MOST} prompts, too many for one batch");
            Err(Failure::new(message, "split the file").into())
        }
        _ => Ok(prompts),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read_and_others_refused() {
        let dir = tempfile::tempdir().unwrap();
        let read = |name: &str, content: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, content).unwrap();
            super::read(&path)
        };
        let plain = |prompt: &str| Ask::from(prompt.to_owned());
        let of = |prompt: &str, seed| Ask { prompt: prompt.into(), seed };
        assert_eq!(read("a.txt", "a\n\n{}\n").unwrap(), [plain("a"), plain(""), plain("{}")]);
        let rows = "{\"prompt\": \"a\", \"seed\": 7}\n\n{\"prompt\": \"\", \"id\": 1}\n";
        assert_eq!(read("a.JSONL", rows).unwrap(), [of("a", Some(7)), of("", None)]);
        let wrong = format!("{:#}", read("b.jsonl", "{\"prompt\": \"a\"}\nb\n").unwrap_err());
        assert!(wrong.contains("line 2"), "{wrong}");
        assert!(read("c.txt", "").unwrap_err().to_string().contains("no prompts"));
        let many = "\n".repeat(MOST + 1);
        assert!(read("d.txt", &many).unwrap_err().to_string().contains("more than"));
        assert_eq!(read("d.txt", &many[1..]).unwrap().len(), MOST);
    }
}
