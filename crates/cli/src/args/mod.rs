//! The command line: every verb and every flag, once.

mod bench;
mod chat;
mod convert;
mod data;
mod eval;
mod hub;
mod infill;
mod inspect;
mod merge;
mod run;
mod saving;
mod score;
mod tokenizer;
mod train;

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use clap::{ArgAction, Args, Parser, Subcommand};

use crate::{error::Failure, term::Level};

pub use bench::{Bench, Quality, Speed, Subject};
pub use chat::Chat;
pub use convert::{Convert, Format, Quantize};
pub use data::{Data, Prepare};
pub use eval::{DataArgs, Eval, EvalLs, EvalRun, EvalValidate};
pub use hub::{List, Pull, Rm};
pub use infill::Infill;
pub use inspect::{Completions, Doctor, Export, Generation, Replay, Show};
pub use merge::Merge;
pub use run::{Preset, Run, SamplerArgs};
pub use saving::SavingArgs;
pub use score::{Estimate, Score};
pub use tokenizer::{Apply, Render, Tokenizer, TokenizerKind, TokenizerTrain};
pub use train::{Resume, Train};

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
    /// Talk to a model
    Chat(Chat),
    /// Fill the holes in a text
    Infill(Infill),
    /// Score answers, or text: how probable a model finds them
    Score(Score),
    /// Train a model from a recipe
    Train(Train),
    /// Fine-tune a model on conversations, all of its weights or low-rank adapters
    Sft(Train),
    /// Merge low-rank adapters into the model that they adapt
    Merge(Merge),
    /// Convert a model: a folder into a GGUF file, or a file into a folder
    Convert(Convert),
    /// Store a model in fewer bits, as a GGUF file
    Quantize(Quantize),
    /// Evaluate a model on tasks, list them, check their data
    #[command(subcommand)]
    Eval(Eval),
    /// Prepare text for training
    #[command(subcommand)]
    Data(Data),
    /// Train a tokenizer, or apply one
    #[command(subcommand)]
    Tokenizer(Tokenizer),
    /// Play a recorded canvas, or export it as HTML or SVG
    Replay(Replay),
    /// Fetch a model from the Hugging Face hub
    Pull(Pull),
    /// List the models on this machine
    List(List),
    /// Remove a model that was fetched
    Rm(Rm),
    /// Describe a model: architecture, sizes, tokens, files, memory
    Show(Show),
    /// Measure speed and memory of any size and format, or what a way to sample costs in quality
    Bench(Box<Bench>),
    /// Describe this machine: instructions, threads, memory, speed
    Doctor(Doctor),
    /// Print the completion script of a shell
    Completions(Completions),
}

/// The checkpoint to use.
#[derive(Debug, Args)]
pub struct ModelArg {
    /// Folder of a checkpoint or a run, a GGUF file, or ORG/REPO[@REVISION][:FILE] of the hub;
    /// without it, the model that comes with the program
    #[arg(
        short,
        long,
        value_name = "MODEL",
        env = "LLADA_MODEL",
        hide_env_values = true,
        alias = "hf-repo"
    )]
    pub model: Option<PathBuf>,
}

/// The checkpoint to use, as an argument of its own.
#[derive(Debug, Args)]
pub struct ModelOperand {
    /// Folder of a checkpoint or a run, a GGUF file, or ORG/REPO[@REVISION][:FILE] of the hub;
    /// without it, the model that comes with the program
    #[arg(value_name = "MODEL", env = "LLADA_MODEL", hide_env_values = true)]
    operand: Option<PathBuf>,
    /// The same as a flag, as other verbs take it
    #[arg(
        id = "flag",
        short = 'm',
        long = "model",
        alias = "hf-repo",
        value_name = "MODEL",
        hide = true
    )]
    flag: Option<PathBuf>,
}

impl ModelOperand {
    /// What was named.
    ///
    /// # Errors
    /// If both ways were used; what the environment names yields to the flag.
    pub fn get(&self) -> Result<Option<&Path>, Failure> {
        let from_environment = std::env::var_os("LLADA_MODEL").map(PathBuf::from);
        match (&self.flag, &self.operand) {
            (Some(_), Some(_)) if self.operand != from_environment => {
                let message = "two models were given";
                Err(Failure::usage(message, "name one, with or without `--model`"))
            }
            (flag, operand) => Ok(flag.as_deref().or(operand.as_deref())),
        }
    }
}

/// The model to rewrite, which must be named.
#[derive(Debug, Args)]
pub struct SourceArg {
    /// The model: a folder, of a run or of adapters too, a GGUF file, or ORG/REPO[@REVISION][:FILE]
    #[arg(value_name = "MODEL", required_unless_present = "flag", conflicts_with = "flag")]
    operand: Option<PathBuf>,
    /// The same as a flag, as other verbs take it
    #[arg(
        id = "flag",
        short = 'm',
        long = "model",
        alias = "hf-repo",
        value_name = "MODEL",
        hide = true
    )]
    flag: Option<PathBuf>,
}

impl SourceArg {
    /// What was named.
    pub fn get(&self) -> Option<&Path> {
        self.flag.as_deref().or(self.operand.as_deref())
    }
}

/// The words of a command line, with llama.cpp's `-hf` as `--model`: clap has flags of one letter.
pub fn normalized(words: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut is_over = false;
    let normal = |word: OsString| {
        is_over |= word == "--";
        match word.to_str() {
            Some("-hf" | "-hfr") if !is_over => "--model".into(),
            _ => word,
        }
    };
    words.into_iter().map(normal).collect()
}

/// Most threads that can be asked for: more than machines have cores, and few enough to start.
const MAX_THREADS: i64 = 1024;

/// The threads to compute with.
#[derive(Debug, Clone, Args)]
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

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_flag_of_two_letters_is_the_model() {
        let words = |line: &str| normalized(line.split(' ').map(OsString::from));
        assert_eq!(words("llada run -hf a/b x"), ["llada", "run", "--model", "a/b", "x"]);
        assert_eq!(words("llada run -- -hf"), ["llada", "run", "--", "-hf"]);
        for line in ["llada run -hf a/b", "llada show -hf a/b", "llada show --hf-repo a/b"] {
            Cli::try_parse_from(words(line)).unwrap();
        }
    }
}
