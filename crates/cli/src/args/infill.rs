//! The flags of `llada infill`.

use std::path::PathBuf;

use clap::{Arg, Args};
use llada::diffusion::settings::Key;

use super::{
    Machine, ModelArg, RareConstraint, WatchArgs,
    sampler::{Flags, Verb},
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
    pub machine: Machine,
    #[command(flatten)]
    pub constraint: RareConstraint,
    #[command(flatten)]
    pub sampler: Flags<OfHoles>,
}

/// `llada infill`, where holes have their lengths.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct OfHoles;

impl Verb for OfHoles {
    const WITHOUT: &'static [&'static str] = &[
        "preset",
        "gen_length",
        "blocks",
        "adaptive_blocks",
        "variable_length",
        "top_k",
        "top_p",
        "alg_temp",
        "logits_eos_inf",
        "confidence_eos_eot_inf",
    ];

    fn flag(key: &Key, flag: Arg) -> Arg {
        match key.name {
            "steps" => flag.help("Sampling steps; fewer are faster [default: one for each token]"),
            "block_length" => flag.help(
                "Fill from left to right in blocks of so many tokens [default: all holes at once]",
            ),
            "remasking" => flag.help(format!("{} [default: low-confidence]", key.about())),
            "temperature" => flag.help(format!("{} [default: 0]", key.about())),
            "seed" => flag.help(format!("{} [default: drawn, and printed]", key.about())),
            _ => flag,
        }
    }
}
