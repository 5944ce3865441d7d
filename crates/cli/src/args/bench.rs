//! The flags of `llada bench`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{ModelArg, SamplerArgs, Threads};

/// What `llada bench` measures.
#[derive(Debug, Subcommand)]
pub enum Bench {
    /// What a way to sample costs in quality, and gains in speed, beside `--preset exact`
    Quality(Quality),
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
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    pub mc_num: u32,
    /// Rows that are generated together; changes no answer
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    pub batch_size: u16,
    /// Fail where something measurable is lost
    #[arg(long)]
    pub gate: bool,
    /// Write a JSON object for each model and setting
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub threads: Threads,
    #[command(flatten)]
    pub sampler: SamplerArgs,
}
