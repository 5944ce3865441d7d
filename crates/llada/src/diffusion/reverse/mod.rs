//! The reverse process (Eq. 9–10) as a state machine that never calls the model: [`Canvas::plan`]
//! says what to predict, [`Canvas::read`] takes from the logits of a position what matters, and
//! [`Canvas::commit`] decides what is kept.

mod adaptive;
mod length;
mod progress;
mod reading;
mod revision;
#[cfg(test)]
mod tests;
mod view;

use std::ops::Range;

use super::{
    Commit, Keep, Prompt, Query, Sampler, SamplerError, Step,
    confidence::Belief,
    infill::Holes,
    keep::Memory,
    sample::{Draws, Seeded},
    transfer::Schedule,
};
use crate::config::{Objective, SpecialTokens};
use length::End;
pub use reading::Reading;
use revision::Revision;

/// One row on its way from masks to text.
pub struct Canvas {
    sampler: Sampler,
    special: SpecialTokens,
    /// The mask token; `None` for a causal model, which appends instead of filling.
    mask: Option<u32>,
    prompt: Prompt,
    /// What an infill fills instead of a response.
    holes: Option<Holes>,
    tokens: Vec<u32>,
    draws: Box<dyn Draws + Send>,
    block: usize,
    /// Where the open block begins.
    start: usize,
    /// From the first position that it may fill, which can be one before it, to its end.
    span: Range<usize>,
    /// Where it could have ended when it was opened.
    horizon: usize,
    /// Step within the block.
    step: usize,
    schedule: Schedule,
    /// What the rule for the number of tokens remembers.
    memory: Memory,
    revision: Revision,
    /// Where a length that is not given stands.
    end: End,
    nfe: usize,
    committed: usize,
    done: bool,
    stopped_at_eos: bool,
}

impl Canvas {
    /// Starts a row. Its random draws are those of `sampler.seed` and `row`, the number of the row
    /// in the run, whatever batch it is part of.
    ///
    /// # Errors
    /// If the settings contradict each other, the model or the prompt.
    pub fn new(
        prompt: Prompt,
        sampler: &Sampler,
        special: &SpecialTokens,
        objective: Objective,
        row: u64,
    ) -> Result<Self, SamplerError> {
        let draws = Box::new(Seeded { seed: sampler.seed, row });
        Self::with_draws(prompt, sampler, special, objective, draws)
    }

    /// As [`Canvas::new`] with other random draws, such as recorded ones.
    ///
    /// # Errors
    /// As [`Canvas::new`].
    pub fn with_draws(
        prompt: Prompt,
        sampler: &Sampler,
        special: &SpecialTokens,
        objective: Objective,
        draws: Box<dyn Draws + Send>,
    ) -> Result<Self, SamplerError> {
        sampler.check()?;
        sampler.check_model(special, objective)?;
        let (length, padding) = (prompt.tokens.len(), prompt.padding);
        if padding > length {
            return Err(SamplerError::Padding { padding, length });
        }
        let causal = objective == Objective::Autoregressive;
        if causal && length == padding {
            return Err(SamplerError::EmptyPrompt);
        }
        let mask = special.mask.filter(|_| !causal);
        Ok(Self::open(prompt, None, sampler.clone(), special, mask, draws))
    }

    /// A row in which `holes`, masked in `tokens`, are to be filled.
    pub(super) fn with_holes(
        tokens: Vec<u32>,
        holes: Holes,
        sampler: Sampler,
        special: &SpecialTokens,
        row: u64,
    ) -> Self {
        let draws = Box::new(Seeded { seed: sampler.seed, row });
        Self::open(tokens.into(), Some(holes), sampler, special, special.mask, draws)
    }

    fn open(
        prompt: Prompt,
        holes: Option<Holes>,
        sampler: Sampler,
        special: &SpecialTokens,
        mask: Option<u32>,
        draws: Box<dyn Draws + Send>,
    ) -> Self {
        let length = prompt.tokens.len();
        let mut canvas = Self {
            mask,
            tokens: prompt.tokens.clone(),
            sampler,
            special: *special,
            prompt,
            holes,
            draws,
            block: 0,
            start: length,
            span: length..length,
            horizon: length,
            step: 0,
            schedule: Schedule { masks: 0, steps: 0 },
            memory: Memory::default(),
            revision: Revision::default(),
            end: End::default(),
            nfe: 0,
            committed: 0,
            done: false,
            stopped_at_eos: false,
        };
        if let Some(mask) = canvas.mask
            && !canvas.sampler.blocks.grows()
        {
            canvas.tokens.resize(length + canvas.sampler.initial_length(), mask);
        }
        canvas.end.is_open = canvas.is_variable() && canvas.tokens.len() < canvas.length();
        if !canvas.end.is_open {
            canvas.open_block();
        }
        canvas
    }

    /// What the next step needs from the model; `None` when the canvas is done.
    pub fn plan(&self) -> Option<Query<'_>> {
        if self.is_done() {
            return None;
        }
        let mut wanted = self.asked();
        if self.mask.is_none() {
            wanted.iter_mut().for_each(|position| *position -= 1);
        }
        let unconditional = self.mask.filter(|_| self.sampler.cfg_scale > 0.0);
        Some(Query {
            tokens: &self.tokens,
            fresh: self.fresh(),
            present: self.present(),
            padding: self.prompt.padding,
            unconditional: unconditional.map(|mask| {
                let mut tokens = self.tokens.clone();
                for (token, &given) in tokens.iter_mut().zip(&self.prompt.tokens) {
                    // A mask that the prompt brought along is not part of the condition.
                    if given != mask {
                        *token = mask;
                    }
                }
                tokens
            }),
            wanted,
        })
    }

    /// Takes what was read out of the answer to [`Canvas::plan`], a [`Reading`] for each wanted
    /// position in their order, commits the tokens that are kept and moves on. Steps that would commit
    /// nothing, because there are more of them than tokens, are passed over.
    ///
    /// # Errors
    /// If the readings are not those that were asked for, or the canvas is done; the canvas is then
    /// as before.
    pub fn commit(&mut self, readings: Vec<Reading>) -> Result<Step, SamplerError> {
        if self.is_done() {
            return Err(SamplerError::Finished);
        }
        let positions = self.asked();
        if !readings.iter().map(|reading| reading.position).eq(positions.iter().copied()) {
            return Err(SamplerError::Readings {
                found: readings.len(),
                positions: positions.len(),
            });
        }
        let step = self.step_index();
        self.look_at_end(&readings);
        if self.end.is_open {
            return Ok(self.lengthen(step));
        }
        let mut remasked = Vec::new();
        let mut beliefs = Vec::with_capacity(readings.len());
        for Reading { position, is_contradicted, belief, past, .. } in readings {
            if is_contradicted {
                remasked.push(position);
            }
            beliefs.extend(belief);
            if let Some(past) = past {
                self.memory.remember(position, past);
            }
        }
        self.settle_block(&mut beliefs);
        let kept = self.choose(&beliefs);
        let doubtful = self.doubtful(&beliefs, &kept);
        let commit = |i: usize| {
            let Belief { position, token, probability, .. } = beliefs[i];
            Commit { position, token, confidence: probability as f32, text: None }
        };
        let mut committed: Vec<Commit> = kept.into_iter().map(commit).collect();
        committed.retain(|commit| Some(commit.token) != self.mask);
        Ok(self.advance(step, committed, remasked, doubtful))
    }

    /// Which of the `beliefs` are kept.
    fn choose(&self, beliefs: &[Belief]) -> Vec<usize> {
        let Sampler { keep, fast_dllm, exact, .. } = self.sampler;
        let least = match self.schedule.tokens(self.step) {
            share if exact => share,
            _ if fast_dllm.is_some() && keep != Keep::Schedule => 1,
            share => share.max(1),
        };
        let kept = keep.choose(beliefs, least, &self.memory);
        let is_one_short = kept.len() + 1 == beliefs.len();
        if fast_dllm.is_some() && matches!(keep, Keep::Factor(_)) && is_one_short {
            return (0..beliefs.len()).collect();
        }
        kept
    }
}
