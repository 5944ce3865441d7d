//! Finding the length of a response while it is sampled
//! ([`VariableLength`](crate::diffusion::variable::VariableLength)).

use std::ops::Range;

use super::{Canvas, Reading};
use crate::diffusion::{Step, confidence::Candidate};

/// Where the end of the sequence stands.
#[derive(Debug, Default)]
pub(super) struct End {
    /// Whether the sequence is still being lengthened, and nothing committed.
    pub(super) is_open: bool,
    /// The mean probability that the text has ended at the last positions, when last seen.
    confidence: f64,
    /// Whether positions have moved since the last pass, so that no cached keys and values are of use.
    pub(super) has_moved: bool,
}

impl Canvas {
    /// Whether the length of the response is found while sampling.
    pub(super) fn is_variable(&self) -> bool {
        self.sampler.variable_length.is_some()
    }

    /// The last positions of the response, which tell of the end of the text.
    pub(super) fn tail(&self) -> Range<usize> {
        let len = self.tokens.len();
        let window = self.sampler.variable_length.map_or(0, |variable| variable.window.max(1));
        len.saturating_sub(window).max(self.prompt.tokens.len()).min(len)..len
    }

    /// Takes in what the `readings` say of the end, if the pass saw it.
    pub(super) fn look_at_end(&mut self, readings: &[Reading]) {
        let tail = self.tail();
        if tail.is_empty() || self.fresh().end < tail.end {
            return;
        }
        let mut sum = 0.0;
        for position in tail.clone() {
            sum += match readings.binary_search_by_key(&position, |reading| reading.position) {
                Ok(i) if Some(self.tokens[position]) == self.mask => readings[i].end,
                _ => f64::from(u8::from(self.ends(self.tokens[position]))),
            };
        }
        self.end.confidence = sum / tail.len() as f64;
    }

    /// Goes on to the first block if the sequence is long enough, or lengthens it.
    pub(super) fn lengthen(&mut self, step: &mut Step) {
        let (len, prompt) = (self.tokens.len(), self.prompt.tokens.len());
        if let (Some(variable), Some(mask)) = (self.sampler.variable_length, self.mask)
            && self.end.confidence < variable.enough
        {
            let longer = variable.longer(len - prompt, self.sampler.gen_length);
            self.tokens.resize(prompt + longer, mask);
        }
        step.inserted.extend(len..self.tokens.len());
        self.nfe += 1;
        if step.inserted.is_empty() || self.tokens.len() == self.length() {
            self.end.is_open = false;
            self.open_block();
        }
        let open = self.tokens.iter().position(|&token| Some(token) == self.mask);
        (step.nfe, step.block) = (self.nfe, 0);
        step.stable = open.unwrap_or(self.tokens.len());
    }

    /// The position of the response where the model is least sure of all that stay masked, if that is a
    /// sign of too little room.
    pub(super) fn doubtful(&self, candidates: &[Candidate], unmasked: &[usize]) -> Option<usize> {
        let variable = self.sampler.variable_length?;
        if self.tokens.len() >= self.length() || self.end.confidence >= variable.sure_of_end {
            return None;
        }
        let is_left = |&(i, candidate): &(usize, &Candidate)| {
            unmasked.binary_search(&i).is_err() && candidate.position >= self.prompt.tokens.len()
        };
        let left = candidates.iter().enumerate().filter(is_left).map(|(_, candidate)| candidate);
        let least = left.min_by(|a, b| a.probability.total_cmp(&b.probability))?;
        (least.probability < variable.unsure).then_some(least.position)
    }

    /// Puts masks in after `position`, no more than there may be; gives their positions.
    pub(super) fn insert_after(&mut self, position: usize) -> Range<usize> {
        let (at, room) = (position + 1, self.length() - self.tokens.len());
        let (Some(variable), Some(mask)) = (self.sampler.variable_length, self.mask) else {
            return at..at;
        };
        let count = variable.grow_by.min(room);
        self.tokens.splice(at..at, std::iter::repeat_n(mask, count));
        self.span.end += count;
        self.horizon += count;
        self.memory.shift(at, count);
        self.revision.shift(at, count);
        self.end.has_moved = count > 0;
        at..at + count
    }
}
