//! The tile of the product, written once over the vectors of an instruction set.

use super::{KC, STRIP};
use crate::blocks::{Layout, RUN};

/// The vector operations of one instruction set, rows (tokens) in the lanes.
///
/// A value exists only where the processor has the instructions. All code that touches vectors is
/// `#[inline(always)]` and no closure, so that it ends up in a function compiled with them on.
pub(super) trait Simd: Copy {
    /// [`LANES`](Self::LANES) numbers of type `i32`, or four bytes in the place of each.
    type Ints: Copy;
    /// As many of type `f32`.
    type Floats: Copy;
    /// Elements in a vector.
    const LANES: usize;

    /// Reads a vector.
    ///
    /// # Safety
    /// `from` points to `LANES` readable elements.
    unsafe fn ints(self, from: *const i32) -> Self::Ints;
    /// Reads a vector.
    ///
    /// # Safety
    /// `from` points to `LANES` readable elements.
    unsafe fn floats(self, from: *const f32) -> Self::Floats;
    /// Writes a vector.
    ///
    /// # Safety
    /// `to` points to `LANES` writable elements.
    unsafe fn write(self, v: Self::Floats, to: *mut f32);
    /// Asks for the cache line at `at`, which need not exist.
    fn prefetch(self, at: *const u8);
    /// `x` in every lane.
    fn splat(self, x: f32) -> Self::Floats;
    /// `x` in every lane.
    fn splat_int(self, x: i32) -> Self::Ints;
    /// `a + b`
    fn add(self, a: Self::Ints, b: Self::Ints) -> Self::Ints;
    /// `-a * 2^bits`
    fn minus_shifted(self, a: Self::Ints, bits: u32) -> Self::Ints;
    /// `sum` and, for each lane, the four products of the unsigned bytes `codes` with the signed `bytes`;
    /// `small` is known to the compiler and says that no code is above 63.
    fn dot(self, sum: Self::Ints, codes: Self::Ints, bytes: Self::Ints, small: bool) -> Self::Ints;
    /// The same numbers.
    fn to_floats(self, a: Self::Ints) -> Self::Floats;
    /// `a * b`
    fn mul(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// `a * b + c`, rounded once.
    fn mul_add(self, a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats;
    /// `c - a * b`, rounded once.
    fn neg_mul_add(self, a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats;
}

/// From one row of spread-out codes to the next: a line more than they need, so that the rows fall into
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
    /// What will be read next.
    pub(super) next: Next,
}

/// Rows of blocks that a kernel asks the memory for while it computes: the strip that is unpacked
/// after this one.
#[derive(Clone, Copy)]
pub(super) struct Next {
    pub(super) at: *const u8,
    /// Bytes from one row to the next.
    pub(super) line: usize,
    /// Bytes of a run.
    pub(super) step: usize,
}

/// The whole of `work`, in tiles of `R` outputs by `NV` vectors of rows.
///
/// Element by element, and so for every instruction set: over the runs of inputs, `sum` becomes
/// `fma(product, row_scale, sum)`, where `product` is `dot * scale`, for a run of two groups
/// `fma(dot', scale', dot * scale)`, and with a minimum `fma(-min, total, dot * scale)`; `dot` and `total`
/// are sums of whole numbers.
///
/// # Safety
/// The pointers are to as many elements as [`Work`] says, `R` divides `STRIP`, and `NV * LANES`
/// divides the width.
#[inline(always)]
pub(super) unsafe fn strip<S: Simd, L: Layout, const R: usize, const NV: usize>(s: S, work: Work) {
    for row in (0..STRIP).step_by(R) {
        for lane in (0..work.width).step_by(NV * S::LANES) {
            // SAFETY: the tile lies in the strip and in the panel.
            unsafe { tile::<S, L, R, NV>(s, work, row, lane) };
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
    let width = work.width;
    // SAFETY: all addresses are of the strip, the panel or the sums, as the caller vouches;
    // prefetching touches nothing.
    unsafe {
        let mut codes = work.codes.add(row * CODES);
        let mut factors = work.factors.add(row * self::factors::<L>());
        let mut record = work.records.add(lane * 4);
        let mut next = work.next.at.wrapping_add(row * work.next.line);
        let to = work.sums.add(row * width + lane);
        let mut sums = [[s.splat(0.0); NV]; R];
        for r in 0..R {
            for v in 0..NV {
                sums[r][v] = s.floats(to.add(r * width + v * S::LANES));
            }
        }
        for r in 0..R {
            // The line in which the last run ends; the others are asked for by where runs begin.
            s.prefetch(next.wrapping_add(r * work.next.line + work.runs * work.next.step));
        }
        for _ in 0..work.runs {
            for r in 0..R {
                s.prefetch(next.wrapping_add(r * work.next.line));
            }
            let after = record.add(RUN * width);
            let mut total = [s.splat_int(0); NV];
            let mut products = [[s.splat(0.0); NV]; R];
            for group in 0..RUN / L::GROUP {
                let mut start = [s.splat_int(0); NV];
                for v in 0..NV {
                    let halves = after.add(4 * width + 4 * v * S::LANES).cast::<i32>();
                    total[v] = if L::GROUP == RUN {
                        s.add(s.ints(halves), s.ints(halves.add(width)))
                    } else {
                        s.ints(halves.add(group * width))
                    };
                    if L::OFFSET != 0 {
                        start[v] = s.minus_shifted(total[v], L::OFFSET.trailing_zeros());
                    }
                }
                let mut dots = [start; R];
                for q in group * L::GROUP / 4..(group + 1) * L::GROUP / 4 {
                    let bytes = record.add(q * width * 4).cast::<i32>();
                    let mut x = [s.ints(bytes); NV];
                    for v in 1..NV {
                        x[v] = s.ints(bytes.add(v * S::LANES));
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
                        let dot = s.to_floats(dots[r][v]);
                        products[r][v] = match group {
                            0 => s.mul(dot, scale),
                            _ => s.mul_add(dot, scale, products[r][v]),
                        };
                    }
                }
            }
            for r in 0..R {
                for v in 0..NV {
                    let mut product = products[r][v];
                    if L::MINS {
                        let min = s.splat(*factors.add(r * self::factors::<L>() + 1));
                        product = s.neg_mul_add(min, s.to_floats(total[v]), product);
                    }
                    let row_scale = s.floats(after.add(4 * v * S::LANES).cast());
                    sums[r][v] = s.mul_add(product, row_scale, sums[r][v]);
                }
            }
            codes = codes.add(RUN);
            factors = factors.add(L::FACTORS);
            record = record.add(width * (RUN + 12));
            next = next.wrapping_add(work.next.step);
        }
        for r in 0..R {
            for v in 0..NV {
                s.write(sums[r][v], to.add(r * width + v * S::LANES));
            }
        }
    }
}
