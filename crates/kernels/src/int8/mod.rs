//! The integer GEMM of the linear layer with quantised weights.
//!
//! Weights stay in their blocks. A strip of them is unpacked into cache-sized scratch, a byte a code,
//! and multiplied with all rows; rows of activations lie in the lanes of vectors ([`Activations`]), so
//! that neither side is transposed. Within a group of weights that share a scale the sum of products is
//! an integer and exact; over the groups it is summed in `f32`, in their order, rounding once a step,
//! first within the inputs of a row that share a scale. So an element has the same bits whatever the
//! rows around it, the threads and the instruction set.
//!
//! With `w` the weights that the blocks stand for and `x` the activations, each off by half of its
//! scale at most, an element differs from the sum of `w x` by `sum |w| max |x| / 254` at most, the
//! maximum being that of the 128 inputs around, and by the rounding of the `f32` sum.

mod activations;
mod few;
mod kernel;

pub use activations::Activations;

use std::{cell::Cell, ops::Range};

use activations::{Line, Panel, SPAN, WIDEST};
use few::{FEW, Few};
use kernel::{Next, Strip, Turn, Work};

use crate::{
    BlockFormat, Cpu, Isa,
    blocks::{Layout, RUN, with_layout},
    product::Out,
    simd,
};

/// Outputs whose weights are unpacked together.
const STRIP: usize = 24;
/// Inputs unpacked together at most: enough that beginning and ending a tile do not count, few enough
/// that two strips stay in a second-level cache beside the rows.
const KC: usize = 2048;
/// Inputs are cut at multiples of it: whole blocks of every format, whole spans.
const WHOLE: usize = 256;
/// Outputs that threads share out where rows are few: the lanes of the widest vector.
const FEW_STRIP: usize = simd::MAX_LANES;
/// Rows of a block of `y` at most.
const HEIGHT: usize = 256;
/// Inputs of all rows of a block together at a time at most: they stay in a second-level cache.
const RESIDENT: usize = HEIGHT * KC / 2;
/// Outputs of a block that is worked through piece of inputs by piece: its sums stay there too.
const WIDTH: usize = 8 * STRIP;
/// Strips of a block side by side, unless there are too few for all threads.
const FEWEST: usize = 8;
/// Rows and columns of the squares in which sums are turned into rows of `y`.
const TURN: usize = 8;
/// Products of fewer multiplications than this run on the calling thread.
const SERIAL: usize = 64 * 64 * 64;

/// `y` as the tasks see it, each writing its own block.
#[derive(Clone, Copy)]
struct Output(*mut f32);

// SAFETY: the pointer is to elements of which every task writes a part that is its own.
unsafe impl Send for Output {}
// SAFETY: as above.
unsafe impl Sync for Output {}

impl Output {
    /// The first element; a method, so that tasks share the whole of `self`.
    fn get(self) -> *mut f32 {
        self.0
    }
}

struct Product<'a> {
    isa: Isa,
    x: &'a Activations,
    /// The blocks of `n` rows of weights.
    w: &'a [u8],
    n: usize,
    y: Output,
    add: bool,
    /// What the inputs are cut into.
    pieces: usize,
}

/// `y[m, n] (+)= x[m, k] w[n, k]^T`, where `x` says what `m` and `k` are.
///
/// The buffers must have the lengths of their shapes and `k` be whole blocks: the linear layer has
/// checked them.
pub(crate) fn product(
    cpu: &Cpu,
    x: &Activations,
    format: BlockFormat,
    w: &[u8],
    n: usize,
    y: &mut [f32],
    out: Out,
) {
    let (m, k) = (x.rows(), x.inputs());
    assert!(format.bytes(n * k) == Some(w.len()) && y.len() == m * n);
    assert!(k.is_multiple_of(format.block_len()));
    let add = out == Out::Add;
    if k == 0 && !add {
        y.fill(0.0);
    }
    if m == 0 || n == 0 || k == 0 {
        return;
    }
    let y = Output(y.as_mut_ptr());
    let serial = m.saturating_mul(n).saturating_mul(k) <= SERIAL;
    let threads = if serial { 1 } else { cpu.threads() };
    if m <= FEW {
        let panel = Panel::at(0, m);
        let (records, strips) = (x.records(panel), n.div_ceil(FEW_STRIP));
        let tasks = wanted_tasks(threads).min(strips);
        cpu.for_each(tasks, |task| {
            let strips = share(strips, tasks, task);
            let outputs = strips.start * FEW_STRIP..(strips.end * FEW_STRIP).min(n);
            let y = y.get();
            let work = few::Work { rows: m, panel, records, inputs: k, w, n, outputs, y, add };
            // SAFETY: the lengths were checked, and no other task has these outputs.
            with_layout!(format, L => simd::run_int8(cpu.isa(), unsafe { Few::<L>::new(work) }));
        });
        return;
    }
    let (height, columns) = grid(m, n, threads);
    let pieces = k.div_ceil((RESIDENT / height / WHOLE * WHOLE).min(KC));
    let product = Product { isa: cpu.isa(), x, w, n, y, add, pieces };
    cpu.for_each(m.div_ceil(height) * columns, |task| {
        let (block, column) = (task / columns, task % columns);
        let rows = block * height..((block + 1) * height).min(m);
        let strips = share(n.div_ceil(STRIP), columns, column);
        let columns = strips.start * STRIP..(strips.end * STRIP).min(n);
        with_layout!(format, L => product.block::<L>(rows, columns));
    });
}

/// Tasks that a product is cut into where it can be: enough for a thread that falls behind to be helped.
fn wanted_tasks(threads: usize) -> usize {
    if threads == 1 { 1 } else { 8 * threads }
}

/// Rows of a block of `y`, whole panels of them, and the blocks side by side, none so small that
/// unpacking its first strip, beside which nothing is multiplied, counts.
fn grid(m: usize, n: usize, threads: usize) -> (usize, usize) {
    let blocks = m.div_ceil(HEIGHT);
    let height = m.div_ceil(blocks).next_multiple_of(WIDEST);
    let wanted = wanted_tasks(threads).div_ceil(blocks);
    let strips = n.div_ceil(STRIP);
    let most = strips.div_ceil(FEWEST).next_multiple_of(threads).min(strips);
    (height, wanted.min(most))
}

/// Part `i` of `0..len` cut into `parts` whose sizes differ by one at most.
fn share(len: usize, parts: usize, i: usize) -> Range<usize> {
    len * i / parts..len * (i + 1) / parts
}

/// What is multiplied at a time: a strip of outputs over a piece of the inputs.
struct Unit {
    /// The outputs of the block that is worked through piece by piece, of which the strip is one part.
    columns: Range<usize>,
    strip: Range<usize>,
    /// The piece, in blocks of weights.
    inputs: Range<usize>,
}

impl Product<'_> {
    /// One block of `y`, on one thread.
    fn block<L: Layout>(&self, rows: Range<usize>, columns: Range<usize>) {
        let mut scratch = Scratch::take();
        let height = rows.len().next_multiple_of(WIDEST);
        let (a, b, sums) = scratch.split::<L>(WIDTH * height);
        let (mut now, mut then) = (a, b);
        let mut next = self.unit::<L>(&columns, 0);
        let first = self.next::<L>(next.as_ref(), self.unit::<L>(&columns, 1).as_ref(), &mut now);
        self.multiply::<L>(&rows, 0..0, &then, first, &mut sums[..STRIP * height]);
        for number in 1.. {
            let Some(unit) = next else { break };
            next = self.unit::<L>(&columns, number);
            let after = self.unit::<L>(&columns, number + 1);
            let strip =
                &mut sums[(unit.strip.start - unit.columns.start) * height..][..STRIP * height];
            let next_strip = self.next::<L>(next.as_ref(), after.as_ref(), &mut then);
            self.multiply::<L>(&rows, unit.inputs.clone(), &now, next_strip, strip);
            if unit.inputs.end * L::LEN == self.x.inputs() && unit.strip.end == unit.columns.end {
                self.store(&rows, &unit.columns, height, sums);
            }
            std::mem::swap(&mut now, &mut then);
        }
    }

    /// Unit `number` of those that a block's `columns` are worked through in: as many outputs as have
    /// their sums in a cache, of these piece by piece, of each piece strip by strip.
    fn unit<L: Layout>(&self, columns: &Range<usize>, number: usize) -> Option<Unit> {
        let before = number / (self.pieces * WIDTH / STRIP);
        let first = columns.start + before * WIDTH;
        let columns = first..(first + WIDTH).min(columns.end);
        let strips = columns.len().div_ceil(STRIP);
        let within = number % (self.pieces * WIDTH / STRIP);
        let (piece, strip) = (within.checked_div(strips)?, within.checked_rem(strips)?);
        let first = columns.start + strip * STRIP;
        (piece < self.pieces).then(|| Unit {
            strip: first..(first + STRIP).min(columns.end),
            inputs: self.piece::<L>(piece),
            columns,
        })
    }

    /// Piece `i` of the inputs, in blocks of weights.
    fn piece<L: Layout>(&self, i: usize) -> Range<usize> {
        const { assert!(WHOLE.is_multiple_of(L::LEN) && WHOLE.is_multiple_of(SPAN)) };
        const { assert!(KC.is_multiple_of(WHOLE)) };
        let parts = share(self.x.inputs().div_ceil(WHOLE), self.pieces, i);
        let blocks = |parts: usize| (parts * WHOLE).min(self.x.inputs()) / L::LEN;
        blocks(parts.start)..blocks(parts.end)
    }

    /// Bytes of a row of weights.
    fn line<L: Layout>(&self) -> usize {
        self.x.inputs() / L::LEN * L::BYTES
    }

    /// Where the weights of a unit begin.
    fn at<L: Layout>(&self, unit: &Unit) -> usize {
        unit.strip.start * self.line::<L>() + unit.inputs.start * L::BYTES
    }

    /// What a kernel is to prepare while it multiplies: the unit that follows, and the one after it.
    fn next<L: Layout>(
        &self,
        next: Option<&Unit>,
        after: Option<&Unit>,
        to: &mut Unpacked<'_>,
    ) -> Next {
        let at =
            |unit: Option<&Unit>| self.w.as_ptr().wrapping_add(unit.map_or(0, |u| self.at::<L>(u)));
        Next {
            blocks: at(next),
            count: next.map_or(0, |unit| unit.inputs.len()),
            line: self.line::<L>(),
            rows: next.map_or(0, |unit| unit.strip.len()),
            codes: to.codes.as_mut_ptr(),
            factors: to.factors.as_mut_ptr(),
            after: at(after),
        }
    }

    /// Adds to the sums of a strip what a unit brings, its weights unpacked in `weights`.
    fn multiply<L: Layout>(
        &self,
        rows: &Range<usize>,
        inputs: Range<usize>,
        weights: &Unpacked<'_>,
        mut next: Next,
        sums: &mut [f32],
    ) {
        let (runs, per_block) = (inputs.len() * L::LEN / RUN, L::LEN / RUN);
        for panel in Panel::of(rows.start, rows.end) {
            let sums = &mut sums[(panel.first - rows.start) * STRIP..][..panel.width * STRIP];
            let records = &self.x.records(panel)[inputs.start * per_block * panel.record()..];
            let work = Work {
                runs,
                codes: weights.codes.as_ptr(),
                factors: weights.factors.as_ptr(),
                records: records[..runs * panel.record()].as_ptr(),
                width: panel.width,
                sums: sums.as_mut_ptr(),
                fresh: inputs.start == 0,
                next,
            };
            // SAFETY: the slices have the lengths that `Work` says.
            simd::run_int8(self.isa, unsafe { Strip::<L>::new(work) });
            next.count = 0;
        }
    }

    /// Writes the sums of a block, or adds them; `height` is the rows that each strip has room for.
    fn store(&self, rows: &Range<usize>, columns: &Range<usize>, height: usize, sums: &[f32]) {
        let mut lines = [[0.0; WIDTH]; TURN];
        for panel in Panel::of(rows.start, rows.end) {
            let end = rows.end.min(panel.first + panel.width);
            for first in (panel.first..end).step_by(TURN) {
                let strips = sums.chunks_exact(STRIP * height).take(columns.len().div_ceil(STRIP));
                for (i, sums) in strips.enumerate() {
                    let sums = &sums[(panel.first - rows.start) * STRIP..][..panel.width * STRIP];
                    let sums = &sums[first - panel.first..];
                    let at = i * STRIP;
                    simd::run(self.isa, Turn { sums, stride: panel.width, lines: &mut lines, at });
                }
                for (row, line) in (first..end).zip(&lines) {
                    // SAFETY: these elements of `y` are in the block of this task.
                    let y = unsafe {
                        let y = self.y.0.add(row * self.n + columns.start);
                        std::slice::from_raw_parts_mut(y, columns.len())
                    };
                    match self.add {
                        true => y.iter_mut().zip(line).for_each(|(y, sum)| *y += sum),
                        false => y.copy_from_slice(&line[..columns.len()]),
                    }
                }
            }
        }
    }
}

thread_local! {
    static SCRATCH: Cell<Vec<Line>> = const { Cell::new(Vec::new()) };
}

/// This thread's buffer for a strip and its sums, kept from one product to the next.
struct Scratch(Vec<Line>);

impl Scratch {
    fn take() -> Self {
        Self(SCRATCH.take())
    }

    /// Room for the weights of two units, and `sums` numbers; each buffer begins a cache line.
    fn split<L: Layout>(&mut self, sums: usize) -> (Unpacked<'_>, Unpacked<'_>, &mut [f32]) {
        let lines = |bytes: usize| bytes.div_ceil(Line::BYTES);
        let (codes, factors) = (STRIP * kernel::CODES, STRIP * kernel::factors::<L>());
        let needed = 2 * (lines(codes) + lines(4 * factors)) + lines(4 * sums);
        if self.0.len() < needed {
            self.0.resize(needed, Line::ZERO);
        }
        let mut rest = self.0.as_mut_slice();
        let mut take = |bytes: usize| {
            let (taken, left) = std::mem::take(&mut rest).split_at_mut(lines(bytes));
            rest = left;
            taken
        };
        let mut unpacked = || Unpacked {
            codes: &mut Line::bytes(take(codes))[..codes],
            factors: &mut Line::floats(take(4 * factors))[..factors],
        };
        let (a, b) = (unpacked(), unpacked());
        (a, b, &mut Line::floats(take(4 * sums))[..sums])
    }
}

/// The weights of a unit, a byte a code: `[STRIP, KC]` with rows [`kernel::CODES`] apart, and their
/// factors.
struct Unpacked<'a> {
    codes: &'a mut [u8],
    factors: &'a mut [f32],
}

impl Drop for Scratch {
    fn drop(&mut self) {
        SCRATCH.set(std::mem::take(&mut self.0));
    }
}

#[cfg(test)]
mod tests;
