//! What the product on a matrix unit does in vectors and tiles: packing, multiplying, writing.

use super::super::{
    Layout,
    kernel::{Next, Pair, Panel, Place},
};
use crate::{
    simd::{Element, Kernel, Simd},
    tiles::{COLUMNS, DEPTH, PLACES, ROWS, TileUnit},
    weights::Floats,
};

/// Vectors of a packed panel: those of two tiles.
pub(super) const PANEL: usize = 2 * ROWS;
/// Places of a packed panel for each [`DEPTH`] terms: its two tiles, one after the other.
pub(super) const STEP: usize = 2 * PLACES;
/// Sums of a panel of `A` with one of `B`: tile `2 i + j` has those of tile `i` of `A` with tile `j` of `B`.
pub(super) const PAIR_SUMS: usize = 4 * PLACES;

/// A panel to be packed into tiles.
pub(super) struct Pack<'a> {
    pub(super) panel: Panel<'a>,
    /// Whether vectors lie in the rows of tiles, or else in their columns.
    pub(super) in_rows: bool,
}

impl Pack<'_> {
    /// Writes the tiles, zeros where the panel ends: [`STEP`] places for each [`DEPTH`] terms.
    ///
    /// # Safety
    /// `data` has the elements of the panel.
    pub(super) unsafe fn run<S: Simd>(self, s: S, out: &mut [f32]) {
        match self.panel.data {
            Floats::F32(data) => s.run(PackOf { pack: self, data, out }),
            Floats::Bf16(data) => s.run(PackOf { pack: self, data, out }),
            Floats::F16(data) => s.run(PackOf { pack: self, data, out }),
        }
    }
}

/// [`Pack`] of the elements `data`.
struct PackOf<'a, T> {
    pack: Pack<'a>,
    data: &'a [T],
    out: &'a mut [f32],
}

impl<T: Element> Kernel for PackOf<'_, T> {
    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        let Self { pack: Pack { panel: Panel { layout, ld, len, kc, .. }, in_rows }, data, out } =
            self;
        assert!(len <= PANEL && out.len() >= kc.div_ceil(DEPTH) * STEP);
        let is_transposed = in_rows != (layout == Layout::KInner);
        for (number, tile) in out.as_chunks_mut::<PLACES>().0.iter_mut().enumerate() {
            for at in 0..(COLUMNS / S::LANES) * (ROWS / S::LANES) {
                // A square of the tile: its first vector and pair in the tile, then in the panel.
                let (v, p) = (at / (ROWS / S::LANES) * S::LANES, at % (ROWS / S::LANES) * S::LANES);
                let (vector, term) = (number % 2 * ROWS + v, number / 2 * DEPTH + 2 * p);
                let vectors = len.saturating_sub(vector).min(S::LANES);
                let terms = kc.saturating_sub(term).min(2 * S::LANES);
                let mut square = s.zeros();
                // SAFETY: only elements of these vectors and terms are read, which are in the panel.
                unsafe {
                    match layout {
                        Layout::KInner => {
                            let from = data.as_ptr().wrapping_add(vector * ld + term);
                            if vectors == S::LANES && terms == 2 * S::LANES {
                                for i in 0..S::LANES {
                                    square[i] = T::read_pairs(s, from.wrapping_add(i * ld));
                                }
                            } else {
                                for i in 0..vectors {
                                    square[i] = Pair.along(s, from.wrapping_add(i * ld), terms);
                                }
                            }
                        }
                        Layout::KOuter => {
                            let from = data.as_ptr().wrapping_add(term * ld + vector);
                            if vectors == S::LANES && terms == 2 * S::LANES {
                                for i in 0..S::LANES {
                                    let from = from.wrapping_add(2 * i * ld);
                                    square[i] = Pair.across(s, from, ld, 2, S::LANES);
                                }
                            } else {
                                for i in 0..terms.div_ceil(2) {
                                    let from = from.wrapping_add(2 * i * ld);
                                    square[i] = Pair.across(s, from, ld, terms - 2 * i, vectors);
                                }
                            }
                        }
                    }
                }
                if is_transposed {
                    square = s.transposed(square);
                }
                let (row, column) = if in_rows { (v, p) } else { (p, v) };
                for i in 0..S::LANES {
                    s.store(square[i], &mut tile[(row + i) * COLUMNS + column..]);
                }
            }
        }
    }
}

/// Adds to `sums`, or writes there if they are `fresh`, the products of two packed panels. With `FLIP` the
/// vectors of `b` lie in rows, and so do they in the sums. Meanwhile it prefetches what is `next`.
#[inline]
pub(super) fn multiply<U: TileUnit, S: Simd, const FLIP: bool>(
    unit: &mut U,
    (s, mut next): (S, [Next; 2]),
    a: &[f32],
    b: &[f32],
    sums: &mut [f32],
    fresh: bool,
) {
    /// Bytes from one row of a tile to the next.
    const LINE: usize = 4 * COLUMNS;
    let steps = a.len() / STEP;
    assert!(steps > 0 && b.len() == a.len() && sums.len() == PAIR_SUMS);
    let (a, b, sums) = (a.as_ptr(), b.as_ptr(), sums.as_mut_ptr());
    // SAFETY: the slices hold whole tiles, as was checked.
    unsafe {
        if fresh {
            unit.zero::<0>();
            unit.zero::<1>();
            unit.zero::<2>();
            unit.zero::<3>();
        } else {
            unit.load::<0>(sums, LINE);
            unit.load::<1>(sums.add(PLACES), LINE);
            unit.load::<2>(sums.add(2 * PLACES), LINE);
            unit.load::<3>(sums.add(3 * PLACES), LINE);
        }
        unit.load::<4>(a, LINE);
        unit.load::<6>(b, LINE);
        for step in 0..steps {
            // A load beside each product: those that follow must not wait for it. The last step loads in vain.
            let (now, then) = (step * STEP, (step + 1).min(steps - 1) * STEP);
            next[0].prefetch(s);
            unit.load::<7>(b.add(now + PLACES), LINE);
            product::<_, FLIP, 0, 4, 6>(unit);
            unit.load::<5>(a.add(now + PLACES), LINE);
            product::<_, FLIP, 1, 4, 7>(unit);
            next[1].prefetch(s);
            unit.load::<4>(a.add(then), LINE);
            product::<_, FLIP, 2, 5, 6>(unit);
            unit.load::<6>(b.add(then), LINE);
            product::<_, FLIP, 3, 5, 7>(unit);
        }
        unit.store::<0>(sums, LINE);
        unit.store::<1>(sums.add(PLACES), LINE);
        unit.store::<2>(sums.add(2 * PLACES), LINE);
        unit.store::<3>(sums.add(3 * PLACES), LINE);
    }
}

/// The product of a tile of `A` with one of `B`, the one in rows first.
#[inline(always)]
fn product<U: TileUnit, const FLIP: bool, const C: usize, const A: usize, const B: usize>(
    unit: &mut U,
) {
    if FLIP { unit.multiply::<C, B, A>() } else { unit.multiply::<C, A, B>() }
}

/// The sums of two panels on their way to `C`.
pub(super) struct Written<'a> {
    pub(super) sums: &'a [f32],
    /// Whether the rows of tiles are columns of `C`.
    pub(super) flip: bool,
    /// The first of `height` rows of `width` elements of `C`, `ldc` apart, all of which can be written.
    pub(super) c: *mut f32,
    pub(super) ldc: usize,
    pub(super) height: usize,
    pub(super) width: usize,
    /// Whether the sums are added to what `c` holds.
    pub(super) add: bool,
}

impl Kernel for Written<'_> {
    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        let Self { sums, flip, c, ldc, height, width, add } = self;
        for (number, tile) in sums.as_chunks::<PLACES>().0.iter().enumerate() {
            for at in 0..(COLUMNS / S::LANES) * (ROWS / S::LANES) {
                // A square of the tile: its first row and column of `C` in the tile, then in the panels.
                let (r, q) =
                    (at / (COLUMNS / S::LANES) * S::LANES, at % (COLUMNS / S::LANES) * S::LANES);
                let (row, column) = (number / 2 * ROWS + r, number % 2 * ROWS + q);
                let rows = height.saturating_sub(row).min(S::LANES);
                let columns = width.saturating_sub(column).min(S::LANES);
                if rows == 0 || columns == 0 {
                    continue;
                }
                let first = if flip { q * COLUMNS + r } else { r * COLUMNS + q };
                let mut square = s.zeros();
                for i in 0..S::LANES {
                    square[i] = s.load(&tile[first + i * COLUMNS..]);
                }
                if flip {
                    square = s.transposed(square);
                }
                // SAFETY: whoever made this vouches for these rows and columns.
                unsafe {
                    let c = c.add(row * ldc + column);
                    if rows == S::LANES && columns == S::LANES {
                        for i in 0..S::LANES {
                            let c = c.add(i * ldc);
                            s.write(if add { s.add(s.read(c), square[i]) } else { square[i] }, c);
                        }
                    } else {
                        for i in 0..rows {
                            let (c, sum) = (c.add(i * ldc), square[i]);
                            let sum = if add { s.add(s.read_first(c, columns), sum) } else { sum };
                            s.write_first(sum, c, columns);
                        }
                    }
                }
            }
        }
    }
}
