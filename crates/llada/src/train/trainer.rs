//! The training loop.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use super::{
    Change, Loop, Memory, Recipe, Stage, StepMetrics, TaskScore, TrainError, Validation,
    alignment::{Alignment, Step},
    average::{Average, TRAINED},
    optimizer::Optimizer,
    reduction::Reduction,
    run_log::RunLog,
    saved::{self, STATE},
    source::Source,
    state::{Pending, State},
    store::{Keep, Store},
    trainable::Trainable,
    validation,
};
use crate::{
    Error, Result,
    chat::Template,
    checkpoint,
    data::conversations::Report,
    model::{Gradients, MaskPredictor},
    ranks::{Alone, Collective},
    tokenizer::{Tokenizer, TokenizerFiles},
};

/// What happens during a run, as it happens.
#[derive(Debug)]
pub enum Event<'a> {
    /// A step was done.
    Step(&'a StepMetrics),
    /// The held-out loss was measured.
    Validation(&'a Validation),
    /// The model was measured by tasks.
    Tasks {
        /// Steps done.
        step: u64,
        /// What was found.
        scores: &'a [TaskScore],
    },
    /// A sample was written.
    Sample {
        /// Steps done.
        step: u64,
        /// The text.
        text: &'a str,
    },
    /// A checkpoint was written.
    Checkpoint {
        /// Steps done.
        step: u64,
        /// Its folder.
        path: &'a Path,
    },
}

/// Measures the model as it is by tasks; gives nothing if it was stopped.
pub type Evaluating<'a> = dyn FnMut(&mut MaskPredictor) -> Result<Option<Vec<TaskScore>>> + 'a;

/// Makes a text with the model as it is.
pub type Sampling<'a> = dyn FnMut(&mut MaskPredictor) -> Result<String> + 'a;

/// What the caller lends to a run. The library has no clock and prints nothing.
pub struct Hooks<'a> {
    /// Seconds since 1970.
    pub clock: &'a dyn Fn() -> f64,
    /// When set, the step under way is left between two micro-batches, or finished where no other
    /// follows; a checkpoint of the steps that are done is written, and the run stopped.
    pub stop: &'a AtomicBool,
    /// Hears of everything.
    pub event: &'a mut dyn FnMut(&Event<'_>),
    /// Writes samples.
    pub sample: Option<&'a mut Sampling<'a>>,
    /// Measures the model by tasks, after every validation or as often as the recipe says.
    pub evaluate: Option<&'a mut Evaluating<'a>>,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All steps are done.
    Finished,
    /// It was asked to stop, and can be resumed.
    Stopped,
}

/// A run that can go on: model, optimiser, data, and its folder.
#[derive(Debug)]
pub struct Trainer {
    pub(super) recipe: Recipe,
    pub(super) store: Store,
    pub(super) source: Source,
    pub(super) tokenizer: Tokenizer,
    /// Its files, for every checkpoint.
    pub(super) tokenizer_files: TokenizerFiles,
    pub(super) predictor: MaskPredictor,
    pub(super) gradients: Gradients,
    pub(super) trainable: Trainable,
    pub(super) optimizer: Optimizer,
    /// What is measured and used in the place of what is trained, where the recipe wants that.
    pub(super) average: Option<Average>,
    /// What preferences and rewards need besides.
    pub(super) alignment: Option<Alignment>,
    pub(super) state: State,
    /// The mask token; the autoregressive objective does not use it.
    pub(super) mask: u32,
    /// Where its settings differ from those of the run or the checkpoint that it goes on from.
    pub(super) changes: Vec<Change>,
    /// Whether the metrics in the folder are of this run.
    pub(super) continues: bool,
    /// Later checkpoints of the run, which it goes on without; newest first.
    pub(super) later: Vec<PathBuf>,
    /// The processes that train together; this one alone has nobody to ask.
    pub(super) ranks: Arc<dyn Collective>,
    pub(super) reduction: Reduction,
}

impl Trainer {
    /// The recipe.
    pub fn recipe(&self) -> &Recipe {
        &self.recipe
    }

    /// Steps done.
    pub fn step(&self) -> u64 {
        self.state.step
    }

    /// Where its settings differ from those of the run that is resumed or branched from.
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// The model as it is.
    pub fn predictor(&self) -> &MaskPredictor {
        &self.predictor
    }

    /// The tokenizer of the data.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The chat template of its checkpoints; LLaDA's where they have none.
    ///
    /// # Errors
    /// If the template is not valid.
    pub fn template(&self) -> Result<Template> {
        Template::of(&self.tokenizer_files, self.store.dir())
    }

    /// What was read of the conversations, pairs or prompts.
    pub fn conversations(&self) -> Option<&Report> {
        self.source.report()
    }

    /// Numbers that are trained: all of the model's, or those of its adapters.
    pub fn trained_parameters(&self) -> usize {
        self.trainable.count(self.predictor.model())
    }

    /// Names and shapes of what is trained.
    pub fn shapes(&self) -> Vec<(String, Vec<usize>)> {
        let parameters = self.trainable.parameters(self.predictor.model());
        parameters.into_iter().map(|parameter| (parameter.name, parameter.shape)).collect()
    }

    /// Tokens of a step, on average and before padding.
    pub fn tokens_of_step(&self) -> u64 {
        (self.source.sequence_length(&self.recipe) * self.recipe.train.batch_size) as u64
    }

    /// The memory of each of its ranks.
    pub fn memory(&self) -> Memory {
        let config = &self.predictor.model().config;
        let length = self.source.sequence_length(&self.recipe);
        Memory::of_model(&self.recipe, config, length, self.ranks.world())
    }

    /// Passes over the data that all steps come to.
    pub fn epochs(&self) -> f64 {
        let sequences = self.recipe.train.steps as f64 * self.recipe.train.batch_size as f64;
        sequences / self.source.sequences_per_epoch(&self.recipe).max(1) as f64
    }

    /// The tokens that a sample goes on from: the start of a document, or in fine-tuning a prompt,
    /// of the held-out ones where there are any.
    pub fn sample_prompt(&self) -> Vec<u32> {
        let config = &self.predictor.model().config;
        self.source.sample_prompt(&checkpoint::special_tokens(config, Some(&self.tokenizer)))
    }

    /// Algorithm 1: trains to the last step of the recipe, or until it is asked to stop, on any of its
    /// ranks. The first of them alone tells of it and writes samples.
    pub fn run(&mut self, hooks: &mut Hooks<'_>) -> Result<Outcome> {
        if self.ranks.is_first() {
            return self.train(hooks);
        }
        let Hooks { clock, stop, .. } = *hooks;
        self.train(&mut Hooks { clock, stop, event: &mut |_| {}, sample: None, evaluate: None })
    }

    fn train(&mut self, hooks: &mut Hooks<'_>) -> Result<Outcome> {
        let (every, steps) = (self.recipe.clone(), self.recipe.train.steps);
        if self.step() >= steps && self.state.pending.is_empty() {
            return Ok(Outcome::Finished);
        }
        let ranks = self.ranks.clone();
        let mut log = ranks.agree(self.open_log(hooks))?;
        self.catch_up(&mut log, hooks)?;
        if ranks.any(!self.state.pending.is_empty())? {
            return Ok(Outcome::Stopped);
        }
        let (first, started) = (self.step(), (hooks.clock)());
        while self.step() < steps {
            let begun = (hooks.clock)();
            let Some(mut metrics) = self.train_step(hooks.stop, hooks.clock)? else {
                self.save_done(&mut log, hooks)?;
                return Ok(Outcome::Stopped);
            };
            let now = (hooks.clock)();
            metrics.seconds = (now - begun).max(1e-9);
            metrics.tokens_per_second = metrics.tokens as f64 / metrics.seconds;
            let done = metrics.step - first;
            metrics.seconds_left = (now - started) / done as f64 * (steps - metrics.step) as f64;
            let last = metrics.step == steps;
            if last || metrics.step.is_multiple_of(every.log.every) || metrics.skipped.is_some() {
                ranks.agree(log.step(&metrics, now))?;
            }
            (hooks.event)(&Event::Step(&metrics));
            ranks.agree(self.check_finite())?;

            let stop = ranks.any(hooks.stop.load(Ordering::Relaxed))?;
            let due = |n: u64| n > 0 && (last || metrics.step.is_multiple_of(n));
            let due_now = Pending {
                validation: due(every.eval.every),
                sample: due(every.log.sample_every),
                tasks: due(every.eval.tasks_every()),
            };
            self.state.pending = due_now;
            if !stop && let Err(failure) = ranks.agree(self.do_pending(&mut log, hooks)) {
                // Steps are not lost for a text that cannot be written.
                self.state.pending = due_now;
                return self.save_done(&mut log, hooks).and(Err(failure));
            }
            let stop = stop || ranks.any(!self.state.pending.is_empty())?;
            let is_good = self.is_good();
            let is_due = last || stop || due(every.train.checkpoint_every);
            if is_good && (is_due || self.is_among_best()?) {
                self.checkpoint(&mut log, hooks)?;
            }
            if stop && !(last && self.state.pending.is_empty()) {
                return Ok(Outcome::Stopped);
            }
            if last && !is_good {
                return ranks.agree(Err(self.diverged()));
            }
        }
        Ok(Outcome::Finished)
    }

    /// Opens what a run writes besides checkpoints.
    fn open_log(&mut self, hooks: &Hooks<'_>) -> Result<RunLog> {
        let later = std::mem::take(&mut self.later);
        let continues = std::mem::replace(&mut self.continues, true);
        if !self.ranks.is_first() {
            return Ok(RunLog::silent());
        }
        // The old settings are replaced once nothing is left that goes beyond this step.
        self.store.set_aside(&later)?;
        let (dir, now) = (self.store.dir(), (hooks.clock)());
        RunLog::open(dir, &self.recipe, &self.state, continues, now)
    }

    /// Weights from which no finite loss came are not worth going back to.
    fn is_good(&self) -> bool {
        self.state.not_finite == 0
    }

    /// Writes the checkpoint of the steps that are done where it is not there yet.
    fn save_done(&mut self, log: &mut RunLog, hooks: &mut Hooks<'_>) -> Result<()> {
        let is_saved = || Ok(self.step() == 0 || self.store.path(self.step()).exists());
        let is_saved = self.ranks.first(is_saved)?;
        if self.is_good() && !is_saved {
            self.checkpoint(log, hooks)?;
        }
        Ok(())
    }

    /// Stops a run that only skips: its weights no longer change.
    fn check_finite(&self) -> Result<()> {
        let is_lost = self.state.not_finite >= self.recipe.train.max_skipped;
        if is_lost { Err(self.diverged()) } else { Ok(()) }
    }

    fn diverged(&self) -> Error {
        let last = self.store.checkpoints().ok().and_then(|mut all| Some(all.pop()?.1));
        let (step, times) = (self.state.step, self.state.not_finite);
        TrainError::Diverged { step, times, last }.into()
    }

    /// Whether the validation of this step, where there was one, is one to keep.
    fn is_among_best(&self) -> Result<bool> {
        let best = self.recipe.train.keep_best;
        if best == 0 {
            return Ok(false);
        }
        self.ranks.first(|| match self.state.validation() {
            None => Ok(false),
            Some(loss) => self.store.is_among_best(loss, best),
        })
    }

    /// The loss on what is held out, now.
    pub fn measure(&mut self) -> Result<Validation> {
        self.averaged(Self::measure_model)
    }

    /// The loss of the model as it is.
    fn measure_model(&mut self) -> Result<Validation> {
        let Self { predictor, recipe, source, tokenizer, alignment, mask, state, .. } = self;
        let (mask, step) = (*mask, state.step);
        let mut found = match recipe.stage() {
            Stage::Reward => Validation::without_text(step),
            _ => validation::measure(predictor, recipe, source, mask, step)?,
        };
        if let Some(alignment) = alignment {
            let special = &checkpoint::special_tokens(&predictor.model().config, Some(tokenizer));
            let (ranks, stop) = (&Alone, &AtomicBool::new(false));
            let step =
                Step { ranks, predictor, recipe, source, tokenizer, special, mask, step, stop };
            found.measured = alignment.measure(step)?;
        }
        Ok(found)
    }

    /// Does something while the model has the average of what is trained, where one is kept.
    fn averaged<T>(&mut self, act: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        self.exchange()?;
        let done = act(self);
        self.exchange()?;
        done
    }

    fn exchange(&mut self) -> Result<()> {
        let Self { average: Some(average), predictor, trainable, .. } = self else {
            return Ok(());
        };
        let cpu = predictor.cpu().clone();
        average.exchange(&cpu, predictor.model_mut(), trainable)
    }

    /// Does what a stop left to be done, so that the run tells what one that was not stopped does.
    fn catch_up(&mut self, log: &mut RunLog, hooks: &mut Hooks<'_>) -> Result<()> {
        if self.state.pending.is_empty() {
            return Ok(());
        }
        let ranks = self.ranks.clone();
        ranks.agree(self.do_pending(log, hooks))?;
        ranks.first(|| {
            log.report(&self.recipe)?;
            self.state.write(&self.store.path(self.step()).join(STATE))
        })
    }

    /// Validates and writes a sample where that is due.
    fn do_pending(&mut self, log: &mut RunLog, hooks: &mut Hooks<'_>) -> Result<()> {
        let Pending { validation, sample, tasks } = std::mem::take(&mut self.state.pending);
        if !self.ranks.is_first() {
            return Ok(());
        }
        if validation && self.recipe.eval.every > 0 {
            self.validate(log, hooks)?;
        }
        if sample && self.recipe.log.sample_every > 0 {
            self.sample(log, hooks)?;
        }
        if tasks {
            self.state.pending.tasks = !self.evaluate(log, hooks)?;
        }
        Ok(())
    }

    /// Measures the model by tasks; tells whether that was done, and not stopped.
    fn evaluate(&mut self, log: &mut RunLog, hooks: &mut Hooks<'_>) -> Result<bool> {
        let Some(evaluate) = &mut hooks.evaluate else { return Ok(true) };
        let step = self.state.step;
        let Some(scores) = self.averaged(|run| evaluate(&mut run.predictor))? else {
            return Ok(false);
        };
        log.tasks(step, &scores, (hooks.clock)())?;
        (hooks.event)(&Event::Tasks { step, scores: &scores });
        Ok(true)
    }

    fn validate(&mut self, log: &mut RunLog, hooks: &mut Hooks<'_>) -> Result<()> {
        let found = self.measure()?;
        self.state.set_validation(Some(found.to_minimise()));
        log.validation(&found, (hooks.clock)())?;
        (hooks.event)(&Event::Validation(&found));
        Ok(())
    }

    fn sample(&mut self, log: &mut RunLog, hooks: &mut Hooks<'_>) -> Result<()> {
        if let Some(sample) = &mut hooks.sample {
            let step = self.state.step;
            let text = self.averaged(|run| sample(&mut run.predictor))?;
            log.sample(step, &text)?;
            (hooks.event)(&Event::Sample { step, text: &text });
        }
        Ok(())
    }

    fn checkpoint(&mut self, log: &mut RunLog, hooks: &mut Hooks<'_>) -> Result<PathBuf> {
        let ranks = self.ranks.clone();
        // Lines that a checkpoint counts as written must be on the disk before it is.
        ranks.agree(log.flush())?;
        self.state.recipe = Some(self.recipe.to_toml());
        let Loop { keep_last: last, keep_best: best, .. } = self.recipe.train;
        let path = self.averaged(|run| {
            let Self { store, state, trainable, optimizer, average, alignment, .. } = run;
            let (model, recipe, step) = (run.predictor.model(), &run.recipe, state.step);
            store.save(&*ranks, state, Keep { last, best }, |dir| {
                if ranks.is_first() {
                    trainable.save(model, dir)?;
                    run.tokenizer_files.write(dir)?;
                    if let Some(average) = average {
                        average.save(&trainable.parameters(model), &dir.join(TRAINED))?;
                    }
                    alignment.iter().try_for_each(|alignment| alignment.save(recipe, step, dir))?;
                }
                optimizer.save(&dir.join(saved::optimizer(ranks.rank(), ranks.world())))
            })
        })?;
        ranks.agree(log.report(&self.recipe))?;
        (hooks.event)(&Event::Checkpoint { step: self.state.step, path: &path });
        Ok(path)
    }
}
