//! The command line: every verb and every flag, once.

use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use llada::diffusion::{Blocks, Remasking};

use crate::term::Level;

/// Masked-diffusion language models: train, generate, look inside.
#[derive(Debug, Parser)]
#[command(name = "llada", version, max_term_width = 100, disable_help_flag = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Say nothing but errors
    #[arg(short, long, global = true, conflicts_with = "verbose", help_heading = "Output")]
    quiet: bool,
    /// Also say what was chosen and why
    #[arg(short, long, global = true, help_heading = "Output")]
    verbose: bool,
    // Clap's own flag prints a second, longer form where an enum's values are documented.
    /// Print help
    #[arg(short, long, global = true, action = ArgAction::HelpShort, help_heading = "Output")]
    help: Option<bool>,
}

impl Cli {
    /// How much to say on stderr.
    pub fn level(&self) -> Level {
        match (self.quiet, self.verbose) {
            (true, _) => Level::Quiet,
            (_, true) => Level::Verbose,
            _ => Level::Normal,
        }
    }
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Generate text: the answer on stdout, nothing else
    Run(Run),
    /// Train a model from a recipe
    Train(Train),
    /// Prepare text for training
    #[command(subcommand)]
    Data(Data),
    /// Train a tokenizer, or apply one
    #[command(subcommand)]
    Tokenizer(Tokenizer),
    /// Play a recorded canvas, or export it as HTML or SVG
    Replay(Replay),
    /// Describe a model: architecture, sizes, tokens, files, memory
    Show(Show),
    /// Describe this machine: instructions, threads, memory, speed
    Doctor(Doctor),
    /// Print the completion script of a shell
    Completions(Completions),
}

/// The checkpoint to use.
#[derive(Debug, Args)]
pub struct ModelArg {
    /// Folder of the checkpoint; without it, the model that comes with the program
    #[arg(short, long, value_name = "DIR", env = "LLADA_MODEL", hide_env_values = true)]
    pub model: Option<PathBuf>,
}

/// Most threads that can be asked for: more than machines have cores, and few enough to start.
const MAX_THREADS: i64 = 1024;

/// The threads to compute with.
#[derive(Debug, Args)]
pub struct Threads {
    /// Threads to compute with; 0 is one for each core
    #[arg(
        long,
        value_name = "N",
        default_value_t = 0,
        env = "LLADA_THREADS",
        hide_env_values = true,
        value_parser = clap::value_parser!(u16).range(..=MAX_THREADS)
    )]
    pub threads: u16,
}

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
    /// Generate for each line of a file in one batch, and write one JSON object for each
    #[arg(long, value_name = "FILE", requires = "json", conflicts_with_all = ["prompt", "watch", "trace"])]
    pub prompts: Option<PathBuf>,
    /// Draw the canvas on the terminal while it is unmasked
    #[arg(short, long)]
    pub watch: bool,
    /// Write a JSON object with the text, the tokens and the summary
    #[arg(long)]
    pub json: bool,
    /// Record every step in a file for `llada replay`
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
    #[command(flatten)]
    pub threads: Threads,
    #[command(flatten)]
    pub sampler: SamplerArgs,
}

/// How to sample; names as in the reference's `generate()`.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Sampling")]
pub struct SamplerArgs {
    /// Where to start from
    #[arg(long, value_enum, default_value_t = Preset::Default)]
    pub preset: Preset,
    /// Length of the response [default: 128, less where the model ends before]
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
    /// Who is kept in each step: low-confidence, random
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
}

/// Named settings of the sampler.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Preset {
    /// The project's choice: confidences in f64, masks never predicted.
    #[default]
    Default,
    /// Decision by decision as the reference's code.
    Exact,
}

/// `llada train`.
#[derive(Debug, Args)]
pub struct Train {
    /// The recipe
    #[arg(value_name = "RECIPE.toml")]
    pub recipe: PathBuf,
    /// Values to change in the recipe, such as `train.steps=100`
    #[arg(value_name = "KEY=VALUE")]
    pub overrides: Vec<String>,
    /// Folder of the run [default: runs/RECIPE]
    #[arg(short, long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Go on from a checkpoint of the run: the last one, or the one named
    #[arg(long, value_name = "step-N", num_args = 0..=1, default_missing_value = "latest", value_parser = resume)]
    pub resume: Option<Resume>,
    /// Print the recipe with all defaults and changes, and stop
    #[arg(long)]
    pub print_config: bool,
    #[command(flatten)]
    pub threads: Threads,
}

/// What follows `--resume`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resume {
    /// Nothing: the last checkpoint.
    Latest,
    /// The checkpoint of this step.
    At(u64),
    /// An override of the recipe, which belongs to the positional arguments.
    Override(String),
}

fn resume(text: &str) -> Result<Resume, String> {
    if text == "latest" {
        return Ok(Resume::Latest);
    }
    if text.contains('=') {
        return Ok(Resume::Override(text.into()));
    }
    let step = text.strip_prefix("step-").and_then(|n| n.parse().ok());
    step.map(Resume::At).ok_or_else(|| "expected `step-N`; put the recipe before `--resume`".into())
}

impl Train {
    /// Gives an override that stood after a bare `--resume` its place.
    pub fn normalized(mut self) -> Self {
        if let Some(Resume::Override(assignment)) = self.resume {
            self.resume = Some(Resume::Latest);
            self.overrides.push(assignment);
        }
        self
    }
}

/// `llada data`.
#[derive(Debug, Subcommand)]
pub enum Data {
    /// Turn text, JSONL or Parquet files into shards of tokens
    Prepare(Prepare),
}

/// `llada data prepare`.
#[derive(Debug, Args)]
pub struct Prepare {
    /// Files, or folders to search for them
    #[arg(required = true, value_name = "INPUT")]
    pub inputs: Vec<PathBuf>,
    /// The tokenizer: a `tokenizer.json`, or a folder with one
    #[arg(short, long, value_name = "FILE")]
    pub tokenizer: PathBuf,
    /// Folder for the shards
    #[arg(short, long, value_name = "DIR")]
    pub out: PathBuf,
    /// Format of all inputs [default: by their names]
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub format: Option<TextFormat>,
    /// How text files are cut into documents [default: end-of-text]
    #[arg(long, value_enum, value_name = "WHERE")]
    pub separator: Option<Separator>,
    /// Field of a JSON row, or column of a Parquet file, with the text [default: text]
    #[arg(long, value_name = "NAME")]
    pub field: Option<String>,
    /// Fraction of the documents to hold out for validation [default: 0.01]
    #[arg(long, value_name = "FRACTION")]
    pub validation: Option<f64>,
    /// Seed of the choice of those documents [default: 0]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Replace the output folder where there is one
    #[arg(long)]
    pub overwrite: bool,
}

/// What an input file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TextFormat {
    /// Plain UTF-8 text.
    Text,
    /// One JSON object on each line.
    Jsonl,
    /// Apache Parquet.
    Parquet,
}

impl From<TextFormat> for llada::data::Format {
    fn from(format: TextFormat) -> Self {
        match format {
            TextFormat::Text => Self::Text,
            TextFormat::Jsonl => Self::Jsonl,
            TextFormat::Parquet => Self::Parquet,
        }
    }
}

/// How text files are cut into documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Separator {
    /// At the tokenizer's end-of-text token.
    EndOfText,
    /// At empty lines.
    BlankLine,
    /// Nowhere.
    WholeFile,
}

impl From<Separator> for llada::data::Separator {
    fn from(separator: Separator) -> Self {
        match separator {
            Separator::EndOfText => Self::EndOfText,
            Separator::BlankLine => Self::BlankLine,
            Separator::WholeFile => Self::WholeFile,
        }
    }
}

/// `llada tokenizer`.
#[derive(Debug, Subcommand)]
pub enum Tokenizer {
    /// Train a tokenizer on text files
    Train(TokenizerTrain),
    /// Text to token ids
    Encode(Apply),
    /// Token ids to text
    Decode(Apply),
}

/// `llada tokenizer train`.
#[derive(Debug, Args)]
pub struct TokenizerTrain {
    /// Text files
    #[arg(required = true, value_name = "INPUT")]
    pub inputs: Vec<PathBuf>,
    /// What a token is
    #[arg(long, value_enum, default_value_t = TokenizerKind::Bpe)]
    pub kind: TokenizerKind,
    /// Entries of the vocabulary, special tokens included (`bpe` only)
    #[arg(long, value_name = "N", default_value_t = 4096)]
    pub vocab_size: usize,
    /// Times that a character must occur to be a token (`char` only)
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub min_count: u64,
    /// Folder for `tokenizer.json`
    #[arg(short, long, value_name = "DIR")]
    pub out: PathBuf,
}

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TokenizerKind {
    /// Byte-pair encoding.
    Bpe,
    /// One token for each character.
    Char,
}

/// `llada tokenizer encode` and `decode`.
#[derive(Debug, Args)]
pub struct Apply {
    /// The text, or the ids; `-` or nothing reads stdin
    pub input: Option<String>,
    /// The tokenizer: a `tokenizer.json`, or a folder with one; without it, the shipped model's
    #[arg(short, long, value_name = "FILE")]
    pub tokenizer: Option<PathBuf>,
}

/// `llada replay`.
#[derive(Debug, Args)]
pub struct Replay {
    /// The recording, from `llada run --trace`
    pub file: PathBuf,
    /// Write a file instead of playing
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub export: Option<Export>,
    /// The file to write; without it, stdout
    #[arg(short, long, value_name = "OUT", requires = "export")]
    pub out: Option<PathBuf>,
    /// Tokenizer of the model, to read characters that span several tokens
    #[arg(short, long, value_name = "FILE")]
    pub tokenizer: Option<PathBuf>,
    /// Milliseconds between two steps
    #[arg(long, value_name = "MS", default_value_t = 100)]
    pub delay: u64,
    /// Columns of a line of the SVG
    #[arg(long, value_name = "N", default_value_t = 80, value_parser = clap::value_parser!(u16).range(10..))]
    pub width: u16,
}

/// What a recording can become.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Export {
    /// A page with a slider, for a browser.
    Html,
    /// An animated picture, for a README.
    Svg,
}

/// `llada show`.
#[derive(Debug, Args)]
pub struct Show {
    /// Folder of the checkpoint; without it, the model that comes with the program
    #[arg(value_name = "MODEL", env = "LLADA_MODEL", hide_env_values = true)]
    pub model: Option<PathBuf>,
    /// Write JSON
    #[arg(long)]
    pub json: bool,
}

/// `llada doctor`.
#[derive(Debug, Args)]
pub struct Doctor {
    /// Write JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub threads: Threads,
}

/// `llada completions`.
#[derive(Debug, Args)]
pub struct Completions {
    /// The shell
    pub shell: clap_complete::Shell,
}

/// Reads a name of the library's, with its remedy in the message.
fn parse<T>(text: &str) -> Result<T, String>
where
    T: std::str::FromStr<Err = llada::diffusion::SamplerError>,
{
    text.parse().map_err(|e: T::Err| match e.hint() {
        Some(hint) => format!("{e}: {hint}"),
        None => e.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn resume_takes_a_step_and_leaves_overrides_alone() {
        let parse = |line: &str| match Cli::parse_from(line.split(' ')).command {
            Command::Train(train) => {
                let train = train.normalized();
                (train.resume, train.overrides)
            }
            other => panic!("{other:?}"),
        };
        let overrides = vec!["a.b=1".to_owned()];
        assert_eq!(parse("llada train r.toml --resume a.b=1"), (Some(Resume::Latest), overrides));
        assert_eq!(parse("llada train r.toml --resume step-7").0, Some(Resume::At(7)));
        assert_eq!(parse("llada train r.toml --resume").0, Some(Resume::Latest));
        assert_eq!(parse("llada train r.toml").0, None);
        let wrong = Cli::try_parse_from("llada train --resume r.toml".split(' ')).unwrap_err();
        assert!(wrong.to_string().contains("put the recipe before"), "{wrong}");
    }
}
