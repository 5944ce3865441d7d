//! Soft-max attention with all scores of a query at hand, and its gradient.

use crate::attention::{Mask, Sequences, Shape};

/// A sequence of which only some tokens are queries.
#[derive(Debug, Clone, Copy)]
pub struct Sequence<'a> {
    /// How many queries there are; they are at the positions from `first` on.
    pub tokens: usize,
    /// The position of the first.
    pub first: usize,
    /// Positions that have a key.
    pub len: usize,
    /// `false` for each of them that is padding.
    pub attention_mask: Option<&'a [bool]>,
}

/// `softmax(q k^T / sqrt(head_dim) + padding) v`, and the log-sum-exp of the scores.
pub fn forward(
    shape: Shape,
    mask: Mask,
    sequences: Sequences<'_>,
    q: &[f64],
    k: &[f64],
    v: &[f64],
) -> (Vec<f64>, Vec<f64>) {
    forward_sequences(shape, mask, &whole(sequences), q, k, v)
}

/// The same for sequences of which only some tokens are queries: `q` holds those of all sequences one after
/// the other, `k` and `v` all positions of all sequences.
pub fn forward_sequences(
    shape: Shape,
    mask: Mask,
    sequences: &[Sequence<'_>],
    q: &[f64],
    k: &[f64],
    v: &[f64],
) -> (Vec<f64>, Vec<f64>) {
    let mut out = vec![0.0; q.len()];
    let mut lse = vec![0.0; q.len() / shape.head_dim];
    each_query(shape, mask, sequences, q, k, |query| {
        let out = &mut out[query.place * shape.head_dim..][..shape.head_dim];
        for (p, key) in query.probabilities.iter().zip(&query.keys) {
            for (o, x) in out.iter_mut().zip(vector(v, *key, shape)) {
                *o += p * x;
            }
        }
        lse[query.place] = query.lse;
    });
    (out, lse)
}

/// The gradients `(dq, dk, dv)` for the gradient `dout` of the output.
pub fn backward(
    shape: Shape,
    mask: Mask,
    sequences: Sequences<'_>,
    q: &[f64],
    k: &[f64],
    v: &[f64],
    dout: &[f64],
) -> (Vec<f64>, Vec<f64>, Vec<f64>) {
    let scale = 1.0 / (shape.head_dim as f64).sqrt();
    let (mut dq, mut dk, mut dv) = (vec![0.0; q.len()], vec![0.0; k.len()], vec![0.0; v.len()]);
    each_query(shape, mask, &whole(sequences), q, k, |query| {
        let dout = vector(dout, query.place, shape);
        let dp: Vec<f64> = query.keys.iter().map(|&key| dot(dout, vector(v, key, shape))).collect();
        let delta = dot(&query.probabilities, &dp);
        for ((p, dp), &key) in query.probabilities.iter().zip(&dp).zip(&query.keys) {
            // The score of a query that sees only padding is `f32::MIN`, whatever `q` and `k` are.
            let absorbed = query.lse == f64::from(f32::MIN);
            let ds = if absorbed { 0.0 } else { p * (dp - delta) * scale };
            for d in 0..shape.head_dim {
                dq[query.place * shape.head_dim + d] += ds * k[key * shape.head_dim + d];
                dk[key * shape.head_dim + d] += ds * q[query.place * shape.head_dim + d];
                dv[key * shape.head_dim + d] += p * dout[d];
            }
        }
    });
    (dq, dk, dv)
}

/// Sequences of which all tokens are queries.
fn whole(sequences: Sequences<'_>) -> Vec<Sequence<'_>> {
    let sequence = |range: &[usize]| Sequence {
        tokens: range[1] - range[0],
        first: 0,
        len: range[1] - range[0],
        attention_mask: sequences.attention_mask.map(|mask| &mask[range[0]..range[1]]),
    };
    sequences.starts.windows(2).map(sequence).collect()
}

/// One head of one query.
struct Query {
    /// Its place in `[tokens, heads]`.
    place: usize,
    /// The places of the keys that it sees, in `[tokens, kv_heads]`.
    keys: Vec<usize>,
    /// Their weights.
    probabilities: Vec<f64>,
    lse: f64,
}

/// Calls `visit` for each sequence, query and head.
fn each_query(
    shape: Shape,
    mask: Mask,
    sequences: &[Sequence<'_>],
    q: &[f64],
    k: &[f64],
    mut visit: impl FnMut(Query),
) {
    let scale = 1.0 / (shape.head_dim as f64).sqrt();
    let (mut start, mut key_start) = (0, 0);
    for sequence in sequences {
        for (i, head) in (0..sequence.tokens).flat_map(|i| (0..shape.heads).map(move |h| (i, h))) {
            let place = (start + i) * shape.heads + head;
            let key_head = head / (shape.heads / shape.kv_heads);
            let position = sequence.first + i;
            let sees = |j: &usize| match mask {
                Mask::Bidirectional => true,
                Mask::Causal => *j <= position,
                Mask::BlockCausal(block) => j / block <= position / block,
                Mask::BlockDiffusion(block) => {
                    let half = sequence.len / 2;
                    let clean = |i: usize| i >= half;
                    let block_of = |i: usize| i % half / block;
                    let (of_key, of_query) = (block_of(*j), block_of(position));
                    match (clean(*j), clean(position)) {
                        (false, false) => of_key == of_query,
                        (true, false) => of_key < of_query,
                        (true, true) => of_key <= of_query,
                        (false, true) => false,
                    }
                }
            };
            let seen: Vec<usize> = (0..sequence.len).filter(sees).collect();
            let key = |j: &usize| (key_start + j) * shape.kv_heads + key_head;
            let keys: Vec<usize> = seen.iter().map(key).collect();
            let padding = |j: usize| match sequence.attention_mask {
                Some(attention_mask) if !attention_mask[j] => f64::from(f32::MIN),
                _ => 0.0,
            };
            let score = |(&j, &key): (&usize, &usize)| {
                dot(vector(q, place, shape), vector(k, key, shape)) * scale + padding(j)
            };
            let scores: Vec<f64> = seen.iter().zip(&keys).map(score).collect();
            let peak = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let total: f64 = scores.iter().map(|s| (s - peak).exp()).sum();
            let probabilities = scores.iter().map(|s| (s - peak).exp() / total).collect();
            visit(Query { place, keys, probabilities, lse: peak + total.ln() });
        }
        start += sequence.tokens;
        key_start += sequence.len;
    }
}

/// The head at `place`.
fn vector(x: &[f64], place: usize, shape: Shape) -> &[f64] {
    &x[place * shape.head_dim..][..shape.head_dim]
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers spread over -1..1.
    fn noise(seed: usize, n: usize) -> Vec<f64> {
        (0..n).map(|i| ((i * 7 + seed * 131) as f64 * 12.9898).sin() * 43.7 % 1.0).collect()
    }

    #[test]
    fn gradient() {
        let shape = Shape { heads: 4, kv_heads: 2, head_dim: 3 };
        let starts = [0, 5, 5, 6, 10];
        let attention_mask = [true, false, true, true, false, true, false, false, false, false];
        let masks = [
            (Mask::Bidirectional, starts),
            (Mask::Causal, starts),
            (Mask::BlockCausal(2), starts),
            (Mask::BlockDiffusion(2), [0, 6, 6, 6, 10]),
        ];
        for (mask, starts) in masks {
            for attention_mask in [None, Some(&attention_mask[..])] {
                let sequences = Sequences { starts: &starts, attention_mask };
                let parts = [noise(1, 10 * 12), noise(2, 10 * 6), noise(3, 10 * 6)];
                let dout = noise(4, 10 * 12);
                let loss = |[q, k, v]: &[Vec<f64>; 3]| {
                    dot(&forward(shape, mask, sequences, q, k, v).0, &dout)
                };
                let [q, k, v] = &parts;
                let (dq, dk, dv) = backward(shape, mask, sequences, q, k, v, &dout);
                for (which, gradient) in [dq, dk, dv].iter().enumerate() {
                    for (i, &found) in gradient.iter().enumerate() {
                        let at = |step: f64| {
                            let mut parts = parts.clone();
                            parts[which][i] += step;
                            loss(&parts)
                        };
                        let expected = (at(1e-5) - at(-1e-5)) / 2e-5;
                        let error = (found - expected).abs();
                        assert!(error < 1e-8, "{mask:?} {which}[{i}]: {found}, not {expected}");
                    }
                }
            }
        }
    }
}
