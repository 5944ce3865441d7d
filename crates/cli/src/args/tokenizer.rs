//! The flags of `llada tokenizer`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::{NO_STREAM, place};

/// `llada tokenizer`.
#[derive(Debug, Subcommand)]
pub enum Tokenizer {
    /// Train a tokenizer on text files
    Train(TokenizerTrain),
    /// Text to token ids
    Encode(Apply),
    /// Token ids to text
    Decode(Apply),
    /// Messages to the text that a model's chat template makes of them
    Render(Render),
}

/// `llada tokenizer train`.
#[derive(Debug, Args)]
pub struct TokenizerTrain {
    /// Text files
    #[arg(required = true, value_name = "INPUT")]
    pub inputs: Vec<PathBuf>,
    /// What a token is
    #[arg(long, value_enum, default_value_t = TokenizerKind::Bpe)]
    pub kind: TokenizerKind,
    /// Entries of the vocabulary, special tokens included (`bpe` only)
    #[arg(long, value_name = "N", default_value_t = 4096)]
    pub vocab_size: usize,
    /// Times that a character must occur to be a token (`char` only)
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub min_count: u64,
    /// Folder for `tokenizer.json`
    #[arg(short, long, value_name = "DIR", value_parser = place(NO_STREAM))]
    pub out: PathBuf,
    /// Replace the tokenizer of that folder where it has one
    #[arg(long, alias = "force")]
    pub overwrite: bool,
}

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TokenizerKind {
    /// Byte-pair encoding.
    Bpe,
    /// One token for each character.
    Char,
}

/// `llada tokenizer encode` and `decode`.
#[derive(Debug, Args)]
pub struct Apply {
    /// The text, or the ids; `-` or nothing reads stdin
    pub input: Option<String>,
    /// The tokenizer: a `tokenizer.json`, or a folder with one; without it, the shipped model's
    #[arg(short, long, value_name = "FILE")]
    pub tokenizer: Option<PathBuf>,
}

/// `llada tokenizer render`.
#[derive(Debug, Args)]
pub struct Render {
    /// The model: a folder with a `tokenizer_config.json` or `chat_template.jinja`, or a GGUF file
    pub model: PathBuf,
    /// A JSON file: a list of messages, or an object with `messages`, `tools` and `documents`; `-`
    /// or nothing reads stdin
    pub messages: Option<PathBuf>,
    /// End after the last message, not where the assistant would go on
    #[arg(long)]
    pub no_generation_prompt: bool,
}
