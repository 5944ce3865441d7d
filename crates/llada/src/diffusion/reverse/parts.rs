//! Blocks that are filled a part at a time ([`Sampler::sub_block_length`](crate::diffusion::Sampler)),
//! and whose first token the block before predicts (Fast-dLLM v2).

use std::ops::Range;

use super::Canvas;
use crate::diffusion::Reference;

impl Canvas {
    /// The part of the open block that is being filled: the first that has a mask; all of it where it is
    /// not divided.
    pub(super) fn part(&self) -> Range<usize> {
        let Some(length) = self.sampler.sub_block_length else { return self.span.clone() };
        let start = self.block_start();
        let end = self.span.end.min(self.tokens.len());
        let open = &self.tokens[self.span.start.min(end)..end];
        match open.iter().position(|&token| Some(token) == self.mask) {
            Some(first) => {
                let before = (self.span.start + first).saturating_sub(start);
                let part = start + before / length * length;
                part..self.span.end.min(part + length)
            }
            None => self.span.clone(),
        }
    }

    /// Whether the first token of each block is found before the block is opened: the logits for it are
    /// those of the last token before, which sees nothing of the block.
    fn has_leads(&self) -> bool {
        self.aligned().is_some() && self.sampler.reference == Reference::FastDllmV2
    }

    /// Whether the block from `start` on still needs its first token.
    pub(super) fn needs_lead(&self, start: usize) -> bool {
        self.has_leads()
            && start > 0
            && self.tokens.len() == start
            && self.aligned().is_some_and(|block| start.is_multiple_of(block))
    }

    /// Opens the block whose first token was found, unless that was the last of all.
    pub(super) fn follow(&mut self) {
        self.leads = false;
        match self.tokens.len() < self.goal() {
            true => self.open_block(),
            false => self.finish(),
        }
    }

    /// The positions of a block that the next pass must feed: what may have changed, or with a cache,
    /// once the part that is being filled has its first token, only that.
    pub(super) fn fresh_of_block(&self) -> Range<usize> {
        // A position is predicted by the row of logits before it, so the first need not be fed again.
        let after = usize::from(self.has_leads());
        let (len, part) = (self.tokens.len(), self.part());
        let is_begun = self.tokens.get(part.start).is_some_and(|&t| Some(t) != self.mask);
        let may_reuse = self.sampler.sub_block_length.is_some() && !self.leads && is_begun;
        let fed = match may_reuse {
            true => self.sampler.cache.fresh(self.step, part, len),
            false => 0..len,
        };
        self.stale.max(fed.start) + after..fed.end
    }
}
