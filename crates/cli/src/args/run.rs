//! The flags of `llada run`, and those of the sampler.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use llada::diffusion::{Blocks, Remasking};

use super::{ModelArg, SavingArgs, Threads};

/// `llada run`.
#[derive(Debug, Args)]
pub struct Run {
    /// The text to continue; `-` or nothing reads it from stdin
    pub prompt: Option<String>,
    #[command(flatten)]
    pub model: ModelArg,
    /// Wrap the prompt in the model's chat template
    #[arg(long)]
    pub chat: bool,
    /// What the model is told before the prompt
    #[arg(long, value_name = "TEXT", requires = "chat")]
    pub system: Option<String>,
    /// Generate for each line of a file in one batch, each as the prompt alone with the same seed, and
    /// write one JSON object for each; a `.jsonl` file has {"prompt": "...", "seed": 7} on each line,
    /// the seed being optional
    #[arg(long, value_name = "FILE", requires = "json", conflicts_with_all = ["prompt", "watch", "trace"])]
    pub prompts: Option<PathBuf>,
    /// Draw the canvas on the terminal while it is unmasked
    #[arg(short, long)]
    pub watch: bool,
    /// Write a JSON object with the text, the tokens and the summary
    #[arg(long)]
    pub json: bool,
    /// Record every step in a file for `llada replay`; where that fails, the answer comes all the same,
    /// and the exit code is 1
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
    #[command(flatten)]
    pub threads: Threads,
    #[command(flatten)]
    pub sampler: SamplerArgs,
}

/// How to sample; names as in the reference's `generate()`.
#[derive(Debug, Clone, Default, PartialEq, Args)]
#[command(next_help_heading = "Sampling")]
pub struct SamplerArgs {
    /// Where to start from [default: balanced]
    #[arg(long, value_enum)]
    pub preset: Option<Preset>,
    /// Length of the response [default: fits the model, up to 128; in a chat up to 256]
    #[arg(short = 'n', long, value_name = "TOKENS")]
    pub gen_length: Option<usize>,
    /// Sampling steps; fewer are faster [default: one for each token]
    #[arg(long, value_name = "N", alias = "diffusion-steps")]
    pub steps: Option<usize>,
    /// Where tokens may be committed: pure, semi-autoregressive, block-diffusion, autoregressive
    #[arg(long, value_name = "LAYOUT", value_parser = parse::<Blocks>)]
    pub blocks: Option<Blocks>,
    /// Length of a block; alone, it asks for semi-autoregressive blocks
    #[arg(long, value_name = "TOKENS", alias = "diffusion-block-length")]
    pub block_length: Option<usize>,
    /// End blocks where the text has a joint, such as the end of a line; asks for semi-autoregressive
    /// blocks
    #[arg(long)]
    pub adaptive_blocks: bool,
    /// The tokens at which such blocks end, once the model is known.
    #[arg(skip)]
    pub delimiters: Vec<u32>,
    /// Find the length of the response, of which `--gen-length` is then the most
    #[arg(long)]
    pub variable_length: bool,
    /// Who is kept in each step: low-confidence, random, margin, entropy
    #[arg(long, value_name = "STRATEGY", value_parser = parse::<Remasking>)]
    pub remasking: Option<Remasking>,
    /// Factor on the Gumbel noise; 0 takes the most probable token [default: 0]
    #[arg(long, value_name = "T", allow_negative_numbers = true)]
    pub temperature: Option<f64>,
    /// Weight of classifier-free guidance; above 0 it doubles the work [default: 0]
    #[arg(long, value_name = "W", allow_negative_numbers = true)]
    pub cfg_scale: Option<f32>,
    /// Never choose the end-of-text token
    #[arg(long)]
    pub logits_eos_inf: bool,
    /// Choose the end-of-text and end-of-turn tokens last
    #[arg(long)]
    pub confidence_eos_eot_inf: bool,
    /// Seed of all random draws [default: drawn, and printed]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub seed: Option<u64>,
    #[command(flatten)]
    pub saving: SavingArgs,
}

impl SamplerArgs {
    /// Whether any of them changes which or how many tokens a pass is fed and keeps.
    pub fn saves(&self) -> bool {
        self.steps.is_some()
            || self.remasking.is_some()
            || self.adaptive_blocks
            || self.variable_length
            || self.saving.saves()
    }
}

/// Named settings of the sampler.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Preset {
    /// Decision by decision as the reference's code, every row fed whole at every step.
    Exact,
    /// Saves what costs nothing that could be measured.
    #[default]
    Balanced,
    /// Saves more; `llada bench quality` says what it costs.
    Fast,
}

/// Reads a name of the library's, with its remedy in the message.
pub fn parse<T>(text: &str) -> Result<T, String>
where
    T: std::str::FromStr<Err = llada::diffusion::SamplerError>,
{
    text.parse().map_err(|e: T::Err| match e.hint() {
        Some(hint) => format!("{e}: {hint}"),
        None => e.to_string(),
    })
}
