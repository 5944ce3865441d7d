//! From the losses of sequences to the estimate of a pair.

use super::{Draws, Estimate, LikelihoodError, Pair, Settings, scorer::Scorer, sequence::Losses};
use crate::{
    Result,
    config::{AttentionMask, ModelConfig, SpecialTokens},
    diffusion::{Query, ReadSpec, Reading},
    engine::Work,
};

/// The noisy copies of an answer: which sequence each is, and how much it counts.
#[derive(Debug)]
pub(super) struct Samples {
    /// Sequence and weight L/m of each.
    all: Vec<(usize, f64)>,
    /// How many make one iteration.
    batch: usize,
    /// Whether they are all there is to know, and not a draw of it.
    exact: bool,
}

impl Samples {
    /// None yet; `batch` of them make one iteration.
    pub(super) fn new(batch: usize) -> Self {
        Self { all: Vec::new(), batch, exact: false }
    }

    /// The one sequence of a causal model.
    pub(super) fn exact() -> Self {
        Self { all: vec![(0, 1.0)], batch: 1, exact: true }
    }

    pub(super) fn push(&mut self, sequence: usize, weight: f64) {
        self.all.push((sequence, weight));
    }
}

/// A pair that is being scored, as work of an [`Engine`](crate::engine::Engine). Its noisy copies share
/// forward passes with each other, and with whatever else is in the engine.
#[derive(Debug)]
pub struct Scoring {
    losses: Losses,
    samples: Samples,
    /// Tokens of the answer.
    tokens: usize,
}

impl Scoring {
    /// Begins to score the pair that `draws` knows by its `number`.
    ///
    /// # Errors
    /// If a setting is out of its range or of no meaning for the model, the answer is empty, or the pair
    /// too long.
    pub fn new(
        config: &ModelConfig,
        special: &SpecialTokens,
        pair: &Pair,
        settings: &Settings,
        number: usize,
        draws: &mut dyn Draws,
    ) -> Result<Self> {
        settings.check()?;
        let scorer = Scorer::new(config, special, settings.cfg_scale)?;
        scorer.check(pair)?;
        Ok(Self::begin(&scorer, pair, settings, number, draws))
    }

    /// As [`Scoring::new`], of what was checked.
    pub(super) fn begin(
        scorer: &Scorer,
        pair: &Pair,
        settings: &Settings,
        number: usize,
        draws: &mut dyn Draws,
    ) -> Self {
        let (sequences, samples) = scorer.sequences(number, pair, settings, draws);
        Self { losses: Losses::of(sequences), samples, tokens: pair.answer.len() }
    }

    /// Tokens that are yet to be fed.
    pub(super) fn tokens_left(&self) -> usize {
        self.losses.tokens_left()
    }

    /// Noisy copies that are scored so far.
    pub fn samples_done(&self) -> usize {
        self.samples.all.len() * self.losses.losses.len() / self.losses.len()
    }

    /// The estimate; `None` until all is scored.
    pub fn estimate(&self) -> Option<Estimate> {
        let (Samples { all, batch, exact }, losses) = (&self.samples, &self.losses.losses);
        if losses.len() < self.losses.len() {
            return None;
        }
        let loss = |&(sequence, weight): &(usize, f64)| weight * losses[sequence];
        let iterations: Vec<f64> = all
            .chunks(*batch)
            .map(|batch| batch.iter().map(loss).sum::<f64>() / batch.len() as f64)
            .collect();
        let n = iterations.len() as f64;
        let mean = iterations.iter().sum::<f64>() / n;
        let squares: f64 = iterations.iter().map(|x| (x - mean).powi(2)).sum();
        Some(Estimate {
            log_likelihood: -mean,
            // All noisy copies of a single token are the same.
            standard_error: match (*exact || self.tokens == 1, iterations.len()) {
                (true, _) => Some(0.0),
                (false, 1) => None,
                (false, _) => Some((squares / (n - 1.0) / n).sqrt()),
            },
            samples: all.len(),
            tokens: self.tokens,
        })
    }
}

impl Work for Scoring {
    fn plan(&self, ahead: usize) -> Option<Query<'_>> {
        self.losses.plan(ahead)
    }

    fn read_spec(&self, ahead: usize, wanted: usize) -> ReadSpec<'_> {
        self.losses.read_spec(ahead, wanted)
    }

    fn commit(&mut self, readings: &[Reading]) -> Result<()> {
        let is_bad = |reading: &&Reading| !reading.log_probability().is_finite();
        match readings.iter().find(is_bad).map(Reading::position) {
            Some(position) => Err(LikelihoodError::NotFinite { position }.into()),
            None => self.losses.commit(readings),
        }
    }

    fn attention(&self) -> AttentionMask {
        self.losses.attention()
    }
}
