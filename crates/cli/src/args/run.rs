//! The flags of `llada run`.

use std::{path::PathBuf, str::FromStr};

use clap::Args;
use llada::diffusion::{Range, SamplerError};

use super::{ConstraintArgs, ModelArg, SamplerArgs, Threads, WatchArgs, with_tip};

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
    pub threads: Threads,
    #[command(flatten)]
    pub constraint: ConstraintArgs,
    #[command(flatten)]
    pub sampler: SamplerArgs,
}

/// Reads a name of the library's, with its remedy.
pub fn parse<T>(text: &str) -> Result<T, String>
where
    T: FromStr<Err = SamplerError>,
{
    text.parse().map_err(explained)
}

/// Reads a number of the sampler's setting `name`, within its range.
pub fn number<T>(
    name: &'static str,
) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static
where
    T: FromStr + Clone + Send + Sync + 'static,
{
    move |text| Range::parse(name, text).map_err(explained)
}

/// An error with its remedy, in the form in which clap gives those of its own.
#[allow(clippy::needless_pass_by_value)]
pub fn explained(error: SamplerError) -> String {
    with_tip(&error.to_string(), &error.hint().unwrap_or_default())
}
