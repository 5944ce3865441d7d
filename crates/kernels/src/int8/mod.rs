//! The product of the linear layer with quantised weights, in whole numbers.
//!
//! Weights stay in their blocks. A strip of them is spread out into cache-sized scratch, code by code
//! a byte, and multiplied with all rows; rows of activations lie in the lanes of vectors
//! ([`Activations`]), so that neither side is transposed. Within a group of weights that share a scale
//! the sum of products is a whole number and exact; over the groups it is summed in `f32`, in their
//! order, rounding once a step. So an element has the same bits whatever the rows around it, the
//! threads and the instruction set.
//!
//! With `w` the weights that the blocks stand for and `x` the activations, each off by half of its
//! scale at most, an element differs from the sum of `w x` by `sum |w| max |x| / 254` at most, the
//! maximum being that of the 32 inputs around, and by the rounding of the `f32` sum.

mod activations;
mod kernel;
mod portable;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use activations::Activations;

use std::{cell::Cell, ops::Range};

use activations::{Line, Panel, WIDEST};
use kernel::{Next, Work};

use crate::{
    BlockFormat, Cpu, Isa,
    blocks::{Layout, RUN, with_layout},
    isa::vectorised,
    linear::Out,
};

/// Outputs whose weights are spread out together.
const STRIP: usize = 16;
/// Inputs spread out together at most: the codes of a strip stay in a first-level cache. Whole blocks.
const KC: usize = 1024;
/// Bytes of activations that a task goes through again and again, in a second-level cache.
const CACHE: usize = 1 << 19;
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
    kernel: Kernel,
    isa: Isa,
    x: &'a Activations,
    /// The blocks of `n` rows of weights.
    w: &'a [u8],
    n: usize,
    y: Output,
    add: bool,
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
    let (isa, y) = (cpu.isa(), Output(y.as_mut_ptr()));
    let product = Product { kernel: Kernel::of(isa), isa, x, w, n, y, add };
    let serial = m * n * k <= SERIAL;
    let (height, columns) = grid(m, n, k, if serial { 1 } else { cpu.threads() });
    cpu.for_each(m.div_ceil(height) * columns, |task| {
        let (block, column) = (task / columns, task % columns);
        let rows = block * height..((block + 1) * height).min(m);
        let strips = share(n.div_ceil(STRIP), columns, column);
        let columns = strips.start * STRIP..(strips.end * STRIP).min(n);
        with_layout!(format, L => product.block::<L>(rows, columns));
    });
}

/// Rows of a block of `y`, whole panels of them whose activations stay in the cache, and the blocks
/// side by side: enough for a thread that falls behind to be helped.
fn grid(m: usize, n: usize, k: usize, threads: usize) -> (usize, usize) {
    let most = (CACHE / activations::bytes(WIDEST, k)).max(1) * WIDEST;
    let blocks = m.div_ceil(most);
    let height = m.div_ceil(blocks).next_multiple_of(WIDEST);
    let wanted = if threads == 1 { 1 } else { (8 * threads).div_ceil(blocks) };
    (height, wanted.min(n.div_ceil(STRIP)))
}

/// Part `i` of `0..len` cut into `parts` whose sizes differ by one at most.
fn share(len: usize, parts: usize, i: usize) -> Range<usize> {
    len * i / parts..len * (i + 1) / parts
}

impl Product<'_> {
    /// One block of `y`, on one thread.
    fn block<L: Layout>(&self, rows: Range<usize>, columns: Range<usize>) {
        let k = self.x.inputs();
        let mut scratch = Scratch::take();
        let (codes, factors, sums) = scratch.split(
            STRIP * kernel::CODES,
            STRIP * kernel::factors::<L>(),
            STRIP * rows.len().next_multiple_of(WIDEST),
        );
        for first in columns.clone().step_by(STRIP) {
            let strip = first..(first + STRIP).min(columns.end);
            sums.fill(0.0);
            for start in (0..k).step_by(KC) {
                let inputs = start..(start + KC).min(k);
                let runs = inputs.len() / RUN;
                let blocks = self.blocks::<L>(&strip, &inputs);
                unpack::<L>(
                    self.isa,
                    blocks,
                    self.line::<L>(),
                    strip.len(),
                    inputs.len() / L::LEN,
                    codes,
                    factors,
                );
                let after = match inputs.end < k {
                    true => Some((strip.clone(), inputs.end)),
                    false => (strip.end < columns.end).then_some((strip.end..columns.end, 0)),
                };
                let mut next = Next { at: blocks.as_ptr(), line: 0, step: 0 };
                if let Some((strip, start)) = after {
                    let at = self.blocks::<L>(&strip, &(start..k)).as_ptr();
                    next = Next {
                        at,
                        line: self.line::<L>(),
                        step: (L::BYTES * RUN).div_ceil(L::LEN),
                    };
                }
                for panel in Panel::of(rows.start, rows.end) {
                    let sums =
                        &mut sums[(panel.first - rows.start) * STRIP..][..panel.width * STRIP];
                    let records = &self.x.records(panel)[start / RUN * panel.record()..];
                    let records = &records[..runs * panel.record()];
                    let work = Work {
                        runs,
                        codes: codes.as_ptr(),
                        factors: factors.as_ptr(),
                        records: records.as_ptr(),
                        width: panel.width,
                        sums: sums.as_mut_ptr(),
                        next,
                    };
                    // SAFETY: the slices have the lengths that `Work` says.
                    unsafe { self.kernel.run::<L>(work) };
                    (next.line, next.step) = (0, 0);
                }
            }
            for panel in Panel::of(rows.start, rows.end) {
                let sums = &sums[(panel.first - rows.start) * STRIP..][..panel.width * STRIP];
                self.store(panel, rows.end, &strip, sums);
            }
        }
    }

    /// Bytes of a row of weights.
    fn line<L: Layout>(&self) -> usize {
        self.x.inputs() / L::LEN * L::BYTES
    }

    /// The blocks from the first of these rows and inputs on.
    fn blocks<L: Layout>(&self, strip: &Range<usize>, inputs: &Range<usize>) -> &[u8] {
        &self.w[strip.start * self.line::<L>() + inputs.start / L::LEN * L::BYTES..]
    }

    /// Writes the sums of a strip and a panel, or adds them.
    fn store(&self, panel: Panel, end: usize, strip: &Range<usize>, sums: &[f32]) {
        for (lane, row) in (panel.first..end.min(panel.first + panel.width)).enumerate() {
            let mut line = [0.0; STRIP];
            for (i, element) in line.iter_mut().enumerate() {
                *element = sums[i * panel.width + lane];
            }
            // SAFETY: these elements of `y` are in the block of this task.
            let y = unsafe {
                std::slice::from_raw_parts_mut(
                    self.y.0.add(row * self.n + strip.start),
                    strip.len(),
                )
            };
            if let Some(y) = y.first_chunk_mut::<STRIP>().filter(|_| !self.add) {
                *y = line;
            } else {
                for (y, sum) in y.iter_mut().zip(line) {
                    *y = if self.add { *y + sum } else { sum };
                }
            }
        }
    }
}

vectorised! {
    /// Spreads `count` blocks of each of `rows` rows out, the rows `line` bytes apart.
    fn unpack<L: Layout>(
        blocks: &[u8],
        line: usize,
        rows: usize,
        count: usize,
        codes: &mut [u8],
        factors: &mut [f32],
    ) {
        for row in 0..rows {
            let blocks = &blocks[row * line..][..count * L::BYTES];
            let codes = &mut codes[row * kernel::CODES..][..count * L::LEN];
            let factors = &mut factors[row * kernel::factors::<L>()..][..count * L::LEN / RUN * L::FACTORS];
            L::unpack(blocks, codes, factors);
        }
    }
}

/// The instructions that multiply bytes.
#[derive(Clone, Copy)]
pub(crate) enum Kernel {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Vnni,
}

impl Kernel {
    /// The best of an instruction set that the machine has.
    pub(crate) fn of(isa: Isa) -> Self {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 if is_x86_feature_detected!("avx512vnni") => Self::Vnni,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 | Isa::Avx2 if is_x86_feature_detected!("avx2") => Self::Avx2,
            _ => Self::Portable,
        }
    }

    /// # Safety
    /// The pointers are to as many elements as [`Work`] says.
    unsafe fn run<L: Layout>(self, work: Work) {
        // SAFETY: the caller's promises; `of` has checked the instruction sets.
        unsafe {
            match self {
                Self::Portable => kernel::strip::<_, L, 4, 1>(portable::Portable, work),
                #[cfg(target_arch = "x86_64")]
                Self::Avx2 => avx2::<L>(work),
                #[cfg(target_arch = "x86_64")]
                Self::Vnni => vnni::<L>(work),
            }
        }
    }
}

/// # Safety
/// As [`Kernel::run`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,fma")]
unsafe fn vnni<L: Layout>(work: Work) {
    // SAFETY: the caller's promises; the instructions are those of this function.
    unsafe {
        match work.width {
            WIDEST => kernel::strip::<_, L, 4, 2>(x86::Wide::new(), work),
            16 => kernel::strip::<_, L, 8, 1>(x86::Wide::new(), work),
            _ => kernel::strip::<_, L, 8, 1>(x86::Narrow::new(), work),
        }
    }
}

/// # Safety
/// As [`Kernel::run`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2<L: Layout>(work: Work) {
    // SAFETY: the caller's promises; the instructions are those of this function.
    unsafe {
        match work.width {
            8 => kernel::strip::<_, L, 4, 1>(x86::Avx2::new(), work),
            _ => kernel::strip::<_, L, 2, 2>(x86::Avx2::new(), work),
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

    /// Buffers of `codes` bytes and of `factors` and `sums` numbers, each from a cache line on.
    fn split(
        &mut self,
        codes: usize,
        factors: usize,
        sums: usize,
    ) -> (&mut [u8], &mut [f32], &mut [f32]) {
        let lines = |bytes: usize| bytes.div_ceil(Line::BYTES);
        let (first, second) = (lines(codes), lines(4 * factors));
        let needed = first + second + lines(4 * sums);
        if self.0.len() < needed {
            self.0.resize(needed, Line::ZERO);
        }
        let (a, rest) = self.0.split_at_mut(first);
        let (b, c) = rest.split_at_mut(second);
        (
            &mut Line::bytes(a)[..codes],
            &mut Line::floats(b)[..factors],
            &mut Line::floats(c)[..sums],
        )
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        SCRATCH.set(std::mem::take(&mut self.0));
    }
}

#[cfg(test)]
mod tests;
