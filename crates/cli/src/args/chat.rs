//! The flags of `llada chat`.

use clap::Args;

use super::{ConstraintArgs, Machine, ModelOperand, Run, SamplerArgs};

/// `llada chat`.
#[derive(Debug, Args)]
pub struct Chat {
    #[command(flatten)]
    pub model: ModelOperand,
    #[cfg(feature = "hub")]
    #[command(flatten)]
    pub server: Server,
    #[command(flatten)]
    pub talk: Talk,
}

/// A server that answers.
#[cfg(feature = "hub")]
#[derive(Debug, Args)]
pub struct Server {
    /// Talk to a server with OpenAI's API, such as `llada serve`; MODEL is one of its models
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// The key that the server of `--url` asks for
    #[arg(
        long,
        value_name = "KEY",
        env = "LLADA_API_KEY",
        hide_env_values = true,
        hide_short_help = true
    )]
    pub api_key: Option<String>,
}

/// How to talk.
#[derive(Debug, Args)]
pub struct Talk {
    /// What the model is told before the conversation
    #[arg(long, value_name = "TEXT", alias = "system-prompt")]
    pub system: Option<String>,
    /// Do not draw an answer while it is unmasked
    #[arg(long)]
    pub no_watch: bool,
    /// Milliseconds between two steps that are drawn [default: a second for the whole]
    #[arg(
        long,
        value_name = "MS",
        conflicts_with = "no_watch",
        value_parser = super::delay(),
        hide_short_help = true
    )]
    pub delay: Option<u32>,
    /// Do not save what is typed in the history of later chats
    #[arg(
        long,
        env = super::NO_HISTORY,
        hide_env_values = true,
        value_parser = clap::builder::FalseyValueParser::new()
    )]
    pub no_history: bool,
    #[command(flatten)]
    pub machine: Machine,
    #[command(flatten)]
    pub constraint: ConstraintArgs,
    #[command(flatten)]
    pub sampler: SamplerArgs,
}

impl From<Run> for Talk {
    /// The chat that `llada run` is without a prompt.
    fn from(run: Run) -> Self {
        let Run { system, watching, no_history, machine, constraint, sampler, .. } = run;
        let delay = watching.delay;
        Self {
            system,
            no_watch: false,
            delay,
            no_history,
            machine,
            constraint: constraint.0,
            sampler,
        }
    }
}
