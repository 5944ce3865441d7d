//! The validation loss: the negative evidence bound in nats per token, the same noise every time.

pub use crate::diffusion::likelihood::Bucket;
use crate::{
    Result,
    data::Windows,
    diffusion::likelihood::{Evidence, EvidenceSettings, Window, spread_evenly},
    model::MaskPredictor,
    train::Recipe,
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
    /// Standard error of `nll` over rows.
    pub standard_error: f64,
    /// `nll` in bits per byte of text.
    pub bits_per_byte: f64,
    /// Tokens that were scored, masked versions counted once each.
    pub tokens: u64,
    /// Cross-entropy of the masked tokens by the fraction of the row that is masked; empty for
    /// the baseline.
    pub buckets: Vec<Bucket>,
}

/// Scores `eval.rows` rows, spread evenly over the held-out text, each under `eval.draws` masked
/// versions, as [`Evidence`] does.
pub(super) fn measure(
    predictor: &mut MaskPredictor,
    recipe: &Recipe,
    text: &Windows<'_>,
    mask: u32,
    bytes_per_token: f64,
    step: u64,
) -> Result<Validation> {
    let length = recipe.data.sequence_length;
    let numbers = spread_evenly(text.count(), recipe.eval.rows as u64);
    let windows = numbers.map(|number| Window { number, length }).collect();
    let settings = EvidenceSettings {
        draws: recipe.eval.draws,
        seed: SEED,
        tokens_per_forward: recipe.micro_batch() * length,
    };
    let mut evidence = Evidence::new(&predictor.model().config, Some(mask), windows, settings)?;
    while evidence.advance(predictor, &mut |w, out| text.read(w.number, w.length, out))? {}
    let bound = evidence.bound();
    Ok(Validation {
        step,
        nll: bound.nll,
        standard_error: bound.standard_error.unwrap_or(0.0),
        bits_per_byte: bound.bits_per_byte(bytes_per_token),
        tokens: (evidence.versions() * length) as u64,
        buckets: bound.buckets,
    })
}
