//! The program `llada`: parse, run, exit.
// In a program, `pub` says that other modules may use an item.
#![allow(unreachable_pub)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod args;
mod commands;
mod error;
mod failure;
#[cfg(feature = "hub")]
mod hub;
mod interrupt;
mod keys;
mod locate;
mod ranks;
mod session;
mod shipped;
mod term;
mod view;
#[cfg(feature = "hub")]
mod web;

use std::process::ExitCode;

fn main() -> ExitCode {
    llada_kernels::explain_shrunk_files();
    llada_kernels::report_large_files();
    let cli = match args::read(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => return error::usage(error),
    };
    let term = term::Term::new(cli.level());
    let outcome = error::without_panics(|| commands::run(cli.command, &term));
    shipped::remove_temporary();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => error::report(&error),
    }
}
