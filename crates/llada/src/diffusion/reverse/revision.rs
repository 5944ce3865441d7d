//! Tokens that are masked again ([`Sampler::revise`](crate::diffusion::Sampler::revise)).

use std::collections::BTreeSet;

use super::Canvas;
use crate::diffusion::Commit;

/// What may be revised in the open block, and what has been.
#[derive(Debug, Default)]
pub(super) struct Revision {
    /// Positions of tokens that may be masked again.
    open: BTreeSet<usize>,
    /// Those that were, and will not be again: so the block comes to an end.
    past: BTreeSet<usize>,
}

impl Revision {
    /// Whether the token at `position` may be masked again.
    pub(super) fn may_revise(&self, position: usize) -> bool {
        self.open.contains(&position)
    }

    /// The first position whose token may be masked again.
    pub(super) fn first(&self) -> Option<usize> {
        self.open.first().copied()
    }

    /// Takes note that `count` masks were put in before the position `at`.
    pub(super) fn shift(&mut self, at: usize, count: usize) {
        for set in [&mut self.open, &mut self.past] {
            let after = set.split_off(&at);
            set.extend(after.into_iter().map(|position| position + count));
        }
    }
}

impl Canvas {
    /// The token at `position`, if it may be masked again.
    pub(super) fn revisable(&self, position: usize) -> Option<u32> {
        let may_revise = self.sampler.revise.is_some() && self.revision.may_revise(position);
        self.tokens.get(position).copied().filter(|_| may_revise)
    }

    /// Masks the tokens at `remasked` again; those `committed` may be revised from now on, if they
    /// have not been.
    pub(super) fn revise(&mut self, committed: &[Commit], remasked: &[usize]) {
        let Some(mask) = self.mask.filter(|_| self.sampler.revise.is_some()) else { return };
        for &position in remasked {
            self.tokens[position] = mask;
            self.revision.open.remove(&position);
            self.revision.past.insert(position);
        }
        for &Commit { position, .. } in committed {
            if !self.revision.past.contains(&position) {
                self.revision.open.insert(position);
            }
        }
    }
}
