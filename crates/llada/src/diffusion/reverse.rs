//! The reverse process (Eq. 9–10) as a state machine that never calls the model: [`Canvas::plan`]
//! says what to predict, [`Canvas::commit`] decides what is kept.

use std::fmt;

use super::{
    Commit, Logits, Outcome, Prompt, Query, Remasking, Sampler, SamplerError, Step, guidance,
    infill::Holes,
    remasking,
    sample::{self, Draws, Seeded},
    transfer::Schedule,
};
use crate::config::{Objective, SpecialTokens};

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
    /// Step within the block.
    step: usize,
    schedule: Schedule,
    nfe: usize,
    committed: usize,
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
            step: 0,
            schedule: Schedule { masks: 0, steps: 0 },
            nfe: 0,
            committed: 0,
            stopped_at_eos: false,
        };
        if let Some(mask) = canvas.mask
            && !canvas.sampler.blocks.grows()
        {
            canvas.tokens.resize(length + canvas.sampler.gen_length, mask);
        }
        canvas.open_block();
        canvas
    }

    /// What the next step needs from the model; `None` when the canvas is done.
    pub fn plan(&self) -> Option<Query<'_>> {
        if self.is_done() {
            return None;
        }
        let mut wanted = self.open_positions();
        if self.mask.is_none() {
            wanted.iter_mut().for_each(|position| *position -= 1);
        }
        let unconditional = self.mask.filter(|_| self.sampler.cfg_scale > 0.0);
        // Of a causal model, a step changes nothing but the token that it appends.
        let known = if self.mask.is_none() && self.nfe > 0 { self.tokens.len() - 1 } else { 0 };
        Some(Query {
            tokens: &self.tokens,
            fresh: known..self.tokens.len(),
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
        let positions = self.open_positions();
        let found = logits.conditional.len();
        let vocabulary = found / positions.len().max(1);
        let guided = self.sampler.cfg_scale > 0.0;
        if vocabulary == 0
            || found != vocabulary * positions.len()
            || logits.unconditional.map(<[f32]>::len) != guided.then_some(found)
        {
            return Err(SamplerError::LogitCount { found, positions: positions.len() });
        }
        if let Some(unconditional) = logits.unconditional {
            guidance::combine(logits.conditional, unconditional, self.sampler.cfg_scale);
        }

        let rows = logits.conditional;
        let mut uniforms = Vec::new();
        let mut predictions = Vec::with_capacity(positions.len());
        for (row, &position) in rows.chunks_exact_mut(vocabulary).zip(&positions) {
            predictions.push(self.predict(row, position, &mut uniforms)?);
        }
        let probability = |i: usize| {
            let row = &rows[i * vocabulary..(i + 1) * vocabulary];
            sample::probability(row, predictions[i], self.sampler.confidence)
        };
        let step_index = self.step_index();
        let confidence: Vec<f64> = match self.sampler.remasking {
            Remasking::LowConfidence => (0..positions.len()).map(probability).collect(),
            Remasking::Random => {
                let draws = &mut self.draws;
                positions.iter().map(|&p| f64::from(draws.confidence(step_index, p))).collect()
            }
        };
        let kept = remasking::most_confident(&confidence, self.schedule.tokens(self.step));
        let committed: Vec<Commit> = kept
            .into_iter()
            .map(|i| Commit {
                position: positions[i],
                token: predictions[i] as u32,
                confidence: match self.sampler.remasking {
                    Remasking::LowConfidence => confidence[i],
                    Remasking::Random => probability(i),
                } as f32,
                text: None,
            })
            .filter(|commit| Some(commit.token) != self.mask)
            .collect();
        Ok(self.advance(step_index, committed))
    }

    /// Whether nothing more will be committed.
    pub fn is_done(&self) -> bool {
        self.block >= self.block_count()
    }

    /// Number of blocks.
    pub fn block_count(&self) -> usize {
        match &self.holes {
            Some(holes) => holes.block_ends.len(),
            None => self.sampler.block_count(),
        }
    }

    /// Steps given to each block.
    pub fn steps_per_block(&self) -> usize {
        match &self.holes {
            // Blocks are unequal where the holes do not share them evenly.
            Some(holes) => self.sampler.steps.div_ceil(holes.block_ends.len().max(1)),
            None => self.sampler.steps_per_block(),
        }
    }

    /// The row as it is now: prompt, then response.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// The response as it is now.
    pub fn response(&self) -> &[u32] {
        &self.tokens[self.prompt.tokens.len()..]
    }

    /// The response before the first EOS or EoT.
    pub fn useful(&self) -> &[u32] {
        let response = self.response();
        let end = response.iter().position(|&token| self.ends(token));
        &response[..end.unwrap_or(response.len())]
    }

    /// The prompt.
    pub fn prompt(&self) -> &Prompt {
        &self.prompt
    }

    /// The settings.
    pub fn sampler(&self) -> &Sampler {
        &self.sampler
    }

    /// The mask token; `None` for a causal model.
    pub fn mask_token(&self) -> Option<u32> {
        self.mask
    }

    /// Length of the row when its response is full.
    pub fn length(&self) -> usize {
        self.prompt.tokens.len() + self.sampler.gen_length
    }

    /// How the canvas ended, or stands.
    pub fn outcome(&self) -> Outcome {
        let is_mask = |token: &&u32| Some(**token) == self.mask;
        Outcome {
            nfe: self.nfe,
            committed: self.committed,
            masks_left: self.tokens.iter().filter(is_mask).count(),
            canvas_tokens: self.response().len(),
            useful_tokens: self.useful().iter().filter(|token| !is_mask(token)).count(),
            stopped_at_eos: self.stopped_at_eos,
        }
    }

    /// The token that `position` would take. Leaves in `logits` those that its confidence counts.
    fn predict(
        &mut self,
        logits: &mut [f32],
        position: usize,
        uniforms: &mut Vec<f64>,
    ) -> Result<usize, SamplerError> {
        let exclude = |logits: &mut [f32], token: Option<u32>| {
            if let Some(logit) = token.and_then(|token| logits.get_mut(token as usize)) {
                *logit = f32::NEG_INFINITY;
            }
        };
        let (sampler, SpecialTokens { eos, eot, .. }) = (&self.sampler, self.special);
        if let Some(holes) = &self.holes {
            holes.choices.restrict(logits, holes.spaced.contains(&position));
        } else if !sampler.exact {
            exclude(logits, self.mask);
        }
        if sampler.logits_eos_inf {
            exclude(logits, eos);
        }
        let mut token = sample::argmax(logits).ok_or(SamplerError::NotFinite { position })?;
        if sampler.temperature > 0.0 {
            let step = self.step_index();
            uniforms.resize(logits.len(), 0.0);
            self.draws.token_uniforms(step, position, uniforms);
            token = sample::gumbel_max(logits, sampler.temperature, uniforms);
        }
        if sampler.confidence_eos_eot_inf {
            // The reference writes to the noisy logits, which are the logits at temperature 0 only.
            if !sampler.exact || sampler.temperature == 0.0 {
                exclude(logits, eos);
            }
            exclude(logits, eot);
        }
        Ok(token)
    }

    /// Writes the committed tokens and goes to the next step that commits something.
    fn advance(&mut self, step: usize, committed: Vec<Commit>) -> Step {
        for commit in &committed {
            match self.tokens.get_mut(commit.position) {
                Some(token) => *token = commit.token,
                None => self.tokens.push(commit.token),
            }
        }
        self.committed += committed.len();
        self.nfe += 1;
        let open = self.tokens.iter().position(|&token| Some(token) == self.mask);
        let event = Step {
            nfe: self.nfe,
            step,
            block: self.block,
            committed,
            remasked: Vec::new(),
            stable: open.unwrap_or(self.tokens.len()),
        };
        self.step += 1;
        match self.text_end().filter(|_| self.sampler.stop_at_eos) {
            Some(end) => {
                self.tokens.truncate(end);
                self.stop();
            }
            None if self.schedule.tokens(self.step) == 0 => self.close_block(),
            None => {}
        }
        event
    }

    /// Opens the first block from `self.block` on that has something to fill.
    fn open_block(&mut self) {
        self.step = 0;
        while !self.is_done() {
            let masks = match self.mask {
                None => 1,
                Some(mask) => {
                    let end = self.block_end();
                    if self.sampler.blocks.grows() {
                        self.tokens.resize(end, mask);
                    }
                    let exact = self.sampler.exact && self.holes.is_none();
                    let start = if exact { end - self.sampler.block() } else { 0 };
                    self.tokens[start..end].iter().filter(|&&token| token == mask).count()
                }
            };
            self.schedule = Schedule { masks, steps: self.steps_per_block() };
            if masks > 0 {
                return;
            }
            self.block += 1;
        }
    }

    fn close_block(&mut self) {
        if self.sampler.blocks.grows() {
            let start = self.block_end() - self.sampler.block();
            if self.tokens[start..].iter().any(|&token| self.ends(token)) {
                return self.stop();
            }
        }
        self.block += 1;
        self.open_block();
    }

    fn stop(&mut self) {
        self.stopped_at_eos = true;
        self.block = self.block_count();
    }

    /// Where the text ends: after the first EOS or EoT of the response, if no mask is before it.
    fn text_end(&self) -> Option<usize> {
        let response = self.prompt.tokens.len();
        let end = response + self.response().iter().position(|&token| self.ends(token))?;
        let filled = self.tokens[..end].iter().all(|&token| Some(token) != self.mask);
        filled.then_some(end + 1)
    }

    /// Positions that can be committed now: the masks before the end of the block. Usually those
    /// of the block; in the prompt or an earlier block a mask may be left, as in the reference.
    fn open_positions(&self) -> Vec<usize> {
        match self.mask {
            None => vec![self.tokens.len()],
            Some(mask) => (0..self.block_end()).filter(|&i| self.tokens[i] == mask).collect(),
        }
    }

    /// Where the current block ends.
    fn block_end(&self) -> usize {
        match &self.holes {
            Some(holes) => holes.block_ends[self.block],
            None => self.prompt.tokens.len() + (self.block + 1) * self.sampler.block(),
        }
    }

    /// Index of the current step in the whole schedule.
    fn step_index(&self) -> usize {
        self.block * self.steps_per_block() + self.step
    }

    /// Whether `token` ends the text.
    fn ends(&self, token: u32) -> bool {
        Some(token) == self.special.eos || Some(token) == self.special.eot
    }
}

impl fmt::Debug for Canvas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Canvas")
            .field("tokens", &self.tokens)
            .field("block", &self.block)
            .field("step", &self.step)
            .field("outcome", &self.outcome())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "reverse_tests.rs"]
mod tests;
