//! What one row of logits says: its most probable token, how far that is ahead, and the entropy.
//!
//! One pass finds the greatest logits, one more the sums. The greatest logit's own term is exactly 1
//! and is kept out of the sums, so that probabilities near 1 can still be told apart.

use crate::{
    Isa,
    isa::vectorised,
    math::{LANES, exp, max, total},
};

/// Logits that are looked at together.
const PART: usize = 128;

/// A row of logits as a whole.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Statistics {
    /// The token with the greatest logit, the first of equals.
    pub token: usize,
    /// Its logit.
    pub greatest: f64,
    /// The greatest logit of the other tokens; negative infinity where there is none.
    pub second: f64,
    /// The sum of `exp(logit - greatest)` over the other tokens.
    pub others: f64,
    /// The sum of `(greatest - logit) exp(logit - greatest)` over them.
    pub distance: f64,
}

impl Statistics {
    /// The soft-max probability of a token of the row that has this logit.
    pub fn probability(&self, logit: f64) -> f64 {
        (logit - self.greatest).exp() / (1.0 + self.others)
    }

    /// The entropy of the soft-max in nats: ln Σ eˡ + Σ p·|l| with logits less the greatest, neither of
    /// which can cancel the other.
    pub fn entropy(&self) -> f64 {
        self.others.ln_1p() + self.distance / (1.0 + self.others)
    }
}

/// The statistics of one row of logits; `None` where it has no soft-max: one is NaN or positive
/// infinity, or none is above negative infinity, which excludes a token.
///
/// The sums are within 5e-7 of the true ones, relatively, and have the same bits on every instruction set.
/// It runs on the thread that calls it: rows are the work that threads share.
pub fn of(row: &[f32]) -> Option<Statistics> {
    on(Isa::detect(), row)
}

vectorised! {
    /// [`of`] on one instruction set.
    fn on(row: &[f32]) -> Option<Statistics> {
        let greatest = max(row);
        let token = first(row, greatest).filter(|_| greatest.is_finite())?;
        let (before, after) = (&row[..token], &row[token + 1..]);
        let (a, b) = (sums(before, greatest), sums(after, greatest));
        let (others, distance) = (a.0 + b.0, a.1 + b.1);
        (!others.is_nan()).then(|| Statistics {
            token,
            greatest: f64::from(greatest),
            second: f64::from(max(before).max(max(after))),
            others,
            distance,
        })
    }
}

/// Where `x` is first found.
#[inline(always)]
fn first(row: &[f32], x: f32) -> Option<usize> {
    let (parts, _) = row.as_chunks::<PART>();
    let has = |part: &[f32; PART]| part.iter().fold(false, |found, &y| found | (y == x));
    let skipped = parts.iter().position(has).unwrap_or(parts.len()) * PART;
    row[skipped..].iter().position(|&y| y == x).map(|i| skipped + i)
}

/// The sums of `exp(l)` and of `-l exp(l)`, `l` being the logits less the greatest.
#[inline(always)]
fn sums(row: &[f32], greatest: f32) -> (f64, f64) {
    let (mut others, mut distance) = ([0.0; LANES], [0.0; LANES]);
    let (whole, rest) = row.as_chunks::<PART>();
    let mut last = [f32::NEG_INFINITY; PART];
    last[..rest.len()].copy_from_slice(rest);
    let (mut weights, mut products) = ([0.0; PART], [0.0; PART]);
    for part in whole.iter().chain([&last]) {
        // Two loops, since one would be no wider than its `f64` numbers.
        for i in 0..PART {
            let l = part[i] - greatest;
            // Where the weight is 0, an infinite distance would make it NaN.
            let finite = if l > -104.0 { l } else { -104.0 };
            weights[i] = exp(l);
            products[i] = -finite * weights[i];
        }
        for (weights, products) in weights.as_chunks().0.iter().zip(products.as_chunks().0) {
            add(&mut others, weights);
            add(&mut distance, products);
        }
    }
    (total(others), total(distance))
}

/// Adds each of `x` to its sum.
#[inline(always)]
fn add(sums: &mut [f64; LANES], x: &[f32; LANES]) {
    for (sum, &x) in sums.iter_mut().zip(x) {
        *sum += f64::from(x);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{reference, testing::*};

    const INF: f32 = f32::INFINITY;

    /// The statistics of a row, which must have the same bits on every instruction set.
    fn same_on_all(row: &[f32]) -> Option<Statistics> {
        let isas = [Isa::Portable, Isa::Avx2, Isa::Avx512];
        let mut all = isas.into_iter().filter(|&isa| isa <= Isa::detect()).map(|isa| on(isa, row));
        let first = all.next().unwrap();
        assert!(all.all(|other| other == first));
        assert_eq!(of(row), first);
        first
    }

    #[test]
    fn agrees_with_the_reference() {
        for v in [1, 2, 3, 15, 16, 17, 63, 64, 65, 130, 1031, 126_464] {
            for (seed, scale) in [(1, 0.1), (2, 9.0), (3, 60.0)] {
                let mut row: Vec<f32> = noise(seed, v).iter().map(|x| x * scale).collect();
                if v > 2 {
                    row[v / 2] = -INF;
                }
                let (found, expected) =
                    (same_on_all(&row).unwrap(), reference::statistics::of(&wide(&row)));
                assert_eq!(found.token, expected.token);
                assert_eq!((found.greatest, found.second), (expected.greatest, expected.second));
                let close = |a: f64, b: f64| (a - b).abs() <= 5e-7 * b;
                assert!(close(found.others, expected.others), "{found:?} {expected:?}");
                assert!(close(found.distance, expected.distance), "{found:?} {expected:?}");
                assert!(close(found.entropy(), expected.entropy()), "{found:?} {expected:?}");
                for logit in [row[0], row[v - 1]].map(f64::from) {
                    assert!(close(found.probability(logit), expected.probability(logit)));
                }
            }
        }
    }

    #[test]
    fn ties_and_exclusions() {
        let top = |row: &[f32]| {
            let found = same_on_all(row).unwrap();
            (found.token, found.second)
        };
        assert_eq!(top(&[1.0, 3.0, 3.0, 2.0]), (1, 3.0));
        assert_eq!(top(&[0.0, -0.0]), (0, 0.0));
        assert_eq!(top(&[-INF, -5.0, -INF]), (1, f64::NEG_INFINITY));
        assert_eq!(top(&[7.0]), (0, f64::NEG_INFINITY));
        assert_eq!(top(&[f32::MAX, f32::MIN]), (0, f64::from(f32::MIN)));
        let mut long = vec![0.0; 200];
        long[130] = 1.0;
        long[190] = 1.0;
        assert_eq!(top(&long), (130, 1.0));
        let alone = of(&[-INF, -5.0, -INF]).unwrap();
        assert_eq!((alone.others, alone.entropy(), alone.probability(-5.0)), (0.0, 0.0, 1.0));
        assert_eq!(alone.probability(f64::NEG_INFINITY), 0.0);
    }

    #[test]
    fn near_certainties_are_told_apart() {
        let mut before = 1.0;
        for lead in 1..36 {
            let found = of(&[0.0, lead as f32, 0.0]).unwrap();
            assert!((found.others - 2.0 * f64::from(-lead).exp()).abs() < 5e-7 * found.others);
            assert!(found.entropy() < before, "{lead}");
            before = found.entropy();
        }
        let p = |lead: f32| of(&[0.0, lead]).unwrap().probability(f64::from(lead));
        assert!(p(20.0) < p(20.1) && p(20.1) < p(30.0) && p(30.0) < 1.0);
    }

    #[test]
    fn rows_without_a_soft_max_have_none() {
        for bad in [&[][..], &[f32::NAN], &[0.0, f32::NAN], &[f32::NAN, 0.0], &[-INF, -INF]] {
            assert_eq!(same_on_all(bad), None, "{bad:?}");
        }
        assert_eq!(same_on_all(&[INF, 0.0]), None);
        assert_eq!(same_on_all(&[-INF]), None);
        for place in 0..100 {
            let mut row = vec![0.5; 100];
            row[place] = f32::NAN;
            assert_eq!(same_on_all(&row), None);
        }
    }
}
