//! Blocks of a model that attends by blocks, whose keys and values are exact once a block is done; and
//! what only the published samplers of such models and of Dream do.

use super::Canvas;
use crate::diffusion::{Reference, Step, confidence::Candidate};

impl Canvas {
    /// The length of the model's blocks, where it attends by blocks.
    pub(super) fn aligned(&self) -> Option<usize> {
        self.attention.block_length()
    }

    /// Where the open block begins, where blocks end at multiples of their length: some of the prompt
    /// may be in it.
    pub(super) fn block_start(&self) -> usize {
        match self.aligned() {
            Some(block) => self.span.start / block * block,
            None => self.start,
        }
    }

    /// Length of the sequence when its response is full, whole blocks where the model attends by
    /// blocks.
    pub(super) fn whole_length(&self) -> usize {
        let length = self.goal();
        self.aligned().map_or(length, |block| length.next_multiple_of(block))
    }

    /// Length of the sequence at its end, as far as it is read.
    pub(super) fn goal(&self) -> usize {
        let length = self.prompt.tokens.len() + self.sampler.gen_length;
        match self.aligned() {
            Some(block) if self.sampler.follows(Reference::FastDllmV2) => {
                let blocks = (self.sampler.gen_length / block).max(1);
                length.min((self.prompt.tokens.len() / block + blocks) * block + 1)
            }
            _ => length,
        }
    }

    /// Whether LLaDA2.0's code would find the end of the text in the prompt: it looks for the first of
    /// the sequence once a step has committed one.
    pub(super) fn exact_end_in_prompt(&self, step: &Step) -> bool {
        self.sampler.exact
            && self.sampler.reference == Reference::Llada2
            && step.committed.iter().any(|commit| self.ends(commit.token))
            && self.prompt.tokens.iter().any(|&token| self.ends(token))
    }

    /// Leaves in `unmasked` which of the `candidates` Dream's code unmasks, where each is to be
    /// unmasked with the probability `share`.
    pub(super) fn choose_as_dream(
        &self,
        candidates: &[Candidate],
        share: f32,
        unmasked: &mut Vec<usize>,
    ) {
        unmasked.clear();
        unmasked.extend(0..candidates.len());
        if let Reference::Dream { origin: true, .. } = self.sampler.reference {
            return unmasked.retain(|&i| candidates[i].confidence < f64::from(share));
        }
        let confidence = |&i: &usize| candidates[i].confidence;
        unmasked.sort_unstable_by(|a, b| confidence(b).total_cmp(&confidence(a)).then(a.cmp(b)));
        unmasked.truncate((candidates.len() as f32 * share) as usize);
        unmasked.sort_unstable();
    }
}
