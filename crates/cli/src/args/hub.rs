//! The flags of `llada pull`, `llada list` and `llada rm`.

use std::path::PathBuf;

use clap::Args;

/// `llada pull`.
#[derive(Debug, Args)]
pub struct Pull {
    /// ORG/REPO[@REVISION][:FILE] of the hub, or a short name: llada, llada-base, llada-1.5; FILE is
    /// a GGUF file, or its quantisation as in `:Q8_0`
    #[arg(
        value_name = "MODEL",
        required_unless_present = "flag",
        conflicts_with = "flag",
        value_parser = clap::builder::NonEmptyStringValueParser::new()
    )]
    operand: Option<String>,
    /// The same as a flag, as other verbs take it
    #[arg(id = "flag", short = 'm', long = "model", alias = "hf-repo", hide = true)]
    flag: Option<String>,
    /// Branch, tag or commit [default: main]
    #[arg(long, value_name = "REVISION")]
    pub revision: Option<String>,
    /// Token for private and gated models [default: HF_TOKEN, or what `hf auth login` keeps]
    #[arg(long, value_name = "TOKEN")]
    pub token: Option<String>,
    /// Only configuration and tokenizer: `llada show` then tells what the model would need
    #[arg(long)]
    pub config_only: bool,
}

impl Pull {
    /// What was named.
    pub fn model(&self) -> &str {
        self.flag.as_deref().or(self.operand.as_deref()).unwrap_or_default()
    }
}

/// `llada list`.
#[derive(Debug, Args)]
pub struct List {
    /// Write a JSON object for each model
    #[arg(long)]
    pub json: bool,
}

/// `llada rm`.
#[derive(Debug, Args)]
pub struct Rm {
    /// ORG/REPO: all that was fetched of it is removed
    #[arg(value_name = "MODEL", required = true)]
    pub models: Vec<PathBuf>,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
}
