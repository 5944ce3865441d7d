//! A pair that is being scored.

use super::{
    Draws, Estimate, LikelihoodError, Pair, Settings, samples::Samples, scorer::Scorer,
    sequence::Losses,
};
use crate::{
    Result,
    config::{AttentionMask, ModelConfig, SpecialTokens},
    diffusion::{Query, ReadSpec, Reading},
    engine::Work,
};

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
        self.samples.len() * self.losses.losses.len() / self.losses.len()
    }

    /// The estimate; `None` until all is scored.
    pub fn estimate(&self) -> Option<Estimate> {
        let losses = &self.losses.losses;
        let is_whole = losses.len() == self.losses.len();
        is_whole.then(|| self.samples.estimate(losses, self.tokens))
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
