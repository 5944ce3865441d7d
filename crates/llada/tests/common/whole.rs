//! A model without its memory.

use llada::{
    config::LogitShift,
    diffusion::{Logits, Predictor},
    model::{Batch, MaskPredictor},
};

/// A predictor that caches nothing, and wants every sequence whole.
pub(crate) struct Whole(pub(crate) MaskPredictor);

impl Logits for Whole {
    fn logits(
        &mut self,
        batch: &Batch<'_>,
        wanted: &[usize],
        logits: &mut Vec<f32>,
    ) -> llada::Result<()> {
        MaskPredictor::logits(&mut self.0, batch, wanted, logits)
    }

    fn vocabulary(&self) -> usize {
        self.0.vocabulary()
    }

    fn shift(&self) -> LogitShift {
        Predictor::shift(&self.0)
    }
}
