//! `llada eval`: tasks, their data, and the results of a model.

mod progress;
mod run;
#[cfg(unix)]
pub(super) mod sandbox;
#[cfg(not(unix))]
#[path = "eval/sandbox_elsewhere.rs"]
pub(super) mod sandbox;
mod store;
pub(super) mod table;

use std::{collections::BTreeSet, path::PathBuf};

use anyhow::Result;
use llada::eval::{Kind, Prepared, Request, Task, prepare, shipped};

use crate::{
    args::{DataArgs, Eval, EvalLs, EvalValidate},
    error::Failure,
    term::{self, Term, visible_controls},
    view::units,
};

/// Bad rows that are named; `--verbose` names all.
const NAMED: usize = 5;

/// Runs the verb below `eval`.
pub fn run(args: Eval, term: &Term) -> Result<()> {
    match args {
        Eval::Run(args) => run::run(&args, term),
        Eval::Ls(args) => ls(&args),
        Eval::Validate(args) => validate(&args, term),
    }
}

fn ls(args: &EvalLs) -> Result<()> {
    if let Some(name) = &args.task {
        return term::answer(shipped::text(name)?.trim_end());
    }
    let heads = ["task", "kind", "data", "examples", "metrics", "what"];
    let mut rows = vec![heads.map(String::from).to_vec()];
    for (name, _) in shipped::SHIPPED {
        let task = shipped::task(name)?;
        let mut metrics: Vec<String> = Vec::new();
        for metric in task.metrics() {
            let metric = metric.split(',').next().unwrap_or_default().to_owned();
            if !metrics.contains(&metric) {
                metrics.push(metric);
            }
        }
        let kind = if task.code.is_some() { "code" } else { task.kind.name() };
        let shots = task.fewshot.as_ref().map_or(0, |f| f.count).to_string();
        let data = if task.data.is_inline() { "ships" } else { "yours" }.into();
        rows.push(vec![name.into(), kind.into(), data, shots, metrics.join(" "), task.about]);
    }
    term::answer(&table::columns(&rows))
}

fn validate(args: &EvalValidate, term: &Term) -> Result<()> {
    let tasks = args.tasks.iter().map(|name| shipped::task(name)).collect::<llada::Result<_>>()?;
    let mut bad = 0;
    let mut failures = run::Failures::new(args.tasks.len());
    for (task, opened) in open(tasks, &args.data)? {
        match opened {
            Ok(prepared) => {
                term::answer(&visible_controls(&description(&prepared)))?;
                name_bad_rows(&prepared, term);
                bad += prepared.bad.len();
            }
            Err(error) => failures.add(&task, error.into())?,
        }
    }
    if !failures.failed.is_empty() {
        let hint = "the messages above say what each needs";
        return Err(failures.summary("cannot be run", hint));
    }
    match bad {
        0 => Ok(()),
        _ => {
            let message = format!("{} rows cannot be used", units::thousands(bad as u64));
            Err(Failure::new(message, "mend them, or evaluate without them: they are not scored")
                .into())
        }
    }
}

/// Each task by its name, with its data or why that cannot be read.
type Opened = Vec<(String, llada::Result<Prepared>)>;

/// Refuses a place of data that no task of this run would look at.
fn refuse_idle_data(tasks: &[Task], roots: &[(&str, PathBuf)], data: &[String]) -> Result<()> {
    let is_idle = |task: &Task| {
        let is_given = roots.iter().any(|(name, _)| task.name == name.replace('-', "_"));
        task.data.is_inline() && is_given
    };
    let all_inline = !data.is_empty() && tasks.iter().all(|task| task.data.is_inline());
    match tasks.iter().find(|task| all_inline || is_idle(task)) {
        Some(task) => {
            let message = format!("`--data`: the task `{}` has its rows in itself", task.name);
            Err(Failure::usage(message, "leave it out, or copy the task file and change it").into())
        }
        None => Ok(()),
    }
}

/// Reads the data of the tasks.
fn open(tasks: Vec<Task>, args: &DataArgs) -> Result<Opened> {
    let mut root = PathBuf::from(".");
    let mut roots: Vec<(&str, PathBuf)> = Vec::new();
    for given in &args.data {
        match given.split_once('=') {
            Some((task, path)) if tasks.iter().any(|t| t.name == task.replace('-', "_")) => {
                roots.push((task, path.into()));
            }
            // A folder may have an equals sign in its name.
            Some((task, _)) if !PathBuf::from(given).exists() => {
                let known: Vec<&str> = tasks.iter().map(|t| t.name.as_str()).collect();
                let message = format!("`--data {given}` is for no task of this run (`{task}`)");
                let hint = format!("the tasks are: {}", known.join(", "));
                return Err(Failure::usage(message, hint).into());
            }
            _ => root = given.into(),
        }
    }
    refuse_idle_data(&tasks, &roots, &args.data)?;
    let limit = args.limit.map(|n| usize::try_from(n).unwrap_or(usize::MAX));
    let mut seen = BTreeSet::new();
    if let Some(task) = tasks.iter().find(|task| !seen.insert(task.name.clone())) {
        let message = format!("the task `{}` was given twice", task.name);
        return Err(Failure::usage(message, "give every task once").into());
    }
    let mut opened = Vec::new();
    for task in tasks {
        let own = roots.iter().rev().find(|(name, _)| task.name == name.replace('-', "_"));
        let root = own.map_or(&root, |(_, path)| path);
        let fewshot = args.fewshot.filter(|_| task.kind != Kind::Perplexity);
        opened.push((task.name.clone(), prepare(task, root, fewshot, limit)));
    }
    Ok(opened)
}

/// Counts, and the first prompt with what is expected.
fn description(prepared: &Prepared) -> String {
    let task = &prepared.task;
    let groups: BTreeSet<_> = prepared.examples.iter().filter_map(|e| e.group.as_ref()).collect();
    let data = match task.data.is_inline() {
        true => "in the task file".into(),
        false => prepared.base.display().to_string(),
    };
    let mut facts = vec![
        ("task", format!("{} (version {}, {})", task.name, task.version, task.kind.name())),
        ("data", data),
        ("rows", units::thousands(prepared.rows as u64)),
        ("bad rows", units::thousands(prepared.bad.len() as u64)),
        ("examples in a prompt", prepared.shots.to_string()),
        ("metrics", task.metrics().join(" ")),
    ];
    if !groups.is_empty() {
        facts.insert(3, ("groups", groups.len().to_string()));
    }
    let Some(first) = prepared.examples.first() else { return units::table(&facts) };
    let expected = match &first.request {
        Request::Document { text, words, bytes } => {
            facts.push(("first document", format!("{words} words, {bytes} bytes")));
            text.chars().take(400).collect()
        }
        Request::Continuation { target, .. } => target.clone(),
        Request::Choice { choices, answer, .. } => choices
            .iter()
            .enumerate()
            .map(|(i, choice)| format!("{} {choice}", if i == *answer { "*" } else { " " }))
            .collect::<Vec<_>>()
            .join("\n"),
        Request::Generate { target, expression, .. } => match (target, expression) {
            (Some(target), _) => target.clone(),
            (None, Some((numbers, value))) => {
                format!("an expression of {numbers:?} that is {value}")
            }
            (None, None) => "a program that passes its tests".into(),
        },
    };
    let context = first.request.context();
    let shown = match &first.request {
        Request::Document { .. } => format!("--- text ---\n{expected}"),
        _ => format!("--- prompt ---\n{context}\n--- expected ---\n{expected}"),
    };
    format!("{}\n--- {} ---\n{shown}\n", units::table(&facts), first.place)
}

/// The programs of a task were not allowed.
pub(super) fn not_allowed(task: &str) -> Failure {
    let message =
        format!("the task `{task}` runs programs that the model writes, which was not allowed");
    let hint = "add `--allow-code`; docs/concepts/sandbox.md says what they are kept from";
    Failure::usage(message, hint)
}

/// Says on stderr which rows cannot be used, and why.
pub(super) fn name_bad_rows(prepared: &Prepared, term: &Term) {
    let bad = &prepared.bad;
    if bad.is_empty() {
        return;
    }
    let name = &prepared.task.name;
    term.warn(&format!("{name}: {} rows cannot be used", units::thousands(bad.len() as u64)));
    for (i, row) in bad.iter().enumerate() {
        let line = format!("  {}: {}", row.place, row.reason);
        if i < NAMED { term.note(&line) } else { term.detail(&line) }
    }
}
