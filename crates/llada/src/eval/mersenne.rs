//! The random numbers of Python's module `random`: examples and resamples are those that
//! lm-evaluation-harness draws, so that its results can be compared with ours.

use rand_mt::Mt;

/// `random.Random(seed)`.
#[derive(Debug, Clone)]
pub(super) struct Random(Mt);

impl Random {
    pub(super) fn new(seed: u32) -> Self {
        Self(Mt::new_with_key([seed]))
    }

    /// `random()`: 53 bits in [0, 1).
    fn random(&mut self) -> f64 {
        let high = f64::from(self.0.next_u32() >> 5);
        let low = f64::from(self.0.next_u32() >> 6);
        (high * 67_108_864.0 + low) / 9_007_199_254_740_992.0
    }

    /// One of the positions that `choices(range(n))` gives.
    pub(super) fn choice(&mut self, n: usize) -> usize {
        (self.random() * n as f64) as usize
    }

    /// `randrange(n)`, without the bias of a remainder; `n` must not be 0.
    fn below(&mut self, n: u32) -> u32 {
        let bits = 32 - n.leading_zeros();
        loop {
            let number = self.0.next_u32() >> (32 - bits);
            if number < n {
                return number;
            }
        }
    }

    /// `sample(range(n), k)`: `k` different positions; fewer where there are fewer.
    pub(super) fn sample(&mut self, n: usize, k: usize) -> Vec<usize> {
        let (size, k) = (u32::try_from(n).unwrap_or(u32::MAX), k.min(n));
        // Python chooses by what takes less memory, and the two ways draw differently.
        let mut small = 21;
        if k > 5 {
            small += 4_u64.saturating_pow((k as f64 * 3.0).log(4.0).ceil() as u32);
        }
        let mut drawn = Vec::with_capacity(k);
        if n as u64 <= small {
            let mut pool: Vec<usize> = (0..n).collect();
            for i in 0..k {
                let at = self.below(size - i as u32) as usize;
                drawn.push(pool[at]);
                pool[at] = pool[n - i - 1];
            }
        } else {
            while drawn.len() < k {
                let at = self.below(size) as usize;
                if !drawn.contains(&at) {
                    drawn.push(at);
                }
            }
        }
        drawn
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_of_python() {
        let mut random = Random::new(0);
        let found = [random.random(), random.random(), random.random()];
        assert_eq!(found, [0.8444218515250481, 0.7579544029403025, 0.420571580830845]);
        let choices: Vec<usize> = (0..8).map(|_| random.choice(7)).collect();
        assert_eq!(choices, [1, 3, 2, 5, 2, 3, 4, 6]);
    }

    #[test]
    fn samples_are_those_of_python() {
        let mut random = Random::new(1234);
        assert_eq!(random.sample(7473, 5), [6374, 3610, 957, 61, 742]);
        assert_eq!(random.sample(7473, 5), [7462, 6610, 4769, 286, 5501]);
        assert_eq!(random.sample(7473, 5), [5677, 687, 806, 6279, 2905]);
        assert_eq!(random.random(), 0.23680977536311776);
        assert_eq!(random.sample(10, 7), [0, 9, 5, 7, 4, 3, 6]);
        assert_eq!(random.sample(2, 5).len(), 2);
    }
}
