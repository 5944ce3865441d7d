//! Conversations: dialogues out of JSON and Parquet files, laid out as sequences of a prompt and a
//! response.

mod layout;
mod preferences;
mod row;

use std::path::{Path, PathBuf};

pub use layout::{Encoder, Pair};
pub use preferences::Preferences;

use super::{
    DataError,
    corpus::Format,
    lines::place,
    rows::rows,
    windows::{mix, shuffled},
};
use crate::{
    Result,
    chat::Message,
    io,
    rng::{Purpose, Stream},
};

/// How many rejected rows are named.
const NAMED: usize = 5;
/// Which pair of a held-out dialogue is measured does not depend on the run.
const HELD_OUT_SEED: u64 = 0;

/// The columns of a row.
type Row = serde_json::Map<String, serde_json::Value>;

/// The (prompt, response) pairs of a dialogue, one for each turn of the assistant; never empty.
pub type Dialogue = Vec<Pair>;

/// Where conversations come from.
#[derive(Debug, Clone, Copy)]
pub struct Files<'a> {
    /// Files of JSON (an object on each line, or one list of objects) or Parquet, or folders of
    /// those that do not end in `.json`.
    pub train: &'a [PathBuf],
    /// Files to validate on.
    pub validation: Option<&'a [PathBuf]>,
    /// Fraction of the training dialogues held out where there are none; at least one is, if
    /// there are two and the fraction is not 0.
    pub held_out: f64,
}

/// What was read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Files.
    pub files: usize,
    /// Dialogues to train on.
    pub train: usize,
    /// Dialogues held out.
    pub validation: usize,
    /// Rows that could not be used.
    pub rejected: u64,
    /// Where the first of them stand, and why.
    pub first_rejected: Vec<String>,
    /// Later turns of dialogues left out because their sequence would be too long.
    pub long_turns: u64,
    /// Dialogues whose prompts the chat template writes otherwise once they are answered, so that
    /// the loss covers all that it adds for the answer.
    pub rewritten: u64,
}

/// All conversations of a run, as token ids in memory.
#[derive(Debug)]
pub struct Conversations {
    train: Vec<Dialogue>,
    validation: Vec<Dialogue>,
    report: Report,
}

impl Conversations {
    /// Reads all files. Rows that cannot be used are counted, and the first named; it fails when no
    /// row is left.
    pub fn open(files: &Files<'_>, encoder: &Encoder<'_>) -> Result<Self> {
        let mut report = Report::default();
        let read = &mut |row: &Row, report: &mut Report| {
            let messages = row::messages(row)?;
            let laid = encoder.dialogue(&messages)?;
            report.long_turns += laid.long_turns;
            report.rewritten += u64::from(laid.rewritten);
            Ok((hash(&messages), laid.pairs))
        };
        let [train, validation] = both(files, read, &mut report)?;
        Ok(Self { train, validation, report })
    }

    /// What was read.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// Dialogues to train on.
    pub fn train(&self) -> &[Dialogue] {
        &self.train
    }

    /// Dialogues held out.
    pub fn validation(&self) -> &[Dialogue] {
        &self.validation
    }

    /// The pair that is sequence `n` of the run: every dialogue comes once in each epoch, in an order
    /// drawn for that epoch, and gives one of its pairs, each as likely as the others.
    pub(crate) fn pair(&self, n: u64, seed: u64) -> &Pair {
        let count = self.train.len().max(1) as u64;
        let at = shuffled(n, count, seed);
        pick(&self.train[at as usize], seed, n)
    }

    /// The pair by which held-out dialogue `n` is measured, the same every time.
    pub(crate) fn held_out(&self, n: u64) -> &Pair {
        pick(&self.validation[n as usize], HELD_OUT_SEED, n)
    }

    /// CRC-32C of all sequences to train on, and of those to validate on: what the files come to with
    /// this tokenizer and template.
    pub fn crc32c(&self) -> [u32; 2] {
        [&self.train, &self.validation].map(|dialogues| crc32c(dialogues.iter().flatten()))
    }
}

/// What is made of a row, with a hash by which rows are held out; or what is wrong with it.
type Made<T> = std::result::Result<(u64, T), String>;

/// The rows to train on and those to validate on, each as `make` makes it.
fn both<T>(
    files: &Files<'_>,
    make: &mut dyn FnMut(&Row, &mut Report) -> Made<T>,
    report: &mut Report,
) -> Result<[Vec<T>; 2]> {
    let mut train = read(files.train, make, report)?;
    let validation: Vec<T> = match files.validation {
        Some(paths) => read(paths, make, report)?.into_iter().map(|d| d.1).collect(),
        None => hold_out(&mut train, files.held_out),
    };
    let train: Vec<T> = train.into_iter().map(|d| d.1).collect();
    (report.train, report.validation) = (train.len(), validation.len());
    Ok([train, validation])
}

fn pick(dialogue: &Dialogue, seed: u64, sequence: u64) -> &Pair {
    let turn = Stream::new(seed, Purpose::Turn, sequence).below(dialogue.len() as u64);
    &dialogue[turn as usize]
}

/// What the rows of `paths` are, in order, each with its hash.
fn read<T>(
    paths: &[PathBuf],
    make: &mut dyn FnMut(&Row, &mut Report) -> Made<T>,
    report: &mut Report,
) -> Result<Vec<(u64, T)>> {
    let mut found = Vec::new();
    let files = files(paths)?;
    let before = report.clone();
    report.files += files.len();
    for path in &files {
        each_row(path, &mut |number, row| {
            match row.and_then(|row| make(&row, report)) {
                Ok(made) => found.push(made),
                Err(reason) => {
                    report.rejected += 1;
                    if report.first_rejected.len() < NAMED {
                        report.first_rejected.push(format!("{}: {reason}", place(path, number)));
                    }
                }
            }
            Ok(())
        })?;
    }
    if found.is_empty() {
        let (files, rejected) = (files.len(), report.rejected - before.rejected);
        let first = report.first_rejected.get(before.first_rejected.len());
        let first = first.map(|first| format!(", first {first}")).unwrap_or_default();
        return Err(DataError::NoConversations { files, rejected, first }.into());
    }
    Ok(found)
}

/// Takes the number of a row from 1, and its columns or what is wrong with them.
type EachRow<'e> = dyn FnMut(usize, std::result::Result<Row, String>) -> Result<()> + 'e;

/// Calls `each` for every row of a file. What the name does not tell is JSON.
fn each_row(path: &Path, each: &mut EachRow<'_>) -> Result<()> {
    match Format::of(path) {
        #[cfg(feature = "parquet")]
        Some(Format::Parquet) => {
            super::parquet::rows(path, Some(&row::COLUMNS), &mut |number, columns, _| {
                each(number, Ok(columns))
            })
        }
        #[cfg(not(feature = "parquet"))]
        Some(Format::Parquet) => {
            let (path, cause) = (path.to_path_buf(), super::ParquetCause::NotBuilt);
            Err(DataError::Parquet { path, cause }.into())
        }
        _ => rows(path, &mut |number, row, _| each(number, row.and_then(row::columns))),
    }
}

/// The files of `paths`; a folder stands for the JSONL and Parquet files in it, in the order of
/// their names, but not for those that end in `.json`.
fn files(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in paths.iter().filter(|path| !path.as_os_str().is_empty()) {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let mut inside = Vec::new();
        for entry in std::fs::read_dir(path).map_err(io("read", path))? {
            let file = entry.map_err(io("read", path))?.path();
            if file.is_file() && is_of_rows(&file) {
                inside.push(file);
            }
        }
        if inside.is_empty() && path.join("meta.json").is_file() {
            return Err(DataError::NotConversations { path: path.clone() }.into());
        }
        inside.sort();
        files.append(&mut inside);
    }
    Ok(files)
}

fn is_of_rows(path: &Path) -> bool {
    matches!(Format::in_folder(path), Some(Format::Jsonl | Format::Parquet))
}

/// Takes a fraction of the dialogues out, chosen by a hash of what is said in them and so the same
/// in whatever order they come, equal ones together.
fn hold_out<T>(dialogues: &mut Vec<(u64, T)>, fraction: f64) -> Vec<T> {
    let lowest = dialogues.iter().map(|d| d.0).min().unwrap_or(0);
    let highest = dialogues.iter().map(|d| d.0).max().unwrap_or(0);
    if fraction <= 0.0 || lowest == highest {
        return Vec::new();
    }
    let threshold = (fraction * u64::MAX as f64) as u64;
    // At least one on either side.
    let is_held_out = |hash: u64| (hash < threshold || hash == lowest) && hash != highest;
    let (held_out, kept) = std::mem::take(dialogues).into_iter().partition(|d| is_held_out(d.0));
    *dialogues = kept;
    let held_out: Vec<(u64, T)> = held_out;
    held_out.into_iter().map(|d| d.1).collect()
}

/// CRC-32C of sequences.
fn crc32c<'a>(pairs: impl Iterator<Item = &'a Pair>) -> u32 {
    pairs.fold(0, |crc, pair| {
        let sizes = [pair.prompt_len() as u32, pair.answer_len() as u32];
        let numbers = sizes.iter().chain(pair.ids());
        let bytes: Vec<u8> = numbers.flat_map(|n| n.to_le_bytes()).collect();
        crc32c::crc32c_append(crc, &bytes)
    })
}

/// FNV-1a of what is said and by whom, mixed so that every bit of it counts.
fn hash(messages: &[Message]) -> u64 {
    let parts = messages.iter().flat_map(|m| [&m.role, &m.content]);
    // No text holds the byte 0xff, which so separates them.
    let bytes = parts.flat_map(|part| part.bytes().chain([0xff]));
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    mix(hash)
}

#[cfg(test)]
mod tests;
