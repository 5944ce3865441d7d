//! `llada completions`.

use anyhow::Result;
use clap::CommandFactory;

use crate::{
    args::{Cli, Completions},
    term,
};

/// Prints the completion script.
pub fn run(args: Completions) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "llada", &mut script);
    term::answer(String::from_utf8_lossy(&script).trim_end())
}
