//! Tasks by which a model is measured while it is trained.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::atomic::{AtomicBool, Ordering},
};

use super::{
    Checker, EvalError, Evaluator, Observer, Outcome, Overrides, Plan, Prepared, metric::Estimate,
    record::Record, report, runner::rows, settings::Scoring, task::Kind,
};
use crate::{
    Codec, Result, chat::Template, config::ModelConfig, model::MaskPredictor, tokenizer::Tokenizer,
    train::TaskScore,
};

/// Rows that are generated together.
const BATCH_SIZE: usize = 8;

/// Tasks with what makes their rows into tokens.
pub struct Monitor {
    prepared: Vec<Prepared>,
    asked: Overrides,
    tokenizer: Tokenizer,
    template: Template,
    checker: Option<Box<dyn Checker>>,
}

impl fmt::Debug for Monitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tasks: Vec<_> = self.prepared.iter().map(|prepared| &prepared.task.name).collect();
        f.debug_struct("Monitor").field("tasks", &tasks).finish_non_exhaustive()
    }
}

impl Monitor {
    /// Tasks for a model of this tokenizer, whose prompts are messages under `template` if `asked` says so.
    /// `checker` runs programs, for tasks that have some.
    ///
    /// # Errors
    /// When the settings of a task, or all of its rows, do not go with such a model, or two tasks have one name.
    pub fn new(
        prepared: Vec<Prepared>,
        asked: Overrides,
        tokenizer: Tokenizer,
        template: Template,
        config: &ModelConfig,
        checker: Option<Box<dyn Checker>>,
    ) -> Result<Self> {
        let monitor = Self { prepared, asked, tokenizer, template, checker };
        let codec = monitor.codec(config);
        let mut names = BTreeSet::new();
        for prepared in &monitor.prepared {
            let refused = |what: &str, remedy: String| {
                let (task, what) = (prepared.task.name.clone(), what.into());
                Err(EvalError::Setting { task, what, remedy }.into())
            };
            if !names.insert(&prepared.task.name) {
                return refused("it is given twice", "give each once in `eval.tasks`".into());
            }
            let plan = monitor.plan(prepared, &codec)?;
            let is_scored =
                prepared.task.kind != Kind::Generate && plan.scoring == Scoring::Likelihood;
            if is_scored && config.attention.block_length().is_some() {
                let remedy = "leave it out of `eval.tasks`, or give a task that generates";
                let what = "a model that attends by blocks has no likelihood of a given answer";
                return refused(what, remedy.into());
            }
            let mut reason = String::new();
            let fits = prepared.examples.iter().map(|example| {
                let found = rows(&codec, example, &plan)?;
                Ok(found.map_err(|bad| reason = bad.reason).is_ok())
            });
            if !fits.collect::<Result<Vec<bool>>>()?.contains(&true) {
                let remedy = format!("leave it out of `eval.tasks`: {reason}");
                return refused("no row of it can be used", remedy);
            }
        }
        Ok(monitor)
    }

    fn codec(&self, config: &ModelConfig) -> Codec {
        Codec::new(self.tokenizer.clone(), self.template.clone(), config)
    }

    fn plan(&self, prepared: &Prepared, codec: &Codec) -> Result<Plan> {
        let ends = || codec.delimiters();
        Plan::new(&prepared.task, &self.asked, codec.config(), &codec.special, &ends)
    }

    /// The metrics of all tasks for the model as it is, with the same draws every time; `None` if it
    /// was stopped.
    ///
    /// # Errors
    /// If the model fails, or a program cannot be run.
    pub fn evaluate(
        &mut self,
        predictor: &mut MaskPredictor,
        stop: &AtomicBool,
    ) -> Result<Option<Vec<TaskScore>>> {
        let codec = self.codec(&predictor.model().config);
        let mut scores = Vec::new();
        for prepared in &self.prepared {
            let plan = self.plan(prepared, &codec)?;
            let checker = self.checker.as_deref_mut().map(|checker| checker as &mut dyn Checker);
            let mut evaluator =
                Evaluator { predictor, codec: &codec, batch_size: BATCH_SIZE, checker };
            let outcome = evaluator.run(prepared, &plan, &BTreeMap::new(), &mut Silent(stop))?;
            if outcome.interrupted {
                return Ok(None);
            }
            scores.extend(of_task(prepared, &outcome));
        }
        Ok(Some(scores))
    }
}

/// The metrics of a task as a whole.
fn of_task(prepared: &Prepared, outcome: &Outcome) -> Vec<TaskScore> {
    let whole = report::lines(prepared, outcome).into_iter().next();
    let estimates = whole.into_iter().flat_map(|line| line.estimates);
    let score = |(metric, found): (String, Estimate)| TaskScore {
        task: prepared.task.name.clone(),
        metric,
        value: found.value,
        standard_error: found.standard_error.or(found.linear_error),
        rows: found.rows,
    };
    estimates.map(score).collect()
}

/// Hears nothing, and ends an evaluation when it is told to.
struct Silent<'a>(&'a AtomicBool);

impl Observer for Silent<'_> {
    fn record(&mut self, _: &Record, _: bool) -> Result<()> {
        Ok(())
    }

    fn is_over(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
