//! The integer GEMM with few rows, outputs in the lanes.
//!
//! A panel of few rows leaves lanes empty, and unpacking its weights costs more than multiplying them: so
//! it is where each expert of a mixture is given a few tokens. Here the lanes hold outputs, the rows of
//! activations are broadcast, and the codes of the weights are transposed by fours while they are
//! unpacked, once for all rows. An element goes through the same operations in the same order as in a
//! tile of a [strip](super::kernel), so it has the same bits.

use std::{marker::PhantomData, ops::Range};

use super::{
    WHOLE,
    activations::{Panel, SPAN},
};
use crate::{
    blocks::{Columns, Layout, RUN, RUN_ROWS},
    simd::{Kernel, MAX_LANES, Simd},
};

/// Rows at most: beyond them the lanes of a panel are full enough.
pub(super) const FEW: usize = 8;
/// Rows whose accumulators have registers in every instruction set.
const TILE: usize = 4;
/// Factors of [`WHOLE`] inputs at most.
const FACTORS: usize = 16;

/// The product of all rows of activations with some outputs.
pub(super) struct Work<'a> {
    /// Rows of activations, [`FEW`] at most, and their panel.
    pub(super) rows: usize,
    pub(super) panel: Panel,
    /// The records of the panel.
    pub(super) records: &'a [u8],
    /// Inputs, whole blocks.
    pub(super) inputs: usize,
    /// The blocks of all `n` outputs.
    pub(super) w: &'a [u8],
    pub(super) n: usize,
    /// The outputs that are asked for.
    pub(super) outputs: Range<usize>,
    /// `y[rows, n]`.
    pub(super) y: *mut f32,
    /// Whether the product is added to what `y` holds.
    pub(super) add: bool,
}

/// All of some work, its weights in the layout `L`.
pub(super) struct Few<'a, L> {
    work: Work<'a>,
    layout: PhantomData<L>,
}

impl<'a, L: Layout> Few<'a, L> {
    /// # Safety
    /// `w` has `n` rows of `inputs` weights, `records` as many inputs, and `y` `rows * n` elements, of
    /// which nobody else uses those asked for.
    pub(super) unsafe fn new(work: Work<'a>) -> Self {
        Self { work, layout: PhantomData }
    }
}

impl<L: Layout> Kernel for Few<'_, L> {
    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        // SAFETY: the promises of `new`.
        unsafe {
            match S::LANES < RUN_ROWS {
                true => product::<S, L, { RUN_ROWS / 4 }>(s, &self.work),
                false => product::<S, L, 1>(s, &self.work),
            }
        }
    }
}

/// `NV` vectors of outputs at a time.
///
/// # Safety
/// As [`Few::new`].
#[inline(always)]
unsafe fn product<S: Simd, L: Layout, const NV: usize>(s: S, work: &Work<'_>) {
    let width = NV * S::LANES;
    let mut weights = Weights::ZERO;
    for first in work.outputs.clone().step_by(width) {
        let outputs = first..(first + width).min(work.outputs.end);
        let mut sums = [[0.0; MAX_LANES]; FEW];
        for input in (0..work.inputs).step_by(WHOLE) {
            let inputs = input..(input + WHOLE).min(work.inputs);
            // SAFETY: as many rows as are left are in the panel, as many inputs in `w` and the records.
            unsafe {
                weights.unpack::<S, L>(s, work, &outputs, inputs.clone(), width);
                for row in (0..work.rows).step_by(TILE) {
                    let (inputs, sums) = (inputs.clone(), &mut sums[row..]);
                    match work.rows - row {
                        1 => tile::<S, L, NV, 1>(s, work, &weights, row, inputs, sums),
                        2 => tile::<S, L, NV, 2>(s, work, &weights, row, inputs, sums),
                        3 => tile::<S, L, NV, 3>(s, work, &weights, row, inputs, sums),
                        _ => tile::<S, L, NV, TILE>(s, work, &weights, row, inputs, sums),
                    }
                }
            }
        }
        for (row, sums) in sums[..work.rows].iter().enumerate() {
            // SAFETY: these elements of `y` are among those asked for.
            let y = unsafe {
                std::slice::from_raw_parts_mut(work.y.add(row * work.n + first), outputs.len())
            };
            match work.add {
                true => y.iter_mut().zip(sums).for_each(|(y, sum)| *y += sum),
                false => y.copy_from_slice(&sums[..y.len()]),
            }
        }
    }
}

/// The weights of as many outputs as the lanes hold, over [`WHOLE`] inputs.
#[repr(C, align(64))]
struct Weights {
    /// `[WHOLE / 4, width, 4]`, a code a byte.
    codes: [u8; MAX_LANES * WHOLE],
    /// `[FACTORS, width]`
    factors: [f32; MAX_LANES * FACTORS],
    /// The factors of each output, before they are transposed.
    rows: [[f32; FACTORS]; MAX_LANES],
}

impl Weights {
    const ZERO: Self = Self {
        codes: [0; MAX_LANES * WHOLE],
        factors: [0.0; MAX_LANES * FACTORS],
        rows: [[0.0; FACTORS]; MAX_LANES],
    };

    /// Unpacks the weights of `outputs`, of which the last stands for those that lack to `width`, and
    /// prefetches what the outputs after them have there.
    ///
    /// # Safety
    /// `work.w` has these outputs and inputs.
    #[inline(always)]
    unsafe fn unpack<S: Simd, L: Layout>(
        &mut self,
        s: S,
        work: &Work<'_>,
        outputs: &Range<usize>,
        inputs: Range<usize>,
        width: usize,
    ) {
        const LINE: usize = 64;
        const { assert!(WHOLE / RUN * L::FACTORS <= FACTORS) };
        let line = work.inputs / L::LEN * L::BYTES;
        for first in (0..width).step_by(RUN_ROWS) {
            let mut rows = [std::ptr::null(); RUN_ROWS];
            for (i, row) in rows.iter_mut().enumerate() {
                let output = (outputs.start + first + i).min(outputs.end - 1);
                let at = output * line + inputs.start / L::LEN * L::BYTES;
                *row = work.w.as_ptr().wrapping_add(at);
                let after = row.wrapping_add(width * line);
                for at in (0..WHOLE / L::LEN * L::BYTES).step_by(LINE) {
                    s.prefetch(after.wrapping_add(at));
                }
            }
            for block in 0..inputs.len() / L::LEN {
                let mut blocks = [&[][..]; RUN_ROWS];
                for (block, row) in blocks.iter_mut().zip(&mut rows) {
                    // SAFETY: the row has this block, as the caller vouches.
                    *block = unsafe { std::slice::from_raw_parts(*row, L::BYTES) };
                    *row = row.wrapping_add(L::BYTES);
                }
                let count = L::LEN / RUN * L::FACTORS;
                for (weights, row) in blocks.into_iter().zip(&mut self.rows[first..]) {
                    L::factors(s, weights, &mut row[block * count..][..count]);
                }
                let codes = &mut self.codes[block * L::LEN * width + 4 * first..];
                L::columns(s, blocks, Columns { codes, stride: 4 * width });
            }
            self.transpose_factors(s, first, width);
        }
    }

    /// Transposes the factors of the [`RUN_ROWS`] outputs from `first` on.
    #[inline(always)]
    fn transpose_factors<S: Simd>(&mut self, s: S, first: usize, width: usize) {
        for four in (0..FACTORS).step_by(4) {
            let mut pieces = [&[0; RUN / 2]; RUN_ROWS];
            for (piece, row) in pieces.iter_mut().zip(&self.rows[first..]) {
                // SAFETY: four numbers are sixteen bytes.
                *piece = unsafe { &*row[four..][..4].as_ptr().cast() };
            }
            let columns = s.columns(pieces);
            for i in 0..4 {
                let to = &mut self.factors[(four + i) * width + first..][..RUN_ROWS];
                // SAFETY: eight numbers are a run of bytes, and any bytes are numbers.
                s.write_run(columns[i], unsafe { &mut *to.as_mut_ptr().cast() });
            }
        }
    }
}

/// Adds to the `sums` of `R` rows from `row` on what the `inputs` bring.
///
/// # Safety
/// The panel has these rows, the records and the weights these inputs.
#[inline(always)]
unsafe fn tile<S: Simd, L: Layout, const NV: usize, const R: usize>(
    s: S,
    work: &Work<'_>,
    weights: &Weights,
    row: usize,
    inputs: Range<usize>,
    sums: &mut [[f32; MAX_LANES]],
) {
    let (lanes, width, panel) = (S::LANES, NV * S::LANES, work.panel.width);
    let (mut codes, mut factors) = (weights.codes.as_ptr().cast::<i32>(), weights.factors.as_ptr());
    // SAFETY: all addresses are of the unpacked weights, or of the records of these rows and inputs.
    unsafe {
        let mut record = work.records.as_ptr().add(inputs.start / RUN * work.panel.record());
        record = record.add(4 * row);
        let mut accumulators = [[s.splat(0.0); NV]; R];
        for r in 0..R {
            for v in 0..NV {
                accumulators[r][v] = s.read(sums[r][v * lanes..].as_ptr());
            }
        }
        for span in inputs.clone().step_by(SPAN) {
            let mut products = [[s.splat(0.0); NV]; R];
            let scales = record.add(RUN * panel).cast::<f32>();
            for _ in (span..inputs.end.min(span + SPAN)).step_by(RUN) {
                let totals = record.add((RUN + 4) * panel).cast::<i32>();
                for group in 0..RUN / L::GROUP {
                    let mut dots = [[s.splat_int(0); NV]; R];
                    for r in 0..R {
                        if L::OFFSET != 0 {
                            let total = match L::GROUP == RUN {
                                true => *totals.add(r) + *totals.add(panel + r),
                                false => *totals.add(group * panel + r),
                            };
                            dots[r] = [s.splat_int(-total * L::OFFSET); NV];
                        }
                    }
                    for q in group * L::GROUP / 4..(group + 1) * L::GROUP / 4 {
                        let x = record.add(q * panel * 4).cast::<i32>();
                        for v in 0..NV {
                            let codes = s.read_ints(codes.add(q * width + v * lanes));
                            for r in 0..R {
                                let x = s.splat_int(*x.add(r));
                                dots[r][v] = s.dot(dots[r][v], codes, x, L::OFFSET < 128);
                            }
                        }
                    }
                    for v in 0..NV {
                        let scale = s.read(factors.add(group * width + v * lanes));
                        for r in 0..R {
                            let dot = s.to_floats(dots[r][v]);
                            products[r][v] = s.fma(dot, scale, products[r][v]);
                        }
                    }
                }
                if L::MINS {
                    for v in 0..NV {
                        let min = s.read(factors.add(width + v * lanes));
                        for r in 0..R {
                            let total = *totals.add(r) + *totals.add(panel + r);
                            let total = s.splat(total as f32);
                            products[r][v] = s.neg_fma(min, total, products[r][v]);
                        }
                    }
                }
                codes = codes.add(RUN / 4 * width);
                factors = factors.add(L::FACTORS * width);
                record = record.add(work.panel.record());
            }
            for r in 0..R {
                let scale = s.splat(*scales.add(r));
                for v in 0..NV {
                    accumulators[r][v] = s.fma(products[r][v], scale, accumulators[r][v]);
                }
            }
        }
        for r in 0..R {
            for v in 0..NV {
                s.write(accumulators[r][v], sums[r][v * lanes..].as_mut_ptr());
            }
        }
    }
}
