//! What only `LLaDA2Pipeline` of diffusers does ([`Reference::Diffusers`]).

use super::Canvas;
use crate::diffusion::{Reference, Step};

impl Canvas {
    /// Tokens that its schedule grants to this pass; a pass over a full block was none of its steps.
    pub(super) fn schedule_of_diffusers(&self) -> usize {
        self.schedule.tokens(self.step - self.rounds)
    }

    /// Whether it leaves the block after a pass that `was_full` before, and that `changed` something or
    /// not.
    pub(super) fn diffusers_leaves(&self, was_full: bool, changed: bool) -> bool {
        match self.sampler.edit {
            _ if !was_full => self.step - self.rounds >= self.schedule.steps,
            None => true,
            Some(edit) => !changed || self.rounds > edit.rounds,
        }
    }

    /// Whether it would not look for the end of the text after this step, or not find it: it looks where
    /// an end was unmasked, and for the first of the whole sequence.
    pub(super) fn diffusers_overlooks_end(&self, step: &Step) -> bool {
        self.sampler.follows(Reference::Diffusers)
            && (!step.committed.iter().any(|commit| self.ends(commit.token))
                || self.prompt.tokens.iter().any(|&token| self.ends(token)))
    }

    /// From which position on nothing is attended to: the end of the response, of which a last whole
    /// block has more.
    pub(super) fn unseen(&self) -> usize {
        match self.sampler.follows(Reference::Diffusers) {
            true => self.prompt.tokens.len() + self.sampler.gen_length,
            false => usize::MAX,
        }
    }

    /// Has it stay in its block until [`leave_block_with`](Self::leave_block_with).
    pub(in crate::diffusion) fn wait(&mut self) {
        self.waits = true;
    }

    /// Whether its block, of a sequence that is `len` tokens long by now, has masks. A sequence
    /// that is done has them in all later blocks.
    pub(in crate::diffusion) fn has_masks(&self, len: usize) -> bool {
        let end = self.span.end.min(self.tokens.len());
        let open = &self.tokens[self.span.start.min(end)..end];
        self.tokens.len() < len.min(self.unseen()) || open.iter().any(|&t| Some(t) == self.mask)
    }

    /// After a pass over a batch whose blocks had masks or `were_full`, and that `changed` some
    /// sequence: leaves the block if the batch does.
    pub(in crate::diffusion) fn leave_block_with(&mut self, were_full: bool, changed: bool) {
        if self.is_done() {
            return;
        }
        self.rounds += usize::from(were_full);
        if self.diffusers_leaves(were_full, changed) {
            self.close_block();
        }
        self.prepare();
    }
}
