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
const STRIP: usize = 24;
/// Inputs spread out together at most: the codes of a strip stay in a first-level cache. Whole blocks.
const KC: usize = 1024;
/// Rows of a block of `y` at most: with `KC` inputs they stay in a second-level cache.
const HEIGHT: usize = 256;
/// Outputs of a block that is worked through piece of inputs by piece: its sums stay there too.
const WIDTH: usize = 8 * STRIP;
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
    let (height, columns) = grid(m, n, if serial { 1 } else { cpu.threads() });
    cpu.for_each(m.div_ceil(height) * columns, |task| {
        let (block, column) = (task / columns, task % columns);
        let rows = block * height..((block + 1) * height).min(m);
        let strips = share(n.div_ceil(STRIP), columns, column);
        let columns = strips.start * STRIP..(strips.end * STRIP).min(n);
        with_layout!(format, L => product.block::<L>(rows, columns));
    });
}

/// Rows of a block of `y`, whole panels of them, and the blocks side by side: enough for a thread that
/// falls behind to be helped.
fn grid(m: usize, n: usize, threads: usize) -> (usize, usize) {
    let blocks = m.div_ceil(HEIGHT);
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
        let inputs = self.x.inputs();
        let mut scratch = Scratch::take();
        let height = rows.len().next_multiple_of(WIDEST);
        let (codes, factors, sums) =
            scratch.split(STRIP * kernel::CODES, STRIP * kernel::factors::<L>(), WIDTH * height);
        for first in columns.clone().step_by(WIDTH) {
            let columns = first..(first + WIDTH).min(columns.end);
            sums.fill(0.0);
            let (strips, pieces) = (columns.len().div_ceil(STRIP), inputs.div_ceil(KC));
            for piece in 0..pieces {
                let blocks = share(inputs / L::LEN, pieces, piece);
                for i in 0..strips {
                    let first = columns.start + i * STRIP;
                    let strip = first..(first + STRIP).min(columns.end);
                    let next = if i + 1 < strips {
                        (strip.end, blocks.start)
                    } else if piece + 1 < pieces {
                        (columns.start, blocks.end)
                    } else {
                        (columns.end, 0)
                    };
                    let sums = &mut sums[i * STRIP * height..][..STRIP * height];
                    self.strip::<L>(&rows, strip, &blocks, next, codes, factors, sums);
                }
            }
            self.store(&rows, &columns, height, sums);
        }
    }

    /// Adds to the sums of a strip what some blocks of inputs bring; `next` are the row of weights and
    /// the block with which the next strip begins.
    fn strip<L: Layout>(
        &self,
        rows: &Range<usize>,
        strip: Range<usize>,
        inputs: &Range<usize>,
        next: (usize, usize),
        codes: &mut [u8],
        factors: &mut [f32],
        sums: &mut [f32],
    ) {
        let line = self.x.inputs() / L::LEN * L::BYTES;
        let (runs, per_block) = (inputs.len() * L::LEN / RUN, L::LEN / RUN);
        let blocks = &self.w[strip.start * line + inputs.start * L::BYTES..];
        unpack::<L>(self.isa, blocks, line, strip.len(), inputs.len(), codes, factors);
        let at = self.w.as_ptr().wrapping_add(next.0 * line + next.1 * L::BYTES);
        let mut next = Next { at, line, step: L::BYTES.div_ceil(per_block) };
        for panel in Panel::of(rows.start, rows.end) {
            let sums = &mut sums[(panel.first - rows.start) * STRIP..][..panel.width * STRIP];
            let records = &self.x.records(panel)[inputs.start * per_block * panel.record()..];
            let work = Work {
                runs,
                codes: codes.as_ptr(),
                factors: factors.as_ptr(),
                records: records[..runs * panel.record()].as_ptr(),
                width: panel.width,
                sums: sums.as_mut_ptr(),
                next,
            };
            // SAFETY: the slices have the lengths that `Work` says.
            unsafe { self.kernel.run::<L>(work) };
            (next.line, next.step) = (0, 0);
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
                    for j in (0..STRIP).step_by(TURN) {
                        let sums = &sums[j * panel.width + first - panel.first..];
                        self.kernel.turn(sums, panel.width, &mut lines, i * STRIP + j);
                    }
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
    /// VNNI without AVX-512.
    #[cfg(target_arch = "x86_64")]
    AvxVnni,
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
            Isa::Avx512 | Isa::Avx2 if is_x86_feature_detected!("avxvnni") => Self::AvxVnni,
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
                Self::AvxVnni => avx_vnni::<L>(work),
                #[cfg(target_arch = "x86_64")]
                Self::Vnni => vnni::<L>(work),
            }
        }
    }
}

impl Kernel {
    /// Turns a square of sums, its lines `stride` apart: sum `i` of line `j` to `lines[i][at + j]`.
    fn turn(self, sums: &[f32], stride: usize, lines: &mut [[f32; WIDTH]; TURN], at: usize) {
        match self {
            Self::Portable => {
                for (j, sums) in sums.chunks(stride).take(TURN).enumerate() {
                    for (line, sum) in lines.iter_mut().zip(sums) {
                        line[at + j] = *sum;
                    }
                }
            }
            // SAFETY: `of` has checked the instruction set.
            #[cfg(target_arch = "x86_64")]
            _ => unsafe { x86::turn(sums, stride, lines, at) },
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
            // Two groups a run have products to keep.
            WIDEST if L::GROUP < RUN => kernel::strip::<_, L, 4, 2>(x86::Wide::new(), work),
            WIDEST => kernel::strip::<_, L, 6, 2>(x86::Wide::new(), work),
            16 => kernel::strip::<_, L, 8, 1>(x86::Wide::new(), work),
            _ => kernel::strip::<_, L, 8, 1>(x86::Narrow::new(), work),
        }
    }
}

/// # Safety
/// As [`Kernel::run`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,avxvnni,fma")]
unsafe fn avx_vnni<L: Layout>(work: Work) {
    // SAFETY: the caller's promises; the instructions are those of this function.
    unsafe {
        match work.width {
            8 => kernel::strip::<_, L, 4, 1>(x86::AvxVnni::new(), work),
            _ => kernel::strip::<_, L, 3, 2>(x86::AvxVnni::new(), work),
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
            _ => kernel::strip::<_, L, 4, 2>(x86::Avx2::new(), work),
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
