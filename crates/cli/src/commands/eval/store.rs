//! The output folder: one line for every row that is done, and the results.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use llada::{
    eval::{Record, record},
    files::{self, Output},
};

use crate::{error::Failure, term::Term, view::units};

/// Largest file of rows: they are held in memory.
const MAX_SAMPLES: u64 = 8 << 30;

/// The rows of one task in the output folder.
pub struct Store {
    path: PathBuf,
    file: File,
}

impl Store {
    /// Opens `samples_TASK.jsonl` in `dir`, and gives the rows that earlier runs left there.
    pub fn open(dir: &Path, task: &str, term: &Term) -> Result<(Self, BTreeMap<String, Record>)> {
        files::create_dir(dir)?;
        let path = dir.join(format!("samples_{task}.jsonl"));
        let cannot = || format!("cannot write `{}`", path.display());
        let content = match path.exists() {
            true => files::read_bytes(&path, MAX_SAMPLES)?,
            false => Vec::new(),
        };
        let (records, damaged) = record::read(&content);
        if damaged > 0 {
            let damaged = units::counted(damaged as u64, "line");
            term.warn(&format!("{damaged} of `{}` cannot be read", path.display()));
        }
        let options = OpenOptions::new().create(true).append(true).open(&path);
        let mut file = options.with_context(cannot)?;
        // A run that was ended within a line must not join it with the next one.
        if content.last().is_some_and(|&byte| byte != b'\n') {
            file.write_all(b"\n").with_context(cannot)?;
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

/// Writes the results beside the rows, whole or not at all, under the time in seconds, or the next
/// that is free: a run does not take away the results of another.
pub fn write_results(dir: &Path, mut seconds: u64, results: &str) -> Result<PathBuf> {
    loop {
        let path = dir.join(format!("results_{seconds}.json"));
        if !path.exists() {
            files::replace_with(&path, results.as_bytes())?;
            return Ok(path);
        }
        seconds += 1;
    }
}

/// Takes an output folder for this process before anything is computed; refuses a file.
pub fn hold(dir: &Path) -> Result<Output> {
    if dir.exists() && !dir.is_dir() {
        let message = format!("`{}` is a file", dir.display());
        return Err(Failure::usage(message, "give a folder as --out").into());
    }
    Ok(Output::lock(dir)?)
}
