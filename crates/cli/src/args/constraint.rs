//! The flags of what an answer must be.

use std::path::PathBuf;

use clap::Args;

/// What an answer must be: one of these at most.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Constraint")]
#[group(multiple = false)]
pub struct ConstraintArgs {
    /// Answer with a JSON value that the schema in this file accepts; `-` reads it from stdin
    #[arg(long, value_name = "FILE")]
    pub json_schema: Option<PathBuf>,
    /// Answer with a JSON object
    #[arg(long)]
    pub json_object: bool,
    /// Answer with a text that this regular expression matches from end to end
    #[arg(long, value_name = "RE")]
    pub regex: Option<String>,
    /// Answer with one of these texts
    #[arg(long, value_name = "A,B,…", value_delimiter = ',')]
    pub choices: Vec<String>,
}
