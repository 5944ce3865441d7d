//! The flags of `llada run`.

use std::path::PathBuf;

use clap::Args;

use super::{Machine, ModelArg, RareConstraint, SamplerArgs, WatchArgs};

/// `llada run`.
#[derive(Debug, Args)]
pub struct Run {
    /// The model, where it can be nothing else
    #[arg(value_name = "MODEL")]
    pub first: Option<String>,
    /// The prompt, in quotes; `-` or nothing reads it from stdin, and a terminal is for a chat
    #[arg(value_name = "PROMPT")]
    pub second: Option<String>,
    /// The prompt as a flag, as llama.cpp takes it.
    #[arg(short = 'p', long = "prompt", value_name = "PROMPT", hide = true)]
    pub prompt: Option<String>,
    #[command(flatten)]
    pub model: ModelArg,
    /// Send the prompt as a message even without template
    #[arg(long)]
    pub chat: bool,
    /// Continue the prompt as the text that it is
    #[arg(long, conflicts_with_all = ["chat", "system"])]
    pub raw: bool,
    /// What the model is told before the prompt
    #[arg(long, value_name = "TEXT", alias = "system-prompt")]
    pub system: Option<String>,
    /// Generate for each line of a file in one batch, each as the prompt alone with the same seed, and
    /// write one JSON object for each; a `.jsonl` file has {"prompt": "...", "seed": 7} on each line,
    /// the seed being optional
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with_all = ["prompt", "watch", "trace"],
        hide_short_help = true
    )]
    pub prompts: Option<PathBuf>,
    #[command(flatten)]
    pub watching: WatchArgs,
    /// Write a JSON object: text, tokens, summary
    #[arg(long)]
    pub json: bool,
    /// Do not save what is typed in a chat in the history of later ones
    #[arg(
        long,
        env = super::NO_HISTORY,
        hide_env = true,
        hide_short_help = true,
        value_parser = clap::builder::FalseyValueParser::new()
    )]
    pub no_history: bool,
    #[command(flatten)]
    pub machine: Machine,
    #[command(flatten)]
    pub constraint: RareConstraint,
    #[command(flatten)]
    pub sampler: SamplerArgs,
}
