//! The flags of `llada chat`.

use clap::Args;

use super::{ModelOperand, SamplerArgs, Threads};

/// `llada chat`.
#[derive(Debug, Args)]
pub struct Chat {
    #[command(flatten)]
    pub model: ModelOperand,
    /// What the model is told before the conversation
    #[arg(long, value_name = "TEXT")]
    pub system: Option<String>,
    /// Do not draw an answer while it is unmasked
    #[arg(long)]
    pub no_watch: bool,
    #[command(flatten)]
    pub threads: Threads,
    #[command(flatten)]
    pub sampler: SamplerArgs,
}
