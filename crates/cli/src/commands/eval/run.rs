//! `llada eval run`.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::Result;
use llada::{
    Session,
    diffusion::Settings,
    eval::{
        Checker, Evaluator, Kind, Overrides, Plan, Prepared, Task, report,
        report::{Failed, Finished},
        shipped,
    },
};
use serde_json::json;

use super::super::constraint;
use super::{name_bad_rows, not_allowed, open, progress::Progress, sandbox::Sandbox, store, table};
use crate::{
    args::EvalRun,
    error::{self, Failure, Interrupted, StdoutClosed},
    interrupt::Flag,
    locate::{self, Shipped},
    session,
    term::{self, Term},
    view::units,
};

/// Rows that are generated together unless asked otherwise.
const BATCH_SIZE: u16 = 8;

/// Evaluates, and prints the results.
pub fn run(args: &EvalRun, term: &Term) -> Result<()> {
    // What is wrong with the command line or a task file ends the run before anything is done.
    let (model, tasks) = operands(args)?;
    let tasks = tasks.iter().map(|name| shipped::task(name));
    let tasks = tasks.collect::<llada::Result<Vec<_>>>()?;
    let constraint = constraint::read(&args.sampling.constraint.0)?;
    refuse_idle_flags(args, constraint.is_some(), &tasks)?;
    refuse_code(args, &tasks)?;
    let _held = match &args.out {
        Some(dir) => Some(store::hold(dir)?),
        None => None,
    };
    let count = tasks.len();
    let mut failures = Failures::new(count);
    let mut prepared = Vec::new();
    for (task, opened) in open(tasks, &args.data)? {
        match opened {
            Ok(mut opened) => {
                if let Some(shard) = args.shard {
                    opened.examples = shard.take(opened.examples);
                }
                prepared.push(opened);
            }
            Err(error) => failures.add(&task, error.into())?,
        }
    }
    prepared.iter().for_each(|prepared| name_bad_rows(prepared, term));
    let mut sandbox = sandbox(args, &mut prepared, &mut failures, term)?;
    if prepared.is_empty() {
        return Err(failures.summary("failed", MISSING));
    }
    let mut session = session::open(
        model.as_deref(),
        Shipped::for_chat(args.chat),
        &args.machine.sampling(&args.sampling.sampler.settings),
        term,
    )?;
    let asked = Overrides {
        scoring: args.scoring.scoring.map(Into::into),
        mc_num: args.scoring.mc_num,
        mc_batch_size: args.scoring.mc_batch_size,
        cfg_scale: args.scoring.cfg_scale,
        sampling: args.sampling.sampler.settings.clone(),
        constraint: constraint.clone(),
        chat: args.chat,
        truncate: args.truncate,
        seed: args.seed,
    };
    let ends = || session.delimiters();
    let plan = |prepared: &Prepared| {
        Plan::new(&prepared.task, &asked, session.config(), &session.special, &ends)
    };
    let plans = prepared.iter().map(plan).collect::<llada::Result<Vec<_>>>()?;

    let stop = Flag::listen(term, Some("finishing the step; press Ctrl-C again to quit now"))?;
    let begun = Instant::now();
    let mut finished = Vec::new();
    for (prepared, plan) in prepared.into_iter().zip(plans) {
        let task = prepared.task.name.clone();
        match one(args, &mut session, prepared, plan, sandbox.as_mut(), &stop, term) {
            Ok(done) => finished.push(done),
            Err(error) => failures.add(&task, error)?,
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    let date = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let config = config(args, &session, date, seconds);
    let results = format!("{:#}", report::json(&finished, &failures.failed, config));
    // What was computed is shown, whatever becomes of the file.
    let written = args.out.as_ref().map(|dir| store::write_results(dir, date, &results));
    if let Some(Ok(path)) = &written {
        term.note(&format!("wrote {}", path.display()));
    }
    term.note(&format!("{} · seed {}", units::duration(seconds), args.seed));
    match args.json {
        true => term::answer(&results)?,
        false => term::answer(&table::results(&finished, &failures.failed))?,
    }
    written.transpose()?;
    if failures.failed.is_empty() { Ok(()) } else { Err(failures.summary("failed", MISSING)) }
}

/// What to do after a run of which tasks failed.
const MISSING: &str = "with `--out`, the same command does only what is missing";

/// The tasks of a run that could not be evaluated. The others are, unless there is but one.
pub(super) struct Failures {
    tasks: usize,
    pub(super) failed: Vec<Failed>,
}

impl Failures {
    pub(super) fn new(tasks: usize) -> Self {
        Self { tasks, failed: Vec::new() }
    }

    /// Tells why a task failed and lets the run go on, unless it is its only task, or it was ended.
    pub(super) fn add(&mut self, task: &str, error: anyhow::Error) -> Result<()> {
        if self.tasks == 1 || error.is::<Interrupted>() || error.is::<StdoutClosed>() {
            return Err(error);
        }
        error::show(&error);
        self.failed.push(Failed { task: task.into(), reason: format!("{error:#}") });
        Ok(())
    }

    /// What the run as a whole failed with: tasks of which `what` is said.
    pub(super) fn summary(&self, what: &str, hint: &str) -> anyhow::Error {
        let names: Vec<&str> = self.failed.iter().map(|failed| failed.task.as_str()).collect();
        let (failed, tasks) = (names.len(), self.tasks);
        let message = format!("{failed} of {tasks} tasks {what}: {}", names.join(", "));
        Failure::new(message, hint).into()
    }
}

/// Whether a word among tasks is a model.
fn is_model(word: &str) -> bool {
    Shipped::named(word).is_some() || locate::looks_like_model(word)
}

/// The model and the tasks: the first word is the model where it can be nothing else.
fn operands(args: &EvalRun) -> Result<(Option<PathBuf>, &[String]), Failure> {
    match args.tasks.split_first() {
        Some((first, tasks)) if !tasks.is_empty() && is_model(first) => {
            Ok((Some(args.model.or_word(first)?), tasks))
        }
        _ => Ok((args.model.model.clone(), &args.tasks)),
    }
}

/// Evaluates one task.
fn one(
    args: &EvalRun,
    session: &mut Session,
    prepared: Prepared,
    plan: Plan,
    sandbox: Option<&mut Sandbox>,
    stop: &Flag,
    term: &Term,
) -> Result<Finished> {
    let name = prepared.task.name.clone();
    let (store, done) = match &args.out {
        Some(dir) => {
            let (store, done) = store::Store::open(dir, &name, term)?;
            (Some(store), done)
        }
        None => (None, BTreeMap::new()),
    };
    term.detail(&format!("{name}: {}", serde_json::to_string(&plan)?));
    let mut progress = Progress::new(&name, prepared.examples.len(), store, stop, term);
    let Session { predictor, codec } = session;
    let mut evaluator = Evaluator {
        predictor,
        codec,
        batch_size: args.sampling.batch_size.unwrap_or(BATCH_SIZE).into(),
        checker: sandbox.map(|sandbox| sandbox as &mut dyn Checker),
    };
    let outcome = evaluator.run(&prepared, &plan, &done, &mut progress);
    progress.finish();
    let outcome = outcome?;
    let too_long = outcome.too_long.len();
    if outcome.interrupted {
        let rows = outcome.records.len();
        term.note(&match &args.out {
            Some(dir) => format!(
                "{name}: {rows} of {} rows are recorded in {}; the same command goes on from there",
                prepared.examples.len(),
                dir.display()
            ),
            None => format!("{name}: no row is recorded; `--out DIR` records those that are done"),
        });
        return Err(Interrupted.into());
    }
    if let Some(first) = outcome.too_long.first() {
        let (place, reason) = (&first.place, &first.reason);
        term.warn(&format!(
            "{name}: {too_long} rows were not evaluated because they are too long ({place}: \
             {reason}); `--truncate` cuts their prompts, `--fewshot 0` shortens them"
        ));
    }
    if outcome.truncated > 0 {
        term.warn(&format!("{name}: {} prompts were cut from the left", outcome.truncated));
    }
    if outcome.records.is_empty() {
        let message = format!("no row of the task `{name}` fits the model");
        return Err(Failure::new(message, "use `--truncate`, or `--fewshot 0`").into());
    }
    Ok(Finished::new(prepared, plan, outcome))
}

/// What is known of the run as a whole, under the harness's names where it has them.
fn config(args: &EvalRun, session: &Session, date: u64, seconds: f64) -> serde_json::Value {
    json!({
        "model": "llada",
        "model_args": format!("pretrained={}", session.name),
        "model_num_parameters": session.config().parameters(),
        "model_dtype": session.predictor.model().tensors.iter().next().map(|t| format!("{:?}", t.dtype())),
        "batch_size": args.sampling.batch_size.unwrap_or(BATCH_SIZE),
        "device": session.predictor.cpu().isa().to_string(),
        "limit": args.data.limit,
        "random_seed": args.seed,
        "chat_template": args.chat,
        "program": concat!("llada ", env!("CARGO_PKG_VERSION")),
        "date": date,
        "total_evaluation_time_seconds": seconds,
    })
}

/// Refuses to run programs that a model writes where that was not allowed.
fn refuse_code(args: &EvalRun, tasks: &[Task]) -> Result<()> {
    let Some(needs) = tasks.iter().find(|task| task.code.is_some()) else { return Ok(()) };
    if args.code.allow_code {
        return Ok(());
    }
    Err(not_allowed(&needs.name).into())
}

/// The sandbox, where a task needs one; where there is none, such tasks fail.
fn sandbox(
    args: &EvalRun,
    prepared: &mut Vec<Prepared>,
    failures: &mut Failures,
    term: &Term,
) -> Result<Option<Sandbox>> {
    let Some(first) = prepared.iter().find(|p| p.task.code.is_some()) else { return Ok(None) };
    let name = first.task.name.clone();
    match Sandbox::new(args.code.allow_network, term) {
        Ok(sandbox) => Ok(Some(sandbox)),
        Err(error) => {
            let reason = format!("{error:#}");
            failures.add(&name, error)?;
            let (code, others) = prepared.drain(..).partition(|p| p.task.code.is_some());
            *prepared = others;
            let code: Vec<Prepared> = code;
            let also = code.into_iter().map(|p| p.task.name).filter(|other| *other != name);
            failures.failed.extend(also.map(|task| Failed { task, reason: reason.clone() }));
            Ok(None)
        }
    }
}

/// Refuses flags that no task of this run would notice.
fn refuse_idle_flags(args: &EvalRun, constrains: bool, tasks: &[Task]) -> Result<()> {
    let any = |kinds: &[Kind]| tasks.iter().any(|task| kinds.contains(&task.kind));
    let (scoring, sampling) = (&args.scoring, &args.sampling);
    let samples = scoring.mc_num.is_some() || scoring.mc_batch_size.is_some();
    let writes = sampling.sampler.settings != Settings::NONE || sampling.batch_size.is_some();
    let runs = tasks.iter().any(|task| task.code.is_some());
    let asked = [Kind::Continuation, Kind::Choice, Kind::Generate];
    let scored = [Kind::Perplexity, Kind::Continuation, Kind::Choice];
    let idle = [
        ("--scoring", scoring.scoring.is_some() && !any(&[Kind::Choice])),
        ("--mc-num and --mc-batch-size", samples && !any(&scored)),
        ("--chat", args.chat && !any(&asked)),
        ("--truncate", args.truncate && !any(&asked)),
        ("--fewshot", args.data.fewshot.is_some() && !any(&asked)),
        ("the flags of a constraint", constrains && !any(&[Kind::Generate])),
        ("the flags of sampling", writes && !any(&[Kind::Generate])),
        ("--allow-code", args.code.allow_code && !runs),
    ];
    match idle.iter().find(|(_, idle)| *idle) {
        None => Ok(()),
        Some((flag, _)) => {
            let message = format!("{flag}: no task of this run has a use for it");
            Err(Failure::usage(message, "leave it out; `llada eval ls` tells the kinds").into())
        }
    }
}
