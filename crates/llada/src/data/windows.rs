//! Training sequences: the token stream cut into windows, visited in a seeded order.

use crate::{
    Result,
    data::{DataError, Split},
    rng::{Purpose, Stream},
};

/// The consecutive cuts of `length` tokens of a split. Sequence `n` of a run is a pure function of
/// `(seed, n)`: every window comes once in each epoch, in an order drawn for that epoch.
#[derive(Debug)]
pub struct Windows<'a> {
    split: &'a Split,
    length: usize,
    count: u64,
    seed: u64,
}

impl<'a> Windows<'a> {
    /// Fails when the split is shorter than one window.
    pub fn new(split: &'a Split, length: usize, seed: u64) -> Result<Self> {
        if length == 0 || split.tokens() < length as u64 {
            let (split, tokens) = (split.name(), split.tokens());
            return Err(DataError::TooShort { split, tokens, length }.into());
        }
        Ok(Self { split, length, count: split.tokens() / length as u64, seed })
    }

    /// The windows of the first `tokens` tokens only, at least one: little text, repeated often.
    pub fn first(mut self, tokens: u64) -> Self {
        self.count = self.count.min((tokens / self.length as u64).max(1));
        self
    }

    /// Windows to read; what is left over at the end of the split is not used.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The window that sequence `sequence` of the run is.
    pub fn window(&self, sequence: u64) -> u64 {
        shuffled(sequence, self.count(), self.seed)
    }

    /// Appends the first `take` tokens of the `window`-th cut to `out`.
    pub fn read(&self, window: u64, take: usize, out: &mut Vec<u32>) -> Result<()> {
        self.split.read(window * self.length as u64, take.min(self.length), out)
    }

    /// Appends the first `take` tokens of each sequence of the run in `sequences`, one after the other.
    pub fn sequences(
        &self,
        sequences: std::ops::Range<u64>,
        take: usize,
        out: &mut Vec<u32>,
    ) -> Result<()> {
        sequences.into_iter().try_for_each(|sequence| self.read(self.window(sequence), take, out))
    }
}

/// Which of `count` items is number `n` of a run: every item comes once in each epoch, in an order drawn
/// for that epoch.
pub(crate) fn shuffled(n: u64, count: u64, seed: u64) -> u64 {
    Permutation::new(count, Stream::new(seed, Purpose::Shuffle, n / count)).at(n % count)
}

/// A permutation of 0..n that takes no memory: a Feistel network on the next power of four, walked
/// until it lands below n.
pub(super) struct Permutation {
    n: u64,
    half: u32,
    keys: [u64; 6],
}

impl Permutation {
    /// An order of `n` items, as `stream` draws it.
    pub(super) fn new(n: u64, mut stream: Stream) -> Self {
        let bits = u64::BITS - n.saturating_sub(1).leading_zeros();
        Self { n, half: bits.div_ceil(2).max(1), keys: std::array::from_fn(|_| stream.bits()) }
    }

    /// The item at `place` of the order.
    pub(super) fn at(&self, place: u64) -> u64 {
        let mask = (1u64 << self.half) - 1;
        let mut x = place;
        loop {
            let (mut left, mut right) = (x >> self.half, x & mask);
            for key in self.keys {
                (left, right) = (right, left ^ (mix(right ^ key) & mask));
            }
            x = (left << self.half) | right;
            if x < self.n {
                return x;
            }
        }
    }
}

/// The finaliser of SplitMix64: every input bit reaches every output bit.
pub(super) fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_window_comes_once_in_each_epoch(n in 1u64..2000, seed: u64, epoch in 0u64..5) {
            let order = Permutation::new(n, Stream::new(seed, Purpose::Shuffle, epoch));
            let mut seen: Vec<u64> = (0..n).map(|i| order.at(i)).collect();
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..n).collect::<Vec<_>>());
        }
    }

    #[test]
    fn orders_differ_by_seed_and_epoch_and_are_mixed() {
        let n = 1000;
        let order = |seed, epoch| -> Vec<u64> {
            let p = Permutation::new(n, Stream::new(seed, Purpose::Shuffle, epoch));
            (0..n).map(|i| p.at(i)).collect()
        };
        assert_eq!(order(1, 0), order(1, 0));
        assert_ne!(order(1, 0), order(1, 1));
        assert_ne!(order(1, 0), order(2, 0));
        let fixed = order(1, 0).iter().enumerate().filter(|(i, x)| *i as u64 == **x).count();
        let follows = order(1, 0).windows(2).filter(|w| w[1] == w[0] + 1).count();
        assert!(fixed < 10 && follows < 10, "{fixed} {follows}");
    }
}
