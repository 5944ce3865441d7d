//! One file for each verb.

mod bench;
mod chat;
mod completions;
mod constraint;
mod convert;
mod data;
mod doctor;
mod eval;
mod infill;
mod list;
mod merge;
mod observer;
#[cfg(feature = "hub")]
mod pull;
mod replay;
mod reward;
mod rm;
mod run;
mod score;
#[cfg(feature = "serve")]
mod serve;
mod show;
mod tokenizer;
mod train;
mod verify;

use std::{
    io::IsTerminal,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use llada::text;

use crate::{args::Command, error::Failure, interrupt, term::Term};

/// Does what the command line asks for.
pub fn run(command: Command, term: &Term) -> Result<()> {
    match command {
        Command::Run(args) => run::run(args, term),
        Command::Chat(args) => chat::run(args, term),
        Command::Infill(args) => infill::run(args, term),
        Command::Score(args) => score::run(args, term),
        #[cfg(feature = "serve")]
        Command::Serve(args) => serve::run(*args, term),
        Command::Train(args) => train::run(args, train::Stage::Pretraining, term),
        Command::Sft(args) => train::run(args, train::Stage::FineTuning, term),
        Command::Merge(args) => merge::run(args, term),
        Command::Convert(args) => convert::convert(args, term),
        Command::Quantize(args) => convert::quantize(args, term),
        Command::Eval(args) => eval::run(args, term),
        Command::Data(args) => data::run(args, term),
        Command::Tokenizer(args) => tokenizer::run(args, term),
        Command::Replay(args) => replay::run(args, term),
        #[cfg(feature = "hub")]
        Command::Pull(args) => pull::run(&args, term),
        #[cfg(not(feature = "hub"))]
        Command::Pull(args) => Err(without_network(&args).into()),
        Command::List(args) => list::run(&args, term),
        Command::Rm(args) => rm::run(&args, term),
        Command::Show(args) => show::run(args, term),
        Command::Bench(args) => bench::run(*args, term),
        Command::Doctor(args) => doctor::run(args),
        Command::Completions(args) => completions::run(args),
    }
}

/// What `llada pull` is without the feature `hub`.
#[cfg(not(feature = "hub"))]
fn without_network(args: &crate::args::Pull) -> Failure {
    Failure::new(
        "this program was built without the feature `hub`, which fetches models",
        format!("`hf download {}` of the Python package huggingface_hub does", args.model()),
    )
}

/// The name of standard input, wherever a file of text is read, and of standard output, wherever one
/// is written.
const STANDARD: &str = "-";

/// The text of a file, or of stdin where it is `-`.
fn read_text(file: &Path) -> Result<String> {
    match file.as_os_str() == STANDARD {
        true => text::read_from(std::io::stdin()).context("cannot read stdin"),
        false => Ok(text::read(file)?),
    }
}

/// Files to read, stdin among them where one is `-`: it lies in
/// a file of its own while this lives.
struct Inputs {
    paths: Vec<PathBuf>,
    _stdin: Option<tempfile::NamedTempFile>,
}

impl Inputs {
    /// Takes up stdin where it is asked for.
    fn take(paths: &[PathBuf]) -> Result<Self> {
        let mut inputs = Self { paths: paths.to_vec(), _stdin: None };
        for path in inputs.paths.iter_mut().filter(|path| path.as_os_str() == STANDARD) {
            if inputs._stdin.is_some() {
                let hint = "name `-` once";
                return Err(Failure::usage("stdin can be read once", hint).into());
            }
            let mut file = interrupt::temporary("stdin-", ".txt")?;
            std::io::copy(&mut std::io::stdin().lock(), &mut file).context("cannot read stdin")?;
            *path = file.path().to_owned();
            inputs._stdin = Some(file);
        }
        Ok(inputs)
    }
}

/// The argument, or stdin where it is `-` or missing. The last newline of stdin is the shell's.
fn argument_or_stdin(argument: Option<String>, what: &str) -> Result<String> {
    match argument {
        Some(text) if text != STANDARD => return Ok(text),
        None if std::io::stdin().is_terminal() => {
            return Err(Failure::usage(
                format!("no {what} was given"),
                format!("give the {what} as an argument, or pipe it in"),
            )
            .into());
        }
        _ => {}
    }
    let read = text::read_from(std::io::stdin());
    let mut text = read.with_context(|| format!("cannot read the {what} from stdin"))?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(text)
}
