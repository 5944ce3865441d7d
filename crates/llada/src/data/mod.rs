//! From text to training rows: `corpus` reads documents, `prepare` turns them into shards of token
//! ids, `shards` maps those into memory, `windows` cuts them into rows in a seeded order. `running`
//! is the short way, for text that is only scored.

mod corpus;
#[cfg(feature = "parquet")]
mod parquet;
mod prepare;
mod running;
mod shards;
mod windows;

use std::path::PathBuf;

pub use corpus::{Format, Separator};
pub use prepare::{PrepareOptions, PrepareProgress, prepare};
pub use running::RunningText;
pub use shards::{IdType, Meta, ShardMeta, Shards, Split, SplitMeta, TokenizerMeta};
pub use windows::Windows;

/// What can go wrong with text and token shards.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// The inputs hold no document.
    #[error("no document in the {inputs} input file(s); {rejected} row(s) were rejected{first}")]
    NoDocuments {
        /// Files read.
        inputs: usize,
        /// Rows that could not be read.
        rejected: usize,
        /// The first reasons, ready to print.
        first: String,
    },
    /// An input whose format is not known.
    #[error("`{path}`: unknown format")]
    Format {
        /// The file.
        path: PathBuf,
    },
    /// A Parquet file that cannot be read.
    #[error("`{path}`: {reason}")]
    Parquet {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// An option out of its range.
    #[error("`{key}` is {found}, expected {expected}")]
    Option {
        /// The option.
        key: &'static str,
        /// Its value.
        found: String,
        /// What it should be.
        expected: &'static str,
    },
    /// The output folder exists.
    #[error("`{path}` already exists")]
    Exists {
        /// The folder.
        path: PathBuf,
    },
    /// An input changed while it was read.
    #[error("the inputs changed while they were read")]
    Changed,
    /// The tokenizer cannot end a document.
    #[error("the tokenizer has no end-of-text token")]
    NoEos,
    /// `meta.json` is damaged or of another version.
    #[error("`{path}`: {reason}")]
    Meta {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A shard is not as `meta.json` says.
    #[error("shard `{path}` is damaged: {reason}")]
    Shard {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Fewer tokens than one row needs.
    #[error("the {split} split has {tokens} tokens, one row of {length} needs more")]
    TooShort {
        /// Which split.
        split: &'static str,
        /// Its tokens.
        tokens: u64,
        /// Tokens of a row.
        length: usize,
    },
}

impl DataError {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NoDocuments { .. } => {
                "check the inputs, the field name and the document separator".into()
            }
            Self::Format { .. } => {
                "give .txt, .md, .jsonl or .parquet files; decompress .gz, .xz and .zst first"
                    .into()
            }
            Self::Parquet { .. } => "write the file again with snappy or gzip compression, \
                                     or give its text column by name"
                .into(),
            Self::Exists { .. } => "choose another folder, or allow overwriting".into(),
            Self::Changed => "run it again when nothing writes to them".into(),
            Self::NoEos => "train a tokenizer with `<|endoftext|>`, or add it to this one".into(),
            Self::Meta { .. } | Self::Shard { .. } => "prepare the data again".into(),
            Self::TooShort { split: "validation", .. } => {
                "hold out a larger fraction, lower `data.sequence_length`, or set `eval.every=0`"
                    .into()
            }
            Self::TooShort { .. } => "lower `data.sequence_length`, or give more text".into(),
            Self::Option { .. } => return None,
        })
    }
}
