//! Updates by preferences and by rewards, and what these are measured by.
//!
//! Both ask the policy and its reference for the nll of the same masked versions, and make a loss of
//! them (`diffusion::policy`), whose slopes are the weights of the update.

mod preference;
mod reward;
mod rollouts;

use std::{
    ops::Range,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use super::{
    Recipe, Stage,
    source::Source,
    trainable::crc32c,
    update::{Measured, Weighted},
};
use crate::{
    Result,
    config::SpecialTokens,
    diffusion::policy::Versions,
    model::{MaskPredictor, Targets},
    ranks::{Collective, Shares},
    tokenizer::Tokenizer,
};
use rollouts::Rollouts;

pub use reward::{RewardFunction, RewardPrompt};
pub(super) use reward::{check_sampler, read_prompts};

/// What a run by preferences or rewards has besides a policy.
#[derive(Debug)]
pub(super) struct Alignment {
    /// The model that training started from, where the loss is of it.
    reference: Option<MaskPredictor>,
    /// What completions are worth.
    function: Option<Box<dyn RewardFunction>>,
    /// The completions that are trained on.
    rollouts: Option<Rollouts>,
}

/// A step of a run.
pub(super) struct Step<'a> {
    /// Those that share it.
    pub(super) ranks: &'a dyn Collective,
    pub(super) predictor: &'a mut MaskPredictor,
    pub(super) recipe: &'a Recipe,
    pub(super) source: &'a Source,
    pub(super) tokenizer: &'a Tokenizer,
    pub(super) special: &'a SpecialTokens,
    pub(super) mask: u32,
    /// Its number, from 0.
    pub(super) step: u64,
    pub(super) stop: &'a AtomicBool,
}

impl Alignment {
    pub(super) fn new(
        reference: Option<MaskPredictor>,
        function: Option<Box<dyn RewardFunction>>,
    ) -> Self {
        Self { reference, function, rollouts: None }
    }

    /// CRC-32C of the weights of the reference.
    pub(super) fn reference_crc32c(&self) -> Option<u32> {
        Some(crc32c(&self.reference.as_ref()?.model().tensors))
    }

    /// The update of a step; `None` if it was stopped.
    pub(super) fn update(&mut self, step: Step<'_>) -> Result<Option<Weighted>> {
        match step.recipe.stage() {
            Stage::Preference => self.prefer(step),
            _ => self.reinforce(step),
        }
    }

    /// What is held out, measured under noise that does not depend on the run.
    pub(super) fn measure(&mut self, step: Step<'_>) -> Result<Measured> {
        match step.recipe.stage() {
            Stage::Preference => self.measure_preference(step),
            _ => self.measure_reward(step),
        }
    }

    /// Writes to `dir` what the steps after `step` need of it.
    pub(super) fn save(&self, recipe: &Recipe, step: u64, dir: &Path) -> Result<()> {
        match &self.rollouts {
            Some(rollouts) if rollouts.serves(recipe, step) => rollouts.write(dir),
            _ => Ok(()),
        }
    }

    /// Reads what was saved at `step` in `dir`.
    pub(super) fn load(&mut self, dir: &Path) -> Result<()> {
        self.rollouts = Rollouts::read(dir)?;
        Ok(())
    }

    /// log p of the terms of `versions` by the reference; nothing without one.
    fn reference(&mut self, versions: &Versions, step: &Step<'_>) -> Result<Option<Vec<f64>>> {
        match &mut self.reference {
            Some(reference) => {
                log_probabilities(step.ranks, reference, versions, step.recipe, step.stop)
            }
            None => Ok(Some(Vec::new())),
        }
    }
}

/// log p of the terms of `versions`, of which each rank does a share; `None` if it was stopped.
fn log_probabilities(
    ranks: &dyn Collective,
    predictor: &mut MaskPredictor,
    versions: &Versions,
    recipe: &Recipe,
    stop: &AtomicBool,
) -> Result<Option<Vec<f64>>> {
    let own = Shares::even(versions.count(), ranks.world()).of(ranks.rank());
    let nll = ranks.agree(nll_of(predictor, versions, own, recipe, stop))?;
    if ranks.any(nll.is_none())? {
        return Ok(None);
    }
    let all = ranks.gather_bytes(bytemuck::cast_slice(&nll.unwrap_or_default()))?;
    let all = all.iter().flat_map(|bytes| bytes.chunks_exact(4));
    let all: Vec<f32> = all.map(bytemuck::pod_read_unaligned).collect();
    Ok(Some(versions.log_probabilities(&all)))
}

/// The nll of the predicted tokens of some versions, a micro-batch at a time; `None` if it was stopped.
fn nll_of(
    predictor: &mut MaskPredictor,
    versions: &Versions,
    own: Range<usize>,
    recipe: &Recipe,
    stop: &AtomicBool,
) -> Result<Option<Vec<f32>>> {
    let (shift, micro) = (predictor.model().config.shift, recipe.micro_batch());
    let weights = vec![0.0; versions.predicted()];
    let (mut all, mut nll) = (Vec::new(), Vec::new());
    for start in own.clone().step_by(micro) {
        if stop.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let range = start..own.end.min(start + micro);
        let (sequences, noised) = versions.part(range, &weights, shift);
        let (positions, tokens, weights) = (&noised.positions, &noised.targets, &noised.weights);
        let targets = Targets { positions, tokens, weights, ..Targets::default() };
        predictor.nll(sequences.as_batch(), &targets, &mut nll)?;
        all.extend_from_slice(&nll);
    }
    Ok(Some(all))
}
