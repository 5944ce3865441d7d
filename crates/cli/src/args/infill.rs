//! The flags of `llada infill`.

use std::path::PathBuf;

use clap::Args;
use llada::diffusion::Remasking;

use super::{
    ModelArg, SavingArgs, Threads, WatchArgs,
    run::{number, remasking},
};

/// `llada infill`.
#[derive(Debug, Args)]
pub struct Infill {
    /// The model, where two arguments are given or the one can be nothing else
    #[arg(value_name = "MODEL")]
    pub first: Option<String>,
    /// The text: `{{hole:12}}` asks for 12 tokens, `{{hole}}` for as many as fit best, `\{{` is no
    /// hole; `-` or nothing reads it from stdin
    #[arg(value_name = "TEXT")]
    pub second: Option<String>,
    #[command(flatten)]
    pub model: ModelArg,
    /// Fill each row `{"text": "..."}` of a JSONL file, with its own `"seed": 7` if it has one, and
    /// write one JSON object for each
    #[arg(long, value_name = "FILE", conflicts_with_all = ["watch", "trace"])]
    pub file: Option<PathBuf>,
    /// Longest fill of a `{{hole}}`, in tokens
    #[arg(
        long,
        value_name = "TOKENS",
        default_value_t = 16,
        value_parser = clap::value_parser!(u16).range(1..=256)
    )]
    pub max_hole: u16,
    /// The text is whole: let the model see that it ends there, and does not go on
    #[arg(long)]
    pub whole: bool,
    #[command(flatten)]
    pub watching: WatchArgs,
    /// Write a JSON object with the text, the fills and the summary
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub threads: Threads,
    #[command(flatten)]
    pub sampler: InfillSampler,
    #[command(flatten)]
    pub saving: SavingArgs,
}

/// How holes are filled.
#[derive(Debug, Args)]
#[command(next_help_heading = "Sampling")]
pub struct InfillSampler {
    /// Sampling steps; fewer are faster [default: one for each token]
    #[arg(
        long,
        value_name = "N",
        alias = "diffusion-steps",
        value_parser = number::<usize>("steps")
    )]
    pub steps: Option<usize>,
    /// Fill from left to right in blocks of so many tokens [default: all holes at once]
    #[arg(
        long,
        value_name = "TOKENS",
        alias = "diffusion-block-length",
        value_parser = number::<usize>("block_length"),
        hide_short_help = true
    )]
    pub block_length: Option<usize>,
    /// Who is kept in each step: low-confidence, random, margin, entropy
    /// [default: low-confidence]
    #[arg(
        long,
        value_name = "STRATEGY",
        alias = "diffusion-algorithm",
        value_parser = remasking,
        hide_short_help = true
    )]
    pub remasking: Option<Remasking>,
    /// Factor on the Gumbel noise; 0 takes the most probable token
    #[arg(
        long,
        value_name = "T",
        alias = "temp",
        default_value = "0",
        value_parser = number::<f64>("temperature")
    )]
    pub temperature: f64,
    /// Weight of classifier-free guidance; above 0 it doubles the work
    #[arg(
        long,
        value_name = "W",
        alias = "diffusion-cfg-scale",
        default_value = "0",
        value_parser = number::<f32>("cfg_scale"),
        hide_short_help = true
    )]
    pub cfg_scale: f32,
    /// Seed of all random draws [default: drawn, and printed]
    #[arg(
        short,
        long,
        value_name = "N",
        value_parser = number::<u64>("seed")
    )]
    pub seed: Option<u64>,
}
