//! The validation loss: the negative evidence bound in nats per token, the same noise every time.

pub use crate::diffusion::likelihood::Bucket;
use crate::{
    Result,
    diffusion::likelihood::{Evidence, EvidenceSettings, Window, spread_evenly},
    model::MaskPredictor,
    train::{Measured, Recipe, source::Source},
};

/// The noise does not depend on the run, so that runs can be compared.
const SEED: u64 = 0;

/// One measurement on held-out text.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Validation {
    /// Steps done.
    pub step: u64,
    /// Nats per token: an upper bound (Eq. 4) for diffusion, exact for the baseline.
    pub nll: f64,
    /// Standard error of `nll` over sequences.
    pub standard_error: f64,
    /// `nll` in bits per byte of text.
    pub bits_per_byte: f64,
    /// Tokens that were scored (of responses, in fine-tuning), masked versions counted once each.
    pub tokens: u64,
    /// Cross-entropy of the masked tokens by the fraction of the sequence, or block, that is masked; empty for
    /// the baseline.
    pub buckets: Vec<Bucket>,
    /// What the objective tells besides, as in [`StepMetrics`](super::StepMetrics).
    #[serde(flatten)]
    pub measured: Measured,
}

impl Validation {
    /// One of completions, which have no text to compare with: its numbers of text are NaN.
    pub(super) fn without_text(step: u64) -> Self {
        let (nll, standard_error, bits_per_byte) = (f64::NAN, f64::NAN, f64::NAN);
        let (buckets, measured) = (Vec::new(), Measured::new());
        Self { step, nll, standard_error, bits_per_byte, tokens: 0, buckets, measured }
    }

    /// What the objective has its run make small: the reward with another sign, the loss of preferences,
    /// else the bound.
    pub(super) fn to_minimise(&self) -> f64 {
        let reward = self.measured.get("reward").map(|reward| -reward);
        reward.or(self.measured.get("loss").copied()).unwrap_or(self.nll)
    }
}

/// Scores `eval.sequences` sequences, spread evenly over what is held out, each under `eval.draws`
/// masked versions, as [`Evidence`] does.
pub(super) fn measure(
    predictor: &mut MaskPredictor,
    recipe: &Recipe,
    source: &Source,
    mask: u32,
    step: u64,
) -> Result<Validation> {
    let mut windows = Vec::new();
    for number in spread_evenly(source.held_out(recipe)?, recipe.eval.sequences as u64) {
        windows.extend(source.held_out_sequences(recipe, number)?);
    }
    let settings = EvidenceSettings {
        draws: recipe.eval.draws,
        seed: SEED,
        tokens_per_forward: recipe.micro_batch() * recipe.data.sequence_length,
    };
    let mut evidence = Evidence::new(&predictor.model().config, Some(mask), windows, settings)?;
    let mut read = |window: Window, out: &mut Vec<u32>| source.read_window(recipe, window, out);
    while evidence.advance(predictor, &mut read)? {}
    let bound = evidence.bound();
    Ok(Validation {
        step,
        nll: bound.nll,
        standard_error: bound.standard_error.unwrap_or(0.0),
        bits_per_byte: bound.bits_per_byte(source.bytes_per_token()),
        tokens: (bound.tokens * evidence.versions() / bound.sequences.max(1)) as u64,
        buckets: bound.buckets,
        measured: Measured::new(),
    })
}
