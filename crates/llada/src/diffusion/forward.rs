//! The forward process q(x_t | x_0) of Eq. 7–8: each token is masked on its own with probability p.

use crate::{config::LogitShift, rng::Stream};

/// A batch after the forward process, and what is to be predicted from it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Noised {
    /// x_t: the tokens of all sequences.
    pub tokens: Vec<u32>,
    /// Indices into `tokens` whose logits predict: the masked ones, in ascending order.
    pub positions: Vec<usize>,
    /// The token that each should predict.
    pub targets: Vec<u32>,
    /// 1/p of each, where p is the masking probability of its sequence.
    pub weights: Vec<f32>,
    /// The sequence of each.
    pub sequences: Vec<usize>,
}

impl Noised {
    /// Turns the positions of the masks into those whose logits predict them, in a batch whose
    /// sequences begin at `starts`.
    pub fn shift(&mut self, shift: LogitShift, starts: &[usize]) {
        for position in &mut self.positions {
            let sequence = starts.partition_point(|start| start <= position).saturating_sub(1);
            let start = starts.get(sequence).copied().unwrap_or(0);
            *position = start + shift.row(*position - start);
        }
    }

    /// Makes each sequence of a batch, which begin at `starts`, the pair [x_t ; x_0] of block diffusion:
    /// puts its tokens before the noise, those of `clean`, after its noisy ones. Gives where the pairs
    /// begin.
    pub fn pair(&mut self, clean: &[u32], starts: &[usize]) -> Vec<usize> {
        for position in &mut self.positions {
            let sequence = starts.partition_point(|start| start <= position).saturating_sub(1);
            *position += starts.get(sequence).copied().unwrap_or(0);
        }
        let noisy = std::mem::replace(&mut self.tokens, Vec::with_capacity(2 * clean.len()));
        for bounds in starts.windows(2) {
            self.tokens.extend_from_slice(&noisy[bounds[0]..bounds[1]]);
            self.tokens.extend_from_slice(&clean[bounds[0]..bounds[1]]);
        }
        starts.iter().map(|start| 2 * start).collect()
    }
}

/// Masks a batch of ragged sequences for pre-training. `tokens` holds all sequences and `starts` their
/// offsets, sequences + 1 of them; `t` is the noise level of each sequence, which makes its masking
/// probability p = (1 − eps)·t + eps. A token is masked iff the uniform that `draw(sequence)` gives for
/// it is below p; there is one draw for each token, in order.
pub fn noise(
    tokens: &[u32],
    starts: &[usize],
    t: &[f64],
    eps: f64,
    mask: u32,
    draw: &mut dyn FnMut(usize) -> f64,
) -> Noised {
    noise_response(tokens, starts, &[], t, eps, mask, draw)
}

/// As [`noise`] for supervised fine-tuning: the first `prompt_lengths[sequence]` tokens of each
/// sequence are restored after masking, so that only the response is noisy. A sequence without an
/// entry has no prompt.
pub fn noise_response(
    tokens: &[u32],
    starts: &[usize],
    prompt_lengths: &[usize],
    t: &[f64],
    eps: f64,
    mask: u32,
    draw: &mut dyn FnMut(usize) -> f64,
) -> Noised {
    let p: Vec<f64> = t.iter().map(|&t| masking_probability(t, eps)).collect();
    choose(tokens, starts, prompt_lengths, mask, &mut |sequence, _| {
        p.get(sequence).and_then(|&p| weight_if_masked(draw(sequence), p))
    })
}

/// Masks the response tokens for which `weight(sequence, index)` is some number, which counts in the
/// loss. It is asked once for each token, those of prompts included, in order; `index` is the token's
/// in its sequence.
pub fn choose(
    tokens: &[u32],
    starts: &[usize],
    prompt_lengths: &[usize],
    mask: u32,
    weight: &mut dyn FnMut(usize, usize) -> Option<f64>,
) -> Noised {
    let mut noised = Noised { tokens: tokens.to_vec(), ..Noised::default() };
    for (sequence, bounds) in starts.windows(2).enumerate() {
        let response = bounds[0] + prompt_lengths.get(sequence).copied().unwrap_or(0);
        for i in bounds[0]..bounds[1] {
            if let Some(weight) = weight(sequence, i - bounds[0])
                && i >= response
            {
                noised.tokens[i] = mask;
                noised.positions.push(i);
                noised.targets.push(tokens[i]);
                noised.weights.push(weight as f32);
                noised.sequences.push(sequence);
            }
        }
    }
    noised
}

/// The weight 1/p of a token with the uniform draw `u` that is masked with probability `p`; `None`
/// when it is not masked.
pub(crate) fn weight_if_masked(u: f64, p: f64) -> Option<f64> {
    (u < p).then_some(1.0 / p)
}

/// The same in the complement of that mask, which masks exactly the other tokens, each with
/// probability 1 − p; `eps` bounds the weight as it does that of the mask.
pub(crate) fn weight_in_complement(u: f64, p: f64, eps: f64) -> Option<f64> {
    (u >= p).then_some(1.0 / (1.0 - p).max(eps))
}

/// p = (1 − eps)·t + eps: never so small that 1/p explodes.
pub fn masking_probability(t: f64, eps: f64) -> f64 {
    (1.0 - eps) * t + eps
}

/// A noise level t ~ U[0, 1) for each of `sequences` sequences. With `low_discrepancy` they are spread
/// evenly from one random offset, which lowers the variance of the loss and not its mean: each
/// level alone is still uniform.
pub fn noise_levels(stream: &mut Stream, sequences: usize, low_discrepancy: bool) -> Vec<f64> {
    if !low_discrepancy {
        return (0..sequences).map(|_| stream.uniform()).collect();
    }
    let offset = stream.uniform();
    (0..sequences).map(|sequence| (offset + sequence as f64 / sequences as f64).fract()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Purpose;

    const MASK: u32 = 99;

    #[test]
    fn what_is_masked_is_predicted_and_nothing_else() {
        let tokens: Vec<u32> = (0..50).collect();
        let starts = [0, 7, 7, 50];
        let mut stream = Stream::new(1, Purpose::Masking, 0);
        let noised =
            noise(&tokens, &starts, &[0.9, 0.5, 0.2], 1e-3, MASK, &mut |_| stream.uniform());
        assert!(!noised.positions.is_empty());
        let masked: Vec<usize> = (0..50).filter(|&i| noised.tokens[i] == MASK).collect();
        assert_eq!(masked, noised.positions);
        for (k, &i) in noised.positions.iter().enumerate() {
            assert_eq!(noised.targets[k], tokens[i]);
            assert_eq!(noised.sequences[k], if i < 7 { 0 } else { 2 });
            let p = masking_probability([0.9, 0.5, 0.2][noised.sequences[k]], 1e-3);
            assert_eq!(noised.weights[k], (1.0 / p) as f32);
        }
        assert!((0..50).all(|i| noised.tokens[i] == MASK || noised.tokens[i] == tokens[i]));
    }

    #[test]
    fn a_shifted_model_predicts_a_mask_from_the_position_before() {
        let mut noised = Noised { positions: vec![0, 1, 4, 5, 6], ..Noised::default() };
        noised.shift(LogitShift::Same, &[0, 5, 7]);
        assert_eq!(noised.positions, [0, 1, 4, 5, 6]);
        noised.shift(LogitShift::Next, &[0, 5, 7]);
        assert_eq!(noised.positions, [0, 0, 3, 5, 5]);
    }

    #[test]
    fn the_clean_half_follows_the_noisy_one() {
        let clean = [1, 2, 3, 4, 5];
        let starts = [0, 2, 2, 5];
        let mut noised = choose(&clean, &starts, &[], MASK, &mut |sequence, index| {
            (sequence == 0 && index == 1 || sequence == 2 && index != 1).then_some(1.0)
        });
        assert_eq!(noised.positions, [1, 2, 4]);
        assert_eq!(noised.pair(&clean, &starts), [0, 4, 4, 10]);
        assert_eq!(noised.tokens, [1, MASK, 1, 2, MASK, 4, MASK, 3, 4, 5]);
        assert_eq!((noised.positions, noised.targets), (vec![1, 4, 6], vec![2, 3, 5]));
    }

    #[test]
    fn the_prompt_is_restored_but_its_draws_are_spent() {
        let draws = [0.0, 0.9, 0.0, 0.9, 0.0];
        let mut next = draws.iter();
        let noised =
            noise_response(&[1, 2, 3, 4, 5], &[0, 5], &[2], &[0.5], 1e-3, MASK, &mut |_| {
                *next.next().unwrap()
            });
        assert_eq!(noised.tokens, [1, 2, MASK, 4, MASK]);
        assert_eq!((noised.positions, noised.targets), (vec![2, 4], vec![3, 5]));
    }

    #[test]
    fn a_mask_and_its_complement_cover_the_response_once() {
        let tokens: Vec<u32> = (0..40).collect();
        let halves = [false, true].map(|complement| {
            let mut stream = Stream::new(3, Purpose::Masking, 0);
            choose(&tokens, &[0, 40], &[10], MASK, &mut |_, _| {
                let u = stream.uniform();
                if complement {
                    weight_in_complement(u, 0.7, 1e-3)
                } else {
                    weight_if_masked(u, 0.7)
                }
            })
        });
        let mut all: Vec<usize> = halves.iter().flat_map(|h| h.positions.clone()).collect();
        all.sort_unstable();
        assert_eq!(all, (10..40).collect::<Vec<_>>());
        assert!(halves[0].weights.iter().all(|w| *w == (1.0 / 0.7) as f32));
        assert!(halves[1].weights.iter().all(|w| (*w - 1.0 / 0.3).abs() < 1e-6));
        assert_eq!(weight_in_complement(0.9999, 0.9999, 1e-3), Some(1e3));
    }

    #[test]
    fn the_masked_share_is_p() {
        let tokens = vec![1; 20_000];
        let mut stream = Stream::new(1, Purpose::Masking, 0);
        let noised = noise(&tokens, &[0, 20_000], &[0.3], 1e-3, MASK, &mut |_| stream.uniform());
        let share = noised.positions.len() as f64 / 20_000.0;
        assert!((share - masking_probability(0.3, 1e-3)).abs() < 0.01, "{share}");
        assert_eq!(masking_probability(0.0, 1e-3), 1e-3);
        assert_eq!(masking_probability(1.0, 1e-3), 1.0);
    }

    #[test]
    fn low_discrepancy_levels_fill_each_interval_once() {
        let mut stream = Stream::new(5, Purpose::NoiseLevel, 0);
        for sequences in [1, 3, 16] {
            let mut bins: Vec<usize> = noise_levels(&mut stream, sequences, true)
                .iter()
                .map(|t| (t * sequences as f64) as usize)
                .collect();
            bins.sort_unstable();
            assert_eq!(bins, (0..sequences).collect::<Vec<_>>());
        }
        assert_eq!(noise_levels(&mut stream, 4, false).len(), 4);
        assert!(noise_levels(&mut stream, 0, true).is_empty());
    }
}
