//! What a canvas takes from the logits of one position, so that no step needs them all at once.

use std::cell::RefCell;

use llada_kernels::statistics::{self, Statistics};

use super::Canvas;
use crate::{
    config::SpecialTokens,
    diffusion::{
        Keep, Remasking, SamplerError,
        confidence::{self, Belief},
        guidance,
        keep::Past,
        sample,
    },
};

thread_local! {
    /// The noise of one position.
    static UNIFORMS: RefCell<Vec<f64>> = const { RefCell::new(Vec::new()) };
}

/// What the logits of one position say. [`Canvas::commit`] takes those of all wanted positions.
#[derive(Debug, Clone)]
pub struct Reading {
    pub(super) position: usize,
    /// The probability that the text has ended there; 0 where that is not asked.
    pub(super) end: f64,
    /// Whether the token that was kept there should be masked again.
    pub(super) is_contradicted: bool,
    /// What the position would take, if it may take anything now.
    pub(super) belief: Option<Belief>,
    /// What the rule for the number of tokens should remember.
    pub(super) past: Option<Past>,
}

impl Canvas {
    /// Reads the logits, one for each token, of the position `wanted` of [`Canvas::plan`], and overwrites
    /// them; `unconditional` are those of the row without its prompt, if that was asked for. It
    /// changes nothing, so that positions may be read in any order and at once.
    ///
    /// # Errors
    /// If the logits are NaN, infinite, or not as many as were asked for.
    pub fn read(
        &self,
        wanted: usize,
        logits: &mut [f32],
        unconditional: Option<&[f32]>,
    ) -> Result<Reading, SamplerError> {
        let position = wanted + self.lag();
        let (found, is_guided) = (logits.len(), self.sampler.cfg_scale > 0.0);
        if found == 0 || unconditional.map(<[f32]>::len) != is_guided.then_some(found) {
            return Err(SamplerError::LogitCount { found, positions: 1 });
        }
        if let Some(unconditional) = unconditional {
            guidance::combine(logits, unconditional, self.sampler.cfg_scale);
        }
        self.restrict(logits, position);
        let whole = statistics::of(logits).ok_or(SamplerError::NotFinite { position })?;
        let mut reading = Reading {
            position,
            end: self.end_probability(logits, &whole, position),
            is_contradicted: self.contradicts(logits, &whole, position),
            belief: None,
            past: None,
        };
        if !self.end.is_open && self.may_edit(position) {
            reading.belief = Some(self.believe(logits, whole, position));
        } else if !self.end.is_open && self.is_candidate(position) {
            reading.past = self.memory.observe(self.sampler.keep, position, logits, &whole);
            let whole = match self.sampler.keep {
                Keep::Credit(_) => statistics::of(logits).unwrap_or(whole),
                _ => whole,
            };
            reading.belief = Some(self.believe(logits, whole, position));
        }
        Ok(reading)
    }

    /// Leaves in the `logits` of `position` those that may be chosen.
    fn restrict(&self, logits: &mut [f32], position: usize) {
        if let Some(holes) = &self.holes {
            holes.choices.restrict(logits, holes.spaced.contains(&position));
        } else if !self.sampler.is_literal() {
            exclude(logits, self.mask);
        }
        if self.sampler.logits_eos_inf {
            exclude(logits, self.special.eos);
        }
    }

    /// The token that `position` would take, `whole` being the statistics of its `logits`. Leaves in
    /// them those that its confidence counts.
    fn believe(&self, logits: &mut [f32], mut whole: Statistics, position: usize) -> Belief {
        let (sampler, SpecialTokens { eos, eot, .. }) = (&self.sampler, self.special);
        let step = self.step_index();
        let mut temperature = sampler.temperature;
        if sampler.tempers() {
            if temperature > 0.0 {
                logits.iter_mut().for_each(|logit| *logit /= temperature as f32);
                temperature = 1.0;
            }
            if sampler.filters() {
                let p_first = sampler.follows_dream();
                sample::filter(logits, sampler.top_k, sampler.top_p, p_first);
            }
            whole = statistics::of(logits).unwrap_or(whole);
        }
        let mut token = whole.token;
        if temperature > 0.0 {
            let drawn = self.draws.token(step, position).map(|token| token as usize);
            token = drawn.unwrap_or_else(|| {
                UNIFORMS.with_borrow_mut(|uniforms| {
                    uniforms.resize(logits.len(), 0.0);
                    self.draws.token_uniforms(step, position, uniforms);
                    sample::gumbel_max(logits, temperature, uniforms)
                })
            });
        }
        if sampler.confidence_eos_eot_inf {
            // The reference writes to the noisy logits, which are the logits at temperature 0 only.
            if !sampler.exact || sampler.temperature == 0.0 {
                exclude(logits, eos);
            }
            exclude(logits, eot);
            // Where nothing is left, the token is one of them: without probability.
            whole = statistics::of(logits).unwrap_or(whole);
        }
        let precision = sampler.confidence;
        let (probability, confidence) = match sampler.remasking {
            Remasking::Random => {
                let probability = sample::probability(logits, &whole, token, precision);
                (probability, f64::from(self.draws.confidence(step, position)))
            }
            Remasking::Sequential => {
                let probability = sample::probability(logits, &whole, token, precision);
                (probability, -(position as f64))
            }
            measure => confidence::confidence(measure, logits, &whole, token, precision),
        };
        let confidence = match sampler.alg_temp > 0.0 {
            true => {
                let u = f64::from(self.draws.confidence(step, position));
                confidence / sampler.alg_temp - (-u.ln()).ln()
            }
            false => confidence,
        };
        let entropy = whole.entropy();
        Belief { position, token: token as u32, probability, confidence, entropy }
    }
}

/// Makes `token` impossible.
fn exclude(logits: &mut [f32], token: Option<u32>) {
    if let Some(logit) = token.and_then(|token| logits.get_mut(token as usize)) {
        *logit = f32::NEG_INFINITY;
    }
}
