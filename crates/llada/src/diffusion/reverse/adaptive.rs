//! Blocks that end at a joint of the text ([`AdaptiveBlocks`](crate::diffusion::blocks::AdaptiveBlocks)).

use super::Canvas;
use crate::diffusion::{confidence::Belief, transfer::Schedule};

/// How many block lengths the first pass of a block looks over.
pub(super) const REACH: usize = 2;

impl Canvas {
    /// In the first step of a block, decides where it ends, and leaves in `beliefs` those before.
    pub(super) fn settle_block(&mut self, beliefs: &mut Vec<Belief>) {
        let Some(adaptive) = self.sampler.adaptive_blocks.as_ref().filter(|_| self.step == 0)
        else {
            return;
        };
        let mut end = self.span.end.min(self.start + self.sampler.block());
        let mut highest = adaptive.confidence;
        for belief in beliefs.iter().filter(|belief| belief.position >= self.start) {
            let is_first = end != belief.position + 1 && belief.confidence == highest;
            let is_better = belief.confidence > highest;
            if adaptive.delimiters.contains(&belief.token) && (is_better || is_first) {
                (end, highest) = (belief.position + 1, belief.confidence);
            }
        }
        beliefs.truncate(beliefs.partition_point(|belief| belief.position < end));
        self.span.end = end;
        let masks = beliefs.len();
        self.schedule = Schedule { masks, steps: self.sampler.steps_for(masks) };
    }
}
