//! The tile kernel for AVX-512: 14 rows of two vectors.

use std::arch::x86_64::*;

use half::{bf16, f16};

use super::{FEW, Few, Kernel, Layout, Next, Panel, Tile, ahead};
use crate::weights::Floats;

/// Elements of a vector.
const LANES: usize = 16;
/// Vectors of a row of a tile.
const NV: usize = 2;

/// The kernel of processors with AVX-512.
pub(super) struct Avx512;

impl Kernel for Avx512 {
    const MR: usize = 14;
    const NR: usize = NV * LANES;
    const LANES: usize = LANES;

    unsafe fn pack(panel: Panel<'_>, stride: usize, out: &mut [f32]) {
        // SAFETY: the caller has checked the instruction set and the length of `out`.
        unsafe {
            match panel.data {
                Floats::F32(data) => pack(data, panel, stride, out),
                Floats::Bf16(data) => pack(data, panel, stride, out),
                Floats::F16(data) => pack(data, panel, stride, out),
            }
        }
    }

    unsafe fn tile(work: Tile) {
        macro_rules! by_rows {
            ($($r:literal)*) => {
                // SAFETY: the caller's promises are those of `tile`.
                unsafe {
                    match work.rows {
                        $($r => tile::<$r>(work),)*
                        _ => tile::<{ Self::MR }>(work),
                    }
                }
            };
        }
        by_rows!(1 2 3 4 5 6 7 8 9 10 11 12 13)
    }

    unsafe fn few(work: Few<'_>) {
        macro_rules! by_rows {
            ($data:ident: $($r:literal)*) => {
                // SAFETY: the caller's promises are those of `few`.
                unsafe {
                    match work.rows {
                        $($r => few::<_, $r>($data, work),)*
                        _ => few::<_, FEW>($data, work),
                    }
                }
            };
        }
        match work.panel.data {
            Floats::F32(data) => by_rows!(data: 1 2 3 4 5 6 7),
            Floats::Bf16(data) => by_rows!(data: 1 2 3 4 5 6 7),
            Floats::F16(data) => by_rows!(data: 1 2 3 4 5 6 7),
        }
    }
}

/// # Safety
/// As [`Kernel::tile`], with `rows` equal to `R`.
#[target_feature(enable = "avx512f")]
unsafe fn tile<const R: usize>(work: Tile) {
    let Tile { kc, a, b, c, ldc, add, next, .. } = work;
    // SAFETY: every address is one of the panels' or the tile's elements, which the caller vouches
    // for; prefetching touches nothing.
    unsafe {
        for i in 0..R {
            for v in 0..NV {
                _mm_prefetch::<_MM_HINT_T0>(c.add(i * ldc + v * LANES).cast());
            }
        }
        let mut sums = [[_mm512_setzero_ps(); NV]; R];
        let (mut p, mut next_at) = (0, next.at);
        while p < kc {
            for i in 0..Next::LINES {
                _mm_prefetch::<_MM_HINT_T1>(next_at.wrapping_add(i * next.line).cast());
            }
            next_at = next_at.wrapping_add(next.step);
            for q in p..kc.min(p + Next::EVERY) {
                let mut line = [_mm512_setzero_ps(); NV];
                for v in 0..NV {
                    line[v] = _mm512_loadu_ps(b.add(q * Avx512::NR + v * LANES));
                }
                for i in 0..R {
                    let x = _mm512_set1_ps(*a.add(q * R + i));
                    for v in 0..NV {
                        sums[i][v] = _mm512_fmadd_ps(x, line[v], sums[i][v]);
                    }
                }
            }
            p += Next::EVERY;
        }
        for i in 0..R {
            for v in 0..NV {
                let c = c.add(i * ldc + v * LANES);
                let before = if add { _mm512_loadu_ps(c) } else { _mm512_setzero_ps() };
                let sum = if add { _mm512_add_ps(before, sums[i][v]) } else { sums[i][v] };
                _mm512_storeu_ps(c, sum);
            }
        }
    }
}

/// # Safety
/// As [`Kernel::pack`], with the elements of `panel` in `data`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn pack<T: Load>(data: &[T], panel: Panel<'_>, stride: usize, out: &mut [f32]) {
    let Panel { layout, ld, len, kc, .. } = panel;
    let (data, out) = (data.as_ptr(), out.as_mut_ptr());
    // SAFETY: the vectors `0..len` and the terms `0..kc` are elements of `data`, no other is read;
    // `out` has room for `kc` lines of `stride` and for what a last vector writes beyond them.
    unsafe {
        match layout {
            Layout::KInner => {
                for i in (0..stride).step_by(LANES) {
                    let rows = len.saturating_sub(i).min(LANES);
                    transpose(data.wrapping_add(i * ld), ld, rows, kc, out.add(i), stride);
                }
            }
            Layout::KOuter => {
                for p in 0..kc {
                    let (from, to) = (data.add(p * ld), out.add(p * stride));
                    if len == Avx512::NR && stride == Avx512::NR {
                        for v in 0..NV {
                            let line = T::load(from.add(v * LANES), LANES);
                            _mm512_storeu_ps(to.add(v * LANES), line);
                        }
                        continue;
                    }
                    for i in (0..stride).step_by(LANES) {
                        let count = len.saturating_sub(i).min(LANES);
                        _mm512_storeu_ps(to.add(i), T::load(from.wrapping_add(i), count));
                    }
                }
            }
        }
    }
}

/// Writes element `p` of row `i`, of `rows <= 16` rows, to `out[p * stride + i]`, and zeros or the
/// beginning of the next line to the lanes from `rows` to 16.
///
/// # Safety
/// AVX-512 F, BW and VL; `kc` elements of each row can be read, `16` elements of each line written.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn transpose<T: Load>(
    data: *const T,
    ld: usize,
    rows: usize,
    kc: usize,
    out: *mut f32,
    stride: usize,
) {
    for p in (0..kc).step_by(LANES) {
        let terms = (kc - p).min(LANES);
        // SAFETY: `terms` elements of each of the `rows` rows are read, and as many lines written.
        unsafe {
            let square = transposed(square(data.wrapping_add(p), ld, rows, terms));
            if terms == LANES {
                for q in 0..LANES {
                    _mm512_storeu_ps(out.add((p + q) * stride), square[q]);
                }
            } else {
                for q in 0..terms {
                    _mm512_storeu_ps(out.add((p + q) * stride), square[q]);
                }
            }
        }
    }
}

/// The first `terms` elements of `rows` rows, `ld` apart; the rest is zero.
///
/// # Safety
/// AVX-512 F, BW and VL; these elements can be read.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
#[inline]
unsafe fn square<T: Load>(data: *const T, ld: usize, rows: usize, terms: usize) -> Square {
    let mut square = [_mm512_setzero_ps(); LANES];
    // SAFETY: these elements can be read.
    unsafe {
        if rows == LANES && terms == LANES {
            for i in 0..LANES {
                square[i] = T::load(data.add(i * ld), LANES);
            }
        } else {
            for i in 0..rows {
                square[i] = T::load(data.add(i * ld), terms);
            }
        }
    }
    square
}

/// As many vectors as a vector has elements.
type Square = [__m512; LANES];

/// # Safety
/// As [`Kernel::few`], with `rows` equal to `R` and the elements of `panel` in `data`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn few<T: Load, const R: usize>(data: &[T], work: Few<'_>) {
    let Few { a, lda, panel, left, c, ldc, add, .. } = work;
    let Panel { ld, len, kc, .. } = panel;
    let mut sums = [_mm512_setzero_ps(); R];
    // SAFETY: `len` rows of `kc` elements of the panel, `R` rows of as many of `A` and the elements
    // of `C` are there, as the caller says; prefetching touches nothing.
    unsafe {
        for p in (0..kc).step_by(LANES) {
            let terms = (kc - p).min(LANES);
            let from = data.as_ptr().wrapping_add(p);
            let next = from.wrapping_add(ahead(p, left, ld, LANES));
            for i in 0..LANES {
                _mm_prefetch::<_MM_HINT_T1>(next.wrapping_add(i * ld).cast());
            }
            let columns = transposed(square(from, ld, len, terms));
            let a = a.add(p);
            if terms == LANES {
                for q in 0..LANES {
                    for r in 0..R {
                        let x = _mm512_set1_ps(*a.add(r * lda + q));
                        sums[r] = _mm512_fmadd_ps(x, columns[q], sums[r]);
                    }
                }
            } else {
                for q in 0..terms {
                    for r in 0..R {
                        let x = _mm512_set1_ps(*a.add(r * lda + q));
                        sums[r] = _mm512_fmadd_ps(x, columns[q], sums[r]);
                    }
                }
            }
        }
        for r in 0..R {
            let c = c.add(r * ldc);
            let before = _mm512_maskz_loadu_ps(below(len), c);
            let sum = if add { _mm512_add_ps(before, sums[r]) } else { sums[r] };
            _mm512_mask_storeu_ps(c, below(len), sum);
        }
    }
}

#[target_feature(enable = "avx512f")]
#[inline]
fn transposed(rows: Square) -> Square {
    // Vector `4 g + j` of `quads` holds, in its 128-bit part `l`, column `4 l + j` of rows `4 g ..`.
    let mut quads = rows;
    for g in (0..LANES).step_by(4) {
        let low = |a, b| _mm512_castps_pd(_mm512_unpacklo_ps(rows[a], rows[b]));
        let high = |a, b| _mm512_castps_pd(_mm512_unpackhi_ps(rows[a], rows[b]));
        let (l0, l1) = (low(g, g + 1), low(g + 2, g + 3));
        let (h0, h1) = (high(g, g + 1), high(g + 2, g + 3));
        quads[g] = _mm512_castpd_ps(_mm512_unpacklo_pd(l0, l1));
        quads[g + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(l0, l1));
        quads[g + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(h0, h1));
        quads[g + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(h0, h1));
    }
    let mut columns = rows;
    for j in 0..4 {
        let even = |a, b| _mm512_shuffle_f32x4::<0x88>(a, b);
        let odd = |a, b| _mm512_shuffle_f32x4::<0xdd>(a, b);
        let (a, b, c, d) = (quads[j], quads[4 + j], quads[8 + j], quads[12 + j]);
        columns[j] = even(even(a, b), even(c, d));
        columns[4 + j] = even(odd(a, b), odd(c, d));
        columns[8 + j] = odd(even(a, b), even(c, d));
        columns[12 + j] = odd(odd(a, b), odd(c, d));
    }
    columns
}

/// Elements loaded sixteen at a time.
trait Load: Copy {
    /// Sixteen elements from `from`, of which only the first `count` are read; the rest are zero.
    ///
    /// # Safety
    /// AVX-512 F, BW and VL; `count` elements can be read.
    unsafe fn load(from: *const Self, count: usize) -> __m512;
}

/// The lanes below `count`.
fn below(count: usize) -> __mmask16 {
    ((1u32 << count) - 1) as __mmask16
}

impl Load for f32 {
    #[target_feature(enable = "avx512f")]
    #[inline]
    unsafe fn load(from: *const Self, count: usize) -> __m512 {
        // SAFETY: only the first `count` elements are read.
        unsafe { _mm512_maskz_loadu_ps(below(count), from) }
    }
}

impl Load for bf16 {
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    #[inline]
    unsafe fn load(from: *const Self, count: usize) -> __m512 {
        // SAFETY: only the first `count` elements are read.
        let bits = unsafe { _mm256_maskz_loadu_epi16(below(count), from.cast()) };
        _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(bits)))
    }
}

impl Load for f16 {
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    #[inline]
    unsafe fn load(from: *const Self, count: usize) -> __m512 {
        // SAFETY: only the first `count` elements are read.
        _mm512_cvtph_ps(unsafe { _mm256_maskz_loadu_epi16(below(count), from.cast()) })
    }
}
