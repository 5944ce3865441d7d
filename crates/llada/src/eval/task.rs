//! The task file: what is asked, where the data is, how answers are judged. All of a task is data.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    EvalError,
    extract::{Compare, Extract},
    settings::{Likelihood, Scoring},
};
use crate::{constraint::Constraint, diffusion::Settings};

/// How a task is evaluated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// How probable whole documents are.
    Perplexity,
    /// How probable one given continuation is, and whether greedy decoding would find it.
    Continuation,
    /// Which of several answers is the best, by likelihood or by confidence.
    Choice,
    /// What the model writes, compared, computed or run.
    Generate,
}

impl Kind {
    /// Its name in task files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Perplexity => "perplexity",
            Self::Continuation => "continuation",
            Self::Choice => "choice",
            Self::Generate => "generate",
        }
    }
}

/// A task file.
///
/// Texts marked as templates are Jinja over the columns of a row, `group` and `index`. Expressions
/// are Jinja without the braces. The filter `resub(pattern, replacement)` replaces by regex.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Task {
    /// Its name in results.
    pub name: String,
    /// Raised whenever a change of the file changes scores.
    pub version: u32,
    /// One line for people.
    pub about: String,
    /// Where the data can be had, for people.
    #[serde(default)]
    pub source: String,
    /// How it is evaluated.
    pub kind: Kind,
    /// Where its rows are.
    pub data: Data,
    /// Template of what precedes the examples and the prompt.
    #[serde(default)]
    pub description: String,
    /// Template of the prompt.
    #[serde(default)]
    pub prompt: String,
    /// What stands between a prompt and its answer.
    #[serde(default = "space")]
    pub delimiter: String,
    /// Template of the document, the continuation, or the text to compare with.
    #[serde(default)]
    pub target: String,
    /// The examples of the prompt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fewshot: Option<Fewshot>,
    /// The answers to choose from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub choice: Option<Choice>,
    /// How likelihoods are estimated.
    #[serde(default)]
    pub likelihood: Likelihood,
    /// Pairs of regex and replacement that turn a document as it is stored into the text to be
    /// scored; words and bytes are counted before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub clean: Vec<[String; 2]>,
    /// How responses are generated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generate: Option<Generate>,
    /// How the answer is found in the response; without any, the response is the answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extract: Vec<Extract>,
    /// Run the answer as a program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<Code>,
    /// Compute the answer as an arithmetic expression.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expression: Option<Expression>,
    /// Count the right characters among those that were to be filled in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cells: Option<Cells>,
}

fn space() -> String {
    " ".into()
}

/// `[data]`: the files of rows, below the folder that the user points at, or the rows themselves.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Data {
    /// Names that are tried in turn; `{group}` in the last part of a name stands for any text, and
    /// makes a group of each file.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<String>,
    /// The rows, where they are in the task file; results do not repeat them.
    #[serde(default, skip_serializing)]
    pub rows: Vec<Map<String, Value>>,
    /// Column that holds the rows, in JSON files that are one object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub records: Option<String>,
    /// Names of the columns, for CSV and TSV files that may have no header; one that is there is
    /// recognised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub columns: Option<Vec<String>>,
    /// Names of files with one label for each row, which becomes the column `label`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
    /// Regex of the first line of each document, in text files; without it a file is a document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begin: Option<String>,
    /// Expression that a row must fulfil to be part of the task.
    #[serde(default, rename = "where", skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
}

impl Data {
    /// Whether the rows are in the task file, so that no data is looked for.
    pub fn is_inline(&self) -> bool {
        !self.rows.is_empty()
    }

    fn check(&self) -> Result<(), String> {
        if !self.is_inline() && self.files.is_empty() {
            return Err("`data.files` names no file, and `data.rows` has no row".into());
        }
        let of_files = [
            ("files", !self.files.is_empty()),
            ("records", self.records.is_some()),
            ("columns", self.columns.is_some()),
            ("labels", !self.labels.is_empty()),
            ("begin", self.begin.is_some()),
        ];
        match of_files.into_iter().find(|(_, present)| *present && self.is_inline()) {
            Some((name, _)) => Err(format!("`data.{name}` has no meaning beside `data.rows`")),
            None => Ok(()),
        }
    }
}

/// `[fewshot]`: examples in front of the prompt, from rows or from a text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fewshot {
    /// How many.
    pub count: usize,
    /// What stands between examples.
    #[serde(default = "blank_line")]
    pub separator: String,
    /// Which of the rows are taken.
    #[serde(default)]
    pub sampler: FewshotSampler,
    /// Files of rows, as in `data`; `{group}` is the group of the prompt.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<String>,
    /// Expression that a row must fulfil to be an example.
    #[serde(default, rename = "where", skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
    /// Template of an example's answer, where it is not what the task compares with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Files that hold a description and ready examples as one text.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub text: Vec<String>,
    /// The text begins after this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// Every example of the text begins with this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begin: Option<String>,
}

/// Which rows become examples.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FewshotSampler {
    /// The first ones, the same for every prompt of a group.
    #[default]
    First,
    /// Others for every prompt, those that lm-evaluation-harness draws with its seed 1234.
    Random,
}

fn blank_line() -> String {
    "\n\n".into()
}

/// `[choice]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Choice {
    /// The answers.
    pub choices: Choices,
    /// Expression of the right one: its number from 0, or its label.
    pub answer: String,
    /// Expression of the labels, one for each choice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<String>,
    /// By what the best is found.
    #[serde(default)]
    pub scoring: Scoring,
    /// Which of `acc`, `acc_norm` (per character), `acc_bytes` (per byte) and `acc_token` (per
    /// token) are reported.
    pub metrics: Vec<ChoiceMetric>,
}

/// The answers to choose from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Choices {
    /// A template for each.
    Templates(Vec<String>),
    /// An expression of a list.
    Expression(String),
}

/// How the scores of answers of unequal length are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChoiceMetric {
    /// As they are.
    Acc,
    /// Divided by the characters of the answer.
    AccNorm,
    /// Divided by the bytes of the answer in UTF-8.
    AccBytes,
    /// Divided by the tokens of the answer.
    AccToken,
}

impl ChoiceMetric {
    /// Its name in results.
    pub fn name(self) -> &'static str {
        match self {
            Self::Acc => "acc",
            Self::AccNorm => "acc_norm",
            Self::AccBytes => "acc_bytes",
            Self::AccToken => "acc_token",
        }
    }
}

/// `[generate]`: the settings of the reference's evaluation.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Generate {
    /// Texts before which the response is cut.
    #[serde(default)]
    pub stop: Vec<String>,
    /// What a response must be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub constraint: Option<Constraint>,
    /// The sampler.
    #[serde(default)]
    pub sampling: Settings,
    /// What differs where the prompt is wrapped in the chat template.
    #[serde(default)]
    pub chat: Chat,
}

/// `[generate.chat]`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Chat {
    /// Other texts before which the response is cut.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop: Option<Vec<String>>,
    /// Other settings of the sampler.
    #[serde(default)]
    pub sampling: Settings,
}

/// `[code]`: the answer is right if the program and its tests end without an error.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Code {
    /// Template of the program in Python; `response` is the answer.
    pub program: String,
    /// Template of its tests, which a process of their own runs: what a program defines is called
    /// from there. Without them the program vouches for itself.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub tests: String,
    /// Seconds that it may take.
    pub timeout: f64,
    /// Memory that it may take, in MiB.
    pub memory_mb: u64,
}

/// `[expression]`: the answer is right if it uses each of the numbers once and has the value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expression {
    /// Template of the numbers, with anything between them.
    pub numbers: String,
    /// Template of the value.
    pub value: String,
}

/// `[cells]`: of the characters that are `blank` in `given`, the share that agrees with `target`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cells {
    /// Template of the puzzle.
    pub given: String,
    /// The character of a cell to be filled.
    pub blank: char,
}

impl Task {
    /// Reads a task file; `origin` is its path or name, for errors.
    ///
    /// # Errors
    /// When it is not TOML, has unknown or missing keys, or sections that its kind does not use.
    pub fn parse(text: &str, origin: &str) -> Result<Self, EvalError> {
        let invalid = |what: String| EvalError::Task { task: origin.into(), what };
        let task: Self = toml::from_str(text).map_err(|e| {
            let line = e.span().map(|s| text[..s.start].matches('\n').count() + 1);
            let place = line.map(|n| format!("line {n}: ")).unwrap_or_default();
            invalid(format!("{place}{}", e.message()))
        })?;
        task.check().map_err(invalid)?;
        Ok(task)
    }

    /// What contradicts the kind of the task.
    fn check(&self) -> Result<(), String> {
        let kind = self.kind;
        let named = self.name.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c));
        if self.name.is_empty() || !named {
            return Err("`name` must consist of letters, digits, `_`, `-` and `.`".into());
        }
        self.data.check()?;
        let sections = [
            ("choice", self.choice.is_some(), kind == Kind::Choice, kind == Kind::Choice),
            ("generate", self.generate.is_some(), kind == Kind::Generate, kind == Kind::Generate),
            ("extract", !self.extract.is_empty(), kind == Kind::Generate, false),
            ("code", self.code.is_some(), kind == Kind::Generate, false),
            ("expression", self.expression.is_some(), kind == Kind::Generate, false),
            ("cells", self.cells.is_some(), kind == Kind::Generate, false),
            ("clean", !self.clean.is_empty(), kind == Kind::Perplexity, false),
            ("prompt", !self.prompt.is_empty(), kind != Kind::Perplexity, kind != Kind::Perplexity),
            ("fewshot", self.fewshot.is_some(), kind != Kind::Perplexity, false),
        ];
        for (name, present, allowed, required) in sections {
            if present && !allowed {
                return Err(format!("`{name}` has no meaning for the kind `{}`", kind.name()));
            }
            if !present && required {
                return Err(format!("`{name}` is missing, which the kind `{}` needs", kind.name()));
            }
        }
        if matches!(kind, Kind::Perplexity | Kind::Continuation) && self.target.is_empty() {
            return Err(format!("`target` is missing, which the kind `{}` needs", kind.name()));
        }
        if self.choice.as_ref().is_some_and(|choice| choice.metrics.is_empty()) {
            return Err("`choice.metrics` is empty".into());
        }
        let judged = !self.target.is_empty() || self.code.is_some() || self.expression.is_some();
        if kind == Kind::Generate && !judged {
            return Err("nothing judges the response: give `target`, `code` or `expression`".into());
        }
        if self.cells.is_some() && self.target.is_empty() {
            return Err("`cells` needs a `target` to compare with".into());
        }
        if let Some(code) = &self.code
            && !(code.timeout > 0.0 && code.timeout <= 3600.0 && code.memory_mb > 0)
        {
            return Err("`code.timeout` must be in 0..3600 s, `code.memory_mb` above 0".into());
        }
        if let Some(shots) = &self.fewshot {
            if shots.files.is_empty() == shots.text.is_empty() {
                return Err("`fewshot` needs either `files` or `text`".into());
            }
            if !shots.text.is_empty() && shots.begin.as_ref().is_none_or(String::is_empty) {
                return Err("`fewshot.begin` is missing, which `fewshot.text` needs".into());
            }
            let is_random = shots.sampler == FewshotSampler::Random;
            if is_random && shots.files.iter().any(|file| self.data.files.contains(file)) {
                return Err(
                    "`fewshot.sampler = \"random\"` would draw the row that is asked: take \
                            the examples from another file"
                        .into(),
                );
            }
            if is_random && shots.files.is_empty() {
                return Err("`fewshot.sampler = \"random\"` needs `fewshot.files`".into());
            }
        }
        Ok(())
    }

    /// The metrics that it reports, as `name,filter`.
    pub fn metrics(&self) -> Vec<String> {
        match self.kind {
            Kind::Perplexity => ["word_perplexity", "byte_perplexity", "bits_per_byte"]
                .map(|m| format!("{m},none"))
                .into(),
            Kind::Continuation => ["acc,none", "perplexity,none"].map(String::from).into(),
            Kind::Choice => self
                .choice
                .iter()
                .flat_map(|choice| &choice.metrics)
                .map(|metric| format!("{},none", metric.name()))
                .collect(),
            Kind::Generate => {
                let checks = [
                    (None, !self.target.is_empty()),
                    (Some("cell_accuracy"), self.cells.is_some()),
                    (Some("solved"), self.expression.is_some()),
                    (Some("pass@1"), self.code.is_some()),
                ];
                let filters: Vec<(&str, &str)> = match self.extract.is_empty() {
                    true => vec![("none", Compare::default().metric())],
                    false => self.extract.iter().map(|e| (&*e.name, e.compare.metric())).collect(),
                };
                let metric = |check: Option<&str>, filter: &(&str, &str)| {
                    format!("{},{}", check.unwrap_or(filter.1), filter.0)
                };
                let checks = checks.iter().filter(|(_, on)| *on);
                checks.flat_map(|(c, _)| filters.iter().map(move |f| metric(*c, f))).collect()
            }
        }
    }
}
