//! What can go wrong with data.

use std::path::PathBuf;

use super::{Format, corpus::NOT_UTF8};
use crate::content::TO_UTF8;

/// What can go wrong with text, token shards and conversations.
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
    #[error("`{path}`: {cause}")]
    Parquet {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        cause: ParquetCause,
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
    /// The tokenizer beside the shards is not the one that made them.
    #[error("`{path}` is not the tokenizer that made the shards: {reason}")]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// What differs.
        reason: String,
    },
    /// Folders of a mixture whose ids are not of one tokenizer.
    #[error("the shards in `{path}` are of another tokenizer than those in `{first}`")]
    OtherTokenizer {
        /// A folder.
        path: PathBuf,
        /// The first folder.
        first: PathBuf,
    },
    /// Folders that are not the parts of one preparation.
    #[error("`{path}`: {reason}")]
    Parts {
        /// A folder.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Fewer tokens than one sequence needs.
    #[error("the {split} split has {tokens} tokens, one sequence of {length} needs more")]
    TooShort {
        /// Which split.
        split: &'static str,
        /// Its tokens.
        tokens: u64,
        /// Tokens of a sequence.
        length: usize,
    },
    /// Something else than a folder of shards, where one is needed.
    #[error("`{path}` is not a folder of token shards")]
    NotShards {
        /// What was given.
        path: PathBuf,
    },
    /// A folder of shards where conversations are needed.
    #[error("`{path}` is a folder of token shards, not of conversations")]
    NotConversations {
        /// The folder.
        path: PathBuf,
    },
    /// The files hold no conversation that can be used.
    #[error(
        "no usable conversation in the {files} input file(s); {rejected} row(s) were rejected{first}"
    )]
    NoConversations {
        /// Files read.
        files: usize,
        /// Rows that could not be used.
        rejected: u64,
        /// The first reason, ready to print.
        first: String,
    },
    /// There is nothing to validate on.
    #[error("no conversation is held out for validation")]
    NoHeldOut,
}

/// What is wrong with a Parquet file.
#[derive(Debug, thiserror::Error)]
pub enum ParquetCause {
    /// This build cannot read any.
    #[error("this build has no Parquet reader")]
    NotBuilt,
    /// The file as a whole cannot be read.
    #[error("{0}")]
    File(String),
    /// It has no such column.
    #[error("no column `{field}`; it has {}", found.join(", "))]
    Column {
        /// The column that was asked for.
        field: String,
        /// Its columns.
        found: Vec<String>,
    },
    /// Its rows cannot be read.
    #[error("{0}")]
    Rows(String),
}

impl ParquetCause {
    fn hint(&self) -> &'static str {
        match self {
            Self::NotBuilt => "build with the feature `parquet`, or convert the file to JSONL",
            Self::File(_) => "the file is damaged or no Parquet file: fetch it again",
            Self::Column { field, .. } if field.contains("`, `") => {
                "write rows with `prompt` and `response`, or with `messages`"
            }
            Self::Column { .. } => "name the column that holds the text: `--field NAME`",
            Self::Rows(what)
                if cfg!(not(feature = "zstd")) && what.to_lowercase().contains("zstd") =>
            {
                "build with the feature `zstd`, or write the file again with another codec"
            }
            Self::Rows(_) => "the file is damaged, or of a kind that is not read: write it again",
        }
    }
}

impl DataError {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NoDocuments { first, .. } if first.contains(NOT_UTF8) => TO_UTF8.into(),
            Self::NoDocuments { inputs: 0, .. } => {
                "give .txt, .md, .jsonl or .parquet files, or a folder of them; a .json file by its \
                 own name"
                    .into()
            }
            Self::NoDocuments { .. } => {
                "check the inputs, the field name and the document separator".into()
            }
            Self::Format { .. } => {
                "give .txt, .md, .jsonl, .json or .parquet files, all but the last as .gz or .zst \
                 too; decompress other archives first"
                    .into()
            }
            Self::Parquet { cause, .. } => cause.hint().into(),
            Self::Exists { .. } => "choose another folder, or replace what is there with `--overwrite`".into(),
            Self::Changed => "run it again when nothing writes to them".into(),
            Self::NoEos => "train a tokenizer with `<|endoftext|>`, or add it to this one".into(),
            Self::Meta { .. } | Self::Shard { .. } => "prepare the data again".into(),
            Self::Tokenizer { .. } => {
                "put that tokenizer back, or prepare the data again with this one".into()
            }
            Self::OtherTokenizer { .. } => {
                "prepare all with one tokenizer: `llada data prepare --tokenizer`".into()
            }
            Self::Parts { .. } => {
                "give all folders that `llada data prepare --shard 1/N` to `N/N` wrote, with the same \
                 inputs, tokenizer and options"
                    .into()
            }
            Self::TooShort { split: "validation", .. } => {
                "hold out a larger fraction, lower `data.sequence_length`, or set `eval.every=0`"
                    .into()
            }
            Self::NotShards { path } if Format::of(path) == Some(Format::Jsonl) => {
                "fine-tune on conversations with `llada sft`, or turn text into shards with \
                 `llada data prepare`"
                    .into()
            }
            Self::NotShards { .. } => {
                "give folders of shards as `data.path`, or make one with `llada data prepare`"
                    .into()
            }
            Self::NotConversations { .. } => {
                "pre-train on shards with `llada train`; `llada sft` takes JSON or Parquet files as \
                 `data.path`"
                    .into()
            }
            Self::NoConversations { files: 0, .. } => {
                "give `.jsonl` files or `.parquet` files, or a folder of them, as `data.path`; a \
                 `.json` file by its own name"
                    .into()
            }
            Self::NoConversations { .. } => {
                "write rows as {\"prompt\": …, \"response\": …} or {\"messages\": […]}, no longer \
                 than `data.sequence_length`"
                    .into()
            }
            Self::NoHeldOut => {
                "name conversations as `data.validation`, raise `sft.held_out`, or set `eval.every=0`"
                    .into()
            }
            Self::TooShort { .. } => "lower `data.sequence_length`, or give more text".into(),
            Self::Option { .. } => return None,
        })
    }
}
