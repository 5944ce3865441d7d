//! The rows of a task as what the model is asked, with the examples in front.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use minijinja::{Environment, Value};

use super::{
    EvalError, Task,
    dataset::{self, BadRow, DataFile, Rows, with_source},
    extract::{self, Extractor},
    fewshot::Prefixes,
    request::{Renderer, Request},
    template::{self, evaluate},
};
use crate::Result;

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
        let fields = row.values(index);
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
