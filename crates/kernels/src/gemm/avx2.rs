//! The tile kernel for AVX2 with FMA: 6 rows of two vectors.

use std::arch::x86_64::*;

use half::{bf16, f16};

use super::{FEW, Few, Kernel, Layout, Next, Panel, Tile, ahead};
use crate::weights::Floats;

/// Elements of a vector.
const LANES: usize = 8;
/// Vectors of a row of a tile.
const NV: usize = 2;

/// The kernel of processors with AVX2, FMA and F16C.
pub(super) struct Avx2;

impl Kernel for Avx2 {
    const MR: usize = 6;
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
        // SAFETY: the caller's promises are those of `tile`.
        unsafe {
            match work.rows {
                1 => tile::<1>(work),
                2 => tile::<2>(work),
                3 => tile::<3>(work),
                4 => tile::<4>(work),
                5 => tile::<5>(work),
                _ => tile::<{ Self::MR }>(work),
            }
        }
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
#[target_feature(enable = "avx2,fma")]
unsafe fn tile<const R: usize>(work: Tile) {
    let Tile { kc, a, b, c, ldc, add, next, .. } = work;
    // SAFETY: every address is one of the panels' or the tile's elements, which the caller vouches
    // for; prefetching touches nothing.
    unsafe {
        for i in 0..R {
            _mm_prefetch::<_MM_HINT_T0>(c.add(i * ldc).cast());
            _mm_prefetch::<_MM_HINT_T0>(c.add(i * ldc + Avx2::NR - 1).cast());
        }
        let mut sums = [[_mm256_setzero_ps(); NV]; R];
        let (mut p, mut next_at) = (0, next.at);
        while p < kc {
            for i in 0..Next::LINES {
                _mm_prefetch::<_MM_HINT_T1>(next_at.wrapping_add(i * next.line).cast());
            }
            next_at = next_at.wrapping_add(next.step);
            for q in p..kc.min(p + Next::EVERY) {
                let mut line = [_mm256_setzero_ps(); NV];
                for v in 0..NV {
                    line[v] = _mm256_loadu_ps(b.add(q * Avx2::NR + v * LANES));
                }
                for i in 0..R {
                    let x = _mm256_set1_ps(*a.add(q * R + i));
                    for v in 0..NV {
                        sums[i][v] = _mm256_fmadd_ps(x, line[v], sums[i][v]);
                    }
                }
            }
            p += Next::EVERY;
        }
        for i in 0..R {
            for v in 0..NV {
                let c = c.add(i * ldc + v * LANES);
                let sum = sums[i][v];
                _mm256_storeu_ps(c, if add { _mm256_add_ps(_mm256_loadu_ps(c), sum) } else { sum });
            }
        }
    }
}

/// # Safety
/// As [`Kernel::pack`], with the elements of `panel` in `data`.
#[target_feature(enable = "avx2,f16c")]
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
                    for i in (0..stride).step_by(LANES) {
                        let from = data.wrapping_add(p * ld + i);
                        let line = first(from, len.saturating_sub(i).min(LANES));
                        _mm256_storeu_ps(out.add(p * stride + i), line);
                    }
                }
            }
        }
    }
}

/// Writes element `p` of row `i`, of `rows <= 8` rows, to `out[p * stride + i]`, and zeros or the
/// beginning of the next line to the lanes from `rows` to 8.
///
/// # Safety
/// AVX2 and F16C; `kc` elements of each row can be read, `8` elements of each line written.
#[target_feature(enable = "avx2,f16c")]
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
                    _mm256_storeu_ps(out.add((p + q) * stride), square[q]);
                }
            } else {
                for q in 0..terms {
                    _mm256_storeu_ps(out.add((p + q) * stride), square[q]);
                }
            }
        }
    }
}

/// The first `terms` elements of `rows` rows, `ld` apart; the rest is zero.
///
/// # Safety
/// AVX2 and F16C; these elements can be read.
#[target_feature(enable = "avx2,f16c")]
#[inline]
unsafe fn square<T: Load>(data: *const T, ld: usize, rows: usize, terms: usize) -> Square {
    let mut square = [_mm256_setzero_ps(); LANES];
    // SAFETY: these elements can be read.
    unsafe {
        if rows == LANES && terms == LANES {
            for i in 0..LANES {
                square[i] = T::load(data.add(i * ld));
            }
        } else {
            for i in 0..rows {
                square[i] = first(data.add(i * ld), terms);
            }
        }
    }
    square
}

/// As many vectors as a vector has elements.
pub(crate) type Square = [__m256; LANES];

/// # Safety
/// As [`Kernel::few`], with `rows` equal to `R` and the elements of `panel` in `data`.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn few<T: Load, const R: usize>(data: &[T], work: Few<'_>) {
    let Few { a, lda, panel, left, c, ldc, add, .. } = work;
    let Panel { ld, len, kc, .. } = panel;
    let mut sums = [_mm256_setzero_ps(); R];
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
                        let x = _mm256_set1_ps(*a.add(r * lda + q));
                        sums[r] = _mm256_fmadd_ps(x, columns[q], sums[r]);
                    }
                }
            } else {
                for q in 0..terms {
                    for r in 0..R {
                        let x = _mm256_set1_ps(*a.add(r * lda + q));
                        sums[r] = _mm256_fmadd_ps(x, columns[q], sums[r]);
                    }
                }
            }
        }
        for r in 0..R {
            let mut line = [0.0f32; LANES];
            _mm256_storeu_ps(line.as_mut_ptr(), sums[r]);
            let c = std::slice::from_raw_parts_mut(c.add(r * ldc), len);
            for (c, sum) in c.iter_mut().zip(line) {
                *c = if add { *c + sum } else { sum };
            }
        }
    }
}

#[target_feature(enable = "avx2")]
#[inline]
pub(crate) fn transposed(rows: Square) -> Square {
    // Vector `4 g + j` of `quads` holds, in its 128-bit part `l`, column `4 l + j` of rows `4 g ..`.
    let mut quads = rows;
    for g in (0..LANES).step_by(4) {
        let low = |a, b| _mm256_castps_pd(_mm256_unpacklo_ps(rows[a], rows[b]));
        let high = |a, b| _mm256_castps_pd(_mm256_unpackhi_ps(rows[a], rows[b]));
        let (l0, l1) = (low(g, g + 1), low(g + 2, g + 3));
        let (h0, h1) = (high(g, g + 1), high(g + 2, g + 3));
        quads[g] = _mm256_castpd_ps(_mm256_unpacklo_pd(l0, l1));
        quads[g + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(l0, l1));
        quads[g + 2] = _mm256_castpd_ps(_mm256_unpacklo_pd(h0, h1));
        quads[g + 3] = _mm256_castpd_ps(_mm256_unpackhi_pd(h0, h1));
    }
    let mut columns = rows;
    for j in 0..4 {
        columns[j] = _mm256_permute2f128_ps::<0x20>(quads[j], quads[4 + j]);
        columns[4 + j] = _mm256_permute2f128_ps::<0x31>(quads[j], quads[4 + j]);
    }
    columns
}

/// Eight elements from `from`, of which only the first `count` are read; the rest are zero.
///
/// # Safety
/// AVX2 and F16C; `count` elements can be read.
#[target_feature(enable = "avx2,f16c")]
#[inline]
unsafe fn first<T: Load>(from: *const T, count: usize) -> __m256 {
    // SAFETY: a whole vector is read from `from` only where it holds one.
    unsafe {
        if count == LANES {
            return T::load(from);
        }
        let mut some = [T::default(); LANES];
        for i in 0..count {
            some[i] = *from.add(i);
        }
        T::load(some.as_ptr())
    }
}

/// Elements loaded eight at a time.
trait Load: Copy + Default {
    /// Eight elements from `from`.
    ///
    /// # Safety
    /// AVX2 and F16C; eight elements can be read.
    unsafe fn load(from: *const Self) -> __m256;
}

impl Load for f32 {
    #[target_feature(enable = "avx2")]
    #[inline]
    unsafe fn load(from: *const Self) -> __m256 {
        // SAFETY: eight elements can be read.
        unsafe { _mm256_loadu_ps(from) }
    }
}

impl Load for bf16 {
    #[target_feature(enable = "avx2")]
    #[inline]
    unsafe fn load(from: *const Self) -> __m256 {
        // SAFETY: eight elements can be read.
        let bits = unsafe { _mm_loadu_si128(from.cast()) };
        _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(bits)))
    }
}

impl Load for f16 {
    #[target_feature(enable = "avx2,f16c")]
    #[inline]
    unsafe fn load(from: *const Self) -> __m256 {
        // SAFETY: eight elements can be read.
        _mm256_cvtph_ps(unsafe { _mm_loadu_si128(from.cast()) })
    }
}
