//! The flags of `llada chat`.

use std::path::PathBuf;

use clap::Args;

use super::{SamplerArgs, Threads};

/// `llada chat`.
#[derive(Debug, Args)]
pub struct Chat {
    /// Folder of the checkpoint; without it, the tuned model that comes with the program
    #[arg(value_name = "MODEL", env = "LLADA_MODEL", hide_env_values = true)]
    pub model: Option<PathBuf>,
    /// The same as a flag, as other verbs take it
    #[arg(short = 'm', long = "model", value_name = "DIR", hide = true)]
    pub folder: Option<PathBuf>,
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
