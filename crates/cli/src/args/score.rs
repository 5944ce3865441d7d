//! The flags of `llada score`.

use std::path::PathBuf;

use clap::Args;

use super::{Machine, ModelArg, Shard, sampler::number};

/// Most noisy copies of an answer: as many as have a random stream of their own.
const MOST_SAMPLES: i64 = 1 << 24;

/// `llada score`.
#[derive(Debug, Args)]
pub struct Score {
    /// [MODEL] PROMPT ANSWER...: what is given ("" for nothing, `-` reads it from stdin), and what is
    /// scored after it; several answers are ranked. Most tokenizers want the space between prompt and
    /// answer; it may end the one or begin the other. A model that is named first needs no `--model`
    #[arg(value_name = "PROMPT ANSWER")]
    pub words: Vec<String>,
    #[command(flatten)]
    pub model: ModelArg,
    /// Score each line of a file: {"prompt": "…", "answer": "…"} or {"prompt": "…", "answers": […]}
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Score one of N equal parts of the file's rows alone; the parts, one after the other, print what
    /// all rows do
    #[arg(long, value_name = "I/N", requires = "file", hide_short_help = true)]
    pub shard: Option<Shard>,
    /// Wrap the prompt in the model's chat template
    #[arg(long)]
    pub chat: bool,
    /// Also say whether greedy decoding gives the answer
    #[arg(long)]
    pub greedy: bool,
    /// Write one JSON object for each prompt, or for the text
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub machine: Machine,
    #[command(flatten)]
    pub estimate: Estimate,
    #[command(flatten)]
    pub text: Text,
}

/// How to estimate; names as in the reference's `get_log_likelihood()`. An autoregressive model is
/// scored exactly.
#[derive(Debug, Args)]
#[command(next_help_heading = "Estimate")]
pub struct Estimate {
    /// Noisy copies of each answer; more make the estimate more precise [default: 128]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(..=MOST_SAMPLES))]
    pub mc_num: Option<u32>,
    /// Copies that cover the noise levels evenly together [default: the most up to 16 that divide
    /// --mc-num]
    #[arg(long, value_name = "N", hide_short_help = true)]
    pub batch_size: Option<u32>,
    /// Weight of classifier-free guidance; above 0 it doubles the work [default: 0]
    #[arg(
        long,
        value_name = "W",
        value_parser = number::<f32>("cfg_scale"),
        hide_short_help = true
    )]
    pub cfg_scale: Option<f32>,
    /// Seed of all random draws
    #[arg(
        short,
        long,
        value_name = "N",
        default_value = "0",
        value_parser = number::<u64>("seed")
    )]
    pub seed: u64,
}

/// How to score running text.
#[derive(Debug, Args)]
#[command(next_help_heading = "Text")]
pub struct Text {
    /// Score text instead: files (.txt, .md, .jsonl, .json, .parquet), or folders of all but .json
    #[arg(
        long,
        value_name = "FILE",
        num_args = 1..,
        conflicts_with_all = ["file", "chat", "greedy", "mc_num", "batch_size", "cfg_scale"]
    )]
    pub perplexity: Vec<PathBuf>,
    /// Tokens of a sequence, which is all that a token sees [default: the model's longest]
    #[arg(
        long,
        value_name = "TOKENS",
        requires = "perplexity",
        value_parser = clap::value_parser!(u32).range(2..),
        hide_short_help = true
    )]
    pub length: Option<u32>,
    /// Sequences to score, spread evenly over the text; 0 is all
    #[arg(
        long,
        value_name = "N",
        requires = "perplexity",
        default_value_t = 0,
        hide_short_help = true
    )]
    pub sequences: u32,
    /// Masked versions of each sequence; an autoregressive model needs one
    #[arg(
        long,
        value_name = "N",
        requires = "perplexity",
        default_value_t = 4,
        value_parser = clap::value_parser!(u16).range(1..),
        hide_short_help = true
    )]
    pub draws: u16,
}
