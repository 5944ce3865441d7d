//! The flags of `llada infill`.

use std::path::PathBuf;

use clap::Args;
use llada::diffusion::Remasking;

use super::{ModelArg, SavingArgs, Threads, run::parse};

/// `llada infill`.
#[derive(Debug, Args)]
pub struct Infill {
    /// The text: `{{hole:12}}` asks for 12 tokens, `{{hole}}` for as many as fit best, `\{{` is no
    /// hole; `-` or nothing reads it from stdin
    pub text: Option<String>,
    #[command(flatten)]
    pub model: ModelArg,
    /// Fill each row `{"text": "..."}` of a JSONL file, with its own `"seed": 7` if it has one, and
    /// write one JSON object for each
    #[arg(long, value_name = "FILE", requires = "json", conflicts_with_all = ["text", "watch", "trace"])]
    pub file: Option<PathBuf>,
    /// Longest fill of a `{{hole}}`, in tokens
    #[arg(long, value_name = "TOKENS", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub max_hole: u16,
    /// The text is whole: let the model see that it ends there, and does not go on
    #[arg(long)]
    pub whole: bool,
    /// Draw the canvas on the terminal while it is unmasked
    #[arg(short, long)]
    pub watch: bool,
    /// Write a JSON object with the text, the fills and the summary
    #[arg(long)]
    pub json: bool,
    /// Record every step in a file for `llada replay`; where that fails, the text comes all the same,
    /// and the exit code is 1
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
    #[command(flatten)]
    pub threads: Threads,
    /// Sampling steps; fewer are faster [default: one for each token]
    #[arg(long, value_name = "N", help_heading = "Sampling")]
    pub steps: Option<usize>,
    /// Fill from left to right in blocks of so many tokens [default: all holes at once]
    #[arg(long, value_name = "TOKENS", help_heading = "Sampling")]
    pub block_length: Option<usize>,
    /// Who is kept in each step: low-confidence, random, margin, entropy
    /// [default: low-confidence]
    #[arg(long, value_name = "STRATEGY", value_parser = parse::<Remasking>, help_heading = "Sampling")]
    pub remasking: Option<Remasking>,
    /// Factor on the Gumbel noise; 0 takes the most probable token
    #[arg(
        long,
        value_name = "T",
        allow_negative_numbers = true,
        default_value_t = 0.0,
        help_heading = "Sampling"
    )]
    pub temperature: f64,
    /// Weight of classifier-free guidance; above 0 it doubles the work
    #[arg(
        long,
        value_name = "W",
        allow_negative_numbers = true,
        default_value_t = 0.0,
        help_heading = "Sampling"
    )]
    pub cfg_scale: f32,
    /// Seed of all random draws [default: drawn, and printed]
    #[arg(long, value_name = "N", allow_negative_numbers = true, help_heading = "Sampling")]
    pub seed: Option<u64>,
    #[command(flatten)]
    pub saving: SavingArgs,
}
