//! How a model is named on the command line.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::{
    failure::Failure,
    locate::{self, Shipped},
    term,
};

/// The checkpoint to use.
#[derive(Debug, Args)]
pub struct ModelArg {
    /// A folder, a run, a GGUF file, or ORG/REPO[@REVISION][:FILE] of the hub [default: one that
    /// comes with the program]
    #[arg(
        short,
        long,
        value_name = "MODEL",
        env = "LLADA_MODEL",
        hide_env_values = true,
        alias = "hf-repo"
    )]
    pub model: Option<PathBuf>,
}

/// What is an argument of its own, as a flag.
#[derive(Debug, Args)]
struct ModelFlag {
    /// The same as a flag, as other verbs take it
    #[arg(short = 'm', long = "model", alias = "hf-repo", value_name = "MODEL", hide = true)]
    flag: Option<PathBuf>,
}

/// The checkpoint to use, as an argument of its own.
#[derive(Debug, Args)]
pub struct ModelOperand {
    /// A folder, a run, a GGUF file, or ORG/REPO[@REVISION][:FILE] of the hub [default: one that
    /// comes with the program]
    #[arg(value_name = "MODEL", env = "LLADA_MODEL", hide_env_values = true)]
    operand: Option<PathBuf>,
    #[command(flatten)]
    flag: ModelFlag,
}

/// The model that the environment names.
fn from_environment() -> Option<PathBuf> {
    term::variable("LLADA_MODEL").map(PathBuf::from)
}

impl ModelOperand {
    /// What was named.
    ///
    /// # Errors
    /// If both ways were used; what the environment names yields to the flag.
    pub fn get(&self) -> Result<Option<&Path>, Failure> {
        let from_environment = from_environment();
        match (&self.flag.flag, &self.operand) {
            (Some(_), Some(_)) if self.operand != from_environment => {
                let message = "two models were given";
                Err(Failure::usage(message, "name one, with or without `--model`"))
            }
            (flag, operand) => Ok(flag.as_deref().or(operand.as_deref())),
        }
    }

    /// What was named, and not by the environment.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn named(&self) -> Result<Option<&Path>, Failure> {
        let from_environment = from_environment();
        let is_flag = self.flag.flag.is_some();
        Ok(self.get()?.filter(|model| is_flag || Some(*model) != from_environment.as_deref()))
    }
}

/// The model to rewrite, which must be named.
#[derive(Debug, Args)]
pub struct SourceArg {
    /// The model: a folder, of a run or of adapters too, a GGUF file, or ORG/REPO[@REVISION][:FILE]
    #[arg(value_name = "MODEL", required_unless_present = "flag", conflicts_with = "flag")]
    operand: Option<PathBuf>,
    #[command(flatten)]
    flag: ModelFlag,
}

impl SourceArg {
    /// What was named.
    pub fn get(&self) -> Option<&Path> {
        self.flag.flag.as_deref().or(self.operand.as_deref())
    }
}

impl ModelArg {
    /// Whether the flag names a model, and not the environment alone.
    fn is_flag(&self) -> bool {
        self.model.is_some() && self.model != from_environment()
    }

    /// The model that a word names, before texts or tasks of any number.
    ///
    /// # Errors
    /// If the flag names one too.
    pub fn or_word(&self, word: &str) -> Result<PathBuf, Failure> {
        match &self.model {
            Some(model) if self.is_flag() => {
                let message = format!("two models were given: `{word}`, and `{}`", model.display());
                Err(Failure::usage(message, "name one, with or without `--model`"))
            }
            _ => Ok(word.into()),
        }
    }

    /// The model, and the texts among `words`, of which there may be so many at `most`. The first word
    /// is the model where it is one too many, or can be nothing else.
    ///
    /// # Errors
    /// If it can be no model, or two were given.
    pub fn or_first(
        &self,
        mut words: Vec<String>,
        most: usize,
    ) -> Result<(Option<PathBuf>, Vec<String>), Failure> {
        let is_flag = self.is_flag();
        let is_too_much = words.len() > most;
        let Some(first) = words.first().filter(|_| !is_flag || is_too_much) else {
            return Ok((self.model.clone(), words));
        };
        let is_one = locate::looks_like_model(first);
        if is_flag || words.len() > most + 1 {
            let message = format!("`{first}` is one argument too many");
            return Err(Failure::usage(message, "put a text of several words in quotes"));
        }
        if !is_one && !is_too_much {
            return Ok((self.model.clone(), words));
        }
        if !is_one && locate::model(Some(first.as_ref()), Shipped::Base).is_err() {
            if locate::is_like_path(first) {
                return Err(locate::no_model(first));
            }
            let message = format!("`{first}` is no model, and a text is one argument");
            return Err(Failure::usage(message, "put a text of several words in quotes"));
        }
        let model = words.remove(0);
        Ok((Some(model.into()), words))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_word_is_the_model_where_it_can_be_nothing_else() {
        let model = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/storyteller");
        let of = |flag: Option<&str>, given: &[&str], most| {
            let arg = ModelArg { model: flag.map(PathBuf::from) };
            let given = given.iter().map(|&word| word.to_owned()).collect();
            arg.or_first(given, most)
                .map(|(model, texts)| (model.is_some(), texts.join("|")))
                .map_err(|e| e.to_string())
        };
        assert_eq!(of(None, &["Once"], 1), Ok((false, "Once".into())));
        assert_eq!(of(None, &[model, "Once"], 1), Ok((true, "Once".into())));
        assert_eq!(of(None, &[model], 1), Ok((true, String::new())));
        assert_eq!(of(None, &[], 1), Ok((false, String::new())));
        assert_eq!(of(Some(model), &[model], 1), Ok((true, model.into())));
        assert_eq!(of(None, &[model], 0), Ok((true, String::new())));
        for wrong in [
            of(None, &["Once", "upon"], 1),
            of(None, &["Once"], 0),
            of(Some(model), &[model, "Once"], 1),
            of(None, &["a", "b", "c"], 1),
        ] {
            assert!(wrong.is_err(), "{wrong:?}");
        }
    }
}
