//! From rows to what the model is asked: prompts with their examples, answers, and what is right.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use minijinja::{Environment, Value};

use super::{
    EvalError, Task, arithmetic,
    dataset::{self, BadRow, DataFile, Row, Rows},
    extract::{self, Extractor},
    fewshot::Prefixes,
    task::{Choice, Choices, Fewshot, Kind},
    template::{self, evaluate, render},
};
use crate::{Result, text::is_space};

/// One thing to be asked.
#[derive(Debug, Clone)]
pub struct Example {
    /// Number of its row among all rows of the task, from 0: it addresses the random draws.
    pub index: usize,
    /// Group of its file.
    pub group: Option<String>,
    /// Where its row stands.
    pub place: String,
    /// What is asked.
    pub request: Request,
    /// The columns, for templates that need the response.
    pub(super) fields: Value,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Request {
    /// Score a document.
    Document {
        /// The text to be scored.
        text: String,
        /// Words of the document as it is stored: its parts between white space, as the harness
        /// counts them.
        words: usize,
        /// Its bytes in UTF-8.
        bytes: usize,
    },
    /// Score a continuation.
    Continuation {
        /// All that stands before it.
        context: String,
        /// The continuation, with the delimiter.
        target: String,
    },
    /// Choose an answer.
    Choice {
        /// All that stands before it.
        context: String,
        /// What stands between the context and each answer.
        delimiter: String,
        /// The answers.
        choices: Vec<String>,
        /// Number of the right one.
        answer: usize,
    },
    /// Write.
    Generate {
        /// All that stands before the response.
        context: String,
        /// What the answer is compared with.
        target: Option<String>,
        /// Numbers that an expression must use, and its value.
        expression: Option<(Vec<i128>, i128)>,
        /// The puzzle whose blanks are to be filled.
        given: Option<String>,
    },
}

impl Request {
    /// What the model sees first.
    pub fn context(&self) -> &str {
        match self {
            Self::Document { .. } => "",
            Self::Continuation { context, .. }
            | Self::Choice { context, .. }
            | Self::Generate { context, .. } => context,
        }
    }
}

/// A task with its rows, ready to be run.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// The task.
    pub task: Task,
    /// What is asked, in the order of the rows.
    pub examples: Vec<Example>,
    /// Rows that cannot be used.
    pub bad: Vec<BadRow>,
    /// Usable rows before the limit.
    pub rows: usize,
    /// Examples in each prompt.
    pub shots: usize,
    /// The folder below which the data was found; of no meaning where the task has its rows itself.
    pub base: PathBuf,
    pub(super) extractors: Vec<Extractor>,
    pub(super) environment: Environment<'static>,
}

/// Reads the data of `task` below `root`, unless it has its rows itself, and renders every prompt. `fewshot` is the number of
/// examples if not the task's own; `limit` takes the first rows of each group only.
///
/// # Errors
/// When the data is not found or cannot be read, the task's regexes or expressions are wrong, or
/// no row can be used. Single rows that cannot be used are in [`Prepared::bad`].
pub fn prepare(
    task: Task,
    root: &Path,
    fewshot: Option<usize>,
    limit: Option<usize>,
) -> Result<Prepared> {
    let invalid = |what| EvalError::Task { task: task.name.clone(), what };
    let extractors = match task.extract.as_slice() {
        [] => vec![Extractor::new(&extract::Extract { name: "none".into(), ..Default::default() })],
        list => list.iter().map(Extractor::new).collect(),
    };
    let extractors =
        extractors.into_iter().collect::<std::result::Result<_, _>>().map_err(invalid)?;
    let environment = template::environment().map_err(invalid)?;
    let (base, rows) = match task.data.is_inline() {
        true => (root.to_path_buf(), dataset::inline(&task.name, &task.data)),
        false => {
            let named = |error| with_source(error, &task.source);
            let (base, files) = dataset::find(root, &task.name, &task.data.files).map_err(named)?;
            let rows = read_rows(&task, &base, &files)?;
            (base, rows)
        }
    };

    let shots = fewshot.unwrap_or(task.fewshot.as_ref().map_or(0, |f| f.count));
    let renderer = Renderer { task: &task, environment: &environment };
    let mut prefixes = Prefixes::new(renderer, &base, shots);
    let (mut examples, mut bad, mut usable) = (Vec::new(), Vec::new(), BTreeMap::new());
    for (index, row) in rows.into_iter().enumerate() {
        let row = match row {
            Ok(row) => row,
            Err(row) => {
                bad.push(row);
                continue;
            }
        };
        let fields = fields(&row, index);
        let wanted = match &task.data.condition {
            Some(condition) => evaluate(&environment, condition, &fields).map(|v| v.is_true()),
            None => Ok(true),
        };
        if wanted == Ok(false) {
            continue;
        }
        // Examples are drawn for every row that is part of the task, even for a bad one.
        let prefix = prefixes.of(row.group.as_deref())?;
        match wanted.and_then(|_| renderer.request(&prefix, &fields)) {
            Ok(request) => {
                let count = usable.entry(row.group.clone()).or_insert(0);
                *count += 1;
                if limit.is_none_or(|limit| *count <= limit) {
                    let (group, place) = (row.group, row.place);
                    examples.push(Example { index, group, place, request, fields });
                }
            }
            Err(reason) => bad.push(BadRow { place: row.place, reason }),
        }
    }
    if examples.is_empty() {
        let first = bad.first().map(|b| format!("{}: {}", b.place, b.reason));
        let first = first.unwrap_or_else(|| "there is none".into());
        return Err(EvalError::NoRows { task: task.name, first }.into());
    }
    let rows = usable.values().sum();
    Ok(Prepared { task, examples, bad, rows, shots, base, extractors, environment })
}

/// The length of Python's `re.split(r"\s+", text)`: one more than the runs of white space, so that a
/// text with white space at an end has an empty word there.
pub(super) fn words(text: &str) -> usize {
    let runs = text.chars().fold((0, false), |(runs, before), c| {
        (runs + usize::from(is_space(c) && !before), is_space(c))
    });
    runs.0 + 1
}

/// Adds to an error about missing data where it can be had.
pub(super) fn with_source(error: crate::Error, source: &str) -> crate::Error {
    match error {
        crate::Error::Eval(EvalError::NoData { task, root, patterns, .. }) => {
            let source_of_data = source.to_owned();
            EvalError::NoData { task, root, patterns, source_of_data }.into()
        }
        other => other,
    }
}

fn read_rows(task: &Task, base: &Path, files: &[DataFile]) -> Result<Rows> {
    let mut rows = Rows::new();
    for file in files {
        let mut part = dataset::read(file, &task.data)?;
        if !task.data.labels.is_empty() {
            let group = file.group.as_deref();
            let labels = dataset::find_one(base, &task.name, &task.data.labels, group)
                .map_err(|error| with_source(error, &task.source))?;
            dataset::add_labels(&mut part, &labels)?;
        }
        rows.append(&mut part);
    }
    Ok(rows)
}

/// The columns of a row, `group` and `index`, for templates.
pub(super) fn fields(row: &Row, index: usize) -> Value {
    let mut fields = row.fields.clone();
    fields.insert("group".into(), row.group.clone().unwrap_or_default().into());
    fields.insert("index".into(), index.into());
    template::value(&fields.into())
}

/// Renders rows of a task.
#[derive(Clone, Copy)]
pub(super) struct Renderer<'a> {
    pub(super) task: &'a Task,
    pub(super) environment: &'a Environment<'static>,
}

impl Renderer<'_> {
    fn render(&self, template: &str, fields: &Value) -> std::result::Result<String, String> {
        render(self.environment, template, fields)
    }

    fn request(&self, prefix: &str, fields: &Value) -> std::result::Result<Request, String> {
        let task = self.task;
        let context = format!("{prefix}{}", self.render(&task.prompt, fields)?);
        let delimiter = task.delimiter.clone();
        match (task.kind, &task.choice) {
            (Kind::Perplexity, _) => self.document(fields),
            (Kind::Choice, Some(choice)) => {
                let (choices, answer) = self.choices(choice, fields)?;
                Ok(Request::Choice { context, delimiter, choices, answer })
            }
            (Kind::Generate, _) => self.generate(context, fields),
            (Kind::Continuation | Kind::Choice, _) => {
                let target = self.render(&task.target, fields)?;
                if target.is_empty() {
                    return Err("the continuation is empty".into());
                }
                Ok(Request::Continuation { context, target: format!("{delimiter}{target}") })
            }
        }
    }

    fn document(&self, fields: &Value) -> std::result::Result<Request, String> {
        let stored = self.render(&self.task.target, fields)?;
        let mut text = stored.clone();
        for [pattern, replacement] in &self.task.clean {
            let regex = extract::compile(pattern)?;
            text = regex.replace_all(&text, replacement.as_str()).into_owned();
        }
        if text.trim().is_empty() {
            return Err("the document is empty".into());
        }
        Ok(Request::Document { text, words: words(&stored), bytes: stored.len() })
    }

    fn generate(&self, context: String, fields: &Value) -> std::result::Result<Request, String> {
        let task = self.task;
        let target = match task.target.as_str() {
            "" => None,
            template => Some(self.render(template, fields)?),
        };
        let expression = task.expression.as_ref().map(|expression| {
            let (numbers, value) = (
                self.render(&expression.numbers, fields)?,
                self.render(&expression.value, fields)?,
            );
            let numbers = arithmetic::numbers(&numbers).filter(|n| !n.is_empty());
            let value = value.trim().parse().ok();
            numbers.zip(value).ok_or_else(|| "the numbers or their value are no numbers".to_owned())
        });
        let given = task.cells.as_ref().map(|cells| {
            let given = self.render(&cells.given, fields)?;
            let target = target.as_deref().unwrap_or_default();
            match given.chars().count() == target.chars().count() && given.contains(cells.blank) {
                true => Ok(given),
                false => {
                    Err("the puzzle has no blanks, or not the length of its solution".to_owned())
                }
            }
        });
        if let Some(code) = &task.code {
            let fields = minijinja::context! { response => "", ..fields.clone() };
            self.render(&code.program, &fields)?;
            self.render(&code.tests, &fields)?;
        }
        Ok(Request::Generate {
            context,
            target,
            expression: expression.transpose()?,
            given: given.transpose()?,
        })
    }

    /// The answers, and the number of the right one.
    fn choices(
        &self,
        choice: &Choice,
        fields: &Value,
    ) -> std::result::Result<(Vec<String>, usize), String> {
        let choices = match &choice.choices {
            Choices::Templates(list) => list
                .iter()
                .map(|t| self.render(t, fields))
                .collect::<std::result::Result<_, _>>()?,
            Choices::Expression(expression) => self.list(expression, fields)?,
        };
        if choices.len() < 2 || choices.iter().any(String::is_empty) {
            return Err(format!("{} choices, or an empty one", choices.len()));
        }
        let answer = evaluate(self.environment, &choice.answer, fields)?.to_string();
        let answer = answer.trim();
        let number = match &choice.labels {
            Some(labels) => self.list(labels, fields)?.iter().position(|label| label == answer),
            None => answer.parse().ok(),
        };
        match number.filter(|n| *n < choices.len()) {
            Some(number) => Ok((choices, number)),
            None => Err(format!("the answer `{answer}` is none of the {} choices", choices.len())),
        }
    }

    fn list(&self, expression: &str, fields: &Value) -> std::result::Result<Vec<String>, String> {
        let value = evaluate(self.environment, expression, fields)?;
        let items = value.try_iter().map_err(|_| format!("`{expression}` gives no list"))?;
        Ok(items.map(|item| item.to_string()).collect())
    }

    /// An example of the prompt: a row with its answer.
    pub(super) fn shot(
        &self,
        fewshot: &Fewshot,
        fields: &Value,
    ) -> std::result::Result<String, String> {
        let task = self.task;
        let prompt = self.render(&task.prompt, fields)?;
        let answer = match (&fewshot.target, &task.choice) {
            (Some(template), _) => self.render(template, fields)?,
            (None, Some(choice)) => {
                let (mut choices, answer) = self.choices(choice, fields)?;
                choices.swap_remove(answer)
            }
            (None, None) => self.render(&task.target, fields)?,
        };
        Ok(format!("{prompt}{}{answer}", task.delimiter))
    }
}
