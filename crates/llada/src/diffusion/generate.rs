//! The sampling loop: many canvases, one batched forward pass for each step.

use std::ops::ControlFlow;

use super::{Canvas, Logits, SamplerError, Step};
use crate::{
    Result,
    model::{Batch, MaskPredictor},
};

/// Whatever predicts masked tokens.
pub trait Predictor {
    /// Logits [wanted, vocabulary] at the positions `wanted` (indices into the batch's tokens, in
    /// ascending order).
    ///
    /// # Errors
    /// If the batch cannot be predicted.
    fn logits(&mut self, batch: &Batch<'_>, wanted: &[usize], logits: &mut Vec<f32>) -> Result<()>;

    /// Columns of the logits.
    fn vocabulary(&self) -> usize;
}

impl Predictor for MaskPredictor {
    fn logits(&mut self, batch: &Batch<'_>, wanted: &[usize], logits: &mut Vec<f32>) -> Result<()> {
        MaskPredictor::logits(self, batch, wanted, logits)
    }

    fn vocabulary(&self) -> usize {
        self.model().config.embedding_size
    }
}

/// What a run did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Batched forward passes of the model; guidance doubles their rows, not their number.
    pub nfe: usize,
    /// Forward passes summed over the rows.
    pub row_forwards: usize,
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

/// Runs the canvases until they are done; rows of unequal length and progress share the forward
/// passes. `on_step` is told of each row's step, by its index in `canvases`, and may break off the
/// run: the steps of that forward pass are still committed and told.
///
/// # Errors
/// If the model fails or its logits cannot be sampled from.
pub fn run<P: Predictor + ?Sized>(
    predictor: &mut P,
    canvases: &mut [Canvas],
    on_step: &mut dyn FnMut(usize, &Step) -> ControlFlow<()>,
) -> Result<Summary> {
    let vocabulary = predictor.vocabulary();
    let mut summary = Summary::default();
    let mut assembly = Assembly::default();
    let mut logits = Vec::new();
    while !summary.interrupted && assembly.collect(canvases) {
        predictor.logits(&assembly.batch(), &assembly.wanted, &mut logits)?;
        let (found, positions) = (logits.len(), assembly.wanted.len());
        if Some(found) != vocabulary.checked_mul(positions) {
            return Err(SamplerError::LogitCount { found, positions }.into());
        }
        summary.nfe += 1;
        let mut rest = logits.as_mut_slice();
        for part in &assembly.parts {
            let (conditional, after) = rest.split_at_mut(part.wanted * vocabulary);
            let guided = if part.guided { conditional.len() } else { 0 };
            let (unconditional, after) = after.split_at_mut(guided);
            rest = after;
            let unconditional = part.guided.then_some(&*unconditional);
            let step = canvases[part.canvas].commit(Logits { conditional, unconditional })?;
            summary.interrupted |= on_step(part.canvas, &step).is_break();
        }
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

/// The queries of all open canvases as one batch.
#[derive(Default)]
struct Assembly {
    tokens: Vec<u32>,
    starts: Vec<usize>,
    keep: Vec<bool>,
    padded: bool,
    wanted: Vec<usize>,
    parts: Vec<Part>,
}

/// The share of one canvas in the batch.
struct Part {
    canvas: usize,
    wanted: usize,
    guided: bool,
}

impl Assembly {
    /// Gathers the next queries; `false` when every canvas is done.
    fn collect(&mut self, canvases: &[Canvas]) -> bool {
        *self = Self { starts: vec![0], ..Self::default() };
        for (canvas, state) in canvases.iter().enumerate() {
            let Some(query) = state.plan() else { continue };
            self.add_row(query.tokens, query.padding, &query.wanted);
            if let Some(tokens) = &query.unconditional {
                self.add_row(tokens, query.padding, &query.wanted);
            }
            let guided = query.unconditional.is_some();
            self.parts.push(Part { canvas, wanted: query.wanted.len(), guided });
        }
        !self.parts.is_empty()
    }

    fn add_row(&mut self, tokens: &[u32], padding: usize, wanted: &[usize]) {
        let start = self.tokens.len();
        self.tokens.extend_from_slice(tokens);
        self.keep.extend((0..tokens.len()).map(|i| i >= padding));
        self.padded |= padding > 0;
        self.wanted.extend(wanted.iter().map(|position| start + position));
        self.starts.push(self.tokens.len());
    }

    fn batch(&self) -> Batch<'_> {
        let keep = self.padded.then_some(self.keep.as_slice());
        Batch { tokens: &self.tokens, starts: &self.starts, keep }
    }
}
