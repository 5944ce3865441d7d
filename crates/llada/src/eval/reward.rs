//! A task as a reward function: what it asks is written by a policy, and what it scores is the reward.

use std::{collections::BTreeSet, fmt, path::Path};

use super::{
    Checker, EvalError, Kind, Prepared, Request, Task, arithmetic, extract, judge, metric::Value,
    prompt::prepare,
};
use crate::{
    Result,
    train::{RewardFunction, RewardPrompt},
};

/// A metric of expressions that only rewards have: whether each of the numbers is used once, whatever the
/// value.
const USES_NUMBERS: &str = "uses_numbers";

/// How a task becomes a reward function.
#[derive(Debug, Clone, Copy)]
pub struct RewardSettings<'a> {
    /// The folder below which the data of the task is.
    pub data: &'a Path,
    /// That of other data to validate on.
    pub validation: Option<&'a Path>,
    /// The fraction of the prompts that is held out where there is none.
    pub held_out: f64,
    /// The metrics whose mean is the reward, with or without the name of their filter; all if none.
    pub metrics: &'a [String],
    /// Whether prompts are messages.
    pub chat: bool,
}

/// A task of the kind `generate` that judges the completions of a policy.
pub struct TaskReward {
    /// The rows to train on, and those of other data.
    parts: Vec<Prepared>,
    /// Part and number of each prompt.
    examples: Vec<(usize, usize)>,
    held_out: Vec<bool>,
    metrics: Vec<String>,
    /// Texts before which a completion is cut.
    stop: Vec<String>,
    checker: Option<Box<dyn Checker>>,
}

impl fmt::Debug for TaskReward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let task = self.parts.first().map(|part| &part.task.name);
        f.debug_struct("TaskReward").field("task", &task).finish_non_exhaustive()
    }
}

impl TaskReward {
    /// Reads the rows of `task`. `checker` runs programs, for tasks that have some.
    ///
    /// # Errors
    /// When the data cannot be read, no metric is of that name, or the task is of another kind.
    pub fn open(
        task: &Task,
        settings: &RewardSettings<'_>,
        checker: Option<Box<dyn Checker>>,
    ) -> Result<Self> {
        let refuse = |what: String, remedy: String| EvalError::Setting {
            task: task.name.clone(),
            what,
            remedy,
        };
        if task.kind != Kind::Generate {
            let what = format!("a task of the kind `{}` judges no completions", task.kind.name());
            return Err(refuse(what, "use one of the kind `generate`".into()).into());
        }
        let roots = [Some(settings.data), settings.validation];
        let parts = roots.into_iter().flatten();
        let parts = parts.map(|root| prepare(task.clone(), root, None, None));
        let parts = parts.collect::<Result<Vec<_>>>()?;
        let known = known(&parts[0]);
        let is = |asked: &str, name: &str| name == asked || name.split(',').next() == Some(asked);
        for asked in settings.metrics {
            if !known.iter().any(|name| is(asked, name)) {
                let what = format!("no metric of it is called `{asked}`");
                return Err(refuse(what, format!("it has {}", known.join(", "))).into());
            }
        }
        let metrics = known.into_iter().filter(|name| match settings.metrics {
            [] => !name.starts_with(USES_NUMBERS),
            asked => asked.iter().any(|asked| is(asked, name)),
        });
        let examples: Vec<(usize, usize)> = parts
            .iter()
            .enumerate()
            .flat_map(|(part, prepared)| (0..prepared.examples.len()).map(move |i| (part, i)))
            .collect();
        let held_out = match settings.validation {
            Some(_) => examples.iter().map(|(part, _)| *part == 1).collect(),
            None => held_out(&parts[0], settings.held_out),
        };
        let generate = task.generate.clone().unwrap_or_default();
        let stop = generate.chat.stop.filter(|_| settings.chat).unwrap_or(generate.stop);
        let metrics = metrics.collect();
        Ok(Self { parts, examples, held_out, metrics, stop, checker })
    }

    /// Rows that cannot be used.
    pub fn bad_rows(&self) -> impl Iterator<Item = &super::BadRow> {
        self.parts.iter().flat_map(|part| &part.bad)
    }
}

impl RewardFunction for TaskReward {
    fn prompts(&self) -> Vec<RewardPrompt> {
        let prompt = |(&(part, i), &held_out): (&(usize, usize), &bool)| {
            let text = self.parts[part].examples[i].request.context().to_owned();
            RewardPrompt { text, held_out }
        };
        self.examples.iter().zip(&self.held_out).map(prompt).collect()
    }

    fn reward(&mut self, prompt: usize, completion: &str) -> Result<f64> {
        let (part, i) = self.examples[prompt];
        let prepared = &self.parts[part];
        let example = &prepared.examples[i];
        let text = extract::cut(completion, &self.stop);
        let mut checker = self.checker.as_deref_mut().map(|checker| checker as &mut dyn Checker);
        let (mut scores, detail) = judge::response(prepared, example, text, &mut checker)?;
        if let Request::Generate { expression: Some((numbers, _)), .. } = &example.request {
            for extractor in &prepared.extractors {
                let name = &extractor.settings.name;
                let answer = detail["answers"][name.as_str()]["answer"].as_str();
                let uses = answer.is_some_and(|answer| arithmetic::uses(answer, numbers));
                scores.insert(format!("{USES_NUMBERS},{name}"), Value::One(f64::from(uses)));
            }
        }
        let score = |name: &String| match scores.get(name) {
            Some(Value::One(score)) => *score,
            _ => 0.0,
        };
        let sum: f64 = self.metrics.iter().map(score).sum();
        Ok(sum / self.metrics.len().max(1) as f64)
    }
}

/// The metrics by which a response is judged.
fn known(prepared: &Prepared) -> Vec<String> {
    let Task { target, cells, expression, code, .. } = &prepared.task;
    let mut known = BTreeSet::new();
    for extractor in &prepared.extractors {
        let settings = &extractor.settings;
        for (metric, is_there) in [
            (settings.compare.metric(), !target.is_empty()),
            ("cell_accuracy", cells.is_some()),
            ("solved", expression.is_some()),
            (USES_NUMBERS, expression.is_some()),
            ("pass@1", code.is_some()),
        ] {
            if is_there {
                known.insert(format!("{metric},{}", settings.name));
            }
        }
    }
    known.into_iter().collect()
}

/// A fraction of the prompts, chosen by a hash of what they ask and so the same in whatever order they
/// come, equal ones together; at least one, unless it is 0.
fn held_out(prepared: &Prepared, fraction: f64) -> Vec<bool> {
    let hash = |text: &str| {
        // FNV-1a, mixed so that every bit counts.
        let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    };
    let hashes: Vec<u64> =
        prepared.examples.iter().map(|example| hash(example.request.context())).collect();
    let mut sorted = hashes.clone();
    sorted.sort_unstable();
    sorted.dedup();
    let count = (fraction * sorted.len() as f64).ceil() as usize;
    // One at least is trained on.
    let last = count.min(sorted.len().saturating_sub(1)).checked_sub(1);
    hashes.iter().map(|hash| last.is_some_and(|last| *hash <= sorted[last])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const COUNTDOWN: &str = r#"
        name = "cd"
        version = 1
        about = "a"
        kind = "generate"
        prompt = "{{ numbers }} = {{ value }}:"
        [data]
        rows = [
            { numbers = "1 2 3", value = "7" },
            { numbers = "2 3 4", value = "10" },
            { numbers = "2 3 4", value = "14" },
            { numbers = "5 3 4", value = "4" },
        ]
        [generate]
        stop = [";"]
        [[extract]]
        name = "all"
        [expression]
        numbers = "{{ numbers }}"
        value = "{{ value }}"
    "#;

    fn open(text: &str, metrics: &[&str]) -> Result<TaskReward> {
        let metrics: Vec<String> = metrics.iter().map(|m| (*m).to_owned()).collect();
        let data = Path::new(".");
        let (validation, held_out) = (None, 0.25);
        let settings =
            RewardSettings { data, validation, held_out, metrics: &metrics, chat: false };
        TaskReward::open(&Task::parse(text, "cd").unwrap(), &settings, None)
    }

    #[test]
    fn expressions_are_worth_what_they_solve() {
        let mut solved = open(COUNTDOWN, &[]).unwrap();
        assert_eq!(solved.prompts()[0].text, "1 2 3 = 7:");
        assert_eq!(solved.prompts().iter().filter(|prompt| prompt.held_out).count(), 1);
        assert_eq!(solved.reward(0, "1 + 2 * 3; and more").unwrap(), 1.0);
        assert_eq!(solved.reward(0, "1 + 2 + 3").unwrap(), 0.0);
        let mut partly = open(COUNTDOWN, &["solved", "uses_numbers"]).unwrap();
        let worth = |text: &str| partly.reward(2, text).unwrap();
        let found = ["2 + 3 * 4", "2 + 3 + 4", "2 + 3", "14", "2 + 3 + 4 +"].map(worth);
        assert_eq!(found, [1.0, 0.5, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn puzzles_are_worth_the_cells_that_are_right() {
        let text = r#"
            name = "s"
            version = 1
            about = "a"
            kind = "generate"
            prompt = "{{ p }}"
            target = "{{ s }}"
            [data]
            rows = [{ p = "1020", s = "1324" }, { p = "0120", s = "3124" }]
            [generate]
            [[extract]]
            name = "all"
            [cells]
            given = "{{ p }}"
            blank = "0"
        "#;
        let worth = |metrics: &[&str], answer: &str| {
            open(text, metrics).unwrap().reward(0, answer).unwrap()
        };
        assert_eq!(worth(&["cell_accuracy"], "1321"), 0.5);
        assert_eq!(worth(&["cell_accuracy,all"], "1324"), 1.0);
        assert_eq!(worth(&["exact_match"], "1321"), 0.0);
        assert_eq!(worth(&[], "1321"), 0.25);
        let error = open(text, &["solved"]).unwrap_err();
        assert!(error.to_string().contains("`solved`"), "{error}");
        assert!(error.hint().unwrap().contains("cell_accuracy,all"), "{error}");
    }

    #[test]
    fn other_kinds_judge_nothing() {
        let text = "name = \"p\"\nversion = 1\nabout = \"a\"\nkind = \"perplexity\"\n\
                    target = \"{{ t }}\"\n[data]\nrows = [{ t = \"x\" }]";
        let error = open(text, &[]).unwrap_err();
        assert!(error.to_string().contains("kind `perplexity`"), "{error}");
    }
}
