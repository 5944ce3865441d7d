//! The flags of `llada eval`.

use std::path::PathBuf;

use clap::{Arg, ArgAction, Args, Subcommand, ValueEnum};
use llada::{diffusion::settings::Key, eval::settings::Scoring};

use super::{
    Machine, ModelArg, NO_STREAM, RareConstraint, Shard, place,
    sampler::number,
    sampler::{Flags, Verb},
};

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
    #[arg(short, long, value_name = "DIR", value_parser = place(NO_STREAM))]
    pub out: Option<PathBuf>,
    /// Evaluate one of N equal parts of each task's rows alone; `samples_TASK.jsonl` of the parts, one after
    /// the other, are those of all rows
    #[arg(long, value_name = "I/N", requires = "out", hide_short_help = true)]
    pub shard: Option<Shard>,
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
        default_value_t = llada::eval::SEED,
        value_parser = number::<u64>("seed")
    )]
    pub seed: u64,
    #[command(flatten)]
    pub machine: Machine,
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
        value_parser = number::<usize>("mc_batch_size"),
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
#[command(next_help_heading = SAMPLING)]
pub struct SamplingArgs {
    #[command(flatten)]
    pub constraint: RareConstraint,
    #[command(flatten)]
    pub sampler: Flags<OfTasks>,
    /// Sequences that are generated together; changes no result [default: 8]
    #[arg(
        long,
        value_name = "N",
        value_parser = clap::value_parser!(u16).range(1..),
        hide_short_help = true
    )]
    pub batch_size: Option<u16>,
}

/// The heading over how responses are generated.
const SAMPLING: &str = "Sampling [default: the task's]";

/// `llada eval run`, where a task proposes what no flag says.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct OfTasks;

impl Verb for OfTasks {
    const HEADING: &'static str = SAMPLING;
    // Guidance and the seed are those of scoring too.
    const WITHOUT: &'static [&'static str] = &["preset", "cfg_scale", "seed"];

    fn flag(key: &Key, flag: Arg) -> Arg {
        let flag = flag.hide_short_help(key.name != "gen_length");
        match key.name {
            "gen_length" => flag.help("Length of the response"),
            "steps" => flag.help("Sampling steps; with --gen-length alone, one for each token"),
            "temperature" => flag.help("Factor on the Gumbel noise"),
            // A task may have them on.
            "logits_eos_inf" | "confidence_eos_eot_inf" => flag
                .action(ArgAction::Set)
                .value_name("BOOL")
                .value_parser(clap::value_parser!(bool))
                .num_args(0..=1)
                .default_missing_value("true"),
            _ => flag,
        }
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
