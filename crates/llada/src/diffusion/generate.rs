//! The sampling loop: many canvases, one batched forward pass for each step.

use std::ops::{ControlFlow, Range};

use super::{Canvas, Logits, SamplerError, Step};
use crate::{
    Result,
    model::{Batch, KvCache, MaskPredictor, Past},
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

/// Runs the canvases until they are done; rows of unequal length and progress share the forward
/// passes. `on_step` is told of each row's step, by its index in `canvases`, and may break off the
/// run: the steps of that forward pass are still committed and told.
///
/// Rows of a causal model are fed token by token, each with a [`KvCache`] of its own; what comes out
/// is the same as without, to the last bit.
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
    let mut caches = causal_caches(predictor, canvases)?;
    let mut assembly = Assembly::default();
    let mut logits = Vec::new();
    while !summary.interrupted && assembly.collect(canvases, &mut caches) {
        assembly.predict(predictor, &mut caches, &mut logits)?;
        let (found, positions) = (logits.len(), assembly.wanted.len());
        if Some(found) != vocabulary.checked_mul(positions) {
            return Err(SamplerError::LogitCount { found, positions }.into());
        }
        summary.nfe += 1;
        summary.tokens_fed += assembly.tokens.len();
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

/// A cache for each canvas, if keys and values may be kept: a causal model's never change.
fn causal_caches<P: Predictor + ?Sized>(
    predictor: &mut P,
    canvases: &[Canvas],
) -> Result<Vec<Option<KvCache>>> {
    let causal = canvases.iter().all(|canvas| canvas.mask_token().is_none());
    let model = predictor.caching().map(|predictor| predictor.model());
    let Some(model) = model.filter(|model| causal && model.is_autoregressive()) else {
        return Ok(Vec::new());
    };
    // A row that outgrows the model is refused when it does, as without a cache.
    let limit = model.config.max_sequence_length;
    let cache = |canvas: &Canvas| KvCache::new(&model.config, canvas.length().min(limit)).map(Some);
    canvases.iter().map(cache).collect()
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
    /// The position of its first token.
    first: usize,
    wanted: usize,
    guided: bool,
}

impl Assembly {
    /// Gathers the next queries; `false` when every canvas is done. `caches` is empty, or has one
    /// for each canvas that is not done.
    fn collect(&mut self, canvases: &[Canvas], caches: &mut [Option<KvCache>]) -> bool {
        *self = Self { starts: vec![0], ..Self::default() };
        for (canvas, state) in canvases.iter().enumerate() {
            let cache = caches.get_mut(canvas);
            let Some(query) = state.plan() else {
                cache.map(Option::take);
                continue;
            };
            let feed = match cache {
                Some(Some(cache)) if cache.len() >= query.fresh.start => query.fresh.clone(),
                // Nothing is kept, or not yet: the canvas may have begun in another run.
                _ => 0..query.tokens.len(),
            };
            self.add_row(query.tokens, &feed, query.padding, &query.wanted);
            if let Some(tokens) = &query.unconditional {
                self.add_row(tokens, &feed, query.padding, &query.wanted);
            }
            let (wanted, guided) = (query.wanted.len(), query.unconditional.is_some());
            self.parts.push(Part { canvas, first: feed.start, wanted, guided });
        }
        !self.parts.is_empty()
    }

    /// Adds the positions `feed` of a row, among which are those `wanted`.
    fn add_row(&mut self, row: &[u32], feed: &Range<usize>, padding: usize, wanted: &[usize]) {
        let start = self.tokens.len();
        self.tokens.extend_from_slice(&row[feed.clone()]);
        self.keep.extend(feed.clone().map(|position| position >= padding));
        self.padded |= padding > feed.start;
        self.wanted.extend(wanted.iter().map(|position| start + position - feed.start));
        self.starts.push(self.tokens.len());
    }

    /// Asks for the logits, with the caches if there are any.
    fn predict<P: Predictor + ?Sized>(
        &self,
        predictor: &mut P,
        caches: &mut [Option<KvCache>],
        logits: &mut Vec<f32>,
    ) -> Result<()> {
        // The canvases without a cache are done and have no part in the batch.
        let caches = caches.iter_mut().flatten();
        let mut pasts: Vec<Past<'_>> = self
            .parts
            .iter()
            .zip(caches)
            .map(|(p, cache)| Past { first: p.first, cache })
            .collect();
        match predictor.caching() {
            Some(model) if !pasts.is_empty() => {
                model.logits_cached(&self.batch(), &mut pasts, &self.wanted, logits)
            }
            _ => predictor.logits(&self.batch(), &self.wanted, logits),
        }
    }

    fn batch(&self) -> Batch<'_> {
        let keep = self.padded.then_some(self.keep.as_slice());
        Batch { tokens: &self.tokens, starts: &self.starts, keep }
    }
}
