//! The forward pass: tiles of queries, each running over the keys of its sequence.

use std::ops::Range;

use half::bf16;

use super::{
    CachedSequence, Inputs, Sequences,
    cache::{KEYS, Layout, Packed, PackedMut},
    matmul::{Left, matmul},
    pieces,
    scratch::{CALL, Element, Head, LINE, Scratch, Shared, TASK, line, split},
    within,
};
use crate::{
    Cpu,
    simd::{self, Kernel, MAX_LANES, Simd},
};

/// Queries of one task.
const QUERIES: usize = 64;

/// The tokens of one sequence, and the keys that they attend to.
#[derive(Clone, Copy)]
pub(super) struct Sequence<'a> {
    /// The first token, and how many there are.
    pub(super) start: usize,
    pub(super) tokens: usize,
    /// The position of the first token.
    pub(super) first: usize,
    /// How many positions have keys, those of the tokens included.
    pub(super) len: usize,
    /// `false` for each position that is padding.
    pub(super) attention_mask: Option<&'a [bool]>,
    /// Where its keys and values lie in `packed`.
    pub(super) layout: Layout,
    pub(super) packed: Packed<'a>,
}

/// Runs the checked `inputs` on sequences that see no keys but their own: each is packed into memory of
/// this call, as a cache that is filled by one call and forgotten.
pub(super) fn run(
    cpu: &Cpu,
    inputs: Inputs<'_>,
    sequences: Sequences<'_>,
    out: &mut [f32],
    lse: &mut [f32],
) {
    let (shape, count) = (inputs.shape, sequences.starts.len() - 1);
    let span = |r: usize| (sequences.starts[r], sequences.starts[r + 1] - sequences.starts[r]);
    // Rounding a sequence up to whole lines adds less than a line, and nothing to an empty sequence.
    let rounded = |r: usize| sequences.starts[r] / LINE + r.min(sequences.starts[r]);
    let place = |r: usize| Layout::new(shape, 1).len() * rounded(r);
    let mut memory = Scratch::take(&CALL, place(count));
    let shared = Shared::new(&mut memory);
    cpu.for_each(count * shape.kv_heads, |task| {
        let (r, head) = (task / shape.kv_heads, task % shape.kv_heads);
        let (start, tokens) = span(r);
        let layout = Layout::new(shape, tokens);
        let size = layout.head_len();
        // SAFETY: no other task has this sequence and head.
        let packed = unsafe { shared.part(place(r) + head * size, size) };
        inputs.pack(layout, head, start, (0, tokens), packed);
    });

    let sequence = |r: usize| {
        let (start, tokens) = span(r);
        let layout = Layout::new(shape, tokens);
        let attention_mask = sequences.attention_mask.map(|mask| &mask[start..][..tokens]);
        let packed = Packed::F32(&memory[place(r)..][..layout.len()]);
        Sequence { start, tokens, first: 0, len: tokens, attention_mask, layout, packed }
    };
    attend(cpu, inputs, || (0..count).map(sequence), out, lse);
}

/// Runs the checked `inputs`: adds the keys and values of the tokens to those in the caches, and lets
/// the tokens attend to all of them.
pub(super) fn run_cached(
    cpu: &Cpu,
    inputs: Inputs<'_>,
    sequences: &mut [CachedSequence<'_>],
    out: &mut [f32],
    lse: &mut [f32],
) {
    let mut start = 0;
    for CachedSequence { tokens, first, cache, .. } in sequences.iter_mut() {
        let (layout, range) = (cache.layout, (*first, *tokens));
        match cache.packed_mut() {
            PackedMut::F32(packed) => pack(cpu, inputs, layout, start, range, packed),
            PackedMut::Bf16(packed) => pack(cpu, inputs, layout, start, range, packed),
        }
        start += *tokens;
    }

    let sequences = || {
        sequences.iter().scan(0, |next, sequence| {
            let CachedSequence { tokens, first, len, attention_mask, ref cache } = *sequence;
            let start = *next;
            *next += tokens;
            let (layout, packed) = (cache.layout, cache.packed());
            Some(Sequence { start, tokens, first, len, attention_mask, layout, packed })
        })
    };
    attend(cpu, inputs, sequences, out, lse);
}

/// Packs the keys and values of a sequence's tokens from `start` on as those of the positions `range`.
fn pack<E: Element>(
    cpu: &Cpu,
    inputs: Inputs<'_>,
    layout: Layout,
    start: usize,
    range: (usize, usize),
    packed: &mut [E],
) {
    cpu.chunks(packed, layout.head_len(), |head, packed| {
        inputs.pack(layout, head, start, range, packed);
    });
}

/// Lets the tokens of all sequences attend to the packed keys and values.
fn attend<'a, R: Iterator<Item = Sequence<'a>>>(
    cpu: &Cpu,
    inputs: Inputs<'_>,
    sequences: impl Fn() -> R + Sync,
    out: &mut [f32],
    lse: &mut [f32],
) {
    let blocks = || {
        sequences().flat_map(|sequence| {
            (0..sequence.tokens).step_by(QUERIES).map(move |first| {
                let queries = QUERIES.min(sequence.tokens - first);
                Block { sequence, first, queries }
            })
        })
    };
    let heads = inputs.shape.heads;
    let (out, lse) = (Shared::new(out), Shared::new(lse));
    cpu.for_each(blocks().count() * heads, |task| {
        // Found anew for each task: that is little beside a task, and needs no memory.
        if let Some(block) = blocks().nth(task / heads) {
            simd::run(cpu.isa(), Tile { inputs, block, head: task % heads, out, lse });
        }
    });
}

/// Some tokens of a sequence, as queries.
#[derive(Clone, Copy)]
struct Block<'a> {
    sequence: Sequence<'a>,
    /// The first query, counted in the tokens of the sequence, and how many there are.
    first: usize,
    queries: usize,
}

/// One head of one block.
struct Tile<'a> {
    inputs: Inputs<'a>,
    block: Block<'a>,
    head: usize,
    out: Shared<'a>,
    lse: Shared<'a>,
}

impl Kernel for Tile<'_> {
    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        let Self { inputs, block, head, .. } = self;
        let Block { sequence, queries, .. } = block;
        let (heads, dim) = (inputs.shape.heads, inputs.shape.head_dim);
        let width = line(dim);
        let size = sequence.layout.head_len();
        let head_at = inputs.key_head(head) * size;
        let is_wide = matches!(sequence.packed, Packed::F32(_));
        let widened = if is_wide { 0 } else { KEYS * width };

        let fixed = QUERIES * (2 * width + KEYS + MAX_LANES + 1) + KEYS;
        let mut memory = Scratch::take(&TASK, fixed + 2 * widened);
        let mut rest = &mut *memory;
        let q = split(&mut rest, QUERIES * width);
        let acc = split(&mut rest, QUERIES * width);
        let scores = split(&mut rest, QUERIES * KEYS);
        let sums = split(&mut rest, QUERIES * MAX_LANES);
        let peaks = split(&mut rest, QUERIES);
        let padding = split(&mut rest, KEYS);
        let wide_keys = split(&mut rest, widened);
        let wide_values = split(&mut rest, widened);

        let q_rows = Head::new(inputs.q, sequence.start, heads, head, dim);
        q_rows.copy(block.first, queries, inputs.scale(), q, width);
        acc[..queries * width].fill(0.0);
        sums[..queries * MAX_LANES].fill(0.0);
        peaks[..queries].fill(f32::NEG_INFINITY);

        // A key that a query does not see leaves its bits alone, so it does not matter with which
        // other queries it shares a block.
        let position = sequence.first + block.first;
        let seen = inputs.mask.visible_to(position..position + queries, sequence.len);
        for (number, piece) in pieces(seen, KEYS) {
            let (first, keys) = (piece.start, piece.len());
            let (tile, column) = (first / KEYS * KEYS, first % KEYS);
            let stride = sequence.layout.stride(tile);
            let keys_at = head_at + tile * width;
            let values_at = head_at + sequence.layout.values_at() + first * width;
            let (key_tile, value_tile) = match sequence.packed {
                Packed::F32(packed) => (&packed[keys_at..], &packed[values_at..]),
                Packed::Bf16(packed) => (
                    widen(&packed[keys_at..][..width * stride], wide_keys),
                    widen(&packed[values_at..][..width * keys], wide_values),
                ),
            };
            matmul::<S, false>(
                s,
                (queries, line(keys), dim),
                Left::new(q, width),
                (&key_tile[column..], stride),
                (scores, KEYS),
            );
            let attention_mask = sequence.attention_mask.map(|mask| &mask[first..][..keys]);
            let padding = attention_mask.map(|mask| penalties(mask, padding));
            for i in 0..queries {
                let scores = &mut scores[i * KEYS..][..line(keys)];
                let visible = &inputs.mask.visible(position + i, sequence.len)[number];
                let visible = within(visible, &piece);
                if visible.is_empty() {
                    // Before its first key a query has no peak to compare with.
                    scores.fill(0.0);
                    continue;
                }
                hide(s, scores, padding, visible);
                let sum = &mut sums[i * MAX_LANES..][..MAX_LANES];
                exponentiate(s, scores, &mut peaks[i], sum, &mut acc[i * width..][..width]);
            }
            matmul::<S, true>(
                s,
                (queries, width, keys),
                Left::new(scores, KEYS),
                (value_tile, width),
                (acc, width),
            );
        }

        for i in 0..queries {
            let total = s.sum_across(s.load(&sums[i * MAX_LANES..]));
            let token = sequence.start + block.first + i;
            let place = token * heads + head;
            // SAFETY: no other task has this token and head.
            let (out, lse) = unsafe { (self.out.part(place * dim, dim), self.lse.part(place, 1)) };
            let factor = 1.0 / total;
            for (o, x) in out.iter_mut().zip(&acc[i * width..]) {
                *o = x * factor;
            }
            lse[0] = peaks[i] + total.ln();
        }
    }
}

/// `packed` in `f32`, written to `out`.
#[inline(always)]
fn widen<'a>(packed: &[bf16], out: &'a mut [f32]) -> &'a [f32] {
    let out = &mut out[..packed.len()];
    for (out, x) in out.iter_mut().zip(packed) {
        // The high half of an `f32`; written out so that it becomes a vector.
        *out = f32::from_bits(u32::from(x.to_bits()) << 16);
    }
    out
}

/// What is added to the scores of some keys, written to `out` and filled with zeros to whole cache
/// lines: [`f32::MIN`] where a key is padding.
pub(super) fn penalties<'a>(attention_mask: &[bool], out: &'a mut [f32]) -> &'a [f32] {
    let out = &mut out[..line(attention_mask.len())];
    out.fill(0.0);
    for (out, is_real) in out.iter_mut().zip(attention_mask) {
        if !is_real {
            *out = f32::MIN;
        }
    }
    out
}

/// Adds `padding` to the scores of a row, and takes those that are not `visible` out of the soft-max.
#[inline(always)]
pub(super) fn hide<S: Simd>(s: S, row: &mut [f32], padding: Option<&[f32]>, visible: Range<usize>) {
    if let Some(padding) = padding {
        for (row, padding) in row.chunks_exact_mut(S::LANES).zip(padding.chunks_exact(S::LANES)) {
            s.store(s.add(s.load(row), s.load(padding)), row);
        }
    }
    row[..visible.start].fill(f32::NEG_INFINITY);
    row[visible.end..].fill(f32::NEG_INFINITY);
}

/// Turns the scores of one query into `exp(score - peak)`, where `peak` rises to the greatest, adds
/// them to `sum`, and rescales what `sum` and `acc` already hold to the new peak.
///
/// NaN does not raise the peak, but stays in the exponentials and so reaches the sum.
#[inline(always)]
fn exponentiate<S: Simd>(
    s: S,
    scores: &mut [f32],
    peak: &mut f32,
    sum: &mut [f32],
    acc: &mut [f32],
) {
    let mut highest = s.splat(*peak);
    for part in scores.chunks_exact(S::LANES) {
        highest = s.max(s.load(part), highest);
    }
    let highest = s.max_across(highest);
    let mut total = s.load(sum);
    if highest != *peak {
        let factor = s.exp(s.splat(*peak - highest));
        total = s.mul(total, factor);
        for part in acc.chunks_exact_mut(S::LANES) {
            s.store(s.mul(s.load(part), factor), part);
        }
        *peak = highest;
    }
    let highest = s.splat(highest);
    for part in scores.chunks_exact_mut(S::LANES) {
        let p = s.exp(s.sub(s.load(part), highest));
        total = s.add(total, p);
        s.store(p, part);
    }
    s.store(total, sum);
}
