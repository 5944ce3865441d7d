//! The flags of `llada data`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::{NO_STREAM, Shard, place, sampler::number};

/// `llada data`.
#[derive(Debug, Subcommand)]
pub enum Data {
    /// Turn text, JSON or Parquet files into shards of tokens
    Prepare(Prepare),
    /// Put together what `prepare --shard` wrote
    Merge(Merge),
}

/// `llada data merge`.
#[derive(Debug, Args)]
pub struct Merge {
    /// The folders of all parts, in any order
    #[arg(required = true, value_name = "PART")]
    pub parts: Vec<PathBuf>,
    /// Folder for the shards
    #[arg(short, long, value_name = "DIR", value_parser = place(NO_STREAM))]
    pub out: PathBuf,
    /// Replace the output folder where there is one
    #[arg(long, alias = "force")]
    pub overwrite: bool,
}

/// `llada data prepare`.
#[derive(Debug, Args)]
pub struct Prepare {
    /// Files, or folders to search for them, all but .json; `-` reads text from stdin
    #[arg(required = true, value_name = "INPUT")]
    pub inputs: Vec<PathBuf>,
    /// The tokenizer: a `tokenizer.json`, or a folder with one
    #[arg(short, long, value_name = "FILE")]
    pub tokenizer: PathBuf,
    /// Folder for the shards
    #[arg(short, long, value_name = "DIR", value_parser = place(NO_STREAM))]
    pub out: PathBuf,
    /// Format of all inputs [default: by their names]
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub format: Option<TextFormat>,
    /// How text files are cut into documents [default: end-of-text]
    #[arg(long, value_enum, value_name = "WHERE")]
    pub separator: Option<Separator>,
    /// Field of a JSON row, or column of a Parquet file, with the text [default: text]
    #[arg(long, value_name = "NAME")]
    pub field: Option<String>,
    /// Fraction of the documents to hold out for validation [default: 0.01]
    #[arg(
        long,
        value_name = "FRACTION",
        value_parser = number::<f64>("validation")
    )]
    pub validation: Option<f64>,
    /// Seed of the choice of those documents [default: 0]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Tokenise one of N equal parts of the documents alone; `llada data merge` puts the parts together
    #[arg(long, value_name = "I/N")]
    pub shard: Option<Shard>,
    /// Replace the output folder where there is one
    #[arg(long, alias = "force")]
    pub overwrite: bool,
}

/// What an input file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TextFormat {
    /// Plain UTF-8 text.
    Text,
    /// JSON: an object on each line, or one list of objects.
    Jsonl,
    /// Apache Parquet.
    Parquet,
}

impl From<TextFormat> for llada::data::Format {
    fn from(format: TextFormat) -> Self {
        match format {
            TextFormat::Text => Self::Text,
            TextFormat::Jsonl => Self::Jsonl,
            TextFormat::Parquet => Self::Parquet,
        }
    }
}

/// How text files are cut into documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Separator {
    /// At the tokenizer's end-of-text token.
    EndOfText,
    /// At empty lines.
    BlankLine,
    /// Nowhere.
    WholeFile,
}

impl From<Separator> for llada::data::Separator {
    fn from(separator: Separator) -> Self {
        match separator {
            Separator::EndOfText => Self::EndOfText,
            Separator::BlankLine => Self::BlankLine,
            Separator::WholeFile => Self::WholeFile,
        }
    }
}
