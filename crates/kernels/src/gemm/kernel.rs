//! What the product does in vectors: packing, tiles, and rows that are too few to pack for.

use super::{FEW, Layout};
use crate::{
    simd::{Element, Kernel, Simd},
    weights::Floats,
};

/// Vectors of a row of a tile.
const NV: usize = 2;
/// Terms ahead of those at work that are prefetched where `B` is not packed.
const AHEAD: usize = 64;

/// Columns of a tile of `C`.
pub(super) const fn columns<S: Simd>() -> usize {
    NV * S::LANES
}

/// What a place of a packed panel holds, 32 bits of it.
pub(super) trait Place: Copy + Send + Sync {
    /// Terms in a place.
    const TERMS: usize;

    /// The first `count` terms of a row, as many as [`Simd::LANES`] places hold at most, zeros after them.
    ///
    /// # Safety
    /// These elements can be read.
    unsafe fn along<S: Simd, T: Element>(self, s: S, from: *const T, count: usize) -> S::Floats;

    /// The first `count <= LANES` elements of [`TERMS`](Self::TERMS) lines at most, `ld` apart: a place of each
    /// column, with zeros where there is no more.
    ///
    /// # Safety
    /// These elements can be read.
    unsafe fn across<S: Simd, T: Element>(
        self,
        s: S,
        from: *const T,
        ld: usize,
        lines: usize,
        count: usize,
    ) -> S::Floats;

    /// `sum` and the products of the terms in each place.
    fn multiply<S: Simd>(self, s: S, a: S::Floats, b: S::Floats, sum: S::Floats) -> S::Floats;
}

/// One term, in `f32`.
#[derive(Clone, Copy)]
pub(super) struct Single;

impl Place for Single {
    const TERMS: usize = 1;

    #[inline(always)]
    unsafe fn along<S: Simd, T: Element>(self, s: S, from: *const T, count: usize) -> S::Floats {
        // SAFETY: the caller's promise.
        unsafe { T::read_first(s, from, count) }
    }
    #[inline(always)]
    unsafe fn across<S: Simd, T: Element>(
        self,
        s: S,
        from: *const T,
        _ld: usize,
        _lines: usize,
        count: usize,
    ) -> S::Floats {
        // SAFETY: the caller's promise.
        unsafe { self.along(s, from, count) }
    }
    #[inline(always)]
    fn multiply<S: Simd>(self, s: S, a: S::Floats, b: S::Floats, sum: S::Floats) -> S::Floats {
        s.mul_add(a, b, sum)
    }
}

/// Two terms that follow each other, rounded to `bf16`.
#[derive(Clone, Copy)]
pub(super) struct Pair;

impl Place for Pair {
    const TERMS: usize = 2;

    #[inline(always)]
    unsafe fn along<S: Simd, T: Element>(self, s: S, from: *const T, count: usize) -> S::Floats {
        let (low, high) = (count.min(S::LANES), count.saturating_sub(S::LANES));
        // SAFETY: the caller's promise.
        unsafe {
            let low = T::read_first(s, from, low);
            s.pairs(low, T::read_first(s, from.wrapping_add(S::LANES), high))
        }
    }
    #[inline(always)]
    unsafe fn across<S: Simd, T: Element>(
        self,
        s: S,
        from: *const T,
        ld: usize,
        lines: usize,
        count: usize,
    ) -> S::Floats {
        // SAFETY: the caller's promise; of a line that is not there nothing is read.
        unsafe {
            let odd = if lines > 1 { count } else { 0 };
            let even = T::read_first(s, from, count);
            s.pair(even, T::read_first(s, from.wrapping_add(ld), odd))
        }
    }
    #[inline(always)]
    fn multiply<S: Simd>(self, s: S, a: S::Floats, b: S::Floats, sum: S::Floats) -> S::Floats {
        s.dot_pairs(a, b, sum)
    }
}

/// A few vectors of an operand over a few terms: what is packed at once.
#[derive(Clone, Copy)]
pub(super) struct Panel<'a> {
    /// The elements from the panel's first on.
    pub(super) data: Floats<'a>,
    pub(super) layout: Layout,
    /// Elements from one stored line to the next.
    pub(super) ld: usize,
    /// Vectors in the panel.
    pub(super) len: usize,
    /// Terms in the panel.
    pub(super) kc: usize,
}

impl Panel<'_> {
    /// Writes place `p` of vector `i` to `out[p * stride + i]`, and zeros for the vectors from `len` to
    /// `stride`.
    ///
    /// # Safety
    /// `data` has the elements of the panel, and `out` is at least `kc * stride` and a vector long, `kc` being
    /// the places that its terms take.
    pub(super) unsafe fn pack<S: Simd, P: Place>(
        self,
        s: S,
        place: P,
        stride: usize,
        out: &mut [f32],
    ) {
        match self.data {
            Floats::F32(data) => s.run(Pack { panel: self, data, place, stride, out }),
            Floats::Bf16(data) => s.run(Pack { panel: self, data, place, stride, out }),
            Floats::F16(data) => s.run(Pack { panel: self, data, place, stride, out }),
        }
    }
}

/// [`Panel::pack`] of the elements `data`.
struct Pack<'a, T, P> {
    panel: Panel<'a>,
    data: &'a [T],
    place: P,
    stride: usize,
    out: &'a mut [f32],
}

impl<T: Element, P: Place> Kernel for Pack<'_, T, P> {
    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        let Self { panel: Panel { layout, ld, len, kc: terms, .. }, data, place, stride, out } =
            self;
        let kc = terms.div_ceil(P::TERMS);
        let (data, out) = (data.as_ptr(), out.as_mut_ptr());
        // SAFETY: the vectors `0..len` and their `terms` are elements of `data`, no other is read;
        // `out` has room for `kc` lines of `stride` and for what a last vector writes beyond them.
        unsafe {
            match layout {
                Layout::KInner => {
                    for i in (0..stride).step_by(S::LANES) {
                        let rows = len.saturating_sub(i).min(S::LANES);
                        let from = data.wrapping_add(i * ld);
                        for p in (0..kc).step_by(S::LANES) {
                            let places = (kc - p).min(S::LANES);
                            let (from, to) =
                                (from.wrapping_add(p * P::TERMS), out.add(p * stride + i));
                            let count = (terms - p * P::TERMS).min(S::LANES * P::TERMS);
                            let columns = columns_of(s, place, from, ld, rows, count);
                            if places == S::LANES {
                                for q in 0..S::LANES {
                                    s.write(columns[q], to.add(q * stride));
                                }
                            } else {
                                for q in 0..places {
                                    s.write(columns[q], to.add(q * stride));
                                }
                            }
                        }
                    }
                }
                Layout::KOuter => {
                    for p in 0..kc {
                        let (from, to) = (data.add(p * P::TERMS * ld), out.add(p * stride));
                        let lines = terms - p * P::TERMS;
                        if len == NV * S::LANES && stride == NV * S::LANES {
                            for i in (0..NV * S::LANES).step_by(S::LANES) {
                                let from = from.add(i);
                                s.write(place.across(s, from, ld, lines, S::LANES), to.add(i));
                            }
                            continue;
                        }
                        for i in (0..stride).step_by(S::LANES) {
                            let count = len.saturating_sub(i).min(S::LANES);
                            let from = from.wrapping_add(i);
                            s.write(place.across(s, from, ld, lines, count), to.add(i));
                        }
                    }
                }
            }
        }
    }
}

/// The first `terms` elements of `rows` rows, `ld` apart, transposed: a vector a place, zeros where there
/// are no more.
///
/// # Safety
/// These elements can be read.
#[inline(always)]
unsafe fn columns_of<S: Simd, T: Element, P: Place>(
    s: S,
    place: P,
    data: *const T,
    ld: usize,
    rows: usize,
    terms: usize,
) -> S::Square {
    let mut square = s.zeros();
    // SAFETY: these elements can be read.
    unsafe {
        if rows == S::LANES && terms == S::LANES * P::TERMS {
            for i in 0..S::LANES {
                square[i] = place.along(s, data.add(i * ld), S::LANES * P::TERMS);
            }
        } else {
            for i in 0..S::LANES {
                if i < rows {
                    square[i] = place.along(s, data.add(i * ld), terms);
                }
            }
        }
    }
    s.transposed(square)
}

/// A tile of `C`: overwritten with the product of two packed panels, or added to.
#[derive(Clone, Copy)]
pub(super) struct Tile {
    /// Rows of the tile.
    pub(super) rows: usize,
    /// Places of the panels.
    pub(super) kc: usize,
    /// The packed rows of `A`, `[kc, rows]`.
    pub(super) a: *const f32,
    /// The packed rows of `B`, `[kc, columns]`.
    pub(super) b: *const f32,
    /// The tile, `[rows, columns]`, its rows `ldc` elements apart.
    pub(super) c: *mut f32,
    pub(super) ldc: usize,
    /// Whether the product is added to what `c` holds.
    pub(super) add: bool,
    /// What is prefetched meanwhile.
    pub(super) next: Next,
}

impl Tile {
    /// Computes the first `width` columns of a tile.
    ///
    /// # Safety
    /// `1 <= rows <= S::ROWS`, and the pointers are to what the fields say, but for the columns of `c`
    /// from `width` on.
    #[inline]
    pub(super) unsafe fn compute<S: Simd, P: Place>(&self, s: S, place: P, width: usize) {
        // SAFETY: the caller's promises; if it is whole, all of the tile lies in `C`.
        unsafe {
            if width == columns::<S>() {
                self.whole(s, place);
            } else {
                self.cut(s, place, width);
            }
        }
    }

    /// Computes the first `width` columns.
    ///
    /// # Safety
    /// As [`compute`](Self::compute).
    unsafe fn cut<S: Simd, P: Place>(&self, s: S, place: P, width: usize) {
        let mut whole = [0.0f32; 16 * 64];
        debug_assert!(S::ROWS * columns::<S>() <= whole.len());
        let to = Self { c: whole.as_mut_ptr(), ldc: columns::<S>(), add: false, ..*self };
        // SAFETY: as above, into a buffer that holds the largest tile.
        unsafe { to.whole(s, place) };
        for (i, line) in whole.chunks_exact(columns::<S>()).take(self.rows).enumerate() {
            // SAFETY: row `i` of the tile, cut at the last column of `C`.
            let c = unsafe { std::slice::from_raw_parts_mut(self.c.add(i * self.ldc), width) };
            for (c, sum) in c.iter_mut().zip(line) {
                *c = if self.add { *c + sum } else { *sum };
            }
        }
    }

    /// Computes the whole tile, in a function for its number of rows.
    ///
    /// # Safety
    /// As [`compute`](Self::compute), with all columns.
    #[inline]
    unsafe fn whole<S: Simd, P: Place>(&self, s: S, place: P) {
        macro_rules! by_rows {
            ($($rows:literal)*) => {
                match self.rows {
                    $($rows if $rows <= S::ROWS => s.run(TileOf::<_, $rows>(self, place)),)*
                    _ => unreachable!("a tile has the rows of an instruction set at most"),
                }
            };
        }
        by_rows!(1 2 3 4 5 6 7 8 9 10 11 12 13 14)
    }
}

/// A [`Tile`] of `R` rows.
struct TileOf<'a, P, const R: usize>(&'a Tile, P);

impl<P: Place, const R: usize> Kernel for TileOf<'_, P, R> {
    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        let (Tile { kc, a, b, c, ldc, add, next, .. }, place) = (*self.0, self.1);
        // SAFETY: every address is one of the panels' or the tile's elements, which whoever made the
        // tile vouches for; prefetching touches nothing.
        unsafe {
            for i in 0..R {
                s.prefetch_near(c.add(i * ldc).cast());
                s.prefetch_near(c.add(i * ldc + NV * S::LANES - 1).cast());
            }
            let mut acc = [[s.splat(0.0); NV]; R];
            let (mut p, mut next) = (0, next);
            while p < kc {
                next.prefetch(s);
                for q in p..kc.min(p + Next::EVERY) {
                    let mut line = [s.splat(0.0); NV];
                    for v in 0..NV {
                        line[v] = s.read(b.add((q * NV + v) * S::LANES));
                    }
                    for i in 0..R {
                        let x = s.splat(*a.add(q * R + i));
                        for v in 0..NV {
                            acc[i][v] = place.multiply(s, x, line[v], acc[i][v]);
                        }
                    }
                }
                p += Next::EVERY;
            }
            for i in 0..R {
                for v in 0..NV {
                    let c = c.add(i * ldc + v * S::LANES);
                    let sum = acc[i][v];
                    s.write(if add { s.add(s.read(c), sum) } else { sum }, c);
                }
            }
        }
    }
}

/// Lines that a tile prefetches while it is computed, because packing will read them soon: every
/// [`Next::EVERY`] terms, [`Next::LINES`] lines.
#[derive(Clone, Copy)]
pub(super) struct Next {
    at: *const u8,
    /// Bytes from one group of lines to the next.
    step: usize,
    /// Bytes from one line of a group to the next.
    line: usize,
}

impl Next {
    const EVERY: usize = 16;
    /// A constant, because loops of unknown length here cost more than they bring.
    const LINES: usize = 4;

    /// Prefetches a group of lines, of which the next call takes the next.
    #[inline(always)]
    pub(super) fn prefetch<S: Simd>(&mut self, s: S) {
        for i in 0..Self::LINES {
            s.prefetch(self.at.wrapping_add(i * self.line));
        }
        self.at = self.at.wrapping_add(self.step);
    }

    /// Nothing, from an address on that is no matter.
    pub(super) const fn nothing() -> Self {
        Self { at: std::ptr::null(), step: 0, line: 0 }
    }

    /// The share of `panel` that tile number `tile` prefetches; nothing new once all is. A place holds
    /// `terms` terms.
    ///
    /// Rows of a few lines are prefetched by their ends: where a row begins in the middle of a line,
    /// the panel before it has read that line already.
    pub(super) fn of(panel: &Panel<'_>, tile: usize, terms: usize) -> Self {
        const LINE: usize = 64;
        let (at, size) = match panel.data {
            Floats::F32(data) => (data.as_ptr().cast::<u8>(), 4),
            Floats::Bf16(data) => (data.as_ptr().cast(), 2),
            Floats::F16(data) => (data.as_ptr().cast(), 2),
        };
        let line = panel.ld * size;
        let (skip, step) = match panel.layout {
            Layout::KInner if tile * Self::LINES < panel.len => {
                (tile * Self::LINES * line, Self::EVERY * terms * size)
            }
            Layout::KOuter if tile / 4 * LINE < panel.len * size => {
                let quarter = panel.kc.div_ceil(4).next_multiple_of(Self::LINES);
                (tile % 4 * quarter * line + tile / 4 * LINE + LINE - 1, Self::LINES * line)
            }
            _ => return Self { at, step: 0, line: 0 },
        };
        Self { at: at.wrapping_add(skip), step, line }
    }
}

/// A few rows of `C`: overwritten with the product of rows of `A` with a panel of `B` whose terms lie
/// side by side, neither of them packed, or added to.
#[derive(Clone, Copy)]
pub(super) struct Few<'a> {
    /// Rows of `A` and of `C`.
    pub(super) rows: usize,
    /// The rows of `A`, of `panel.kc` elements, `lda` elements apart.
    pub(super) a: *const f32,
    pub(super) lda: usize,
    /// The rows of `B`. They end `left` terms after their beginning; those of the next panel follow.
    pub(super) panel: Panel<'a>,
    pub(super) left: usize,
    /// The elements of `C`, `[rows, panel.len]`, their rows `ldc` elements apart.
    pub(super) c: *mut f32,
    pub(super) ldc: usize,
    /// Whether the product is added to what `c` holds.
    pub(super) add: bool,
}

impl Few<'_> {
    /// Computes the rows.
    ///
    /// # Safety
    /// `1 <= rows <= FEW`, `panel.len <= S::LANES`, and the pointers are to what the fields say.
    pub(super) unsafe fn compute<S: Simd>(&self, s: S) {
        // SAFETY: the caller's promises.
        unsafe {
            match self.panel.data {
                Floats::F32(data) => self.of(s, data),
                Floats::Bf16(data) => self.of(s, data),
                Floats::F16(data) => self.of(s, data),
            }
        }
    }

    /// Computes the rows, `data` being the elements of the panel, in a function for their number.
    ///
    /// # Safety
    /// As [`compute`](Self::compute).
    unsafe fn of<S: Simd, T: Element>(&self, s: S, data: &[T]) {
        macro_rules! by_rows {
            ($($rows:literal)*) => {
                match self.rows {
                    $($rows => s.run(FewOf::<_, $rows> { few: self, data }),)*
                    _ => s.run(FewOf::<_, FEW> { few: self, data }),
                }
            };
        }
        by_rows!(1 2 3 4 5 6 7)
    }
}

/// The [`Few`] of `R` rows, `data` being the elements of the panel.
struct FewOf<'a, T, const R: usize> {
    few: &'a Few<'a>,
    data: &'a [T],
}

impl<T: Element, const R: usize> Kernel for FewOf<'_, T, R> {
    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        let Few { a, lda, panel, left, c, ldc, add, .. } = *self.few;
        let Panel { ld, len, kc, .. } = panel;
        let mut acc = [s.splat(0.0); R];
        // SAFETY: `len` rows of `kc` elements of the panel, `R` rows of as many of `A` and the elements
        // of `C` are there, as whoever made this says; prefetching touches nothing.
        unsafe {
            for p in (0..kc).step_by(S::LANES) {
                let terms = (kc - p).min(S::LANES);
                let from = self.data.as_ptr().wrapping_add(p);
                let next = from.wrapping_add(ahead(p, left, ld, S::LANES));
                for i in 0..S::LANES {
                    s.prefetch(next.wrapping_add(i * ld).cast());
                }
                let columns = columns_of(s, Single, from, ld, len, terms);
                let a = a.add(p);
                if terms == S::LANES {
                    for q in 0..S::LANES {
                        for r in 0..R {
                            let x = s.splat(*a.add(r * lda + q));
                            acc[r] = s.mul_add(x, columns[q], acc[r]);
                        }
                    }
                } else {
                    for q in 0..terms {
                        for r in 0..R {
                            let x = s.splat(*a.add(r * lda + q));
                            acc[r] = s.mul_add(x, columns[q], acc[r]);
                        }
                    }
                }
            }
            for r in 0..R {
                let c = c.add(r * ldc);
                let sum = if add { s.add(s.read_first(c, len), acc[r]) } else { acc[r] };
                s.write_first(sum, c, len);
            }
        }
    }
}

/// How far behind element `p` of a row of an unpacked panel lies what will be read [`AHEAD`] terms
/// later: in the same row, or in the row as far down in the next panel of `lanes` rows.
fn ahead(p: usize, left: usize, ld: usize, lanes: usize) -> usize {
    if p + AHEAD < left { AHEAD } else { AHEAD + (lanes - 1) * ld }
}
