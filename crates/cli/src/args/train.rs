//! The flags of `llada train` and `llada sft`.

use std::path::PathBuf;

use clap::Args;

use super::{CodeArgs, NO_STREAM, Threads, place};

/// `llada train` and `llada sft`.
#[derive(Debug, Args)]
pub struct Train {
    /// The recipe; a run that goes on has its own
    #[arg(value_name = "RECIPE.toml", required_unless_present_any = ["resume", "branch_from", "keys"])]
    pub recipe: Option<PathBuf>,
    /// Values to change in the recipe, such as `train.steps=100`
    #[arg(value_name = "KEY=VALUE")]
    pub overrides: Vec<String>,
    /// Folder of the run [default: runs/RECIPE]
    #[arg(short, long, value_name = "DIR", value_parser = place(NO_STREAM))]
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
    /// Start a new run, with other settings, from a checkpoint of another: RUN or RUN/step-N
    #[arg(long, value_name = "RUN", conflicts_with = "resume", requires = "out")]
    pub branch_from: Option<PathBuf>,
    /// Print the recipe with all defaults and changes, and stop
    #[arg(long)]
    pub print_config: bool,
    /// Tell what the run will take, from two steps that are not kept, and stop
    #[arg(long, conflicts_with = "print_config")]
    pub dry_run: bool,
    /// Print every key of a recipe with its default and meaning, and stop
    #[arg(long)]
    pub keys: bool,
    #[command(flatten)]
    pub threads: Threads,
    #[command(flatten)]
    pub code: CodeArgs,
}

/// What follows `--resume`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resume {
    /// Nothing: the last checkpoint.
    Latest,
    /// The checkpoint of this step.
    At(u64),
    /// A recipe or an override, which belongs to the positional arguments.
    Positional(String),
}

fn resume(text: &str) -> Result<Resume, String> {
    let step = text.strip_prefix("step-").and_then(|n| n.parse().ok());
    match step {
        _ if text == "latest" => Ok(Resume::Latest),
        Some(step) => Ok(Resume::At(step)),
        None if text.contains('=') || text.ends_with(".toml") => {
            Ok(Resume::Positional(text.into()))
        }
        None => Err("expected `step-N`; the folder of the run is `--out DIR`".into()),
    }
}

impl Train {
    /// Gives what stood after a bare `--resume`, and an override in the place of the recipe, their
    /// places.
    pub fn normalized(mut self) -> Self {
        let is_override = |path: &PathBuf| !path.exists() && path.to_string_lossy().contains('=');
        if let Some(assignment) = self.recipe.take_if(|path| is_override(path)) {
            self.overrides.insert(0, assignment.to_string_lossy().into_owned());
        }
        if let Some(Resume::Positional(text)) = self.resume {
            self.resume = Some(Resume::Latest);
            match text.contains('=') || self.recipe.is_some() {
                true => self.overrides.insert(0, text),
                false => self.recipe = Some(text.into()),
            }
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cli, Command};
    use clap::Parser;

    fn parse(line: &str) -> Train {
        match Cli::parse_from(line.split(' ')).command {
            Command::Train(train) => train.normalized(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn resume_takes_a_step_and_leaves_the_rest_alone() {
        let recipe = Some(PathBuf::from("r.toml"));
        for (line, step, overrides) in [
            ("llada train r.toml --resume a.b=1", Resume::Latest, &["a.b=1"][..]),
            ("llada train r.toml --resume step-7", Resume::At(7), &[]),
            ("llada train r.toml --resume", Resume::Latest, &[]),
            ("llada train --resume r.toml a.b=1", Resume::Latest, &["a.b=1"]),
        ] {
            let train = parse(line);
            assert_eq!((train.resume, &train.recipe), (Some(step), &recipe), "{line}");
            assert_eq!(train.overrides, overrides, "{line}");
        }
        assert_eq!(parse("llada train r.toml").resume, None);
    }

    #[test]
    fn a_run_that_goes_on_needs_no_recipe() {
        for (line, overrides) in [
            ("llada train --resume --out d", &[][..]),
            ("llada train --resume step-3 --out d a.b=1 c.d=2", &["a.b=1", "c.d=2"]),
            ("llada train --out d --resume a.b=1 c.d=2", &["a.b=1", "c.d=2"]),
            ("llada train --branch-from e --out d a.b=1", &["a.b=1"]),
        ] {
            let train = parse(line);
            assert_eq!((train.recipe, train.out), (None, Some("d".into())), "{line}");
            assert_eq!(train.overrides, overrides, "{line}");
        }
        for line in ["llada train", "llada train --branch-from e", "llada train --out d"] {
            assert!(Cli::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
        let wrong = Cli::try_parse_from("llada train --resume somewhere".split(' ')).unwrap_err();
        assert!(wrong.to_string().contains("`--out DIR`"), "{wrong}");
        let both = "llada train --branch-from e --out d --resume";
        assert!(Cli::try_parse_from(both.split(' ')).is_err());
    }
}
