//! One step of the loop: what it learns from, the gradients of its micro-batches, and the update.

use std::sync::atomic::{AtomicBool, Ordering};

use super::{
    Recipe, Skip, StepMetrics, Trainer, alignment::Step, learning_rate, reduction::Tally,
    step_flops, update::Update,
};
use crate::{
    Result, checkpoint,
    diffusion::loss,
    model::{Targets, balance_loss},
    ranks::Collective,
};

impl Trainer {
    /// One step: noisy sequences, loss and gradient, and the update unless they forbid it. `None` if it
    /// was stopped before it had changed anything.
    pub(super) fn train_step(
        &mut self,
        stop: &AtomicBool,
        clock: &dyn Fn() -> f64,
    ) -> Result<Option<StepMetrics>> {
        self.attend(self.state.step);
        let ranks = self.ranks.clone();
        let Recipe { train, optim, block, .. } = &self.recipe;
        let step = self.state.step;
        let config = &self.predictor.model().config;
        let batch = match &mut self.alignment {
            None => {
                let shift = config.shift;
                let batch = self.source.step_batch(&self.recipe, self.mask, shift, step);
                Update::Noisy(ranks.agree(batch)?)
            }
            Some(alignment) => {
                let special = checkpoint::special_tokens(config, Some(&self.tokenizer));
                let step = Step {
                    ranks: &*ranks,
                    predictor: &mut self.predictor,
                    recipe: &self.recipe,
                    source: &self.source,
                    tokenizer: &self.tokenizer,
                    special: &special,
                    mask: self.mask,
                    step,
                    stop,
                };
                let Some(weighted) = ranks.agree(alignment.update(step))? else { return Ok(None) };
                Update::Weighted(weighted)
            }
        };
        let cpu = self.predictor.cpu().clone();
        let mut nll = Vec::new();
        self.gradients.clear();
        self.reduction.begin();
        let mut micro_batches = || {
            let mut tally = Tally::default();
            for sequences in self.reduction.micro_batches(batch.count()) {
                if stop.load(Ordering::Relaxed) {
                    tally.is_stopped = true;
                    break;
                }
                let micro = batch.micro_batch(sequences);
                // Each part of the batch counts by its tokens.
                let share = micro.tokens() as f64 / batch.tokens().max(1) as f64;
                let cap = block.as_ref().map_or(0.0, |block| block.cap_weight * share);
                let targets = Targets { balance: train.balance * share, cap, ..micro.targets() };
                self.predictor.nll_and_gradient(
                    micro.feed(),
                    &targets,
                    train.recompute,
                    &mut nll,
                    &mut self.gradients,
                )?;
                let balance = share * balance_loss(self.predictor.loads());
                let loss = loss::value(&micro.noised.weights, &nll);
                tally.add(loss + cap * self.predictor.mean_entropy(), balance, nll.len());
                self.predictor.loads().iter().for_each(|load| tally.add_experts(&load.counts));
                if self.reduction.is_tree() {
                    let model = self.predictor.model();
                    let gradients = self.trainable.gradients(&cpu, model, &self.gradients)?;
                    self.reduction.push(gradients);
                    self.gradients.clear();
                }
            }
            if !self.reduction.is_tree() {
                self.trainable.gradients(&cpu, self.predictor.model(), &self.gradients)?;
            }
            Ok(tally)
        };
        let done = micro_batches();
        let timer = Timer::start(&*ranks, clock);
        let tally = Tally::together(&*ranks, done)?;
        if tally.is_stopped {
            return Ok(None);
        }
        let total = batch.loss().unwrap_or(tally.loss());
        let gradients = self.trainable.gradients_mut(&mut self.gradients);
        let norm = self.reduction.reduce(&*ranks, &cpu, gradients)?;
        let mut communication = timer.seconds();
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
            let (model, reduction) = (self.predictor.model_mut(), &self.reduction);
            self.trainable.update(&cpu, model, &self.gradients, |values, gradients| {
                let (values, own) = (values.values_mut(), reduction.share());
                let gradients = &gradients.values()[own.clone()];
                optimizer.update(&cpu, &mut values[own], gradients, update, rate, scale)?;
                let timer = Timer::start(&*ranks, clock);
                ranks.all_gather(values, reduction.shares())?;
                communication = timer.seconds().zip(communication).map(|(a, b)| a + b);
                Ok(())
            })?;
            if let Some(average) = &mut self.average {
                average.follow(&cpu, update, self.trainable.values(model))?;
            }
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
        self.state.set_validation(None);
        let config = &self.predictor.model().config;
        let copies = 1 + usize::from(block.is_some());
        let flops = |&length: &usize| step_flops(config, copies, length, 0);
        let flops = lengths.iter().map(flops).sum::<f64>();
        Ok(Some(StepMetrics {
            step: self.state.step,
            steps: train.steps,
            loss: total,
            loss_ema: self.state.loss_ema(),
            balance: tally.balance(),
            expert_tokens: tally.expert_tokens,
            learning_rate: rate,
            grad_norm: norm,
            skipped,
            length: lengths.into_iter().max().unwrap_or(0),
            tokens,
            total_tokens: self.state.tokens,
            seconds: 0.0,
            communication,
            tokens_per_second: 0.0,
            flops: flops + step_flops(config, 0, 0, tally.predicted),
            seconds_left: 0.0,
            measured: batch.measured(),
        }))
    }

    /// Has the model attend by the blocks of `step`, where the recipe wants some.
    pub(super) fn attend(&mut self, step: u64) {
        if self.recipe.block.is_some() {
            let config = &mut self.predictor.model_mut().config;
            *config = self.recipe.with_blocks(config.clone(), step);
        }
    }

    /// Does two steps of which nothing is written, and tells the second, which finds its memory ready:
    /// what a run will take, before it is begun. `None` if it was stopped.
    pub fn rehearse(
        &mut self,
        clock: &dyn Fn() -> f64,
        stop: &AtomicBool,
    ) -> Result<Option<StepMetrics>> {
        let state = self.state.clone();
        let mut told = None;
        for _ in 0..2 {
            let begun = clock();
            told = self.train_step(stop, clock)?;
            let seconds = (clock() - begun).max(1e-9);
            told.iter_mut().for_each(|metrics| metrics.seconds = seconds);
            if told.is_none() {
                break;
            }
        }
        self.state = state;
        Ok(told)
    }
}

/// Measures what ranks take to exchange numbers, where there are others.
struct Timer<'a> {
    clock: &'a dyn Fn() -> f64,
    started: Option<f64>,
}

impl<'a> Timer<'a> {
    fn start(ranks: &dyn Collective, clock: &'a dyn Fn() -> f64) -> Self {
        Self { clock, started: (ranks.world() > 1).then(clock) }
    }

    fn seconds(&self) -> Option<f64> {
        self.started.map(|started| (self.clock)() - started)
    }
}
