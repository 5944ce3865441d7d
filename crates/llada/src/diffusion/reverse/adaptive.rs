//! Blocks that end at a delimiter of the text ([`AdaptiveBlocks`](crate::diffusion::blocks::AdaptiveBlocks)).

use super::Canvas;
use crate::diffusion::{confidence::Candidate, transfer::Schedule};

/// How many block lengths the first pass of a block looks over.
pub(super) const REACH: usize = 2;

impl Canvas {
    /// In the first step of a block, decides where it ends, and leaves in `candidates` those before.
    pub(super) fn settle_block(&mut self, candidates: &mut Vec<Candidate>) {
        let Some(adaptive) = self.sampler.adaptive_blocks.as_ref().filter(|_| self.step == 0)
        else {
            return;
        };
        let mut end = self.span.end.min(self.start + self.sampler.block());
        let mut highest = adaptive.confidence;
        for candidate in candidates.iter().filter(|candidate| candidate.position >= self.start) {
            let is_first = end != candidate.position + 1 && candidate.confidence == highest;
            let is_better = candidate.confidence > highest;
            if adaptive.delimiters.contains(&candidate.token) && (is_better || is_first) {
                (end, highest) = (candidate.position + 1, candidate.confidence);
            }
        }
        candidates.truncate(candidates.partition_point(|candidate| candidate.position < end));
        self.span.end = end;
        let masks = candidates.len();
        self.schedule = Schedule { masks, steps: self.sampler.steps_for(masks) };
    }
}
