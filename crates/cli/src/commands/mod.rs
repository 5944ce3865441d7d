//! One file for each verb.

mod bench;
mod chat;
mod completions;
mod convert;
mod data;
mod doctor;
mod eval;
mod infill;
mod list;
mod merge;
#[cfg(feature = "hub")]
mod pull;
mod replay;
mod rm;
mod run;
mod score;
mod show;
mod tokenizer;
mod train;
mod verify;

use std::io::IsTerminal;

use anyhow::{Context, Result};
use llada::text;

use crate::{args::Command, error::Failure, term::Term};

/// Does what the command line asks for.
pub fn run(command: Command, term: &Term) -> Result<()> {
    match command {
        Command::Run(args) => run::run(args, term),
        Command::Chat(args) => chat::run(args, term),
        Command::Infill(args) => infill::run(args, term),
        Command::Score(args) => score::run(args, term),
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
        Command::Show(args) => show::run(args),
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

/// The argument, or stdin where it is `-` or missing. The last newline of stdin is the shell's.
fn argument_or_stdin(argument: Option<String>, what: &str) -> Result<String> {
    match argument {
        Some(text) if text != "-" => return Ok(text),
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
