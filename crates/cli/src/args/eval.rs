//! The flags of `llada eval`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use llada::{
    diffusion::{
        Blocks, Cache, Remasking, Spelling, blocks::AdaptiveBlocks, variable::VariableLength,
    },
    eval::settings::{Sampling, Scoring},
};

use super::{
    ModelArg, SavingArgs, Threads,
    run::{number, parse, remasking},
};
use crate::error::Failure;

/// `llada eval`.
#[derive(Debug, Subcommand)]
pub enum Eval {
    /// Evaluate a model on tasks: a table on stdout
    Run(Box<EvalRun>),
    /// List the tasks that ship, or print the file of one
    Ls(EvalLs),
    /// Check task files and their data, and show the first prompt
    Validate(EvalValidate),
}

/// `llada eval ls`.
#[derive(Debug, Args)]
pub struct EvalLs {
    /// The task whose file to print
    pub task: Option<String>,
}

/// `llada eval validate`.
#[derive(Debug, Args)]
pub struct EvalValidate {
    /// Names of shipped tasks, or task files
    #[arg(required = true, value_name = "TASK")]
    pub tasks: Vec<String>,
    #[command(flatten)]
    pub data: DataArgs,
}

/// Where the data of tasks is.
#[derive(Debug, Args)]
pub struct DataArgs {
    /// Folder of the data, or TASK=PATH for one task; can be given several times [default: .]
    #[arg(short, long, value_name = "DIR|TASK=PATH")]
    pub data: Vec<String>,
    /// Examples in each prompt [default: the task's]
    #[arg(long, value_name = "N")]
    pub fewshot: Option<usize>,
    /// Only the first rows of each task or group
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub limit: Option<u64>,
}

/// `llada eval run`.
#[derive(Debug, Args)]
pub struct EvalRun {
    /// Names of shipped tasks, or task files
    #[arg(required = true, value_name = "TASK")]
    pub tasks: Vec<String>,
    #[command(flatten)]
    pub model: ModelArg,
    #[command(flatten)]
    pub data: DataArgs,
    /// Folder for the results and every row; a run that was broken off goes on from there
    #[arg(short, long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Write the results as JSON instead of a table
    #[arg(long)]
    pub json: bool,
    /// Wrap prompts in the model's chat template
    #[arg(long)]
    pub chat: bool,
    /// Cut prompts that are too long from the left, instead of leaving out their rows
    #[arg(long, hide_short_help = true)]
    pub truncate: bool,
    /// Seed of all random draws
    #[arg(
        short,
        long,
        value_name = "N",
        default_value = "1234",
        value_parser = number::<u64>("seed")
    )]
    pub seed: u64,
    #[command(flatten)]
    pub threads: Threads,
    #[command(flatten)]
    pub scoring: ScoringArgs,
    #[command(flatten)]
    pub sampling: SamplingArgs,
    #[command(flatten)]
    pub code: CodeArgs,
}

/// How answers are scored.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Scoring [default: the task's]")]
pub struct ScoringArgs {
    /// By what the best of several answers is found
    #[arg(long, value_enum)]
    pub scoring: Option<ScoringName>,
    /// Monte Carlo samples of a likelihood
    #[arg(long, value_name = "N", value_parser = number::<usize>("mc_num"), hide_short_help = true)]
    pub mc_num: Option<usize>,
    /// Samples that cover the noise levels evenly together
    #[arg(
        long,
        value_name = "N",
        value_parser = number::<usize>("batch_size"),
        hide_short_help = true
    )]
    pub mc_batch_size: Option<usize>,
    /// Weight of classifier-free guidance; above 0 it doubles the work
    #[arg(
        long,
        value_name = "W",
        value_parser = number::<f32>("cfg_scale"),
        hide_short_help = true
    )]
    pub cfg_scale: Option<f32>,
}

/// The names of [`Scoring`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ScoringName {
    /// The estimate of log p(answer | prompt).
    Likelihood,
    /// The confidence with which the answer is unmasked.
    Confidence,
}

impl From<ScoringName> for Scoring {
    fn from(name: ScoringName) -> Self {
        match name {
            ScoringName::Likelihood => Self::Likelihood,
            ScoringName::Confidence => Self::Confidence,
        }
    }
}

/// How responses are generated.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Sampling [default: the task's]")]
pub struct SamplingArgs {
    /// Length of the response
    #[arg(
        short = 'n',
        long,
        value_name = "TOKENS",
        value_parser = number::<usize>("gen_length")
    )]
    pub gen_length: Option<usize>,
    /// Sampling steps; with --gen-length alone, one for each token
    #[arg(
        long,
        value_name = "N",
        value_parser = number::<usize>("steps"),
        hide_short_help = true
    )]
    pub steps: Option<usize>,
    /// Where tokens may be committed: pure, semi-autoregressive, block-diffusion, autoregressive
    #[arg(long, value_name = "LAYOUT", value_parser = parse::<Blocks>, hide_short_help = true)]
    pub blocks: Option<Blocks>,
    /// Length of a block; alone, it asks for semi-autoregressive blocks
    #[arg(
        long,
        value_name = "TOKENS",
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
    /// Who is kept in each step: low-confidence, random, margin, entropy
    #[arg(long, value_name = "STRATEGY", value_parser = remasking, hide_short_help = true)]
    pub remasking: Option<Remasking>,
    /// Factor on the Gumbel noise
    #[arg(
        long,
        value_name = "T",
        alias = "temp",
        value_parser = number::<f64>("temperature"),
        hide_short_help = true
    )]
    pub temperature: Option<f64>,
    /// Never choose the end-of-text token
    #[arg(
        long,
        value_name = "BOOL",
        num_args = 0..=1,
        default_missing_value = "true",
        hide_short_help = true
    )]
    pub logits_eos_inf: Option<bool>,
    /// Choose the end-of-text and end-of-turn tokens last
    #[arg(
        long,
        value_name = "BOOL",
        num_args = 0..=1,
        default_missing_value = "true",
        hide_short_help = true
    )]
    pub confidence_eos_eot_inf: Option<bool>,
    /// Rows that are generated together; changes no result [default: 8]
    #[arg(
        long,
        value_name = "N",
        value_parser = clap::value_parser!(u16).range(1..),
        hide_short_help = true
    )]
    pub batch_size: Option<u16>,
    #[command(flatten)]
    pub saving: SavingArgs,
}

impl SamplingArgs {
    /// The settings of the library, without guidance, which scoring has too. Adaptive blocks end
    /// where `delimiters` says.
    ///
    /// # Errors
    /// If flags contradict each other.
    pub fn settings(&self, delimiters: &dyn Fn() -> AdaptiveBlocks) -> Result<Sampling, Failure> {
        let saving = self.saving.settings();
        let cache = saving.cache(Cache::None).map_err(|e| Failure::sampler(&e, Spelling::Flag))?;
        Ok(Sampling {
            gen_length: self.gen_length,
            steps: self.steps,
            block_length: self.block_length,
            blocks: self.blocks,
            remasking: self.remasking,
            temperature: self.temperature,
            cfg_scale: None,
            logits_eos_inf: self.logits_eos_inf,
            confidence_eos_eot_inf: self.confidence_eos_eot_inf,
            keep: self.saving.keep,
            cache: self.saving.cache.map(|_| cache),
            cache_type: self.saving.cache_type,
            suffix_window: saving.suffix(),
            adaptive_blocks: self.adaptive_blocks.then(delimiters),
            revise: self.saving.revise,
            edit: saving.edit().map_err(|e| Failure::sampler(&e, Spelling::Flag))?,
            variable_length: self.variable_length.then(VariableLength::default),
        })
    }
}

/// Running programs that a model wrote.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Code")]
pub struct CodeArgs {
    /// Run programs that the model writes, in a sandbox with limits of time and memory
    #[arg(long)]
    pub allow_code: bool,
    /// Run them also where they cannot be kept from the network
    #[arg(long, requires = "allow_code", hide_short_help = true)]
    pub allow_network: bool,
}
