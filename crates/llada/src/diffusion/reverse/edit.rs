//! Edits: tokens of the open block are replaced by others ([`Edit`](crate::diffusion::Edit), LLaDA2.1).

use super::Canvas;
use crate::diffusion::{Commit, Step, confidence::Candidate};

impl Canvas {
    /// Whether the token at `position` may be replaced by another.
    pub(super) fn may_edit(&self, position: usize) -> bool {
        let is_open = || (self.start..self.span.end).contains(&position);
        self.sampler.edit.is_some()
            && is_open()
            && self.tokens.get(position).is_some_and(|&token| Some(token) != self.mask)
    }

    /// The token that takes the place of another, if one does.
    pub(super) fn edit(&self, candidate: &Candidate) -> Option<Commit> {
        let Candidate { position, token, probability, .. } = *candidate;
        let edit = self.sampler.edit?;
        let changes = self.tokens[position] != token && probability > edit.threshold;
        let confidence = probability as f32;
        changes.then_some(Commit { position, token, confidence, text: None })
    }

    /// Adds `edits` to what a step commits. Where published code is followed to the letter, the mask may
    /// be among them.
    pub(super) fn put_edits(&self, edits: &[Commit], step: &mut Step) {
        for edit in edits {
            if Some(edit.token) == self.mask {
                step.remasked.push(edit.position);
            } else {
                step.committed.push(edit.clone());
            }
        }
        if !edits.is_empty() {
            step.committed.sort_by_key(|commit| commit.position);
        }
    }

    /// How many of the tokens that a step commits take the place of a mask, or none.
    pub(super) fn count_filled(&self, step: &Step) -> usize {
        let is_filled = |commit: &&Commit| {
            let before = self.tokens.get(commit.position);
            self.sampler.edit.is_none() || before.is_none_or(|&token| Some(token) == self.mask)
        };
        step.committed.iter().filter(is_filled).count()
    }
}
