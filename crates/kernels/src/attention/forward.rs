//! The forward pass: tiles of queries, each running over the keys of its row.

use super::{
    Problem,
    matmul::{Left, matmul},
    scratch::{CALL, Head, Scratch, Shared, TASK, line, split},
    simd::{self, Kernel, MAX_LANES, Simd},
};
use crate::Cpu;

/// Queries of one task.
const QUERIES: usize = 64;
/// Keys of one tile.
const KEYS: usize = 128;

/// Some queries of a row.
#[derive(Clone, Copy)]
struct Block {
    /// The first token of the row, and how many there are.
    start: usize,
    len: usize,
    /// The first query, counted in the row, and how many there are.
    first: usize,
    queries: usize,
    /// Where the row's packed keys begin, in tokens.
    packed: usize,
}

/// Runs the checked `problem`.
pub(super) fn run(cpu: &Cpu, problem: Problem<'_>, out: &mut [f32], lse: &mut [f32]) {
    let shape = problem.shape;
    let width = line(shape.head_dim);
    let mut blocks = Vec::new();
    let mut packed = 0;
    for row in problem.rows.starts.windows(2) {
        let (start, len) = (row[0], row[1] - row[0]);
        for first in (0..len).step_by(QUERIES) {
            blocks.push(Block { start, len, first, queries: QUERIES.min(len - first), packed });
        }
        packed += line(len);
    }

    // All keys and values in the order that the tiles read them; see `pack`.
    let range = |block: &Block, head: usize| {
        let keys = line(block.len);
        let start = (block.packed * shape.kv_heads + keys * head) * 2 * width;
        start..start + keys * 2 * width
    };
    let mut memory = Scratch::take(&CALL, packed * shape.kv_heads * 2 * width);
    let shared = Shared::new(&mut memory);
    let rows: Vec<Block> = blocks.iter().copied().filter(|block| block.first == 0).collect();
    cpu.for_each(rows.len() * shape.kv_heads, |task| {
        let (block, head) = (&rows[task / shape.kv_heads], task % shape.kv_heads);
        let place = range(block, head);
        // SAFETY: the ranges of different rows and heads are disjoint.
        pack(&problem, block, head, unsafe { shared.part(place.start, place.len()) });
    });
    let memory = &*memory;

    let (out, lse) = (Shared::new(out), Shared::new(lse));
    cpu.for_each(blocks.len() * shape.heads, |task| {
        let (block, head) = (blocks[task / shape.heads], task % shape.heads);
        let packed = &memory[range(&block, problem.key_head(head))];
        simd::run(cpu.isa(), Tile { problem, block, head, packed, out, lse });
    });
}

/// Packs the keys and values of one row and head: first the keys, each tile of [`KEYS`] transposed
/// to `[head_dim, keys]`, then the values, by rows. Tiles and rows are filled with zeros to whole
/// cache lines.
fn pack(problem: &Problem<'_>, block: &Block, head: usize, packed: &mut [f32]) {
    let dim = problem.shape.head_dim;
    let width = line(dim);
    let heads = problem.shape.kv_heads;
    let keys = Head::new(problem.k, block.start, heads, head, dim);
    let values = Head::new(problem.v, block.start, heads, head, dim);
    let (keys_out, values_out) = packed.split_at_mut(line(block.len) * width);
    for first in (0..block.len).step_by(KEYS) {
        let count = KEYS.min(block.len - first);
        keys.transpose(first, count, &mut keys_out[first * width..], line(count));
    }
    values.copy(0, block.len, 1.0, values_out, width);
}

/// One head of one block.
struct Tile<'a> {
    problem: Problem<'a>,
    block: Block,
    head: usize,
    packed: &'a [f32],
    out: Shared<'a>,
    lse: Shared<'a>,
}

impl Kernel for Tile<'_> {
    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        let Self { problem, block, head, .. } = self;
        let (heads, dim) = (problem.shape.heads, problem.shape.head_dim);
        let (width, queries) = (line(dim), block.queries);
        let (packed_keys, values) = self.packed.split_at(line(block.len) * width);

        let mut memory = Scratch::take(&TASK, QUERIES * (2 * width + KEYS + MAX_LANES + 1) + KEYS);
        let mut rest = &mut *memory;
        let q = split(&mut rest, QUERIES * width);
        let acc = split(&mut rest, QUERIES * width);
        let scores = split(&mut rest, QUERIES * KEYS);
        let sums = split(&mut rest, QUERIES * MAX_LANES);
        let peaks = split(&mut rest, QUERIES);
        let padding = split(&mut rest, KEYS);

        Head::new(problem.q, block.start, heads, head, dim).copy(
            block.first,
            queries,
            problem.scale(),
            q,
            width,
        );
        acc.fill(0.0);
        sums.fill(0.0);
        peaks.fill(f32::NEG_INFINITY);

        let seen = problem.mask.visible(block.first + queries - 1, block.len);
        for first in (0..seen).step_by(KEYS) {
            let stride = line(KEYS.min(block.len - first));
            let keys = KEYS.min(seen - first);
            let key_tile = &packed_keys[first * width..];
            matmul::<S, false>(
                s,
                (queries, line(keys), dim),
                Left::new(q, width),
                (key_tile, stride),
                (scores, KEYS),
            );
            let padding = problem.padding(block.start + first, keys, padding);
            for i in 0..queries {
                let row = &mut scores[i * KEYS..][..line(keys)];
                let visible = problem.mask.visible(block.first + i, block.len);
                hide(s, row, padding, visible.saturating_sub(first));
                let sum = &mut sums[i * MAX_LANES..][..MAX_LANES];
                exponentiate(s, row, &mut peaks[i], sum, &mut acc[i * width..][..width]);
            }
            matmul::<S, true>(
                s,
                (queries, width, keys),
                Left::new(scores, KEYS),
                (&values[first * width..], width),
                (acc, width),
            );
        }

        for i in 0..queries {
            let total = s.sum_across(s.load(&sums[i * MAX_LANES..]));
            let token = block.start + block.first + i;
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

/// Adds `padding` to the scores of a row, and takes those from `visible` on out of the soft-max.
#[inline(always)]
pub(super) fn hide<S: Simd>(s: S, row: &mut [f32], padding: Option<&[f32]>, visible: usize) {
    if let Some(padding) = padding {
        for (row, padding) in row.chunks_exact_mut(S::LANES).zip(padding.chunks_exact(S::LANES)) {
            s.store(s.add(s.load(row), s.load(padding)), row);
        }
    }
    if let Some(hidden) = row.get_mut(visible..) {
        hidden.fill(f32::NEG_INFINITY);
    }
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
