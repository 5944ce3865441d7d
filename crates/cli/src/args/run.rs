//! The flags of `llada run`, and those of the sampler.

use std::{path::PathBuf, str::FromStr};

use clap::Args;
use llada::diffusion::{Blocks, Preset, Range, Remasking, SamplerError, Settings};

use super::{ModelArg, SavingArgs, Threads, WatchArgs, with_tip};

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
    /// Do not keep what is typed in a chat for later ones
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
    pub sampler: SamplerArgs,
}

/// How to sample; names as in the reference's `generate()`.
#[derive(Debug, Clone, Default, PartialEq, Args)]
#[command(next_help_heading = "Sampling")]
pub struct SamplerArgs {
    /// Where to start: exact, balanced (default), fast
    #[arg(long, value_name = "PRESET", value_parser = parse::<Preset>)]
    pub preset: Option<Preset>,
    /// Length of the response [default: as fits, up to 128]
    #[arg(
        short = 'n',
        long,
        value_name = "TOKENS",
        aliases = ["n-predict", "predict"],
        value_parser = number::<usize>("gen_length")
    )]
    pub gen_length: Option<usize>,
    /// Sampling steps [default: one for each token]
    #[arg(
        long,
        value_name = "N",
        alias = "diffusion-steps",
        value_parser = number::<usize>("steps")
    )]
    pub steps: Option<usize>,
    /// Where tokens may be committed: pure, semi-autoregressive, block-diffusion, autoregressive
    #[arg(long, value_name = "LAYOUT", value_parser = parse::<Blocks>, hide_short_help = true)]
    pub blocks: Option<Blocks>,
    /// Length of a block; alone, it asks for semi-autoregressive blocks
    #[arg(
        long,
        value_name = "TOKENS",
        alias = "diffusion-block-length",
        value_parser = number::<usize>("block_length"),
        hide_short_help = true
    )]
    pub block_length: Option<usize>,
    /// End blocks where the text has a joint, such as the end of a line; asks for semi-autoregressive
    /// blocks
    #[arg(long, hide_short_help = true)]
    pub adaptive_blocks: bool,
    /// Find the length of the response, of which `--gen-length` is then the most
    #[arg(long, hide_short_help = true)]
    pub variable_length: bool,
    /// Who is kept in each step: low-confidence, random, margin, entropy, sequential
    #[arg(
        long,
        value_name = "STRATEGY",
        alias = "diffusion-algorithm",
        value_parser = remasking,
        hide_short_help = true
    )]
    pub remasking: Option<Remasking>,
    /// Factor on the Gumbel noise; 0 takes the most probable token [default: the model's, or 0]
    #[arg(
        long,
        value_name = "T",
        alias = "temp",
        value_parser = number::<f64>("temperature")
    )]
    pub temperature: Option<f64>,
    /// Draw among this many most probable tokens only; with a temperature
    #[arg(
        long,
        value_name = "N",
        value_parser = number::<usize>("top_k"),
        hide_short_help = true
    )]
    pub top_k: Option<usize>,
    /// Draw among the fewest most probable tokens that have this probability together; with a
    /// temperature
    #[arg(
        long,
        value_name = "P",
        value_parser = number::<f64>("top_p"),
        hide_short_help = true
    )]
    pub top_p: Option<f64>,
    /// Draw who is kept in proportion to exp(confidence / this); 0 keeps the most confident
    #[arg(
        long,
        value_name = "T",
        alias = "diffusion-alg-temp",
        value_parser = number::<f64>("alg_temp"),
        hide_short_help = true
    )]
    pub alg_temp: Option<f64>,
    /// Weight of classifier-free guidance; above 0 it doubles the work [default: 0]
    #[arg(
        long,
        value_name = "W",
        alias = "diffusion-cfg-scale",
        value_parser = number::<f32>("cfg_scale"),
        hide_short_help = true
    )]
    pub cfg_scale: Option<f32>,
    /// Never choose the end-of-text token
    #[arg(long, hide_short_help = true)]
    pub logits_eos_inf: bool,
    /// Choose the end-of-text and end-of-turn tokens last
    #[arg(long, hide_short_help = true)]
    pub confidence_eos_eot_inf: bool,
    /// Seed of all random draws [default: drawn]
    #[arg(
        short,
        long,
        value_name = "N",
        value_parser = number::<u64>("seed")
    )]
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
            || self.saving.settings() != Settings::default()
    }

    /// What they say.
    pub fn settings(&self) -> Settings {
        let on = |flag: bool| flag.then_some(true);
        Settings {
            preset: self.preset,
            gen_length: self.gen_length,
            steps: self.steps,
            blocks: self.blocks,
            block_length: self.block_length,
            adaptive_blocks: on(self.adaptive_blocks),
            variable_length: on(self.variable_length),
            remasking: self.remasking,
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            alg_temp: self.alg_temp,
            cfg_scale: self.cfg_scale,
            logits_eos_inf: on(self.logits_eos_inf),
            confidence_eos_eot_inf: on(self.confidence_eos_eot_inf),
            seed: self.seed,
            ..self.saving.settings()
        }
    }
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

/// Reads a strategy, by llama.cpp's number of it too.
pub fn remasking(text: &str) -> Result<Remasking, String> {
    match text {
        "1" => Ok(Remasking::Entropy),
        "2" => Ok(Remasking::Margin),
        "3" => Ok(Remasking::Random),
        "4" => Ok(Remasking::LowConfidence),
        _ => parse(text),
    }
}

/// An error with its remedy, in the form in which clap gives those of its own.
#[allow(clippy::needless_pass_by_value)]
fn explained(error: SamplerError) -> String {
    with_tip(&error.to_string(), &error.hint().unwrap_or_default())
}
