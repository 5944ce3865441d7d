//! What is read from the logits of one position, so that no step needs them all at once. What is asked
//! is data ([`ReadSpec`]), and so is the answer ([`Reading`]): whoever has the logits can read them.

use std::cell::RefCell;

use llada_kernels::statistics::{self, Statistics};

use super::Canvas;
use crate::{
    config::SpecialTokens,
    constraint::{Automaton, Best},
    diffusion::{
        Precision, Remasking, Sampler, SamplerError, TransferRule,
        confidence::{self, Candidate},
        guidance,
        infill::Choices,
        sample::{self, Draws},
        transfer::Past,
    },
};

thread_local! {
    /// The noise of one position.
    pub(super) static UNIFORMS: RefCell<Vec<f64>> = const { RefCell::new(Vec::new()) };
}

/// What is to be read from the logits of one position.
#[derive(Clone, Copy)]
pub struct ReadSpec<'a> {
    /// The position in its sequence.
    position: usize,
    /// The guidance w of Eq. 16, which takes the logits of the sequence without its prompt too; 0 is none.
    cfg_scale: f32,
    ask: Ask<'a>,
}

/// What is asked of a position.
#[derive(Clone, Copy)]
enum Ask<'a> {
    /// How probable a token is.
    Probe(u32),
    /// The same in the precision of training, which needs no logits in memory where nothing guides.
    Loss(u32),
    /// Which token is the most probable.
    Best,
    /// What a step of a canvas needs.
    Step(Question<'a>),
}

/// What a step of a canvas asks of a position.
#[derive(Clone, Copy)]
pub(super) struct Question<'a> {
    pub(super) sampler: &'a Sampler,
    pub(super) special: SpecialTokens,
    /// The mask, which no position takes; `None` where it is not excluded.
    excluded: Option<u32>,
    /// Whether no token is drawn, whatever the temperature.
    pub(super) is_greedy: bool,
    /// What the text must be that the position is part of.
    constraint: Option<&'a Automaton>,
    /// Which tokens a hole may take, and whether only those that begin with a space.
    choices: Option<(&'a Choices, bool)>,
    pub(super) draws: &'a dyn Draws,
    /// Index of the step, which addresses the draws.
    pub(super) step: usize,
    /// Whether the probability that the text has ended is asked.
    tells_end: bool,
    /// The token of the position, where it is masked again if the model contradicts it.
    revisable: Option<u32>,
    /// Whether the token that the position would take is asked.
    takes: Takes<'a>,
}

/// Whether a position takes a token.
#[derive(Clone, Copy)]
enum Takes<'a> {
    Nothing,
    /// The place of another.
    Edit,
    /// That of a mask, with what came before there.
    Mask(Option<&'a Past>),
}

/// What the logits of one position say. [`Canvas::commit`] takes those of all wanted positions.
#[derive(Debug, Clone)]
pub struct Reading {
    pub(super) position: usize,
    /// Of the most probable token, and of a probed one.
    log_probability: f64,
    token: u32,
    /// The probability that the text has ended there; 0 where that is not asked.
    pub(super) end: f64,
    /// Whether the token that was unmasked there should be masked again.
    pub(super) is_contradicted: bool,
    /// What the position would take, if it may take anything now.
    pub(super) candidate: Option<Candidate>,
    /// Instead of a candidate, where that depends on the positions around it.
    pub(super) scores: Option<Box<Scores>>,
    /// What the rule for the number of tokens should remember.
    pub(super) past: Option<Past>,
}

/// What the logits of one position say of every class of tokens.
#[derive(Debug, Clone)]
pub(super) struct Scores {
    pub(super) best: Vec<Best>,
    /// Of the logits that a confidence counts.
    pub(super) whole: Statistics,
    /// The sum of exp(logit − greatest) in `f32`, where confidences are.
    pub(super) sum: f32,
}

impl Reading {
    /// ln p of `token` at `position`.
    fn of(position: usize, token: u32, log_probability: f64) -> Self {
        let (end, is_contradicted, candidate, scores, past) = (0.0, false, None, None, None);
        Self { position, log_probability, token, end, is_contradicted, candidate, scores, past }
    }

    /// The position in its sequence.
    pub fn position(&self) -> usize {
        self.position
    }

    /// The token that was asked for, or else the most probable one.
    pub fn token(&self) -> u32 {
        self.token
    }

    /// ln p of that token; 0 where a canvas asked. Of a loss it may be no finite number.
    pub fn log_probability(&self) -> f64 {
        self.log_probability
    }
}

impl Canvas {
    /// What a step needs from the logits of the position `wanted` of [`Canvas::plan`].
    pub fn read_spec(&self, wanted: usize) -> ReadSpec<'_> {
        let position = wanted + self.lag();
        let holes = self.holes.as_ref();
        let excludes = holes.is_none() && !self.sampler.is_literal();
        let takes = if self.end.is_open {
            Takes::Nothing
        } else if self.may_edit(position) {
            Takes::Edit
        } else if self.is_candidate(position) {
            Takes::Mask(self.memory.of(position))
        } else {
            Takes::Nothing
        };
        let question = Question {
            sampler: &self.sampler,
            special: self.special,
            excluded: self.mask.filter(|_| excludes || self.leads),
            is_greedy: self.leads && self.sampler.exact,
            constraint: self.constraint_at(position),
            choices: holes.map(|holes| (&*holes.choices, holes.spaced.contains(&position))),
            draws: &*self.draws,
            step: self.step_index(),
            tells_end: self.tail().contains(&position),
            revisable: self.revisable(position),
            takes,
        };
        let cfg_scale = if self.mask.is_some() { self.sampler.cfg_scale } else { 0.0 };
        ReadSpec { position, cfg_scale, ask: Ask::Step(question) }
    }

    /// Reads the logits, one for each token, of the position `wanted` of [`Canvas::plan`]:
    /// [`ReadSpec::read`] of its [`Canvas::read_spec`].
    ///
    /// # Errors
    /// Those of [`ReadSpec::read`].
    pub fn read(
        &self,
        wanted: usize,
        logits: &mut [f32],
        unconditional: Option<&[f32]>,
    ) -> Result<Reading, SamplerError> {
        self.read_spec(wanted).read(logits, unconditional)
    }
}

impl<'a> ReadSpec<'a> {
    /// Asks how probable `token` is at `position` under the guidance `cfg_scale`, 0 being none.
    pub fn probe(position: usize, token: u32, cfg_scale: f32) -> Self {
        Self { position, cfg_scale, ask: Ask::Probe(token) }
    }

    /// Asks for the loss −ln p of `token` at `position`, as training computes it.
    pub fn loss(position: usize, token: u32, cfg_scale: f32) -> Self {
        Self { position, cfg_scale, ask: Ask::Loss(token) }
    }

    /// Asks for the most probable token at `position`, the first of equals; as probable as the reference
    /// finds it, in `f32`.
    pub fn best(position: usize, cfg_scale: f32) -> Self {
        Self { position, cfg_scale, ask: Ask::Best }
    }

    /// The token whose loss is asked for, where the cross-entropy of the head gives it.
    pub(in crate::diffusion) fn fused_loss(&self) -> Option<u32> {
        match self.ask {
            Ask::Loss(token) if !self.is_guided() => Some(token),
            _ => None,
        }
    }

    /// The answer to [`fused_loss`](Self::fused_loss).
    pub(in crate::diffusion) fn with_loss(&self, nll: f32) -> Reading {
        let token = self.fused_loss().unwrap_or_default();
        Reading::of(self.position, token, -f64::from(nll))
    }

    /// The position in its sequence.
    pub fn position(&self) -> usize {
        self.position
    }

    /// Whether the logits of the sequence without its prompt are needed too.
    pub fn is_guided(&self) -> bool {
        self.cfg_scale > 0.0
    }

    /// Reads the logits, one for each token, and overwrites them; `unconditional` are those of the
    /// sequence without its prompt, where guidance asks for them. It changes nothing else, so that
    /// positions may be read in any order and at once.
    ///
    /// # Errors
    /// If the logits are NaN, infinite, or not as many as were asked for.
    pub fn read(
        &self,
        logits: &mut [f32],
        unconditional: Option<&[f32]>,
    ) -> Result<Reading, SamplerError> {
        let (position, found) = (self.position, logits.len());
        if found == 0 || unconditional.map(<[f32]>::len) != self.is_guided().then_some(found) {
            return Err(SamplerError::LogitCount { found, positions: 1 });
        }
        if let Some(unconditional) = unconditional {
            guidance::combine(logits, unconditional, self.cfg_scale);
        }
        match self.ask {
            Ask::Step(question) => question.read(logits, position),
            Ask::Probe(token) => {
                let log_probability = log_probability(logits, token);
                let log_probability =
                    log_probability.ok_or(SamplerError::NotFinite { position })?;
                Ok(Reading::of(position, token, log_probability))
            }
            Ask::Loss(token) => Ok(Reading::of(position, token, -loss(logits, token))),
            Ask::Best => {
                let whole = statistics::of(logits).ok_or(SamplerError::NotFinite { position })?;
                let p = sample::probability(logits, &whole, whole.token, Precision::F32);
                Ok(Reading::of(position, whole.token as u32, p.ln()))
            }
        }
    }
}

/// −log softmax(logits)[token], in the precision of training.
fn loss(logits: &[f32], token: u32) -> f64 {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|l| f64::from((l - max).exp())).sum();
    let logit = logits.get(token as usize).copied().unwrap_or(f32::NEG_INFINITY);
    sum.ln() + f64::from(max) - f64::from(logit)
}

/// The logarithm of the probability of `token`; `None` if it is no number.
fn log_probability(logits: &[f32], token: u32) -> Option<f64> {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|l| f64::from(l - most).exp()).sum();
    let value = f64::from(logits.get(token as usize)? - most) - sum.ln();
    value.is_finite().then_some(value)
}

impl Question<'_> {
    fn read(&self, logits: &mut [f32], position: usize) -> Result<Reading, SamplerError> {
        self.restrict(logits);
        let whole = statistics::of(logits).ok_or(SamplerError::NotFinite { position })?;
        let mut reading = Reading {
            position,
            log_probability: 0.0,
            token: whole.token as u32,
            end: self.end_probability(logits, &whole),
            is_contradicted: self.contradicts(logits, &whole),
            candidate: None,
            scores: None,
            past: None,
        };
        match self.takes {
            Takes::Nothing => {}
            Takes::Edit => reading.candidate = Some(self.candidate(logits, whole, position)),
            Takes::Mask(past) => {
                let rule = self.sampler.transfer;
                reading.past = Past::observe(past, rule, logits, &whole);
                let whole = match rule {
                    TransferRule::Credit(_) => statistics::of(logits).unwrap_or(whole),
                    _ => whole,
                };
                match self.constraint {
                    Some(automaton) => {
                        let scores = self.scores(automaton, logits, whole, position);
                        reading.scores = Some(Box::new(scores));
                    }
                    None => reading.candidate = Some(self.candidate(logits, whole, position)),
                }
            }
        }
        Ok(reading)
    }

    /// Leaves in the `logits` those that may be chosen.
    fn restrict(&self, logits: &mut [f32]) {
        if let Some((choices, spaced)) = self.choices {
            choices.restrict(logits, spaced);
        }
        exclude(logits, self.excluded);
        if self.sampler.logits_eos_inf {
            exclude(logits, self.special.eos);
        }
    }

    /// The probability that the text has ended, if that is asked.
    fn end_probability(&self, logits: &[f32], whole: &Statistics) -> f64 {
        if !self.tells_end {
            return 0.0;
        }
        let ends = [self.special.eos, self.special.eot];
        let probability = |t: u32| sample::probability(logits, whole, t as usize, Precision::F64);
        ends.iter().flatten().map(|&token| probability(token)).sum()
    }

    /// Whether the model contradicts the token of the position: another is leading in the `logits`,
    /// `whole` being their statistics, with a probability that is high enough.
    fn contradicts(&self, logits: &[f32], whole: &Statistics) -> bool {
        let (Some(least), Some(token)) = (self.sampler.revise, self.revisable) else {
            return false;
        };
        let (leading, precision) = (whole.token, self.sampler.confidence);
        token as usize != leading && sample::probability(logits, whole, leading, precision) >= least
    }

    /// Divides the `logits` by the temperature and filters them where that comes before the draw, with `whole`
    /// their statistics; `unfiltered` is shown those that are going to be filtered. Gives the temperature that
    /// is left for the draw.
    pub(super) fn temper(
        &self,
        logits: &mut [f32],
        whole: &mut Statistics,
        unfiltered: impl FnOnce(&[f32]),
    ) -> f64 {
        let sampler = self.sampler;
        let mut temperature = if self.is_greedy { 0.0 } else { sampler.temperature };
        if sampler.tempers() {
            if temperature > 0.0 {
                logits.iter_mut().for_each(|logit| *logit /= temperature as f32);
                temperature = 1.0;
            }
            if sampler.filters() {
                unfiltered(logits);
                sample::filter(logits, sampler.top_k, sampler.top_p, sampler.follows_dream());
            }
            *whole = statistics::of(logits).unwrap_or(*whole);
        }
        temperature
    }

    /// Leaves in the `logits` those that a confidence counts, with `whole` their statistics: where ends come
    /// last, not those. Gives whether that is so.
    pub(super) fn leave_ends_out(&self, logits: &mut [f32], whole: &mut Statistics) -> bool {
        let sampler = self.sampler;
        if sampler.confidence_eos_eot_inf {
            // The reference writes to the noisy logits, which are the logits at temperature 0 only.
            if !sampler.exact || sampler.temperature == 0.0 {
                exclude(logits, self.special.eos);
            }
            exclude(logits, self.special.eot);
            // Where nothing is left, the token is one of them: without probability.
            *whole = statistics::of(logits).unwrap_or(*whole);
        }
        sampler.confidence_eos_eot_inf
    }

    /// The token that `position` would take, `whole` being the statistics of its `logits`. Leaves in
    /// them those that its confidence counts.
    fn candidate(&self, logits: &mut [f32], mut whole: Statistics, position: usize) -> Candidate {
        let (sampler, step) = (self.sampler, self.step);
        let temperature = self.temper(logits, &mut whole, |_| ());
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
        self.leave_ends_out(logits, &mut whole);
        let probability = sample::probability(logits, &whole, token, sampler.confidence);
        ranked(sampler, self.draws, step, position, token, probability, &whole)
    }
}

/// The candidate of a `token` that has this `probability`, `whole` being the statistics of the logits that
/// its confidence counts.
pub(super) fn ranked(
    sampler: &Sampler,
    draws: &dyn Draws,
    step: usize,
    position: usize,
    token: usize,
    probability: f64,
    whole: &Statistics,
) -> Candidate {
    let confidence = match sampler.remasking {
        Remasking::Random => f64::from(draws.confidence(step, position)),
        Remasking::Sequential => -(position as f64),
        measure => confidence::confidence(measure, probability, whole, token),
    };
    let confidence = match sampler.alg_temp > 0.0 {
        true => {
            let u = f64::from(draws.confidence(step, position));
            confidence / sampler.alg_temp - (-u.ln()).ln()
        }
        false => confidence,
    };
    let entropy = whole.entropy();
    Candidate { position, token: token as u32, probability, confidence, entropy }
}

/// Makes `token` impossible.
fn exclude(logits: &mut [f32], token: Option<u32>) {
    if let Some(logit) = token.and_then(|token| logits.get_mut(token as usize)) {
        *logit = f32::NEG_INFINITY;
    }
}
