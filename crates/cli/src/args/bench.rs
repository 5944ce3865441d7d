//! The flags of `llada bench`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::{Format, Machine, ModelArg, SamplerArgs};

/// `llada bench`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Bench {
    #[command(subcommand)]
    pub subject: Option<Subject>,
    #[command(flatten)]
    pub speed: Speed,
}

/// What can be measured.
#[derive(Debug, Subcommand)]
pub enum Subject {
    /// Speed and memory; what is measured when nothing is said
    Speed(Box<Speed>),
    /// What a way to sample costs in quality, and gains in speed, beside `--preset exact`
    Quality(Box<Quality>),
}

/// `llada bench speed`.
#[derive(Debug, Clone, Args)]
pub struct Speed {
    /// Measure a model, named as elsewhere, rather than random weights
    #[arg(
        short,
        long,
        alias = "hf-repo",
        value_name = "MODEL",
        conflicts_with_all = ["shape", "format", "save"]
    )]
    pub model: Option<PathBuf>,
    /// Sizes of random weights
    #[arg(long, value_enum, value_name = "SHAPE", value_delimiter = ',', default_value = "100m")]
    pub shape: Vec<Shape>,
    /// Formats of the matrices in the blocks; of quantised ones, embedding and LM head are in Q8_0
    #[arg(
        long,
        value_enum,
        value_name = "FORMAT",
        value_delimiter = ',',
        default_value = "f32,q8_0"
    )]
    pub format: Vec<Format>,
    /// Lengths of the sequences that go through the model [default: 32,128,512, as far as they fit]
    #[arg(
        long,
        value_name = "TOKENS",
        value_delimiter = ',',
        value_parser = clap::value_parser!(u32).range(1..),
        hide_short_help = true
    )]
    pub lengths: Vec<u32>,
    /// Positions at the end of a sequence whose logits are wanted
    #[arg(long, value_name = "N", default_value_t = 32, hide_short_help = true)]
    pub wanted: u32,
    /// Rounds, in each of which everything about a model is measured once
    #[arg(
        long,
        value_name = "N",
        default_value_t = 5,
        value_parser = clap::value_parser!(u16).range(1..),
        hide_short_help = true
    )]
    pub rounds: u16,
    /// Also measure whole generations
    #[arg(long)]
    pub generate: bool,
    /// Length of the prompt of a generation
    #[arg(
        long,
        value_name = "TOKENS",
        default_value_t = 64,
        requires = "generate",
        hide_short_help = true
    )]
    pub prompt: u32,
    /// Write the random weights to a file, which llama.cpp loads too
    #[arg(long, value_name = "FILE.gguf", hide_short_help = true)]
    pub save: Option<PathBuf>,
    /// Replace the file
    #[arg(long, requires = "save", hide_short_help = true)]
    pub force: bool,
    /// Write JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub machine: Machine,
    #[command(flatten)]
    pub sampler: SamplerArgs,
}

/// `llada bench quality`.
#[derive(Debug, Args)]
pub struct Quality {
    #[command(flatten)]
    pub model: ModelArg,
    /// Questions to answer: `{"prompt": "..."}` on each line, with `"response": "..."` where one is
    /// right and `"chat": true` where the prompt is a message [default: `quality.jsonl` in the folder
    /// of the model; without a model, those of both that ship]
    #[arg(long, value_name = "FILE", requires = "model")]
    pub questions: Option<PathBuf>,
    /// Only the first questions
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
    /// Samples of the likelihood of each answer
    #[arg(
        long,
        value_name = "N",
        default_value_t = 64,
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub mc_num: u32,
    /// Sequences that are generated together; changes no answer
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1,
        value_parser = clap::value_parser!(u16).range(1..)
    )]
    pub batch_size: u16,
    /// Fail where something measurable is lost
    #[arg(long)]
    pub gate: bool,
    /// Write a JSON object for each model and setting
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub machine: Machine,
    #[command(flatten)]
    pub sampler: SamplerArgs,
}

/// The library's shapes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Shape {
    /// 12 blocks of width 768, 32,768 tokens.
    #[value(name = "100m")]
    M100,
    /// 16 blocks of width 2048, 126,464 tokens.
    #[value(name = "1b")]
    B1,
    /// LLaDA-MoE-7B-A1B: 16 blocks of width 2048 with 64 experts, 8 for each token.
    #[value(name = "moe-7b")]
    Moe7,
    /// LLaDA-8B: 32 blocks of width 4096.
    #[value(name = "8b")]
    B8,
}

impl From<Shape> for llada::model::Shape {
    fn from(shape: Shape) -> Self {
        match shape {
            Shape::M100 => Self::M100,
            Shape::B1 => Self::B1,
            Shape::Moe7 => Self::Moe7,
            Shape::B8 => Self::B8,
        }
    }
}
