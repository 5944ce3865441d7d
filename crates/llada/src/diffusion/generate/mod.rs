//! The sampling loop: many canvases, one batched forward pass for each step.

mod assembly;

use std::ops::ControlFlow;

use super::{Canvas, Step};
use crate::{
    Result,
    config::LogitShift,
    model::{Batch, MaskPredictor},
};
use assembly::Assembly;

/// Whatever predicts masked tokens.
pub trait Predictor {
    /// Logits [wanted, vocabulary] at the positions `wanted` (indices into the batch's tokens, in any
    /// order).
    ///
    /// # Errors
    /// If the batch cannot be predicted.
    fn logits(&mut self, batch: &Batch<'_>, wanted: &[usize], logits: &mut Vec<f32>) -> Result<()>;

    /// Columns of the logits.
    fn vocabulary(&self) -> usize;

    /// Which position a row of its logits predicts; its own, as provided.
    fn shift(&self) -> LogitShift {
        LogitShift::Same
    }

    /// The model, if it may be fed only what is new and keep the keys and values of the rest; `None`,
    /// as provided, for a predictor that wants every row whole.
    fn caching(&mut self) -> Option<&mut MaskPredictor> {
        None
    }
}

impl Predictor for MaskPredictor {
    fn logits(&mut self, batch: &Batch<'_>, wanted: &[usize], logits: &mut Vec<f32>) -> Result<()> {
        MaskPredictor::logits(self, batch, wanted, logits)
    }

    fn vocabulary(&self) -> usize {
        self.model().config.embedding_size
    }

    fn shift(&self) -> LogitShift {
        self.model().config.shift
    }

    fn caching(&mut self) -> Option<&mut MaskPredictor> {
        Some(self)
    }
}

/// What a run did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Batched forward passes of the model; guidance doubles their rows, not their number.
    pub nfe: usize,
    /// Forward passes summed over the rows.
    pub row_forwards: usize,
    /// Tokens fed to the model in all passes, those of guidance included.
    pub tokens_fed: usize,
    /// Tokens committed.
    pub committed: usize,
    /// Tokens of all responses, whatever they are.
    pub canvas_tokens: usize,
    /// Tokens of all responses before their first EOS or EoT.
    pub useful_tokens: usize,
    /// Positions that are still masked.
    pub masks_left: usize,
    /// Whether the caller stopped the run.
    pub interrupted: bool,
}

impl Summary {
    /// Tokens that a row commits in one forward pass, on average.
    pub fn tokens_per_forward(&self) -> f64 {
        self.committed as f64 / self.row_forwards.max(1) as f64
    }
}

impl std::ops::AddAssign for Summary {
    /// One run after another.
    fn add_assign(&mut self, other: Self) {
        self.nfe += other.nfe;
        self.row_forwards += other.row_forwards;
        self.tokens_fed += other.tokens_fed;
        self.committed += other.committed;
        self.canvas_tokens += other.canvas_tokens;
        self.useful_tokens += other.useful_tokens;
        self.masks_left += other.masks_left;
        self.interrupted |= other.interrupted;
    }
}

/// Runs the canvases until they are done; rows of unequal length and progress share the forward
/// passes. `on_step` is told of each row's step, by its index in `canvases`, and may break off the
/// run: the steps of that forward pass are still committed and told.
///
/// Rows of a causal model are fed token by token, each with a [`KvCache`](crate::model::KvCache) of
/// its own; what comes out is the same as without, to the last bit. Those of a diffusion model are fed
/// as [`Sampler::cache`](super::Sampler::cache) says. What is kept lives as long as the run: canvases
/// that go on in another begin it with a whole pass. A predictor that keeps nothing is fed every row
/// whole.
///
/// # Errors
/// If the model fails or its logits cannot be sampled from.
pub fn run<P: Predictor + ?Sized>(
    predictor: &mut P,
    canvases: &mut [Canvas],
    on_step: &mut dyn FnMut(usize, &Step) -> ControlFlow<()>,
) -> Result<Summary> {
    let mut summary = Summary::default();
    let mut kept = assembly::memories(predictor, canvases)?;
    let (shift, mut assembly) = (predictor.shift(), Assembly::default());
    while !summary.interrupted && assembly.collect(shift, canvases, &mut kept) {
        assembly.read(predictor, canvases, &mut kept)?;
        for (canvas, readings) in assembly.readings() {
            let step = canvases[canvas].commit(readings)?;
            summary.interrupted |= on_step(canvas, step).is_break();
        }
        summary.nfe += 1;
        summary.tokens_fed += assembly.tokens.len();
    }
    for outcome in canvases.iter().map(Canvas::outcome) {
        summary.row_forwards += outcome.nfe;
        summary.committed += outcome.committed;
        summary.canvas_tokens += outcome.canvas_tokens;
        summary.useful_tokens += outcome.useful_tokens;
        summary.masks_left += outcome.masks_left;
    }
    Ok(summary)
}
