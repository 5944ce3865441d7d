//! Which token a position would take: the most probable, or a draw by Gumbel-max in `f64`.

use llada_kernels::statistics::Statistics;

use serde::{Deserialize, Serialize};

use crate::rng::{Purpose, Stream};

/// The precision in which confidences are computed and compared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Precision {
    /// As the reference; probabilities near 1 become equal.
    F32,
    /// Tells apart probabilities near 1.
    #[default]
    F64,
}

/// The random numbers of one canvas, each addressed by the step and the position that needs it.
pub trait Draws: Sync {
    /// A uniform in [0, 1) for each token of the vocabulary: the noise of `position` in `step`.
    fn token_uniforms(&self, step: usize, position: usize, out: &mut [f64]);

    /// The token of `position` in `step`, where it was drawn before; `None`, as provided, draws it.
    fn token(&self, _step: usize, _position: usize) -> Option<u32> {
        None
    }

    /// A uniform in [0, 1): the random confidence of `position` in `step`.
    fn confidence(&self, step: usize, position: usize) -> f32;
}

/// Draws that depend on nothing but the sequence's seed, the step and the position, so that a
/// sequence gets the same tokens alone and in any batch.
#[derive(Debug, Clone, Copy)]
pub struct Seeded {
    /// Seed of the sequence.
    pub seed: u64,
}

impl Seeded {
    fn stream(self, purpose: Purpose, step: usize) -> Stream {
        Stream::new(self.seed, purpose, step as u64)
    }
}

impl Draws for Seeded {
    fn token_uniforms(&self, step: usize, position: usize, out: &mut [f64]) {
        let mut stream = self.stream(Purpose::Token, step);
        stream.seek(position as u64 * out.len() as u64);
        out.iter_mut().for_each(|u| *u = stream.uniform());
    }

    fn confidence(&self, step: usize, position: usize) -> f32 {
        let mut stream = self.stream(Purpose::Remasking, step);
        stream.seek(position as u64);
        (stream.bits() >> 40) as f32 / (1u32 << 24) as f32
    }
}

/// argmax of `logits + temperature · g` with Gumbel noise g = −ln(−ln u): a draw from
/// softmax(logits / temperature). The logarithm of the reference's exp(logits) / (−ln u)^T; there
/// u = 0 gives 0, here −∞.
pub fn gumbel_max(logits: &[f32], temperature: f64, uniforms: &[f64]) -> usize {
    let mut best = (0, f64::NEG_INFINITY);
    for (i, (&l, &u)) in logits.iter().zip(uniforms).enumerate() {
        let l = f64::from(l);
        // Most tokens cannot win; this bound on the noise spares them the two logarithms.
        if l + temperature * gumbel_bound(u) > best.1 {
            let noisy = l - temperature * (-u.ln()).ln();
            if noisy > best.1 {
                best = (i, noisy);
            }
        }
    }
    best.0
}

/// As [`gumbel_max`] of each class of tokens, `class_of` giving that of each token: the token and its noisy
/// logit, where a class has one above −∞.
pub(crate) fn gumbel_max_of_classes(
    logits: &[f32],
    temperature: f64,
    uniforms: &[f64],
    class_of: &[u16],
    best: &mut [(f64, u32)],
) {
    for (token, ((&l, &u), &class)) in logits.iter().zip(uniforms).zip(class_of).enumerate() {
        let l = f64::from(l);
        let best = &mut best[class as usize];
        if l + temperature * gumbel_bound(u) > best.0 {
            let noisy = l - temperature * (-u.ln()).ln();
            if noisy > best.0 {
                *best = (noisy, token as u32);
            }
        }
    }
}

/// An upper bound of −ln(−ln u): −ln u ≥ 1 − u ≥ 2^e with e the binary exponent of 1 − u.
fn gumbel_bound(u: f64) -> f64 {
    let exponent = ((1.0 - u).to_bits() >> 52) as i64 - 1023;
    // The margin is for the rounding of 1 − u and of the logarithms.
    -exponent as f64 * std::f64::consts::LN_2 + 1e-9
}

/// Leaves in `logits` the `top_k` greatest, and of these the fewest greatest that have the probability
/// `top_p` together; with `p_first` the other way round, as Dream does. The others become −∞; of equal
/// ones at the border all stay where `top_k` cuts, and the first where `top_p` does.
pub(super) fn filter(logits: &mut [f32], top_k: Option<usize>, top_p: Option<f64>, p_first: bool) {
    if p_first {
        filter_top_p(logits, top_p);
        filter_top_k(logits, top_k);
    } else {
        filter_top_k(logits, top_k);
        filter_top_p(logits, top_p);
    }
}

fn filter_top_k(logits: &mut [f32], top_k: Option<usize>) {
    let Some(k) = top_k.filter(|&k| k > 0 && k < logits.len()) else { return };
    let mut sorted = logits.to_vec();
    let (_, &mut least, _) = sorted.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a));
    logits.iter_mut().filter(|l| **l < least).for_each(|l| *l = f32::NEG_INFINITY);
}

fn filter_top_p(logits: &mut [f32], top_p: Option<f64>) {
    let Some(p) = top_p.filter(|&p| p < 1.0) else { return };
    let greatest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weight = |l: f32| f64::from((l - greatest).exp());
    let all: f64 = logits.iter().map(|&l| weight(l)).sum();
    let mut order: Vec<usize> = (0..logits.len()).collect();
    let before = |&a: &usize, &b: &usize| logits[b].total_cmp(&logits[a]).then(a.cmp(&b));
    // Few tokens have most of the probability: only those are sorted.
    let mut count = 64.min(order.len());
    let nucleus = loop {
        if count < order.len() {
            order.select_nth_unstable_by(count - 1, before);
        }
        order[..count].sort_unstable_by(before);
        let mut sum = 0.0;
        let beyond = order[..count].iter().position(|&i| {
            let is_beyond = sum > p * all;
            sum += weight(logits[i]);
            is_beyond
        });
        match beyond {
            Some(count) => break count,
            None if count == order.len() => break count,
            None => count = (count * 8).min(order.len()),
        }
    };
    order[nucleus..].iter().for_each(|&i| logits[i] = f32::NEG_INFINITY);
}

/// The soft-max probability of `token` in the `logits` that `whole` is of; 0 where its logit is −∞.
pub fn probability(logits: &[f32], whole: &Statistics, token: usize, precision: Precision) -> f64 {
    let Some(&logit) = logits.get(token).filter(|l| **l > f32::NEG_INFINITY) else { return 0.0 };
    match precision {
        // Confidences that the reference finds equal must be equal: its own sum, term by term.
        Precision::F32 => {
            let max = whole.greatest as f32;
            let sum: f64 = logits.iter().map(|l| f64::from((l - max).exp())).sum();
            f64::from((logit - max).exp() / sum as f32)
        }
        Precision::F64 => whole.probability(f64::from(logit)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use llada_kernels::statistics;

    #[test]
    fn the_shortcut_of_gumbel_max_changes_no_choice() {
        let mut stream = Stream::new(3, Purpose::Token, 0);
        for trial in 0..300 {
            let n = 1 + stream.below(200) as usize;
            let logits: Vec<f32> = (0..n).map(|_| (stream.normal() * 3.0) as f32).collect();
            let mut uniforms: Vec<f64> = (0..n).map(|_| stream.uniform()).collect();
            uniforms[trial % n] = [0.0, 1.0 - f64::EPSILON / 2.0, f64::MIN_POSITIVE][trial % 3];
            for temperature in [0.1, 1.0, 3.0] {
                let noisy =
                    |i: usize| f64::from(logits[i]) - temperature * (-uniforms[i].ln()).ln();
                let best = (0..n).fold(0, |b, i| if noisy(i) > noisy(b) { i } else { b });
                assert_eq!(gumbel_max(&logits, temperature, &uniforms), best);
            }
        }
    }

    #[test]
    fn gumbel_max_draws_from_the_tempered_soft_max() {
        let logits = [0.0f32, 1.0, -1.0];
        let (temperature, n) = (2.0, 20_000);
        let mut counts = [0usize; 3];
        let mut uniforms = [0.0; 3];
        for step in 0..n {
            Seeded { seed: 1 }.token_uniforms(step, 4, &mut uniforms);
            counts[gumbel_max(&logits, temperature, &uniforms)] += 1;
        }
        let total: f64 = logits.iter().map(|&l| (f64::from(l) / temperature).exp()).sum();
        for (&l, &count) in logits.iter().zip(&counts) {
            let p = (f64::from(l) / temperature).exp() / total;
            assert!((count as f64 / n as f64 - p).abs() < 0.02, "{l} {count} {p}");
        }
    }

    #[test]
    fn filters_leave_the_most_probable() {
        let filtered = |logits: &[f32], k, p, first| {
            let mut left = logits.to_vec();
            filter(&mut left, k, p, first);
            (0..left.len()).filter(|&i| left[i] > f32::NEG_INFINITY).collect::<Vec<_>>()
        };
        // Of probabilities 0.1, 0.5, 0.1, 0.3.
        let logits = [0.1f32.ln(), 0.5f32.ln(), 0.1f32.ln(), 0.3f32.ln()];
        assert_eq!(filtered(&logits, Some(1), None, false), [1]);
        assert_eq!(filtered(&logits, Some(2), None, false), [1, 3]);
        // Equal ones at the border stay.
        assert_eq!(filtered(&logits, Some(3), None, false), [0, 1, 2, 3]);
        assert_eq!(filtered(&logits, None, Some(0.4), false), [1]);
        assert_eq!(filtered(&logits, None, Some(0.55), false), [1, 3]);
        assert_eq!(filtered(&logits, None, Some(0.85), false), [0, 1, 3]);
        // Of the two that are left, the first has 0.625.
        assert_eq!(filtered(&logits, Some(2), Some(0.6), false), [1]);
        assert_eq!(filtered(&logits, Some(2), Some(0.6), true), [1, 3]);
        assert_eq!(filtered(&logits, None, None, true), [0, 1, 2, 3]);
        // Many tokens of which all are needed.
        assert_eq!(filtered(&vec![0.0; 700], None, Some(0.999), false).len(), 700);
        assert_eq!(filtered(&vec![0.0; 700], None, Some(0.5), false).len(), 351);
    }

    #[test]
    fn probabilities_sum_to_one_without_the_excluded() {
        let logits = [100.0f32, 99.0, f32::NEG_INFINITY, 98.0];
        let whole = statistics::of(&logits).unwrap();
        for precision in [Precision::F32, Precision::F64] {
            let p: Vec<f64> = (0..5).map(|t| probability(&logits, &whole, t, precision)).collect();
            assert!((p.iter().sum::<f64>() - 1.0).abs() < 1e-6);
            assert_eq!((p[2], p[4]), (0.0, 0.0));
        }
    }

    #[test]
    fn seeded_draws_depend_on_every_part_of_their_address() {
        let draw = |seed, step, position| {
            let mut u = [0.0; 2];
            Seeded { seed }.token_uniforms(step, position, &mut u);
            u
        };
        let a = draw(1, 3, 4);
        assert_eq!(a, draw(1, 3, 4));
        for b in [draw(0, 3, 4), draw(1, 2, 4), draw(1, 3, 5)] {
            assert_ne!(a, b);
        }
        let s = Seeded { seed: 1 };
        assert!((0..1000).all(|p| (0.0..1.0).contains(&s.confidence(0, p))));
        assert_ne!(s.confidence(0, 0), s.confidence(1, 0));
    }
}
