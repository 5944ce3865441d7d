//! The command line: every verb and every flag, once.

mod bench;
mod chat;
mod constraint;
mod convert;
mod data;
mod eval;
mod habits;
mod hub;
mod infill;
mod inspect;
mod merge;
mod model;
mod run;
mod sampler;
mod score;
#[cfg(feature = "serve")]
mod serve;
mod shard;
mod tokenizer;
mod train;
mod watching;

use std::{any::TypeId, ffi::OsString, path::PathBuf};

use clap::{
    ArgAction, Args, CommandFactory, FromArgMatches, Parser, Subcommand,
    builder::{PathBufValueParser, RangedI64ValueParser, Resettable, TypedValueParser},
};

use llada::{
    Compute,
    diffusion::{Preset, Settings},
};

use crate::term::{self, Level};

pub use bench::{Bench, Quality, Speed, Subject};
pub use chat::{Chat, Talk};
pub use constraint::{ConstraintArgs, RareConstraint};
pub use convert::{Convert, Format, Quantize};
pub use data::{Data, Prepare};
pub use eval::{CodeArgs, DataArgs, Eval, EvalLs, EvalRun, EvalValidate};
pub use habits::explained;
pub use hub::{List, Pull, Rm};
pub use infill::Infill;
pub use inspect::{Completions, Doctor, Export, Generation, Replay, Show};
pub use merge::Merge;
pub use model::{ModelArg, ModelOperand, SourceArg};
pub use run::Run;
pub use sampler::SamplerArgs;
pub use score::{Estimate, Score};
#[cfg(feature = "serve")]
pub use serve::{LogForm, Serve};
pub use shard::Shard;
pub use tokenizer::{Apply, Render, Tokenizer, TokenizerKind, TokenizerTrain};
pub use train::{Resume, Train};
pub use watching::WatchArgs;

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
    /// Print help with every flag
    #[arg(long, global = true, action = ArgAction::HelpShort, help_heading = "Output")]
    help_all: Option<bool>,
}

/// Reads a command line, its first word the program's name.
///
/// # Errors
/// What clap says, help included.
pub fn read(words: impl IntoIterator<Item = OsString>) -> Result<Cli, clap::Error> {
    let words: Vec<OsString> = habits::normalized(words);
    let flags = words.iter().take_while(|word| *word != "--");
    let is_whole = flags.into_iter().any(|word| word == "--help-all");
    let mut command = prepared(Cli::command(), is_whole);
    let mut matches = command.try_get_matches_from_mut(words)?;
    Cli::from_arg_matches_mut(&mut matches).map_err(|e| e.format(&mut command))
}

/// The types of flags that are numbers.
const NUMBERS: [fn() -> TypeId; 6] = [
    TypeId::of::<u16>,
    TypeId::of::<u32>,
    TypeId::of::<u64>,
    TypeId::of::<usize>,
    TypeId::of::<f32>,
    TypeId::of::<f64>,
];

/// The definition without variables of the environment that are empty, with names in any case and
/// numbers of any sign, and with every flag in its help where `is_whole`.
fn prepared(command: clap::Command, is_whole: bool) -> clap::Command {
    let with = |arg: clap::Arg| {
        let value = arg.get_env().and_then(std::env::var_os);
        let is_empty = value.is_some_and(|value| value.is_empty());
        let arg = if is_empty { arg.env(Resettable::Reset) } else { arg };
        let takes_values = arg.get_action().takes_values();
        let is_number = NUMBERS.iter().any(|number| arg.get_value_parser().type_id() == number());
        // One below zero is a value that its range refuses, and no flag.
        let is_number = is_number || arg.is_allow_negative_numbers_set();
        let arg = arg.ignore_case(takes_values).allow_negative_numbers(is_number);
        if is_whole { arg.hide_short_help(false) } else { arg }
    };
    command.mut_args(with).mut_subcommands(|sub| prepared(sub, is_whole))
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
    /// Serve models over HTTP, with a page to watch them
    #[cfg(feature = "serve")]
    Serve(Box<Serve>),
    /// Train a model from a recipe: on text, by preferences or by rewards
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
    /// Measure speed and memory, or what a way to sample costs in quality
    Bench(Box<Bench>),
    /// Describe this machine: instructions, threads, memory, speed
    Doctor(Doctor),
    /// Print the completion script of a shell
    Completions(Completions),
}

/// A message on one line with its remedy, in the form in which clap gives those of its own.
fn with_tip(message: &str, tip: &str) -> String {
    let message = term::visible_line(message);
    if tip.is_empty() { message } else { format!("{message}\n  tip: {tip}") }
}

/// Reads the place of an output that stdout cannot take, for the reason `why`.
fn place(why: &'static str) -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().try_map(move |path| match path.as_os_str() == "-" {
        true => Err(with_tip(why, "name a file or a folder; `./-` is one of that name")),
        false => Ok(path),
    })
}

/// Why a model, shards, a run or results are not written to `-`.
const NO_STREAM: &str = "this output is no stream, and cannot go to stdout";

/// The variable that, set to anything but `0` or `false`, keeps chats from being remembered.
pub const NO_HISTORY: &str = "LLADA_NO_HISTORY";

/// Longest time between two steps, in milliseconds.
const MAX_DELAY: i64 = 60_000;

/// Reads a time between two steps.
pub fn delay() -> RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(..=MAX_DELAY)
}

/// Most threads that can be asked for: more than machines have cores, and few enough to start.
const MAX_THREADS: i64 = 1024;

/// The threads to compute with.
#[derive(Debug, Clone, Args)]
pub struct Threads {
    /// Threads to compute with; 0 is one for each core
    #[arg(
        long,
        short_alias = 't',
        value_name = "N",
        default_value_t = 0,
        env = "LLADA_THREADS",
        hide_env_values = true,
        value_parser = clap::value_parser!(u16).range(..=MAX_THREADS)
    )]
    pub threads: u16,
}

/// What a model is computed with.
#[derive(Debug, Clone, Args)]
pub struct Machine {
    #[command(flatten)]
    pub threads: Threads,
    /// What matrix products multiply; `auto` keeps the precision that the weights are stored in and measures
    /// whether bf16 is faster, and `--preset exact` takes f32
    #[arg(
        long,
        value_name = "TYPE",
        default_value = "auto",
        value_parser = compute,
        hide_short_help = true
    )]
    pub compute: Compute,
}

impl Machine {
    /// The threads; 0 is one for each core.
    pub fn threads(&self) -> usize {
        self.threads.threads.into()
    }

    /// The same for a sampler of these settings.
    #[must_use]
    pub fn sampling(&self, settings: &Settings) -> Self {
        let is_exact = settings.preset == Some(Preset::Exact);
        let compute = match self.compute {
            Compute::Auto if is_exact => Compute::F32,
            compute => compute,
        };
        Self { compute, ..self.clone() }
    }
}

/// Reads a type that is computed in.
fn compute(name: &str) -> Result<Compute, String> {
    let found = Compute::ALL.into_iter().find(|(known, _)| *known == name);
    found.map(|(_, compute)| compute).ok_or_else(|| {
        let names = Compute::ALL.map(|(name, _)| name);
        format!("use one of: {}", names.join(", "))
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

    fn words(line: &str) -> Vec<OsString> {
        line.split_whitespace().map(OsString::from).collect()
    }

    #[test]
    fn help_fits_a_screen_and_all_of_it_has_every_flag() {
        fn check(command: &mut clap::Command) {
            let help = command.render_help().to_string();
            let lines = help.lines().count();
            let name = command.get_name().to_owned();
            assert!(lines <= 40, "`{name} --help` has {lines} lines\n{help}");
            let mut whole = prepared(command.clone(), true);
            let whole = whole.render_help().to_string();
            for arg in command.get_arguments().filter(|arg| !arg.is_hide_set()) {
                let Some(long) = arg.get_long() else { continue };
                assert!(whole.contains(&format!("--{long}")), "{name} --{long}\n{whole}");
            }
            command.get_subcommands_mut().for_each(check);
        }
        let mut command = Cli::command().term_width(80);
        command.build();
        check(&mut command);
    }

    #[test]
    fn flags_of_other_programs_are_read() {
        let run = |line: &str| match read(words(line)).unwrap().command {
            Command::Run(run) => run,
            other => panic!("{other:?}"),
        };
        let given = run("llada run -p Once -n 9 -t 2 --temp 0.5 -s 7 --diffusion-steps 3 -no-cnv");
        assert_eq!(given.prompt.as_deref(), Some("Once"));
        let sampler = &given.sampler.settings;
        assert_eq!((sampler.gen_length, sampler.steps, sampler.seed), (Some(9), Some(3), Some(7)));
        assert!(given.raw && given.machine.threads() == 2 && sampler.temperature == Some(0.5));
        let given = run("llada run --diffusion-algorithm 3 --diffusion-visual -sys Hi x");
        assert_eq!(given.sampler.settings.remasking, Some(llada::diffusion::Remasking::Random));
        assert!(given.watching.watch && given.system.as_deref() == Some("Hi"));
    }
}
