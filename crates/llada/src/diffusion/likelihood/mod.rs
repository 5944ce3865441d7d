//! How probable a model finds an answer, and a text.
//!
//! For a mask predictor this is a bound that is estimated, [`score`] (Eq. 6, Alg. 3): mask m of
//! the answer's L tokens, take the cross-entropy of the masked ones L/m times, and average over m
//! and over which. Its mean is at least −log p. For the autoregressive baseline it is −log p by the
//! chain rule. [`is_greedy`] says whether greedy decoding gives the answer, and [`Evidence`] scores
//! running text.
//!
//! [`Scoring`] and [`Greedy`] are [works](crate::engine::Work) of an engine, beside canvases and others
//! of their kind.

mod counts;
mod draws;
mod error;
mod evidence;
mod greedy;
mod samples;
mod scorer;
mod scoring;
mod sequence;
mod text;

use std::ops::ControlFlow;

use crate::{
    Result,
    config::{ModelConfig, SpecialTokens},
    engine::{self, Engine},
    model::MaskPredictor,
};

pub use counts::mask_counts;
pub(super) use draws::subset;
pub use draws::{Alike, Draws, Seeded};
pub use error::LikelihoodError;
pub use evidence::{Bound, Bucket, Evidence, EvidenceSettings, Window, spread_evenly, windows};
pub(crate) use greedy::most_probable;
pub use greedy::{Greedy, is_greedy};
use scorer::Scorer;
pub use scoring::Scoring;
pub(crate) use sequence::Sequence;
pub use text::encode_pair;

/// Tokens of one forward pass: enough to keep the processor busy. No result depends on it.
const TOKENS: usize = 4096;

/// How to estimate. An autoregressive model needs no estimate and reads none of it but
/// `cfg_scale`, which it refuses.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Settings {
    /// Noisy copies of an answer, in all; a multiple of `batch_size`.
    pub mc_num: usize,
    /// Noisy copies that share one draw and so cover the noise levels evenly. It is part of the
    /// estimator: more lower its variance.
    pub batch_size: usize,
    /// Weight of classifier-free guidance (Eq. 16); above 0 it doubles the work.
    pub cfg_scale: f32,
    /// Seed of the masks.
    pub seed: u64,
}

/// Largest `batch_size` that is chosen by itself: the reference's.
const BATCH_SIZE: usize = 16;

impl Default for Settings {
    /// `get_log_likelihood` of the reference: 128 samples in batches of 16, no guidance.
    fn default() -> Self {
        Self { mc_num: 128, batch_size: BATCH_SIZE, cfg_scale: 0.0, seed: 0 }
    }
}

impl Settings {
    /// `mc_num` samples in the largest whole batches of up to 16.
    pub fn with_samples(mc_num: usize) -> Self {
        Self { mc_num, batch_size: batch_size(mc_num, BATCH_SIZE), ..Self::default() }
    }

    fn check(&self) -> std::result::Result<(), LikelihoodError> {
        let Self { mc_num, batch_size, .. } = *self;
        match (mc_num, batch_size) {
            (0, _) => Err(LikelihoodError::Zero("mc_num")),
            (_, 0) => Err(LikelihoodError::Zero("batch_size")),
            _ if mc_num % batch_size != 0 => Err(LikelihoodError::Samples { mc_num, batch_size }),
            _ => Ok(()),
        }
    }
}

/// The largest divisor of `mc_num` up to `most`.
fn batch_size(mc_num: usize, most: usize) -> usize {
    (1..=most).rev().find(|b| mc_num.is_multiple_of(*b)).unwrap_or(1)
}

/// What is given, and what is scored after it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pair {
    /// May be empty: the answer is scored as the beginning of a sequence. An autoregressive model is
    /// given an end of text there, which stands before every document it was trained on.
    pub prompt: Vec<u32>,
    /// At least one token.
    pub answer: Vec<u32>,
}

/// The log-likelihood of an answer.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Estimate {
    /// log p(answer | prompt) in nats: exact for an autoregressive model; for diffusion an
    /// estimate of a lower bound of it.
    pub log_likelihood: f64,
    /// Standard error of the estimate, over its batches; `None` when one batch says nothing of
    /// it, 0 where nothing is estimated.
    pub standard_error: Option<f64>,
    /// Noisy copies; 1 for an autoregressive model.
    pub samples: usize,
    /// Tokens of the answer.
    pub tokens: usize,
}

impl Estimate {
    /// Nats per token of the answer.
    pub fn per_token(&self) -> f64 {
        self.log_likelihood / self.tokens as f64
    }
}

/// What [`score_with`] tells while it works.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Event {
    /// A forward pass is over.
    Forward {
        /// Noisy copies scored so far, of all pairs together: pairs × `mc_num` at the end, or the
        /// number of pairs for an autoregressive model.
        samples: usize,
    },
    /// The pair of that number is scored; pairs come in order.
    Done(usize, Estimate),
}

/// The log-likelihoods of `pairs`, exact for an autoregressive model and by Alg. 3 for diffusion.
///
/// Sequences of many pairs share a forward pass. The estimate of a pair depends on its number in
/// `pairs` and on `settings` only, not on the pairs around it or the number of threads; with the draws
/// of [`Alike`] in [`score_with`] not on its number either. `on_done`
/// is called for each pair in order and may break off: the estimates so far are returned then.
///
/// # Errors
/// If a setting is out of its range or of no meaning for the model, an answer is empty, or a pair
/// is too long; before anything is computed. If the model's losses are not finite.
pub fn score(
    predictor: &mut MaskPredictor,
    special: &SpecialTokens,
    pairs: &[Pair],
    settings: &Settings,
    on_done: &mut dyn FnMut(usize, &Estimate) -> ControlFlow<()>,
) -> Result<Vec<Estimate>> {
    let mut draws = Seeded { seed: settings.seed };
    score_with(predictor, special, pairs, settings, &mut draws, &mut |event| match event {
        Event::Done(pair, estimate) => on_done(pair, &estimate),
        Event::Forward { .. } => ControlFlow::Continue(()),
    })
}

/// As [`score`], with noise from `draws`, and told of every forward pass.
///
/// # Errors
/// As [`score`].
pub fn score_with(
    predictor: &mut MaskPredictor,
    special: &SpecialTokens,
    pairs: &[Pair],
    settings: &Settings,
    draws: &mut dyn Draws,
    on_event: &mut dyn FnMut(Event) -> ControlFlow<()>,
) -> Result<Vec<Estimate>> {
    settings.check()?;
    let scorer = Scorer::new(&predictor.model().config, special, settings.cfg_scale)?;
    pairs.iter().try_for_each(|pair| scorer.check(pair))?;

    let mut engine = Engine::new(predictor);
    let mut waiting = pairs.iter().enumerate();
    let mut estimates: Vec<Option<Estimate>> = vec![None; pairs.len()];
    let (mut told, mut failure) = (0, None);
    loop {
        let tokens_left = |engine: &Engine<'_, _, Scoring>| -> usize {
            engine.works().map(|(_, scoring)| scoring.tokens_left()).sum()
        };
        while tokens_left(&engine) < TOKENS
            && let Some((number, pair)) = waiting.next()
        {
            engine.admit(Scoring::begin(&scorer, pair, settings, number, draws));
        }
        if engine.is_empty() {
            break;
        }
        engine.step(TOKENS, &mut |id, event| match event {
            engine::Event::Begun(_) | engine::Event::Step(_) => {}
            engine::Event::Done(scoring) => estimates[id.number()] = scoring.estimate(),
            engine::Event::Failed(_, error) => failure = failure.take().or(Some(error)),
        })?;
        if let Some(error) = failure {
            return Err(error);
        }
        let mut goes_on = ControlFlow::Continue(());
        while let Some(&Some(estimate)) = estimates.get(told).filter(|_| goes_on.is_continue()) {
            goes_on = on_event(Event::Done(told, estimate));
            told += 1;
        }
        let done = estimates.iter().flatten().map(|estimate| estimate.samples);
        let begun = engine.works().map(|(_, scoring)| scoring.samples_done());
        let samples = done.chain(begun).sum();
        if goes_on.is_break() || on_event(Event::Forward { samples }).is_break() {
            break;
        }
    }
    Ok(estimates.into_iter().take(told).flatten().collect())
}

/// Checks that a pair can be scored, as [`score`] does before it begins.
///
/// # Errors
/// If the answer is empty, a token is not the model's, the pair is too long, or an autoregressive
/// model has nothing to start from.
pub fn check(config: &ModelConfig, special: &SpecialTokens, pair: &Pair) -> Result<()> {
    Scorer::new(config, special, 0.0)?.check(pair)
}

#[cfg(test)]
mod tests;
