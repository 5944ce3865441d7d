//! Random draws addressed by what they are for, so that a draw does not depend on the batch, the
//! threads, or on how many draws were made before it.

use std::hash::{BuildHasher, RandomState};

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};

/// What a stream of draws is for. Streams of different purposes never meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub enum Purpose {
    /// Initial weights; the index is the tensor.
    Init = 1,
    /// Order of the training windows; the index is the epoch.
    Shuffle,
    /// Noise level t; the index is the step.
    NoiseLevel,
    /// Which tokens the forward process masks; the index is the sequence's number in the run.
    Masking,
    /// Sequence lengths; the index is the step.
    Length,
    /// Masking for the validation loss; the index is the sequence's number.
    Validation,
    /// Gumbel noise of a sampling step.
    Token,
    /// Confidence of random remasking.
    Remasking,
    /// Likelihood estimates.
    Likelihood,
    /// Which turn of a dialogue is trained on; the index is the sequence's number in the run.
    Turn,
    /// Initial low-rank adapters; the index is the tensor.
    Adapter,
    /// Seeds of the sequences of a run; the index is the sequence's number.
    Seed,
    /// Order of the folders of a mixture; the index is the round.
    Mixture,
    /// Seeds of the completions that a policy is trained on; the index is the completion's number.
    Rollout,
}

/// The seed of sequence number `n` of a run with `seed`, where every sequence has one of its own:
/// the run's own for the first. It has at most 53 bits, so that it survives every reader of JSON.
pub fn nth_seed(seed: u64, n: u64) -> u64 {
    match n {
        0 => seed,
        _ => Stream::new(seed, Purpose::Seed, n).bits() >> 11,
    }
}

/// A seed for a run that was given none, from the randomness that the standard library gives its hash
/// maps; short, to be retyped.
pub fn drawn_seed() -> u64 {
    RandomState::new().hash_one(0) & 0xffff_ffff
}

/// A stream of draws for one `(seed, purpose, index)`.
#[derive(Debug, Clone)]
pub struct Stream(ChaCha8Rng);

impl Stream {
    /// The stream of `seed` for `purpose` number `index` (below 2⁵⁶).
    pub fn new(seed: u64, purpose: Purpose, index: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(((purpose as u64) << 56) | (index & ((1 << 56) - 1)));
        Self(rng)
    }

    /// Jumps to the `n`-th 64-bit draw of the stream.
    pub fn seek(&mut self, n: u64) {
        self.0.set_word_pos(u128::from(n) * 2);
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// Uniform in [0, 1), 53 bits.
    pub fn uniform(&mut self) -> f64 {
        (self.bits() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// Uniform in 0..n, without bias; 0 when n is 0.
    pub fn below(&mut self, n: u64) -> u64 {
        if n == 0 {
            return 0;
        }
        let limit = u64::MAX - u64::MAX % n;
        loop {
            let x = self.bits();
            if x < limit {
                return x % n;
            }
        }
    }

    /// Standard normal (Box–Muller, one of the pair).
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }

    /// Shuffles `items` (Fisher–Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i as u64 + 1) as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_draw_depends_only_on_its_address() {
        let mut a = Stream::new(7, Purpose::Token, 3);
        let all: Vec<u64> = (0..10).map(|_| a.bits()).collect();
        let mut b = Stream::new(7, Purpose::Token, 3);
        b.seek(6);
        assert_eq!(b.bits(), all[6]);
        assert_ne!(Stream::new(7, Purpose::Token, 4).bits(), all[0]);
        assert_ne!(Stream::new(7, Purpose::Masking, 3).bits(), all[0]);
        assert_ne!(Stream::new(8, Purpose::Token, 3).bits(), all[0]);
    }

    #[test]
    fn sequences_have_seeds_of_their_own() {
        let seeds: Vec<u64> = (0..1000).map(|n| nth_seed(7, n)).collect();
        assert_eq!(seeds[0], 7);
        let distinct: std::collections::BTreeSet<_> = seeds.iter().collect();
        assert!(distinct.len() == seeds.len() && seeds.iter().all(|&seed| seed < 1 << 53));
        assert_eq!(nth_seed(u64::MAX, 0), u64::MAX);
        assert_ne!(nth_seed(8, 1), seeds[1]);
    }

    #[test]
    fn draws_have_the_moments_of_their_distribution() {
        let mut s = Stream::new(1, Purpose::Init, 0);
        let n = 20_000;
        let normals: Vec<f64> = (0..n).map(|_| s.normal()).collect();
        let mean = normals.iter().sum::<f64>() / n as f64;
        let variance = normals.iter().map(|x| x * x).sum::<f64>() / n as f64;
        assert!(mean.abs() < 0.03 && (variance - 1.0).abs() < 0.05, "{mean} {variance}");
        assert!((0..n).all(|_| s.below(7) < 7));
    }
}
