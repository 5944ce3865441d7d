//! Which rank owns which numbers.

use std::ops::Range;

/// Consecutive shares of some numbers, one for each rank.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shares {
    /// Where each share ends.
    ends: Vec<usize>,
}

impl Shares {
    /// Shares of `len` numbers for `world` ranks, as equal as can be.
    pub fn even(len: usize, world: usize) -> Self {
        Self { ends: (1..=world).map(|rank| portion(len, rank, world)).collect() }
    }

    /// Shares that consist of whole units, of so many numbers each, in order.
    pub fn of_units(units: impl IntoIterator<Item = usize>, world: usize) -> Self {
        let mut bounds = vec![0];
        let mut len = 0;
        bounds.extend(units.into_iter().map(|unit| {
            len += unit;
            len
        }));
        // The bound of a unit that is nearest to where an equal share would end.
        let nearest = |end: usize| {
            let above = bounds.partition_point(|&bound| bound < end).min(bounds.len() - 1);
            let below = above.saturating_sub(1);
            let is_nearer = end.abs_diff(bounds[below]) < bounds[above].abs_diff(end);
            bounds[if is_nearer { below } else { above }]
        };
        Self { ends: (1..=world).map(|rank| nearest(portion(len, rank, world))).collect() }
    }

    /// The share of a rank.
    ///
    /// # Panics
    /// If there is no such rank, as do slices.
    pub fn of(&self, rank: usize) -> Range<usize> {
        let start = rank.checked_sub(1).map_or(0, |before| self.ends[before]);
        start..self.ends[rank]
    }

    /// Numbers of the longest share.
    pub fn longest(&self) -> usize {
        (0..self.ends.len()).map(|rank| self.of(rank).len()).max().unwrap_or(0)
    }

    /// Of each share, the numbers from `offset`, `size` at most.
    pub(super) fn pieces(&self, offset: usize, size: usize) -> Vec<Range<usize>> {
        let piece = |share: Range<usize>| {
            let start = share.end.min(share.start + offset);
            start..share.end.min(start + size)
        };
        (0..self.ends.len()).map(|rank| piece(self.of(rank))).collect()
    }
}

/// Where the share of the first `rank` of `world` ranks ends.
fn portion(len: usize, rank: usize, world: usize) -> usize {
    (len as u128 * rank as u128 / world.max(1) as u128) as usize
}
