//! The reverse process (Eq. 9–10) as a state machine that never calls the model: [`Canvas::plan`]
//! says what to predict, [`Canvas::commit`] decides what is kept.

mod adaptive;
mod length;
mod progress;
mod revision;
#[cfg(test)]
mod tests;
mod view;

use std::ops::Range;

use super::{
    Commit, Keep, Logits, Prompt, Query, Remasking, Sampler, SamplerError, Step,
    confidence::{self, Belief},
    guidance,
    infill::Holes,
    keep::Memory,
    sample::{self, Draws, Seeded},
    transfer::Schedule,
};
use crate::config::{Objective, SpecialTokens};
use length::End;
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

    /// Takes the answer to [`Canvas::plan`], commits the tokens that are kept and moves on. Steps
    /// that would commit nothing, because there are more of them than tokens, are passed over.
    ///
    /// # Errors
    /// If the logits are NaN, infinite, or not as many as were asked for, or the canvas is done;
    /// the canvas is then as before.
    pub fn commit(&mut self, logits: Logits<'_>) -> Result<Step, SamplerError> {
        if self.is_done() {
            return Err(SamplerError::Finished);
        }
        let positions = self.asked();
        let found = logits.conditional.len();
        let vocabulary = found / positions.len().max(1);
        let guided = self.sampler.cfg_scale > 0.0;
        if (vocabulary == 0 && !positions.is_empty())
            || found != vocabulary * positions.len()
            || logits.unconditional.map(<[f32]>::len) != guided.then_some(found)
        {
            return Err(SamplerError::LogitCount { found, positions: positions.len() });
        }
        if let Some(unconditional) = logits.unconditional {
            guidance::combine(logits.conditional, unconditional, self.sampler.cfg_scale);
        }

        let rows = logits.conditional;
        let mut leading = Vec::with_capacity(positions.len());
        for (row, &position) in rows.chunks_exact_mut(vocabulary.max(1)).zip(&positions) {
            leading.push(self.leading(row, position)?);
        }
        let step = self.step_index();
        self.look_at_end(rows, &positions);
        if self.end.is_open {
            return Ok(self.lengthen(step));
        }
        let remasked = self.contradicted(rows, &positions, &leading);
        let (mut beliefs, mut uniforms) = (Vec::with_capacity(positions.len()), Vec::new());
        for (i, row) in rows.chunks_exact_mut(vocabulary.max(1)).enumerate() {
            if self.is_candidate(positions[i]) {
                let mut belief = self.believe(row, positions[i], leading[i], step, &mut uniforms);
                belief.row = i;
                beliefs.push(belief);
            }
        }
        self.settle_block(&mut beliefs);
        let kept = self.choose(&beliefs);
        let doubtful = self.doubtful(&beliefs, &kept);
        let commit = |i: usize| {
            let Belief { position, token, row, mut probability, .. } = beliefs[i];
            if probability.is_nan() {
                let row = &rows[row * vocabulary..(row + 1) * vocabulary];
                probability = sample::probability(row, token as usize, self.sampler.confidence);
            }
            Commit { position, token, confidence: probability as f32, text: None }
        };
        let mut committed: Vec<Commit> = kept.into_iter().map(commit).collect();
        committed.retain(|commit| Some(commit.token) != self.mask);
        Ok(self.advance(step, committed, remasked, doubtful))
    }

    /// The most probable token of `position`. Leaves in `logits` those that may be chosen.
    fn leading(&self, logits: &mut [f32], position: usize) -> Result<usize, SamplerError> {
        if let Some(holes) = &self.holes {
            holes.choices.restrict(logits, holes.spaced.contains(&position));
        } else if !self.sampler.is_literal() {
            exclude(logits, self.mask);
        }
        if self.sampler.logits_eos_inf {
            exclude(logits, self.special.eos);
        }
        sample::argmax(logits).ok_or(SamplerError::NotFinite { position })
    }

    /// The token that `position` would take, of whose `logits` number `leading` is the highest.
    /// Leaves in them those that its confidence counts.
    fn believe(
        &mut self,
        logits: &mut [f32],
        position: usize,
        leading: usize,
        step: usize,
        uniforms: &mut Vec<f64>,
    ) -> Belief {
        let sampler = &self.sampler;
        self.memory.observe(sampler.keep, position, logits);
        let mut token = match sampler.keep {
            Keep::Credit(_) => sample::argmax(logits).unwrap_or(leading),
            _ => leading,
        };
        if sampler.temperature > 0.0 {
            uniforms.resize(logits.len(), 0.0);
            self.draws.token_uniforms(step, position, uniforms);
            token = sample::gumbel_max(logits, sampler.temperature, uniforms);
        }
        if sampler.confidence_eos_eot_inf {
            // The reference writes to the noisy logits, which are the logits at temperature 0 only.
            if !sampler.exact || sampler.temperature == 0.0 {
                exclude(logits, self.special.eos);
            }
            exclude(logits, self.special.eot);
        }
        let precision = sampler.confidence;
        let (probability, confidence) = match sampler.remasking {
            // Only what is kept needs a probability, unless the least probable is looked for.
            Remasking::Random if sampler.variable_length.is_none() => {
                (f64::NAN, f64::from(self.draws.confidence(step, position)))
            }
            Remasking::Random => {
                let probability = sample::probability(logits, token, precision);
                (probability, f64::from(self.draws.confidence(step, position)))
            }
            measure => confidence::confidence(measure, logits, token, precision),
        };
        let mut belief = Belief {
            position,
            row: 0,
            token: token as u32,
            probability,
            confidence,
            entropy: f64::NAN,
        };
        if sampler.keep.needs_entropy() {
            belief.entropy = confidence::entropy(logits);
        }
        belief
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

/// Makes `token` impossible.
fn exclude(logits: &mut [f32], token: Option<u32>) {
    if let Some(logit) = token.and_then(|token| logits.get_mut(token as usize)) {
        *logit = f32::NEG_INFINITY;
    }
}
