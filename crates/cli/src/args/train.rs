//! The flags of `llada train` and `llada sft`.

use std::path::PathBuf;

use clap::Args;

use super::Threads;

/// `llada train` and `llada sft`.
#[derive(Debug, Args)]
pub struct Train {
    /// The recipe
    #[arg(value_name = "RECIPE.toml")]
    pub recipe: PathBuf,
    /// Values to change in the recipe, such as `train.steps=100`
    #[arg(value_name = "KEY=VALUE")]
    pub overrides: Vec<String>,
    /// Folder of the run [default: runs/RECIPE]
    #[arg(short, long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Go on from a checkpoint of the run: the last one, or the one named
    #[arg(
        long,
        value_name = "step-N",
        num_args = 0..=1,
        default_missing_value = "latest",
        value_parser = resume
    )]
    pub resume: Option<Resume>,
    /// Print the recipe with all defaults and changes, and stop
    #[arg(long)]
    pub print_config: bool,
    #[command(flatten)]
    pub threads: Threads,
}

/// What follows `--resume`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resume {
    /// Nothing: the last checkpoint.
    Latest,
    /// The checkpoint of this step.
    At(u64),
    /// An override of the recipe, which belongs to the positional arguments.
    Override(String),
}

fn resume(text: &str) -> Result<Resume, String> {
    if text == "latest" {
        return Ok(Resume::Latest);
    }
    if text.contains('=') {
        return Ok(Resume::Override(text.into()));
    }
    let step = text.strip_prefix("step-").and_then(|n| n.parse().ok());
    step.map(Resume::At).ok_or_else(|| "expected `step-N`; put the recipe before `--resume`".into())
}

impl Train {
    /// Gives an override that stood after a bare `--resume` its place.
    pub fn normalized(mut self) -> Self {
        if let Some(Resume::Override(assignment)) = self.resume {
            self.resume = Some(Resume::Latest);
            self.overrides.push(assignment);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cli, Command};
    use clap::Parser;

    #[test]
    fn resume_takes_a_step_and_leaves_overrides_alone() {
        let parse = |line: &str| match Cli::parse_from(line.split(' ')).command {
            Command::Train(train) => {
                let train = train.normalized();
                (train.resume, train.overrides)
            }
            other => panic!("{other:?}"),
        };
        let overrides = vec!["a.b=1".to_owned()];
        assert_eq!(parse("llada train r.toml --resume a.b=1"), (Some(Resume::Latest), overrides));
        assert_eq!(parse("llada train r.toml --resume step-7").0, Some(Resume::At(7)));
        assert_eq!(parse("llada train r.toml --resume").0, Some(Resume::Latest));
        assert_eq!(parse("llada train r.toml").0, None);
        let wrong = Cli::try_parse_from("llada train --resume r.toml".split(' ')).unwrap_err();
        assert!(wrong.to_string().contains("put the recipe before"), "{wrong}");
    }
}
