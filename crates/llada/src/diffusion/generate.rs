//! The sampling loop: many canvases, one batched forward pass for each step.

use std::ops::ControlFlow;

use super::{Canvas, Step, predictor::Predictor};
use crate::{
    Result,
    engine::{Engine, Event},
};

/// What a run did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Batched forward passes of the model; guidance doubles their sequences, not their number.
    pub nfe: usize,
    /// Forward passes summed over the sequences.
    pub sequence_forwards: usize,
    /// Tokens fed to the model in all passes, those of guidance included.
    pub tokens_fed: usize,
    /// Tokens of prompts that were not fed, since an earlier sequence had their keys and values cached.
    pub tokens_reused: usize,
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
    /// Tokens that a sequence commits in one forward pass, on average.
    pub fn tokens_per_forward(&self) -> f64 {
        self.committed as f64 / self.sequence_forwards.max(1) as f64
    }
}

impl std::ops::AddAssign for Summary {
    /// One run after another.
    fn add_assign(&mut self, other: Self) {
        self.nfe += other.nfe;
        self.sequence_forwards += other.sequence_forwards;
        self.tokens_fed += other.tokens_fed;
        self.tokens_reused += other.tokens_reused;
        self.committed += other.committed;
        self.canvas_tokens += other.canvas_tokens;
        self.useful_tokens += other.useful_tokens;
        self.masks_left += other.masks_left;
        self.interrupted |= other.interrupted;
    }
}

/// Runs the canvases until they are done, in an [`Engine`] of their own; sequences of unequal
/// length and progress share the forward passes. `on_step` is called for each sequence's step, with
/// its index in `canvases`, and may break off the run: the steps of that forward pass are still
/// committed and told.
///
/// Sequences of a causal model are fed token by token, and those of a model that attends by blocks
/// a block at a time, each with keys and values of its own; what comes out is the same as without,
/// to the last bit. Those of a diffusion model are fed as [`Sampler::cache`](super::Sampler::cache)
/// says. What is cached lives as long as the run, unless the predictor
/// [retains](crate::model::MaskPredictor::retain) it.
///
/// # Errors
/// If the model fails, or the logits of a sequence cannot be sampled from; the other sequences have
/// taken their step.
pub fn run<P: Predictor + ?Sized>(
    predictor: &mut P,
    canvases: &mut [Canvas],
    on_step: &mut dyn FnMut(usize, &Step) -> ControlFlow<()>,
) -> Result<Summary> {
    let (mut summary, mut failure) = (Summary::default(), None);
    let mut engine = Engine::new(predictor);
    for canvas in canvases.iter_mut() {
        engine.admit(canvas);
    }
    while !engine.is_empty() && !summary.interrupted && failure.is_none() {
        let pass = engine.step(usize::MAX, &mut |id, event| match event {
            Event::Step(canvas) => {
                let step = canvas.last_step();
                summary.interrupted |= on_step(id.number(), step).is_break();
            }
            Event::Failed(_, error) => failure = failure.take().or(Some(error)),
            Event::Begun(_) | Event::Done(_) => {}
        })?;
        summary.nfe += usize::from(pass.works > 0);
        summary.tokens_fed += pass.tokens_fed;
        summary.tokens_reused += pass.tokens_reused;
    }
    drop(engine);
    if let Some(error) = failure {
        return Err(error);
    }
    for outcome in canvases.iter().map(Canvas::outcome) {
        summary.sequence_forwards += outcome.nfe;
        summary.committed += outcome.committed;
        summary.canvas_tokens += outcome.canvas_tokens;
        summary.useful_tokens += outcome.useful_tokens;
        summary.masks_left += outcome.masks_left;
    }
    Ok(summary)
}
