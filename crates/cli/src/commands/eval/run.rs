//! `llada eval run`.

use std::{
    collections::BTreeMap,
    path::Path,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::Result;
use llada::diffusion::blocks::AdaptiveBlocks;
use llada::eval::{
    Checker, Evaluator, Kind, Overrides, Plan, Prepared, report, report::Finished,
    settings::Sampling, shipped,
};
use serde_json::json;

use super::{name_bad_rows, open, progress::Progress, sandbox::Sandbox, store, table};
use crate::{
    args::EvalRun,
    error::{Failure, Interrupted},
    interrupt::Flag,
    locate::{self, Shipped},
    session::Session,
    term::{self, Term},
    view::units,
};

/// Rows that are generated together unless asked otherwise.
const BATCH_SIZE: u16 = 8;

/// Evaluates, and prints the results.
pub fn run(args: &EvalRun, term: &Term) -> Result<()> {
    let (model, tasks) = operands(args);
    let tasks = tasks.iter().map(|name| shipped::task(name)).collect::<llada::Result<_>>()?;
    let prepared = open(tasks, &args.data)?;
    prepared.iter().for_each(|prepared| name_bad_rows(prepared, term));
    refuse_idle_flags(args, &prepared)?;
    let _held = match &args.out {
        Some(dir) => Some(store::hold(dir)?),
        None => None,
    };
    let mut sandbox = sandbox(args, &prepared)?;
    let mut session =
        Session::open(model, Shipped::for_chat(args.chat), args.threads.threads.into(), term)?;
    let asked = Overrides {
        scoring: args.scoring.scoring.map(Into::into),
        mc_num: args.scoring.mc_num,
        mc_batch_size: args.scoring.mc_batch_size,
        cfg_scale: args.scoring.cfg_scale,
        sampling: args.sampling.settings(&|| AdaptiveBlocks::of(&session.tokenizer))?,
        chat: args.chat,
        truncate: args.truncate,
        seed: args.seed,
    };
    let plan =
        |prepared: &Prepared| Plan::new(&prepared.task, &asked, session.config(), &session.special);
    let plans = prepared.iter().map(plan).collect::<llada::Result<Vec<_>>>()?;

    let stop = Flag::listen(term, Some("finishing the step; press Ctrl-C again to quit now"))?;
    let begun = Instant::now();
    let mut finished = Vec::new();
    for (prepared, plan) in prepared.into_iter().zip(plans) {
        let sandbox = sandbox.as_mut();
        finished.push(one(args, &mut session, prepared, plan, sandbox, &stop, term)?);
    }
    let seconds = begun.elapsed().as_secs_f64();
    let date = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let config = config(args, &session, date, seconds);
    let results = format!("{:#}", report::json(&finished, config));
    if let Some(dir) = &args.out {
        let path = store::write_results(dir, date, &results)?;
        term.note(&format!("wrote {}", path.display()));
    }
    term.note(&format!("{} · seed {}", units::duration(seconds), args.seed));
    match args.json {
        true => term::answer(&results),
        false => term::answer(&table::results(&finished)),
    }
}

/// The model and the tasks: the first word is the model where it can be nothing else.
fn operands(args: &EvalRun) -> (Option<&Path>, &[String]) {
    match args.tasks.split_first() {
        Some((first, tasks)) if !tasks.is_empty() && locate::looks_like_model(first) => {
            (Some(Path::new(first)), tasks)
        }
        _ => (args.model.model.as_deref(), &args.tasks),
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
    let mut evaluator = Evaluator {
        predictor: &mut session.predictor,
        tokenizer: &session.tokenizer,
        template: &session.template,
        special: session.special,
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
                "{name}: {rows} of {} rows are kept in {}; the same command goes on from there",
                prepared.examples.len(),
                dir.display()
            ),
            None => format!("{name}: no row is kept; `--out DIR` keeps those that are done"),
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
    Ok(Finished { prepared, plan, outcome })
}

/// What is known of the run as a whole, under the harness's names where it has them.
fn config(args: &EvalRun, session: &Session, date: u64, seconds: f64) -> serde_json::Value {
    json!({
        "model": "llada",
        "model_args": format!("pretrained={}", session.name),
        "model_num_parameters": session.config().parameters(),
        "model_dtype": session.predictor.model().tensors.first().map(|t| format!("{:?}", t.dtype())),
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

/// The sandbox, where a task needs one and it is allowed.
fn sandbox(args: &EvalRun, prepared: &[Prepared]) -> Result<Option<Sandbox>> {
    let Some(needs) = prepared.iter().find(|p| p.task.code.is_some()) else { return Ok(None) };
    if !args.code.allow_code {
        let message = format!(
            "the task `{}` runs programs that the model writes, which was not allowed",
            needs.task.name
        );
        let hint = "add `--allow-code`; they run with limits, but may read and write your files";
        return Err(Failure::usage(message, hint).into());
    }
    Ok(Some(Sandbox::new(args.code.allow_network)?))
}

/// Refuses flags that no task of this run would notice.
fn refuse_idle_flags(args: &EvalRun, prepared: &[Prepared]) -> Result<()> {
    let any = |kinds: &[Kind]| prepared.iter().any(|p| kinds.contains(&p.task.kind));
    let (scoring, sampling) = (&args.scoring, &args.sampling);
    let samples = scoring.mc_num.is_some() || scoring.mc_batch_size.is_some();
    let asked_for = sampling.settings(&|| AdaptiveBlocks::new(Vec::new()))?;
    let writes = asked_for != Sampling::default() || sampling.batch_size.is_some();
    let runs = prepared.iter().any(|p| p.task.code.is_some());
    let asked = [Kind::Continuation, Kind::Choice, Kind::Generate];
    let scored = [Kind::Perplexity, Kind::Continuation, Kind::Choice];
    let idle = [
        ("--scoring", scoring.scoring.is_some() && !any(&[Kind::Choice])),
        ("--mc-num and --mc-batch-size", samples && !any(&scored)),
        ("--chat", args.chat && !any(&asked)),
        ("--truncate", args.truncate && !any(&asked)),
        ("--fewshot", args.data.fewshot.is_some() && !any(&asked)),
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
