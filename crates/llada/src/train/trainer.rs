//! The training loop.

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use llada_kernels::grad_norm;

use super::{
    Change, Recipe, Skip, Stage, StepMetrics, TrainError, Validation,
    alignment::{Alignment, Step},
    learning_rate,
    optimizer::Optimizer,
    run_log::RunLog,
    saved::STATE,
    source::Source,
    state::{Pending, State},
    step_flops,
    store::Store,
    trainable::Trainable,
    update::Update,
    validation,
};
use crate::{
    Error, Result, checkpoint,
    data::conversations::Report,
    diffusion::loss,
    model::{Gradients, MaskPredictor, Targets, balance_loss},
    tokenizer::{Tokenizer, TokenizerFiles},
};

/// What happens during a run, as it happens.
#[derive(Debug)]
pub enum Event<'a> {
    /// A step was done.
    Step(&'a StepMetrics),
    /// The held-out loss was measured.
    Validation(&'a Validation),
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

    /// What was read of the conversations, pairs or prompts.
    pub fn conversations(&self) -> Option<&Report> {
        self.source.report()
    }

    /// Numbers that are trained: all of the model's, or those of its adapters.
    pub fn trained_parameters(&self) -> usize {
        self.trainable.count(self.predictor.model())
    }

    /// The tokens that a sample goes on from: the start of a document, or in fine-tuning a prompt,
    /// of the held-out ones where there are any.
    pub fn sample_prompt(&self) -> Vec<u32> {
        let config = &self.predictor.model().config;
        self.source.sample_prompt(&checkpoint::special_tokens(config, Some(&self.tokenizer)))
    }

    /// Algorithm 1: trains to the last step of the recipe, or until it is asked to stop.
    pub fn run(&mut self, hooks: &mut Hooks<'_>) -> Result<Outcome> {
        let (every, steps) = (self.recipe.clone(), self.recipe.train.steps);
        if self.step() >= steps && self.state.pending.is_empty() {
            return Ok(Outcome::Finished);
        }
        // The old settings are replaced once nothing is left that goes beyond this step.
        self.store.set_aside(&std::mem::take(&mut self.later))?;
        let continues = std::mem::replace(&mut self.continues, true);
        let (dir, now) = (self.store.dir(), (hooks.clock)());
        let mut log = RunLog::open(dir, &self.recipe, &self.state, continues, now)?;
        self.catch_up(&mut log, hooks)?;
        let (first, started) = (self.step(), (hooks.clock)());
        while self.step() < steps {
            let begun = (hooks.clock)();
            let Some(mut metrics) = self.train_step(hooks.stop)? else {
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
                log.step(&metrics, now)?;
            }
            (hooks.event)(&Event::Step(&metrics));
            self.check_finite()?;

            let stop = hooks.stop.load(Ordering::Relaxed);
            let due = |n: u64| n > 0 && (last || metrics.step.is_multiple_of(n));
            let due_now =
                Pending { validation: due(every.eval.every), sample: due(every.log.sample_every) };
            self.state.pending = due_now;
            if !stop && let Err(failure) = self.do_pending(&mut log, hooks) {
                // Steps are not lost for a text that cannot be written.
                self.state.pending = due_now;
                return self.save_done(&mut log, hooks).and(Err(failure));
            }
            let is_good = self.is_good();
            if is_good && (last || stop || due(every.train.checkpoint_every)) {
                self.checkpoint(&mut log, hooks)?;
            }
            if stop && !(last && self.state.pending.is_empty()) {
                return Ok(Outcome::Stopped);
            }
            if last && !is_good {
                return Err(self.diverged());
            }
        }
        Ok(Outcome::Finished)
    }

    /// One step: noisy sequences, loss and gradient, and the update unless they forbid it. `None` if it
    /// was stopped before it had changed anything.
    fn train_step(&mut self, stop: &AtomicBool) -> Result<Option<StepMetrics>> {
        let Recipe { train, optim, .. } = &self.recipe;
        let step = self.state.step;
        let config = &self.predictor.model().config;
        let (shift, special) =
            (config.shift, checkpoint::special_tokens(config, Some(&self.tokenizer)));
        let batch = match &mut self.alignment {
            None => Update::Noisy(self.source.step_batch(&self.recipe, self.mask, shift, step)?),
            Some(alignment) => {
                let step = Step {
                    predictor: &mut self.predictor,
                    recipe: &self.recipe,
                    source: &self.source,
                    tokenizer: &self.tokenizer,
                    special: &special,
                    mask: self.mask,
                    step,
                    stop,
                };
                let Some(weighted) = alignment.update(step)? else { return Ok(None) };
                Update::Weighted(weighted)
            }
        };
        let (mut total, mut predicted, mut nll) = (0.0, 0, Vec::new());
        let (mut balance, mut expert_tokens) = (0.0, Vec::new());
        self.gradients.clear();
        for start in (0..batch.count()).step_by(self.recipe.micro_batch()) {
            if stop.load(Ordering::Relaxed) {
                return Ok(None);
            }
            let end = batch.count().min(start + self.recipe.micro_batch());
            let micro = batch.micro_batch(start..end);
            // Each part of the batch counts by its tokens.
            let share = micro.noised.tokens.len() as f64 / batch.tokens().max(1) as f64;
            let targets = Targets { balance: train.balance * share, ..micro.targets() };
            self.predictor.nll_and_gradient(
                &micro.batch(),
                &targets,
                train.recompute,
                &mut nll,
                &mut self.gradients,
            )?;
            total += loss::value(&micro.noised.weights, &nll);
            predicted += nll.len();
            balance += share * balance_loss(self.predictor.loads());
            for load in self.predictor.loads() {
                expert_tokens.resize(expert_tokens.len().max(load.counts.len()), 0);
                expert_tokens.iter_mut().zip(&load.counts).for_each(|(sum, n)| *sum += n);
            }
        }

        let total = batch.loss().unwrap_or(total);
        let cpu = self.predictor.cpu().clone();
        let model = self.predictor.model_mut();
        let gradients = self.trainable.gradients(&cpu, model, &self.gradients)?;
        let each: Vec<&[f32]> = gradients.iter().collect();
        let norm = grad_norm::forward(&cpu, &each)?;
        let rate = learning_rate(optim, step, train.steps);
        let skipped = if !(total.is_finite() && norm.is_finite()) {
            Some(Skip::NotFinite)
        } else if self.state.is_spike(norm, train.spike_factor) {
            Some(Skip::Spike)
        } else {
            let clip = optim.clip_norm > 0.0 && norm > optim.clip_norm;
            let scale = if clip { (optim.clip_norm / norm) as f32 } else { 1.0 };
            self.state.updates += 1;
            let (update, optimizer) = (self.state.updates, &mut self.optimizer);
            self.trainable.update(&cpu, model, &self.gradients, |values, gradients| {
                optimizer.update(&cpu, values, gradients, update, rate, scale)
            })?;
            None
        };

        let lengths = batch.lengths();
        let tokens = lengths.iter().sum::<usize>() as u64;
        self.state.step += 1;
        self.state.tokens += tokens;
        self.state.skipped += u64::from(skipped.is_some());
        self.state.not_finite =
            if skipped == Some(Skip::NotFinite) { self.state.not_finite + 1 } else { 0 };
        self.state.add_loss(total);
        let config = &self.predictor.model().config;
        let flops = lengths.iter().map(|&length| step_flops(config, 1, length, 0)).sum::<f64>();
        Ok(Some(StepMetrics {
            step: self.state.step,
            steps: train.steps,
            loss: total,
            loss_ema: self.state.loss_ema(),
            balance: (!expert_tokens.is_empty()).then_some(balance),
            expert_tokens,
            learning_rate: rate,
            grad_norm: norm,
            skipped,
            length: lengths.into_iter().max().unwrap_or(0),
            tokens,
            total_tokens: self.state.tokens,
            seconds: 0.0,
            tokens_per_second: 0.0,
            flops: flops + step_flops(config, 0, 0, predicted),
            seconds_left: 0.0,
            measured: batch.measured(),
        }))
    }

    /// Weights from which no finite loss came are not worth going back to.
    fn is_good(&self) -> bool {
        self.state.not_finite == 0
    }

    /// Writes the checkpoint of the steps that are done where it is not there yet.
    fn save_done(&mut self, log: &mut RunLog, hooks: &mut Hooks<'_>) -> Result<()> {
        let is_saved = self.step() == 0 || self.store.path(self.step()).exists();
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

    /// The loss on what is held out, now.
    pub fn measure(&mut self) -> Result<Validation> {
        let Self { predictor, recipe, source, tokenizer, alignment, mask, state, .. } = self;
        let (mask, step) = (*mask, state.step);
        let mut found = match recipe.stage() {
            Stage::Reward => Validation::without_text(step),
            _ => validation::measure(predictor, recipe, source, mask, step)?,
        };
        if let Some(alignment) = alignment {
            let special = &checkpoint::special_tokens(&predictor.model().config, Some(tokenizer));
            let stop = &AtomicBool::new(false);
            let step = Step { predictor, recipe, source, tokenizer, special, mask, step, stop };
            found.measured = alignment.measure(step)?;
        }
        Ok(found)
    }

    /// Does what a stop left to be done, so that the run tells what one that was not stopped does.
    fn catch_up(&mut self, log: &mut RunLog, hooks: &mut Hooks<'_>) -> Result<()> {
        if self.state.pending.is_empty() {
            return Ok(());
        }
        self.do_pending(log, hooks)?;
        log.report(&self.recipe)?;
        self.state.write(&self.store.path(self.step()).join(STATE))
    }

    /// Validates and writes a sample where that is due.
    fn do_pending(&mut self, log: &mut RunLog, hooks: &mut Hooks<'_>) -> Result<()> {
        let Pending { validation, sample } = std::mem::take(&mut self.state.pending);
        if validation && self.recipe.eval.every > 0 {
            self.validate(log, hooks)?;
        }
        if sample && self.recipe.log.sample_every > 0 {
            self.sample(log, hooks)?;
        }
        Ok(())
    }

    fn validate(&mut self, log: &mut RunLog, hooks: &mut Hooks<'_>) -> Result<()> {
        let found = self.measure()?;
        log.validation(&found, (hooks.clock)())?;
        (hooks.event)(&Event::Validation(&found));
        Ok(())
    }

    fn sample(&mut self, log: &mut RunLog, hooks: &mut Hooks<'_>) -> Result<()> {
        if let Some(sample) = &mut hooks.sample {
            let (step, text) = (self.state.step, sample(&mut self.predictor)?);
            log.sample(step, &text)?;
            (hooks.event)(&Event::Sample { step, text: &text });
        }
        Ok(())
    }

    fn checkpoint(&mut self, log: &mut RunLog, hooks: &mut Hooks<'_>) -> Result<PathBuf> {
        // Lines that a checkpoint counts as written must be on the disk before it is.
        log.flush()?;
        self.state.recipe = Some(self.recipe.to_toml());
        let (model, trainable, optimizer) =
            (self.predictor.model(), &self.trainable, &self.optimizer);
        let (tokenizer, alignment, recipe, step) =
            (&self.tokenizer_files, &self.alignment, &self.recipe, self.state.step);
        let path = self.store.save(&mut self.state, self.recipe.train.keep_last, |dir| {
            trainable.save(model, dir)?;
            optimizer.save(&dir.join("optimizer.safetensors"))?;
            alignment.iter().try_for_each(|alignment| alignment.save(recipe, step, dir))?;
            tokenizer.write(dir)
        })?;
        log.report(&self.recipe)?;
        (hooks.event)(&Event::Checkpoint { step: self.state.step, path: &path });
        Ok(path)
    }
}
