//! Responses and holes that satisfy a constraint ([`Automaton`]).
//!
//! What is committed and what every open position would take are together a text that the automaton accepts.
//! Whichever of these a rule unmasks, the rest of that text shows that the canvas can be completed; what is
//! masked again only adds to the texts that there are.

use std::{ops::Range, sync::Arc};

use llada_kernels::statistics::Statistics;

use super::{
    Canvas, Reading,
    reading::{Question, Scores, UNIFORMS, ranked},
};
use crate::{
    constraint::{Automaton, Best, Ending, Place},
    diffusion::{Precision, SamplerError, confidence::Candidate, sample},
};

/// How much less a token counts that the sampler's filters leave out: it is taken only where nothing else
/// leads to an accepted text.
const PENALTY: f32 = 1e5;

/// The constraint of a canvas.
pub(super) struct Constrained {
    automaton: Arc<Automaton>,
    texts: Vec<Text>,
}

/// A text that the automaton must accept.
struct Text {
    places: Range<usize>,
    /// Whether its first token begins with a space that belongs to the text before.
    is_spaced: bool,
    /// Whether it must fill its places.
    is_exact: bool,
}

impl Canvas {
    /// Has the response be a text that `automaton` accepts, or each hole of an infill. Right after the canvas was
    /// made; the automaton must be of the model's tokenizer.
    ///
    /// # Errors
    /// If the canvas has taken a step, its settings do not go with a constraint, or no text fits.
    pub fn constrain(&mut self, automaton: Arc<Automaton>) -> Result<(), SamplerError> {
        if self.nfe > 0 {
            return Err(SamplerError::Begun);
        }
        self.sampler.check_constrained()?;
        let texts = match &self.holes {
            Some(holes) => {
                let text = |places: &Range<usize>| Text {
                    places: places.clone(),
                    is_spaced: holes.spaced.contains(&places.start),
                    is_exact: true,
                };
                holes.places.iter().map(text).collect()
            }
            None => {
                let start = self.prompt.tokens.len();
                if self.prompt.tokens.iter().any(|&token| Some(token) == self.mask) {
                    return Err(SamplerError::ConstrainedMasks);
                }
                let is_exact = !automaton.has_ends();
                vec![Text { places: start..self.goal(), is_spaced: false, is_exact }]
            }
        };
        for Text { places, is_spaced, is_exact } in &texts {
            let (least, room) = (automaton.shortest(), places.len());
            if self.holes.is_none() && least > room {
                return Err(SamplerError::ShortOfRoom { least, room });
            }
            if *is_exact && !automaton.endings(room)[automaton.start(*is_spaced) as usize] {
                return Err(SamplerError::UnfitLength { length: room });
            }
        }
        self.constraint = Some(Box::new(Constrained { automaton, texts }));
        Ok(())
    }

    /// The constraint on the text that `position` is part of.
    pub(super) fn constraint_at(&self, position: usize) -> Option<&Automaton> {
        let Constrained { automaton, texts } = &**self.constraint.as_ref()?;
        texts.iter().any(|text| text.places.contains(&position)).then_some(automaton)
    }

    /// Leaves in `candidates` what the positions that were read would take under the constraint, in their order.
    pub(super) fn constrained(
        &self,
        readings: &[Reading],
        candidates: &mut Vec<Candidate>,
    ) -> Result<(), SamplerError> {
        candidates.clear();
        let Some(constraint) = &self.constraint else { return Ok(()) };
        for text in &constraint.texts {
            let first = readings.partition_point(|reading| reading.position < text.places.start);
            let last = readings.partition_point(|reading| reading.position < text.places.end);
            self.complete(&constraint.automaton, text, &readings[first..last], candidates)?;
        }
        Ok(())
    }

    /// Completes one text, of which these positions were read.
    fn complete(
        &self,
        automaton: &Automaton,
        text: &Text,
        readings: &[Reading],
        candidates: &mut Vec<Candidate>,
    ) -> Result<(), SamplerError> {
        let scores = |reading: &&Reading| reading.scores.is_some();
        let Some(last) = readings.iter().rfind(scores) else { return Ok(()) };
        let committed = |position: usize| {
            self.tokens.get(position).copied().filter(|&token| Some(token) != self.mask)
        };
        let Range { start, end } = text.places;
        // From the first open position to the last of which something is known.
        let is_open = |&position: &usize| committed(position).is_none();
        let first = (start..end).find(is_open).unwrap_or(end);
        let known =
            (last.position + 1..end.min(self.tokens.len())).rfind(|position| !is_open(position));
        let beyond = known.unwrap_or(last.position) + 1;
        let stranded = || SamplerError::Stranded { position: first };
        let mut state = automaton.start(text.is_spaced);
        for position in start..first {
            let token = committed(position).ok_or_else(stranded)?;
            state = automaton.step(state, token).ok_or_else(stranded)?;
        }
        let mut open = readings.iter().filter(scores).peekable();
        let place = |position: usize| {
            let reading = open.next_if(|reading| reading.position == position);
            match (reading.and_then(|reading| reading.scores.as_ref()), committed(position)) {
                (Some(scores), _) => Place::Scored(&scores.best),
                (None, Some(token)) => Place::Fixed(token),
                (None, None) => Place::Free,
            }
        };
        let places: Vec<Place<'_>> = (first..beyond).map(place).collect();
        let ending = match text.is_exact {
            true => Ending::Exactly(automaton.endings(end - beyond)),
            false => Ending::Within(end - beyond),
        };
        let found = automaton.search(state, &places, &ending).ok_or_else(stranded)?;
        for Reading { position, scores, .. } in readings {
            if let Some(scores) = scores
                && let Some(&Some(best)) = found.get(position - first)
            {
                candidates.push(self.measured(scores, best, *position));
            }
        }
        Ok(())
    }

    /// The candidate of the token that was found for a position.
    fn measured(&self, scores: &Scores, best: Best, position: usize) -> Candidate {
        let Scores { whole, sum, .. } = scores;
        let probability = match self.sampler.confidence {
            _ if best.logit == f32::NEG_INFINITY => 0.0,
            Precision::F32 => f64::from((best.logit - whole.greatest as f32).exp() / sum),
            Precision::F64 => whole.probability(f64::from(best.logit)),
        };
        let (step, token) = (self.step_index(), best.token as usize);
        ranked(&self.sampler, &*self.draws, step, position, token, probability, whole)
    }
}

impl Question<'_> {
    /// What each class of tokens would be worth at `position`, `whole` being the statistics of its `logits`: the
    /// same noise and filters as without a constraint.
    pub(super) fn scores(
        &self,
        automaton: &Automaton,
        logits: &mut [f32],
        mut whole: Statistics,
        position: usize,
    ) -> Scores {
        let sampler = self.sampler;
        let mut unfiltered = None;
        let keep = |logits: &[f32]| unfiltered = Some(logits.to_vec());
        let temperature = self.temper(logits, &mut whole, keep);
        let mut best = match temperature > 0.0 {
            true => self.drawn(automaton, logits, temperature, position),
            false => greatest(automaton, logits),
        };
        if best.contains(&Best::NONE) {
            add_excluded(automaton, unfiltered.as_deref().unwrap_or(logits), &mut best);
        }
        if self.leave_ends_out(logits, &mut whole) {
            for best in &mut best {
                best.logit = logits.get(best.token as usize).copied().unwrap_or(f32::NEG_INFINITY);
            }
        }
        let greatest = whole.greatest as f32;
        let sum: f64 = match sampler.confidence {
            Precision::F32 => logits.iter().map(|l| f64::from((l - greatest).exp())).sum(),
            Precision::F64 => 0.0,
        };
        Scores { best, whole, sum: sum as f32 }
    }

    /// The token that is drawn of each class.
    fn drawn(
        &self,
        automaton: &Automaton,
        logits: &[f32],
        temperature: f64,
        position: usize,
    ) -> Vec<Best> {
        let mut best = vec![(f64::NEG_INFINITY, 0); automaton.classes() + 1];
        UNIFORMS.with_borrow_mut(|uniforms| {
            uniforms.resize(logits.len(), 0.0);
            self.draws.token_uniforms(self.step, position, uniforms);
            let class_of = automaton.class_of();
            sample::gumbel_max_of_classes(logits, temperature, uniforms, class_of, &mut best);
        });
        best.pop();
        let of = |(score, token): (f64, u32)| match score > f64::NEG_INFINITY {
            true => Best { score: score as f32, logit: logits[token as usize], token },
            false => Best::NONE,
        };
        best.into_iter().map(of).collect()
    }
}

/// The most probable token of each class, the first of equals.
fn greatest(automaton: &Automaton, logits: &[f32]) -> Vec<Best> {
    let mut best = vec![Best::NONE; automaton.classes() + 1];
    for (token, (&logit, &class)) in logits.iter().zip(automaton.class_of()).enumerate() {
        let best = &mut best[class as usize];
        if logit > best.score {
            *best = Best { score: logit, logit, token: token as u32 };
        }
    }
    best.pop();
    best
}

/// Puts tokens in that are left out, for classes of which all are.
fn add_excluded(automaton: &Automaton, logits: &[f32], best: &mut [Best]) {
    let is_empty: Vec<bool> = best.iter().map(|best| *best == Best::NONE).collect();
    for (token, (&logit, &class)) in logits.iter().zip(automaton.class_of()).enumerate() {
        if is_empty.get(class as usize) == Some(&true) {
            let (best, score) = (&mut best[class as usize], logit.max(-PENALTY) - PENALTY);
            if score > best.score {
                *best = Best { score, logit: f32::NEG_INFINITY, token: token as u32 };
            }
        }
    }
}
