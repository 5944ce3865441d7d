//! The backward pass: one task for each sequence and key head, so that the gradients of its keys and
//! values are summed in one order.

use std::ops::Range;

use super::{
    Gradients, Inputs, Saved, Sequences,
    forward::{hide, penalties},
    matmul::{Left, matmul},
    pieces,
    scratch::{Head, Scratch, Shared, TASK, line, split},
    within,
};
use crate::{
    Cpu,
    simd::{self, Kernel, Simd},
};

/// Queries of one tile.
const QUERIES: usize = 64;
/// Keys of one tile.
const KEYS: usize = 64;

/// Runs the checked `inputs`.
pub(super) fn run(
    cpu: &Cpu,
    inputs: Inputs<'_>,
    sequences: Sequences<'_>,
    saved: Saved<'_>,
    dout: &[f32],
    Gradients { dq, dk, dv }: Gradients<'_>,
) {
    let heads = inputs.shape.kv_heads;
    let starts = sequences.starts;
    let (dq, dk, dv) = (Shared::new(dq), Shared::new(dk), Shared::new(dv));
    cpu.for_each((starts.len() - 1) * heads, |task| {
        let (sequence, key_head) = (task / heads, task % heads);
        let (start, len) = (starts[sequence], starts[sequence + 1] - starts[sequence]);
        if len > 0 {
            let sequence =
                Sequence { inputs, sequences, saved, dout, start, len, key_head, dq, dk, dv };
            simd::run(cpu.isa(), sequence);
        }
    });
}

/// One key head of one sequence, with all the query heads that use it.
struct Sequence<'a> {
    inputs: Inputs<'a>,
    sequences: Sequences<'a>,
    saved: Saved<'a>,
    /// The gradient of the output.
    dout: &'a [f32],
    start: usize,
    len: usize,
    key_head: usize,
    dq: Shared<'a>,
    dk: Shared<'a>,
    dv: Shared<'a>,
}

impl Kernel for Sequence<'_> {
    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        let Self { inputs, sequences, saved, start, len, key_head, .. } = self;
        let shape = inputs.shape;
        let (heads, dim) = (shape.heads, shape.head_dim);
        let (width, padded, scale) = (line(dim), line(len), inputs.scale());

        let mut memory =
            Scratch::take(&TASK, 5 * padded * width + QUERIES * (3 * width + 2 * KEYS + 1) + KEYS);
        let mut rest = &mut *memory;
        let keys_across = split(&mut rest, padded * width);
        let values_across = split(&mut rest, padded * width);
        let keys = split(&mut rest, padded * width);
        let dk = split(&mut rest, padded * width);
        let dv = split(&mut rest, padded * width);
        let q = split(&mut rest, QUERIES * width);
        let dout = split(&mut rest, QUERIES * width);
        let dq = split(&mut rest, QUERIES * width);
        let p = split(&mut rest, QUERIES * KEYS);
        let ds = split(&mut rest, QUERIES * KEYS);
        let deltas = split(&mut rest, QUERIES);
        let padding = split(&mut rest, KEYS);

        let k_rows = Head::new(inputs.k, start, shape.kv_heads, key_head, dim);
        let v_rows = Head::new(inputs.v, start, shape.kv_heads, key_head, dim);
        k_rows.copy(0, len, 1.0, keys, width);
        if len < padded {
            keys_across.fill(0.0);
            values_across.fill(0.0);
        }
        for first in (0..len).step_by(KEYS) {
            let count = KEYS.min(len - first);
            k_rows.transpose(first, count, &mut keys_across[first * width..], line(count));
            v_rows.transpose(first, count, &mut values_across[first * width..], line(count));
        }
        dk.fill(0.0);
        dv.fill(0.0);

        let group = heads / shape.kv_heads;
        for head in key_head * group..(key_head + 1) * group {
            let q_rows = Head::new(inputs.q, start, heads, head, dim);
            let out_rows = Head::new(saved.out, start, heads, head, dim);
            let dout_rows = Head::new(self.dout, start, heads, head, dim);
            for first_query in (0..len).step_by(QUERIES) {
                let queries = QUERIES.min(len - first_query);
                q_rows.copy(first_query, queries, scale, q, width);
                dout_rows.copy(first_query, queries, 1.0, dout, width);
                // The rows of `out` pass through `dq` for their product with `dout`.
                out_rows.copy(first_query, queries, 1.0, dq, width);
                for i in 0..queries {
                    deltas[i] = dot(s, &dout[i * width..][..width], &dq[i * width..][..width]);
                }
                dq.fill(0.0);

                let seen = inputs.mask.visible_to(first_query..first_query + queries, len);
                for (number, piece) in pieces(seen, KEYS) {
                    let (first, count) = (piece.start, piece.len());
                    let whole = first / KEYS * KEYS;
                    let stride = line(KEYS.min(len - whole));
                    let (across, tile) = (whole * width + first % KEYS, first * width);
                    let (left, size) = (Left::new(q, width), (queries, line(count), dim));
                    matmul::<S, false>(s, size, left, (&keys_across[across..], stride), (p, KEYS));
                    let (left, right) = (Left::new(dout, width), &values_across[across..]);
                    matmul::<S, false>(s, size, left, (right, stride), (ds, KEYS));

                    let attention_mask =
                        sequences.attention_mask.map(|mask| &mask[start + first..][..count]);
                    let padding = attention_mask.map(|mask| penalties(mask, padding));
                    for i in 0..queries {
                        let p = &mut p[i * KEYS..][..line(count)];
                        let ds = &mut ds[i * KEYS..][..line(count)];
                        let visible = inputs.mask.visible(first_query + i, len);
                        let here = within(&visible[number], &piece);
                        hide(s, p, padding, here.clone());
                        let lse = saved.lse[(start + first_query + i) * heads + head];
                        if lse == f32::MIN {
                            average(p, ds, visible.iter().map(Range::len).sum(), here);
                        } else {
                            differentiate(s, p, ds, lse, deltas[i]);
                        }
                    }

                    let (across, along) = ((count, width, queries), (queries, width, count));
                    let left = Left::transposed(p, KEYS);
                    matmul::<S, true>(s, across, left, (dout, width), (&mut dv[tile..], width));
                    let left = Left::transposed(ds, KEYS);
                    matmul::<S, true>(s, across, left, (q, width), (&mut dk[tile..], width));
                    let left = Left::new(ds, KEYS);
                    matmul::<S, true>(s, along, left, (&keys[tile..], width), (dq, width));
                }
                self.write(self.dq, (heads, head), (first_query, queries), scale, dq);
            }
        }
        // `q` carries the scale of the scores, and so does `dk`.
        self.write(self.dk, (shape.kv_heads, key_head), (0, len), 1.0, dk);
        self.write(self.dv, (shape.kv_heads, key_head), (0, len), 1.0, dv);
    }
}

impl Sequence<'_> {
    /// Writes rows of a gradient, times `factor`, to the `count` tokens from `first` on of a head.
    #[inline(always)]
    fn write(
        &self,
        to: Shared<'_>,
        (heads, head): (usize, usize),
        (first, count): (usize, usize),
        factor: f32,
        from: &[f32],
    ) {
        let dim = self.inputs.shape.head_dim;
        for (i, from) in from.chunks_exact(line(dim)).take(count).enumerate() {
            let place = (self.start + first + i) * heads + head;
            // SAFETY: no other task has these tokens and this head, and this one writes them once.
            let to = unsafe { to.part(place * dim, dim) };
            for (to, from) in to.iter_mut().zip(from) {
                *to = from * factor;
            }
        }
    }
}

/// Turns the scores of one query into probabilities, and the gradients of its probabilities into
/// those of its scores: `p = exp(s - lse)`, `ds = p (dp - delta)`, where `delta` is `dout . out`.
#[inline(always)]
fn differentiate<S: Simd>(s: S, p: &mut [f32], ds: &mut [f32], lse: f32, delta: f32) {
    let (lse, delta) = (s.splat(lse), s.splat(delta));
    for (p, ds) in p.chunks_exact_mut(S::LANES).zip(ds.chunks_exact_mut(S::LANES)) {
        let probability = s.exp(s.sub(s.load(p), lse));
        s.store(probability, p);
        s.store(s.mul(probability, s.sub(s.load(ds), delta)), ds);
    }
}

/// The same for a query that sees nothing but padding: all its `visible` keys weigh the same, and
/// their scores do not matter. `here` are those of the tile.
#[inline(always)]
fn average(p: &mut [f32], ds: &mut [f32], visible: usize, here: Range<usize>) {
    p.fill(0.0);
    p[here].fill(1.0 / visible as f32);
    ds.fill(0.0);
}

/// The dot product of two rows of whole cache lines.
#[inline(always)]
fn dot<S: Simd>(s: S, a: &[f32], b: &[f32]) -> f32 {
    let mut sum = s.splat(0.0);
    for (a, b) in a.chunks_exact(S::LANES).zip(b.chunks_exact(S::LANES)) {
        sum = s.mul_add(s.load(a), s.load(b), sum);
    }
    s.sum_across(sum)
}
