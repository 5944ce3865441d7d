//! The output folder: one line for every row that is done, and the results.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use llada::eval::{Record, record};

use crate::{error::Failure, term::Term, view::units};

/// The rows of one task in the output folder.
pub struct Store {
    path: PathBuf,
    file: File,
}

impl Store {
    /// Opens `samples_TASK.jsonl` in `dir`, and gives the rows that earlier runs left there.
    pub fn open(dir: &Path, task: &str, term: &Term) -> Result<(Self, BTreeMap<String, Record>)> {
        fs::create_dir_all(dir).with_context(|| format!("cannot create `{}`", dir.display()))?;
        let path = dir.join(format!("samples_{task}.jsonl"));
        let cannot = |what| format!("cannot {what} `{}`", path.display());
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(e) => return Err(e).with_context(|| cannot("read")),
        };
        let (records, damaged) = record::read(&text);
        if damaged > 0 {
            let damaged = units::thousands(damaged as u64);
            term.warn(&format!("{damaged} lines of `{}` are no rows", path.display()));
        }
        let options = OpenOptions::new().create(true).append(true).open(&path);
        let mut file = options.with_context(|| cannot("write"))?;
        // A run that was ended within a line must not join it with the next one.
        if !text.is_empty() && !text.ends_with('\n') {
            file.write_all(b"\n").with_context(|| cannot("write"))?;
        }
        Ok((Self { path, file }, records))
    }

    /// Adds a row, at once and as a whole.
    pub fn add(&mut self, record: &Record) -> llada::Result<()> {
        let failed = |source| llada::Error::Io { action: "write", path: self.path.clone(), source };
        let mut line = serde_json::to_string(record).map_err(|e| failed(e.into()))?;
        line.push('\n');
        self.file.write_all(line.as_bytes()).map_err(failed)
    }
}

/// Writes the results beside the rows, whole or not at all, under the time in seconds, so that a
/// run does not take away the results of another.
pub fn write_results(dir: &Path, seconds: u64, results: &str) -> Result<PathBuf> {
    let path = dir.join(format!("results_{seconds}.json"));
    let temporary = dir.join(format!("results_{seconds}.tmp"));
    fs::write(&temporary, results)
        .and_then(|()| fs::rename(&temporary, &path))
        .with_context(|| format!("cannot write `{}`", path.display()))?;
    Ok(path)
}

/// Refuses an output folder that is a file before anything is computed.
pub fn check(dir: &Path) -> Result<()> {
    if dir.exists() && !dir.is_dir() {
        let message = format!("`{}` is a file", dir.display());
        return Err(Failure::usage(message, "give a folder as --out").into());
    }
    Ok(())
}
