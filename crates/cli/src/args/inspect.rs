//! The flags of the verbs that look: `replay`, `show`, `doctor`, `completions`.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use llada::diffusion::{Cache, cache::CacheType};

use super::{
    ModelOperand, Threads,
    sampler::{number, parse},
};

/// `llada replay`.
#[derive(Debug, Args)]
pub struct Replay {
    /// The recording, from `llada run --trace`; `-` reads it from stdin
    pub file: PathBuf,
    /// Write a file instead of playing [default: by the name of --out]
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub export: Option<Export>,
    /// The file to write, such as `canvas.svg`; `-` is stdout
    #[arg(short, long, value_name = "OUT")]
    pub out: Option<PathBuf>,
    /// Tokenizer of the model, for a recording without texts
    #[arg(short, long, value_name = "FILE")]
    pub tokenizer: Option<PathBuf>,
    /// Milliseconds between two steps
    #[arg(long, value_name = "MS", default_value_t = 100, value_parser = super::delay())]
    pub delay: u32,
    /// Columns of a line of the SVG
    #[arg(
        long,
        value_name = "N",
        default_value_t = 80,
        value_parser = clap::value_parser!(u16).range(10..=1000)
    )]
    pub width: u16,
}

/// What a recording can become.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Export {
    /// A page with a slider, for a browser.
    #[value(alias = "htm")]
    Html,
    /// An animated picture, for a README.
    Svg,
}

impl Export {
    /// The format of a file, by its name.
    pub fn of(file: &Path) -> Option<Self> {
        Self::from_str(file.extension()?.to_str()?, true).ok()
    }
}

/// `llada show`.
#[derive(Debug, Args)]
pub struct Show {
    #[command(flatten)]
    pub model: ModelOperand,
    /// Write JSON
    #[arg(long)]
    pub json: bool,
    /// Compare every byte with the checksums that files have; also of a run, or of token shards
    #[arg(long)]
    pub verify: bool,
    /// Tell the memory that training by a recipe takes, in place of a model
    #[arg(long, value_name = "RECIPE.toml", conflicts_with = "verify")]
    pub train: Option<PathBuf>,
    /// With --train: the ranks that share the run
    #[arg(long, value_name = "N", default_value_t = 1, requires = "train",
        value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub ranks: u32,
    #[command(flatten)]
    pub generation: Generation,
}

/// What a generation will be, to know its memory.
#[derive(Debug, Args)]
#[command(next_help_heading = "Memory of a generation")]
pub struct Generation {
    /// Length of the sequence, prompt and response [default: the model's longest]
    #[arg(
        long,
        value_name = "TOKENS",
        value_parser = number::<usize>("length")
    )]
    pub length: Option<usize>,
    /// Length of the response [default: up to 128]
    #[arg(
        short = 'n',
        long,
        value_name = "TOKENS",
        value_parser = number::<usize>("gen_length")
    )]
    pub gen_length: Option<usize>,
    /// Length of a block [default: that of the response]
    #[arg(
        long,
        value_name = "TOKENS",
        value_parser = number::<usize>("block_length"),
        hide_short_help = true
    )]
    pub block_length: Option<usize>,
    /// Which keys and values are cached between passes: none, prefix, dual
    #[arg(long, value_name = "CACHE", value_parser = parse::<Cache>, default_value = "none")]
    pub cache: Cache,
    /// With a cache: the type of the cached keys and values: f32, bf16
    #[arg(
        long,
        value_name = "TYPE",
        value_parser = parse::<CacheType>,
        default_value = "f32",
        hide_short_help = true
    )]
    pub cache_type: CacheType,
    #[command(flatten)]
    pub threads: Threads,
}

/// `llada doctor`.
#[derive(Debug, Args)]
pub struct Doctor {
    /// Write JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub threads: Threads,
}

/// `llada completions`.
#[derive(Debug, Args)]
pub struct Completions {
    /// The shell
    pub shell: clap_complete::Shell,
}
