//! Batches as diffusers' `LLaDA2Pipeline` runs them, for tests against its trajectories.

use std::ops::ControlFlow;

use super::{
    Canvas, Step,
    engine::{Engine, Event},
    predictor::Predictor,
};
use crate::Result;

/// Runs the sequences of one batch as the pipeline does, where they are not independent: a block
/// ends for all sequences at once, and while one has masks the others go on as well. So a sequence
/// gets other tokens than alone. The sequences must have prompts of one length, left padding
/// included, and one sampler, which follows [`Reference::Diffusers`](super::Reference::Diffusers).
/// Every pass feeds whole sequences. Gives the number of passes.
///
/// A sequence that has stopped at the end of its text is fed no more, so that edits which the
/// pipeline would see in it, but not make, hold no other sequence up.
///
/// # Errors
/// If the model fails, or the logits of a sequence cannot be sampled from.
pub fn run<P: Predictor + ?Sized>(
    predictor: &mut P,
    canvases: &mut [Canvas],
    on_step: &mut dyn FnMut(usize, &Step) -> ControlFlow<()>,
) -> Result<usize> {
    canvases.iter_mut().for_each(Canvas::wait);
    let mut nfe = 0;
    loop {
        let len = canvases.iter().map(|canvas| canvas.tokens().len()).max().unwrap_or(0);
        let were_full = !canvases.iter().any(|canvas| canvas.has_masks(len));
        let (mut changed, mut interrupted, mut failure) = (false, false, None);
        let mut engine = Engine::new(predictor);
        let open = canvases.iter_mut().enumerate().filter(|(_, canvas)| !canvas.is_done());
        let (indices, open): (Vec<usize>, Vec<&mut Canvas>) = open.unzip();
        if open.is_empty() {
            return Ok(nfe);
        }
        for canvas in open {
            engine.admit(canvas);
        }
        engine.step(usize::MAX, &mut |id, event| match event {
            Event::Begun(_) => {}
            Event::Step(canvas) => {
                let step = canvas.last_step();
                changed |= step.changes();
                interrupted |= on_step(indices[id.number()], step).is_break();
            }
            Event::Failed(_, error) => failure = failure.take().or(Some(error)),
            Event::Done(_) => {}
        })?;
        drop(engine);
        nfe += 1;
        if let Some(error) = failure {
            return Err(error);
        }
        canvases.iter_mut().for_each(|canvas| canvas.leave_block_with(were_full, changed));
        if interrupted {
            return Ok(nfe);
        }
    }
}
