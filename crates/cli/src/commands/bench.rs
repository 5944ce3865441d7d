//! `llada bench`: measurements.

mod quality;

use anyhow::Result;

use crate::{args::Bench, term::Term};

/// Measures what the command line asks for.
pub fn run(args: Bench, term: &Term) -> Result<()> {
    match args {
        Bench::Quality(args) => quality::run(&args, term),
    }
}
