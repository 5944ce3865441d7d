//! The reverse process (Eq. 9–10) as a state machine that never calls the model: [`Canvas::plan`]
//! says what to predict, [`Canvas::read`] takes from the logits of a position what matters, and
//! [`Canvas::commit`] decides which positions are unmasked.

mod adaptive;
mod aligned;
mod constrained;
mod diffusers;
mod edit;
mod length;
mod parts;
mod progress;
mod reading;
mod revision;
#[cfg(test)]
mod tests;
mod view;

use std::ops::Range;

use super::{
    Commit, Prompt, Query, Reference, Sampler, SamplerError, Step, TransferRule,
    confidence::Candidate,
    infill::Holes,
    sample::{Draws, Seeded},
    transfer::Memory,
    transfer::Schedule,
};
use crate::config::{AttentionMask, SpecialTokens};
use constrained::Constrained;
use length::End;
pub use reading::{ReadSpec, Reading};
use revision::Revision;

/// One sequence on its way from masks to text.
pub struct Canvas {
    sampler: Sampler,
    special: SpecialTokens,
    /// The mask token; `None` for a causal model, which appends instead of filling.
    mask: Option<u32>,
    /// Which tokens a token attends to. Where it attends by blocks, those of the canvas end at
    /// multiples of their length.
    attention: AttentionMask,
    /// The first position whose keys and values may be older than its block, where they are exact.
    stale: usize,
    prompt: Prompt,
    /// What an infill fills instead of a response.
    holes: Option<Holes>,
    /// What the text must be.
    constraint: Option<Box<Constrained>>,
    tokens: Vec<u32>,
    draws: Box<dyn Draws + Send>,
    block: usize,
    /// Where the open block begins.
    start: usize,
    /// From the first position that it may fill, which can be one before it, to its end.
    span: Range<usize>,
    /// Where it could have ended when it was opened.
    horizon: usize,
    /// Whether the next pass gives the first token of a block, which is not open yet.
    leads: bool,
    /// Step within the block.
    step: usize,
    schedule: Schedule,
    /// What the rule for the number of tokens remembers.
    memory: Memory,
    revision: Revision,
    /// Passes over the open block since it is full.
    rounds: usize,
    /// Whether it stays in its block until the other sequences of its batch leave theirs.
    waits: bool,
    /// Where a length that is not given stands.
    end: End,
    nfe: usize,
    committed: usize,
    done: bool,
    stopped_at_eos: bool,
    plan: Plan,
    work: Work,
}

/// What the next step needs from the model; its memory is reused.
#[derive(Default)]
struct Plan {
    wanted: Vec<usize>,
    present: Vec<u32>,
    unconditional: Vec<u32>,
}

/// What a commit works with; its memory is reused.
#[derive(Default)]
struct Work {
    candidates: Vec<Candidate>,
    /// Those of positions under a constraint.
    constrained: Vec<Candidate>,
    /// Tokens that take the place of others.
    edits: Vec<Commit>,
    /// Indices of the candidates whose positions are unmasked.
    unmasked: Vec<usize>,
    step: Step,
}

impl Canvas {
    /// Starts a sequence. Its random draws are those of `sampler.seed` alone, so that it gets the same
    /// tokens by itself and in any batch; sequences that are to differ need seeds of their own, such as
    /// [`nth_seed`](crate::rng::nth_seed) gives.
    ///
    /// # Errors
    /// If the settings contradict each other, the model or the prompt.
    pub fn new(
        prompt: Prompt,
        sampler: &Sampler,
        special: &SpecialTokens,
        attention: AttentionMask,
    ) -> Result<Self, SamplerError> {
        let draws = Box::new(Seeded { seed: sampler.seed });
        Self::with_draws(prompt, sampler, special, attention, draws)
    }

    /// As [`Canvas::new`] with other random draws, such as recorded ones.
    ///
    /// # Errors
    /// As [`Canvas::new`].
    pub fn with_draws(
        prompt: Prompt,
        sampler: &Sampler,
        special: &SpecialTokens,
        attention: AttentionMask,
        draws: Box<dyn Draws + Send>,
    ) -> Result<Self, SamplerError> {
        sampler.check()?;
        sampler.check_model(special, attention)?;
        let (length, padding) = (prompt.tokens.len(), prompt.padding);
        if padding > length {
            return Err(SamplerError::Padding { padding, length });
        }
        let causal = attention == AttentionMask::Causal;
        if causal && length == padding {
            return Err(SamplerError::EmptyPrompt);
        }
        let mask = special.mask.filter(|_| !causal);
        Ok(Self::open(prompt, None, sampler.clone(), special, mask, attention, draws))
    }

    /// A sequence in which `holes`, masked in `tokens`, are to be filled.
    pub(super) fn with_holes(
        tokens: Vec<u32>,
        holes: Holes,
        sampler: Sampler,
        special: &SpecialTokens,
    ) -> Self {
        let draws = Box::new(Seeded { seed: sampler.seed });
        let attention = AttentionMask::Bidirectional;
        Self::open(tokens.into(), Some(holes), sampler, special, special.mask, attention, draws)
    }

    fn open(
        prompt: Prompt,
        holes: Option<Holes>,
        sampler: Sampler,
        special: &SpecialTokens,
        mask: Option<u32>,
        attention: AttentionMask,
        draws: Box<dyn Draws + Send>,
    ) -> Self {
        let length = prompt.tokens.len();
        let mut canvas = Self {
            mask,
            attention,
            stale: 0,
            tokens: prompt.tokens.clone(),
            sampler,
            special: *special,
            prompt,
            holes,
            constraint: None,
            draws,
            block: 0,
            start: length,
            span: length..length,
            horizon: length,
            leads: false,
            step: 0,
            schedule: Schedule { masks: 0, steps: 0 },
            memory: Memory::default(),
            revision: Revision::default(),
            rounds: 0,
            waits: false,
            end: End::default(),
            nfe: 0,
            committed: 0,
            done: false,
            stopped_at_eos: false,
            plan: Plan::default(),
            work: Work::default(),
        };
        canvas.tokens.reserve(canvas.length() - length);
        if let Some(mask) = canvas.mask
            && !canvas.sampler.blocks.grows()
        {
            canvas.tokens.resize(length + canvas.sampler.initial_length(), mask);
        }
        canvas.end.is_open = canvas.is_variable() && canvas.tokens.len() < canvas.length();
        if !canvas.end.is_open {
            canvas.open_block();
        }
        canvas.prepare();
        canvas
    }

    /// What the next step needs from the model; `None` when the canvas is done.
    pub fn plan(&self) -> Option<Query<'_>> {
        if self.is_done() {
            return None;
        }
        let Plan { wanted, present, unconditional } = &self.plan;
        let is_partial = self.sampler.suffix_window.is_some() && present.len() < self.tokens.len();
        let is_guided = self.sampler.cfg_scale > 0.0 && self.mask.is_some();
        Some(Query {
            tokens: &self.tokens,
            fresh: self.fresh(),
            present: is_partial.then_some(present),
            padding: self.prompt.padding,
            unseen: self.unseen(),
            unconditional: is_guided.then_some(unconditional),
            wanted,
        })
    }

    /// Takes what was read out of the answer to [`Canvas::plan`], a [`Reading`] for each wanted
    /// position in their order, unmasks those that it chooses and moves on. Steps that would unmask
    /// nothing, because there are more of them than tokens, are passed over.
    ///
    /// # Errors
    /// If the readings are not those that were asked for, or the canvas is done; the canvas is then
    /// as before. Under a constraint also if tokens were put where none lead on.
    pub fn commit(&mut self, readings: &[Reading]) -> Result<&Step, SamplerError> {
        if self.is_done() {
            return Err(SamplerError::Finished);
        }
        let asked = self.plan.wanted.iter().map(|wanted| wanted + self.lag());
        if !readings.iter().map(|reading| reading.position).eq(asked) {
            let (found, positions) = (readings.len(), self.plan.wanted.len());
            return Err(SamplerError::Readings { found, positions });
        }
        let mut work = std::mem::take(&mut self.work);
        if let Err(error) = self.constrained(readings, &mut work.constrained) {
            self.work = work;
            return Err(error);
        }
        let event = &mut work.step;
        event.step = self.step_index();
        event.committed.clear();
        event.remasked.clear();
        event.inserted.clear();
        self.look_at_end(readings);
        match self.end.is_open {
            true => self.lengthen(event),
            false => self.settle(readings, &mut work),
        }
        self.prepare();
        self.work = work;
        Ok(&self.work.step)
    }

    /// Unmasks what is chosen of what was read.
    fn settle(&mut self, readings: &[Reading], work: &mut Work) {
        let Work { candidates, constrained, edits, unmasked, step } = work;
        let mut constrained = constrained.drain(..);
        candidates.clear();
        edits.clear();
        for Reading { position, is_contradicted, candidate, scores, past, .. } in readings {
            if *is_contradicted {
                step.remasked.push(*position);
            }
            match candidate {
                Some(candidate) if self.may_edit(*position) => edits.extend(self.edit(candidate)),
                candidate => candidates.extend(candidate),
            }
            if scores.is_some() {
                candidates.extend(constrained.next());
            }
            if let Some(past) = past {
                self.memory.remember(*position, past.clone());
            }
        }
        self.settle_block(candidates);
        self.choose(candidates, unmasked);
        let doubtful = self.doubtful(candidates, unmasked);
        let commit = |&i: &usize| {
            let Candidate { position, token, probability, .. } = candidates[i];
            Commit { position, token, confidence: probability as f32, text: None }
        };
        // A later step may commit more, but none has more to read than a block's first.
        step.committed.reserve(readings.len());
        step.committed.extend(unmasked.iter().map(commit));
        step.committed.retain(|commit| Some(commit.token) != self.mask);
        self.put_edits(edits, step);
        self.advance(step, doubtful);
    }

    /// Leaves in `unmasked` which of the `candidates` are unmasked.
    fn choose(&self, candidates: &[Candidate], unmasked: &mut Vec<usize>) {
        let Sampler { transfer, fast_dllm, exact, reference, .. } = self.sampler;
        if self.leads {
            unmasked.clear();
            return unmasked.extend(0..candidates.len());
        }
        if let Some(share) = reference.share(self.step, self.schedule.steps).filter(|_| exact) {
            return self.choose_as_dream(candidates, share, unmasked);
        }
        let least = match self.schedule.tokens(self.step) {
            _ if self.sampler.follows(Reference::Diffusers) => self.schedule_of_diffusers(),
            _ if self.sampler.edit.is_some() => self.schedule.tokens(0).max(1),
            _ if self.sampler.follows(Reference::FastDllmV2) => 1,
            share if exact => share,
            // A part of a block may have fewer masks than a step's share, and the rest would be lost.
            _ if self.sampler.sub_block_length.is_some() => self.schedule.tokens(0).max(1),
            _ if fast_dllm.is_some() && transfer != TransferRule::Schedule => 1,
            share => share.max(1),
        };
        transfer.choose(candidates, least, &self.memory, unmasked);
        let is_one_short = unmasked.len() + 1 == candidates.len();
        if fast_dllm.is_some() && matches!(transfer, TransferRule::Factor(_)) && is_one_short {
            unmasked.clear();
            unmasked.extend(0..candidates.len());
        }
    }
}
