//! The flags of what an answer must be.

use std::path::PathBuf;

use clap::{ArgMatches, Args, Command, Error, FromArgMatches};

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

/// The same where they are seldom needed: in the whole help only.
#[derive(Debug, Default)]
pub struct RareConstraint(pub ConstraintArgs);

impl Args for RareConstraint {
    fn augment_args(command: Command) -> Command {
        let flags = ["json_schema", "json_object", "regex", "choices"];
        flags.into_iter().fold(ConstraintArgs::augment_args(command), |command, flag| {
            command.mut_arg(flag, |flag| flag.hide_short_help(true))
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for RareConstraint {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        ConstraintArgs::from_arg_matches(matches).map(Self)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        self.0.update_from_arg_matches(matches)
    }
}
