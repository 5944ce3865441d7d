//! What can go wrong with a task file or its data, before anything is evaluated.

use std::path::PathBuf;

/// A task that cannot be evaluated.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EvalError {
    /// Neither a shipped task nor a file.
    #[error("there is no task `{name}`")]
    NoTask {
        /// What was asked for.
        name: String,
        /// The shipped tasks.
        known: String,
    },
    /// A task file that is not valid.
    #[error("the task `{task}` is not valid: {what}")]
    Task {
        /// The file, or the name of a shipped task.
        task: String,
        /// What is wrong, with the line where it is known.
        what: String,
    },
    /// No file of the data was found.
    #[error("the data of task `{task}` was not found in `{root}`: looked for {patterns}")]
    NoData {
        /// The task.
        task: String,
        /// Where it was looked for.
        root: PathBuf,
        /// The names that would have done.
        patterns: String,
        /// What the data is and where it can be had; empty where that is not known.
        source_of_data: String,
    },
    /// A file that cannot be read as its format.
    #[error("`{path}` cannot be read as {format}: {what}")]
    Format {
        /// The file.
        path: PathBuf,
        /// What it was taken for.
        format: &'static str,
        /// What is wrong.
        what: String,
    },
    /// Every row is bad.
    #[error("the task `{task}` has no row that can be used; the first says: {first}")]
    NoRows {
        /// The task.
        task: String,
        /// Why the first row cannot be used.
        first: String,
    },
    /// Fewer examples than are to be shown.
    #[error("the task `{task}` has {found} examples for its prompt, {wanted} are asked for")]
    Shots {
        /// The task, and the group.
        task: String,
        /// How many there are.
        found: usize,
        /// How many are asked for.
        wanted: usize,
    },
    /// A setting that this model or task does not have.
    #[error("the task `{task}` cannot be evaluated so: {what}")]
    Setting {
        /// The task.
        task: String,
        /// What does not fit.
        what: String,
        /// What would.
        remedy: String,
    },
    /// Rows that were kept are not of this run.
    #[error(
        "the rows of `{task}` that are kept are not of this run: {place} was evaluated with another \
         model, other settings, or other data"
    )]
    OtherRun {
        /// The task.
        task: String,
        /// The first row that differs.
        place: String,
    },
    /// A file of questions that cannot be read.
    #[error("`{path}` cannot be read as questions: {what}")]
    Questions {
        /// The file.
        path: PathBuf,
        /// What is wrong, with the line where it is known.
        what: String,
    },
    /// A program that could not be run at all.
    #[error("cannot check a program: {0}")]
    Checker(String),
}

impl EvalError {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NoTask { known, .. } => {
                format!("give the path of a task file, or one of: {known}")
            }
            Self::Task { .. } => {
                "mend the task file; `llada eval ls TASK` prints a shipped one as an example".into()
            }
            Self::NoData { source_of_data, task, .. } => {
                let place = format!("name its place with `--data DIR` or `--data {task}=PATH`");
                match source_of_data.as_str() {
                    "" => place,
                    source => format!("{place}; it is {source}"),
                }
            }
            Self::Format { .. } => "check that the file is what the task expects".into(),
            Self::NoRows { .. } => {
                "check that the data is of this task: `llada eval validate` names every row".into()
            }
            Self::Shots { found, .. } => format!("use --fewshot {found} or less"),
            Self::Setting { remedy, .. } => remedy.clone(),
            Self::OtherRun { task, .. } => format!(
                "name another folder with `--out`, or go on as that run was started; without its \
                 `samples_{task}.jsonl` the task starts anew"
            ),
            Self::Questions { .. } => {
                r#"write `{"prompt": "..."}` on each line, with `"response": "..."` where one is right and \
                   `"chat": true` where the prompt is a message"#
                    .into()
            }
            Self::Checker(_) => "check that `python3` can be started".into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hint_about_missing_data_is_a_whole_sentence() {
        let hint = |source: &str| {
            let (task, root, patterns) = ("t".into(), PathBuf::new(), String::new());
            let source_of_data = source.into();
            EvalError::NoData { task, root, patterns, source_of_data }.hint().unwrap()
        };
        let place = "name its place with `--data DIR` or `--data t=PATH`";
        assert_eq!(hint(""), place);
        assert_eq!(hint("the set of X"), format!("{place}; it is the set of X"));
    }
}
