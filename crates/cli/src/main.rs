//! The program `llada`: parse, run, exit.
// In a program, `pub` says that other modules may use an item.
#![allow(unreachable_pub)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod args;
mod commands;
mod error;
mod interrupt;
mod locate;
mod term;
mod view;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let cli = args::Cli::parse();
    let term = term::Term::new(cli.level());
    match commands::run(cli.command, &term) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => error::report(&error),
    }
}
