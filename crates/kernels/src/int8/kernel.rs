//! The tile of the product, rows (tokens) in the lanes of vectors.

use std::marker::PhantomData;

use super::{KC, STRIP, TURN, WIDTH, activations::SPAN};
use crate::{
    blocks::{Layout, RUN},
    simd::{Kernel, Simd},
};

/// From one row of unpacked codes to the next: a line more than they need, so that the rows fall into
/// different sets of the cache.
pub(super) const CODES: usize = KC + 64;

/// From one row of factors to the next.
pub(super) const fn factors<L: Layout>() -> usize {
    KC / RUN * L::FACTORS
}

/// What one call multiplies: a strip of [`STRIP`] outputs with a panel of rows, over some runs.
#[derive(Clone, Copy)]
pub(super) struct Work {
    /// Runs of 32 inputs.
    pub(super) runs: usize,
    /// The codes of the strip, `[STRIP, runs, 32]`, its rows [`CODES`] apart.
    pub(super) codes: *const u8,
    /// Its factors, `[STRIP, runs, FACTORS]`, its rows [`factors`] apart.
    pub(super) factors: *const f32,
    /// The records of the panel.
    pub(super) records: *const u8,
    /// Rows in the panel.
    pub(super) width: usize,
    /// The sums so far, `[STRIP, width]`.
    pub(super) sums: *mut f32,
    /// Whether the sums begin here, at zero, whatever was in their place.
    pub(super) fresh: bool,
    /// What will be read next.
    pub(super) next: Next,
}

/// The strip that is multiplied after this one. It is unpacked meanwhile: reading and writing bytes
/// keeps other parts of the processor busy than multiplying them.
#[derive(Clone, Copy)]
pub(super) struct Next {
    /// Its blocks.
    pub(super) blocks: *const u8,
    /// Blocks of each of its rows, as many as a strip has room for; 0 if nothing is to be unpacked.
    pub(super) count: usize,
    /// Bytes from one row to the next.
    pub(super) line: usize,
    /// Its rows; where there are fewer than [`STRIP`] the last is unpacked for those that lack.
    pub(super) rows: usize,
    /// Where its codes go, laid out as in [`Work`].
    pub(super) codes: *mut u8,
    /// Where its factors go.
    pub(super) factors: *mut f32,
    /// The blocks of the strip after it, which are prefetched.
    pub(super) after: *const u8,
}

impl Next {
    /// What is done beside run `run` of the rows `row..row + R`: a block of each is unpacked, or where a
    /// block is of as many runs as that, one of one row; and what comes after is prefetched.
    ///
    /// # Safety
    /// The pointers are to what they say.
    #[inline(always)]
    unsafe fn prepare<S: Simd, L: Layout, const R: usize>(&self, s: S, row: usize, run: usize) {
        let per_block = L::LEN / RUN;
        const { assert!(L::LEN == RUN || R <= L::LEN / RUN) };
        let (block, part) = (run / per_block, run % per_block);
        if block < self.count {
            for r in (part..R).step_by(per_block) {
                // SAFETY: the strip has this block.
                unsafe { self.unpack::<S, L>(s, row + r, block) };
            }
            for r in 0..R {
                let at = (row + r) * self.line + run * L::BYTES.div_ceil(per_block);
                s.prefetch(self.after.wrapping_add(at));
            }
        }
    }

    /// Unpacks block `block` of row `row`.
    ///
    /// # Safety
    /// The strip has such a block, and the pointers are to what they say.
    #[inline(always)]
    unsafe fn unpack<S: Simd, L: Layout>(&self, s: S, row: usize, block: usize) {
        const { assert!(L::LEN <= KC) };
        // SAFETY: the block is one of the strip's, as the caller vouches; its codes and factors have places
        // of their own.
        unsafe {
            let from = row.min(self.rows - 1) * self.line + block * L::BYTES;
            let from = std::slice::from_raw_parts(self.blocks.add(from), L::BYTES);
            let codes = self.codes.add(row * CODES + block * L::LEN);
            let codes = std::slice::from_raw_parts_mut(codes, L::LEN);
            let (len, row) = (L::LEN / RUN * L::FACTORS, row * factors::<L>());
            let factors = self.factors.add(row + block * len);
            L::codes(s, from, codes);
            L::factors(s, from, std::slice::from_raw_parts_mut(factors, len));
        }
    }
}

/// The whole of a [`Work`], weights being of the format `L`.
///
/// Element by element, and so for every instruction set: over the spans of inputs, `sum` becomes
/// `fma(product, row_scale, sum)`, where `product`, from zero, becomes over the groups of weights
/// `fma(dot, scale, product)`, and after each run that has a minimum `fma(-min, total, product)`; `dot`
/// and `total` are sums of integers.
pub(super) struct Strip<L> {
    work: Work,
    format: PhantomData<L>,
}

impl<L> Strip<L> {
    /// # Safety
    /// The pointers are to as many elements as [`Work`] says, and the width is 8 or a multiple of 16.
    pub(super) unsafe fn new(work: Work) -> Self {
        Self { work, format: PhantomData }
    }
}

impl<L: Layout> Kernel for Strip<L> {
    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        let Self { work, .. } = self;
        // All accumulators of a tile (dots, products, sums) have registers where there are 32.
        let many = S::ROWS > 8;
        // SAFETY: the promises of `new`; in each case the vectors divide the width.
        unsafe {
            if S::LANES < 8 || work.width > S::LANES {
                strip::<_, L, 4, 2>(s, work);
            } else if S::LANES > 8 && work.width < S::LANES {
                strip::<_, L, 8, 1>(s.narrow(), work);
            } else if many {
                strip::<_, L, 8, 1>(s, work);
            } else {
                strip::<_, L, 4, 1>(s, work);
            }
        }
    }
}

/// The whole of `work`, in tiles of `R` outputs by `NV` vectors of rows.
///
/// # Safety
/// The pointers are to as many elements as [`Work`] says, `R` divides `STRIP`, and `NV * LANES`
/// divides the width.
#[inline(always)]
unsafe fn strip<S: Simd, L: Layout, const R: usize, const NV: usize>(s: S, work: Work) {
    let mut rest = work;
    rest.next.count = 0;
    for row in (0..STRIP).step_by(R) {
        for lane in (0..work.width).step_by(NV * S::LANES) {
            // SAFETY: the tile lies in the strip and in the panel.
            unsafe { tile::<S, L, R, NV>(s, if lane == 0 { work } else { rest }, row, lane) };
        }
    }
}

#[inline(always)]
unsafe fn tile<S: Simd, L: Layout, const R: usize, const NV: usize>(
    s: S,
    work: Work,
    row: usize,
    lane: usize,
) {
    let (width, lane_bytes) = (work.width, 4 * lane);
    // SAFETY: all addresses are of the strip, the panel or the sums, as the caller vouches;
    // prefetching touches nothing.
    unsafe {
        let mut codes = work.codes.add(row * CODES);
        let mut factors = work.factors.add(row * self::factors::<L>());
        let mut record = work.records;
        let mut scales: *const f32 = record.cast();
        let to = work.sums.add(row * width + lane);
        let mut sums = [[s.splat(0.0); NV]; R];
        if !work.fresh {
            for r in 0..R {
                for v in 0..NV {
                    sums[r][v] = s.read(to.add(r * width + v * S::LANES));
                }
            }
        }
        for span in (0..work.runs).step_by(SPAN / RUN) {
            let mut products = [[s.splat(0.0); NV]; R];
            for run in span..work.runs.min(span + SPAN / RUN) {
                work.next.prepare::<S, L, R>(s, row, run);
                let totals = record.add((RUN + 4) * width + lane_bytes).cast::<i32>();
                let mut total = [s.splat_int(0); NV];
                for group in 0..RUN / L::GROUP {
                    let mut start = [s.splat_int(0); NV];
                    for v in 0..NV {
                        let halves = totals.add(v * S::LANES);
                        total[v] = if L::GROUP == RUN {
                            s.add_ints(s.read_ints(halves), s.read_ints(halves.add(width)))
                        } else {
                            s.read_ints(halves.add(group * width))
                        };
                        if L::OFFSET != 0 {
                            start[v] = s.minus_shifted(total[v], L::OFFSET.trailing_zeros());
                        }
                    }
                    let mut dots = [start; R];
                    for q in group * L::GROUP / 4..(group + 1) * L::GROUP / 4 {
                        let bytes = record.add(q * width * 4 + lane_bytes).cast::<i32>();
                        let mut x = [s.read_ints(bytes); NV];
                        for v in 1..NV {
                            x[v] = s.read_ints(bytes.add(v * S::LANES));
                        }
                        for r in 0..R {
                            let codes = codes.add(r * CODES + q * 4).cast::<i32>();
                            let codes = s.splat_int(codes.read_unaligned());
                            for v in 0..NV {
                                dots[r][v] = s.dot(dots[r][v], codes, x[v], L::OFFSET < 128);
                            }
                        }
                    }
                    for r in 0..R {
                        let scale = s.splat(*factors.add(r * self::factors::<L>() + group));
                        for v in 0..NV {
                            products[r][v] = s.fma(s.to_floats(dots[r][v]), scale, products[r][v]);
                        }
                    }
                }
                if L::MINS {
                    for r in 0..R {
                        let min = s.splat(*factors.add(r * self::factors::<L>() + 1));
                        for v in 0..NV {
                            products[r][v] = s.neg_fma(min, s.to_floats(total[v]), products[r][v]);
                        }
                    }
                }
                scales = record.add(RUN * width + lane_bytes).cast();
                codes = codes.add(RUN);
                factors = factors.add(L::FACTORS);
                record = record.add(width * (RUN + 12));
            }
            for v in 0..NV {
                let scale = s.read(scales.add(v * S::LANES));
                for r in 0..R {
                    sums[r][v] = s.fma(products[r][v], scale, sums[r][v]);
                }
            }
        }
        for r in 0..R {
            for v in 0..NV {
                s.write(sums[r][v], to.add(r * width + v * S::LANES));
            }
        }
        for run in work.runs..work.next.count * (L::LEN / RUN) {
            work.next.prepare::<S, L, R>(s, row, run);
        }
    }
}

/// Transposes a strip of sums for [`TURN`] rows: sum `i` of line `j` to `lines[i][at + j]`.
pub(super) struct Turn<'a> {
    /// The sums, `[STRIP, TURN]`, their lines `stride` apart.
    pub(super) sums: &'a [f32],
    pub(super) stride: usize,
    pub(super) lines: &'a mut [[f32; WIDTH]; TURN],
    pub(super) at: usize,
}

impl Kernel for Turn<'_> {
    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        turn(s.narrow(), self);
    }
}

#[inline(always)]
fn turn<S: Simd>(s: S, Turn { sums, stride, lines, at }: Turn<'_>) {
    const { assert!(TURN.is_multiple_of(S::LANES) && STRIP.is_multiple_of(S::LANES)) };
    let sums = &sums[..(STRIP - 1) * stride + TURN];
    let lines = &mut lines.as_flattened_mut()[at..][..(TURN - 1) * WIDTH + STRIP];
    for j in (0..STRIP).step_by(S::LANES) {
        for i in (0..TURN).step_by(S::LANES) {
            // SAFETY: the square at line `j` and sum `i` lies in `sums`, that at line `i` and sum `j` in
            // `lines`.
            unsafe {
                let from = sums.as_ptr().add(j * stride + i);
                s.transpose(from, stride, lines.as_mut_ptr().add(i * WIDTH + j), WIDTH);
            }
        }
    }
}
