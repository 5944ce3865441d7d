//! The random part of the estimate: which tokens of an answer each noisy copy masks.

use super::mask_counts;
use crate::rng::{Purpose, Stream};

/// Where the noise comes from: [`Seeded`], or a record of it.
pub trait Draws {
    /// The masked positions, indices into the answer, of each of `copies` noisy copies of an answer
    /// of `length` tokens: the `iteration`-th batch of the pair number `pair`. A copy masks at
    /// least one token.
    fn masked(
        &mut self,
        pair: usize,
        iteration: usize,
        length: usize,
        copies: usize,
    ) -> Vec<Vec<usize>>;
}

/// Draws that depend on nothing but the seed, the pair's number (below 2³²) and the iteration
/// (below 2²⁴): the noise of one pair says nothing of another's, as sums over pairs want it.
#[derive(Debug, Clone, Copy)]
pub struct Seeded {
    /// Seed of the run.
    pub seed: u64,
}

/// The draws of [`Seeded`] for the first pair, whatever a pair's number: it gets the same estimate
/// alone and in any batch, and answers of equal length are compared under equal noise.
#[derive(Debug, Clone, Copy)]
pub struct Alike {
    /// Seed of every pair.
    pub seed: u64,
}

impl Draws for Alike {
    fn masked(
        &mut self,
        _: usize,
        iteration: usize,
        length: usize,
        copies: usize,
    ) -> Vec<Vec<usize>> {
        Seeded { seed: self.seed }.masked(0, iteration, length, copies)
    }
}

impl Draws for Seeded {
    /// `forward_process` of the reference: one count k ~ U{1..L} for all copies, which spreads
    /// their counts evenly over 1..=L, and a fresh uniform set of positions for each.
    fn masked(
        &mut self,
        pair: usize,
        iteration: usize,
        length: usize,
        copies: usize,
    ) -> Vec<Vec<usize>> {
        let address = ((pair as u64) << 24) | (iteration as u64 & 0xff_ffff);
        let mut stream = Stream::new(self.seed, Purpose::Likelihood, address);
        let k = 1 + stream.below(length as u64) as usize;
        let counts = mask_counts(length, copies, k);
        counts.into_iter().map(|count| subset(&mut stream, length, count)).collect()
    }
}

/// A uniform set of `count` of the numbers below `length`, in ascending order.
pub(in crate::diffusion) fn subset(stream: &mut Stream, length: usize, count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..length).collect();
    stream.shuffle(&mut order);
    order.truncate(count);
    order.sort_unstable();
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_noise_depends_on_every_part_of_its_address() {
        let draw = |seed, pair, iteration| Seeded { seed }.masked(pair, iteration, 40, 4);
        let a = draw(1, 2, 3);
        assert_eq!(a, draw(1, 2, 3));
        for b in [draw(0, 2, 3), draw(1, 1, 3), draw(1, 2, 4)] {
            assert_ne!(a, b);
        }
        assert_eq!(a.len(), 4);
        for masked in a {
            assert!(!masked.is_empty() && masked.windows(2).all(|w| w[0] < w[1]), "{masked:?}");
            assert!(masked.iter().all(|&i| i < 40));
        }
    }

    #[test]
    fn alike_pairs_share_their_noise() {
        let of = |pair| Alike { seed: 3 }.masked(pair, 2, 40, 4);
        assert_eq!(of(0), Seeded { seed: 3 }.masked(0, 2, 40, 4));
        assert_eq!(of(7), of(0));
    }

    #[test]
    fn every_position_is_masked_equally_often() {
        let (length, iterations, copies) = (7, 2000, 4);
        let mut of = vec![0usize; length];
        for iteration in 0..iterations {
            for masked in (Seeded { seed: 5 }).masked(0, iteration, length, copies) {
                masked.into_iter().for_each(|i| of[i] += 1);
            }
        }
        // The mean count of masks is (L + 1) / 2, the same for each position.
        let expected = (iterations * copies) as f64 * 4.0 / 7.0;
        assert!(of.iter().all(|&n| (n as f64 / expected - 1.0).abs() < 0.05), "{of:?}");
    }
}
