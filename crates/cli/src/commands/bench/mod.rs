//! `llada bench`: what can be measured, one file for each.

mod measure;
mod quality;
mod report;
mod speed;

use anyhow::Result;

use crate::{
    args::{Bench, Subject},
    term::Term,
};

/// Measures, speed unless something else is named.
pub fn run(args: Bench, term: &Term) -> Result<()> {
    match args.subject {
        None => speed::run(args.speed, term),
        Some(Subject::Speed(args)) => speed::run(*args, term),
        Some(Subject::Quality(args)) => quality::run(&args, term),
    }
}
