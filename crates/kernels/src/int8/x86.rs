//! The vectors of AVX-512 and AVX2, with the byte products of VNNI where the processor has them.

use std::arch::x86_64::*;

use super::{TURN, WIDTH, kernel::Simd};
use crate::{blocks::Ymm, gemm::transposed};

/// Sixteen lanes; AVX-512 F, BW, VL and VNNI.
#[derive(Clone, Copy)]
pub(super) struct Wide(());

/// Eight lanes, of the same instruction sets.
#[derive(Clone, Copy)]
pub(super) struct Narrow(());

/// Eight lanes; AVX-VNNI and FMA.
#[derive(Clone, Copy)]
pub(super) struct AvxVnni(());

/// Eight lanes; AVX2 and FMA.
#[derive(Clone, Copy)]
pub(super) struct Avx2(());

impl Wide {
    /// # Safety
    /// The processor has AVX-512 F, BW, VL and VNNI.
    pub(super) unsafe fn new() -> Self {
        Self(())
    }
}

impl Narrow {
    /// # Safety
    /// The processor has AVX-512 F, BW, VL and VNNI.
    pub(super) unsafe fn new() -> Self {
        Self(())
    }
}

impl AvxVnni {
    /// # Safety
    /// The processor has AVX2, AVX-VNNI and FMA.
    pub(super) unsafe fn new() -> Self {
        Self(())
    }
}

impl Avx2 {
    /// # Safety
    /// The processor has AVX2 and FMA.
    pub(super) unsafe fn new() -> Self {
        Self(())
    }
}

/// The operations that differ in the names of the intrinsics only.
macro_rules! common {
    ($ints:ty, $floats:ty, $lanes:literal, $load:ident, $load_ps:ident, $store_ps:ident,
     $set_ps:ident, $set:ident, $add:ident, $sub:ident, $shift:ident, $convert:ident, $fma:ident,
     $fnma:ident) => {
        type Ints = $ints;
        type Floats = $floats;
        type Bytes = Ymm;
        const LANES: usize = $lanes;

        #[inline(always)]
        fn bytes(self) -> Ymm {
            // SAFETY: whoever made `self` has these instructions too.
            unsafe { Ymm::new() }
        }

        #[inline(always)]
        unsafe fn ints(self, from: *const i32) -> Self::Ints {
            // SAFETY: the elements can be read, and whoever made `self` has the instructions.
            unsafe { $load(from.cast()) }
        }

        #[inline(always)]
        unsafe fn floats(self, from: *const f32) -> Self::Floats {
            // SAFETY: as above.
            unsafe { $load_ps(from) }
        }

        #[inline(always)]
        unsafe fn write(self, v: Self::Floats, to: *mut f32) {
            // SAFETY: the elements can be written; the instructions are there.
            unsafe { $store_ps(to, v) }
        }

        #[inline(always)]
        fn prefetch(self, at: *const u8) {
            // SAFETY: prefetching touches nothing.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(at.cast()) }
        }

        #[inline(always)]
        fn splat(self, x: f32) -> Self::Floats {
            // SAFETY: whoever made `self` has the instructions.
            unsafe { $set_ps(x) }
        }

        #[inline(always)]
        fn splat_int(self, x: i32) -> Self::Ints {
            // SAFETY: as above.
            unsafe { $set(x) }
        }

        #[inline(always)]
        fn add(self, a: Self::Ints, b: Self::Ints) -> Self::Ints {
            // SAFETY: as above.
            unsafe { $add(a, b) }
        }

        #[inline(always)]
        fn minus_shifted(self, a: Self::Ints, bits: u32) -> Self::Ints {
            // SAFETY: as above.
            unsafe { $sub($set(0), $shift(a, _mm_cvtsi32_si128(bits as i32))) }
        }

        #[inline(always)]
        fn to_floats(self, a: Self::Ints) -> Self::Floats {
            // SAFETY: as above.
            unsafe { $convert(a) }
        }

        #[inline(always)]
        fn mul_add(self, a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats {
            // SAFETY: as above.
            unsafe { $fma(a, b, c) }
        }

        #[inline(always)]
        fn neg_mul_add(self, a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats {
            // SAFETY: as above.
            unsafe { $fnma(a, b, c) }
        }
    };
}

macro_rules! common_256 {
    () => {
        common!(
            __m256i,
            __m256,
            8,
            _mm256_loadu_si256,
            _mm256_loadu_ps,
            _mm256_storeu_ps,
            _mm256_set1_ps,
            _mm256_set1_epi32,
            _mm256_add_epi32,
            _mm256_sub_epi32,
            _mm256_sll_epi32,
            _mm256_cvtepi32_ps,
            _mm256_fmadd_ps,
            _mm256_fnmadd_ps
        );
    };
}

impl Simd for Wide {
    common!(
        __m512i,
        __m512,
        16,
        _mm512_loadu_si512,
        _mm512_loadu_ps,
        _mm512_storeu_ps,
        _mm512_set1_ps,
        _mm512_set1_epi32,
        _mm512_add_epi32,
        _mm512_sub_epi32,
        _mm512_sll_epi32,
        _mm512_cvtepi32_ps,
        _mm512_fmadd_ps,
        _mm512_fnmadd_ps
    );

    #[inline(always)]
    fn dot(self, sum: __m512i, codes: __m512i, bytes: __m512i, _: bool) -> __m512i {
        // SAFETY: the instructions are there.
        unsafe { _mm512_dpbusd_epi32(sum, codes, bytes) }
    }
}

impl Simd for Narrow {
    common_256!();

    #[inline(always)]
    fn dot(self, sum: __m256i, codes: __m256i, bytes: __m256i, _: bool) -> __m256i {
        // SAFETY: the instructions are there.
        unsafe { _mm256_dpbusd_epi32(sum, codes, bytes) }
    }
}

impl Simd for AvxVnni {
    common_256!();

    #[inline(always)]
    fn dot(self, sum: __m256i, codes: __m256i, bytes: __m256i, _: bool) -> __m256i {
        // SAFETY: the instructions are there.
        unsafe { _mm256_dpbusd_avx_epi32(sum, codes, bytes) }
    }
}

impl Simd for Avx2 {
    common_256!();

    /// `vpmaddubsw` adds two products in 16 bits, which small codes cannot leave; with others the bytes
    /// are widened first.
    #[inline(always)]
    fn dot(self, sum: __m256i, codes: __m256i, bytes: __m256i, small: bool) -> __m256i {
        // SAFETY: the instructions are there.
        unsafe {
            if small {
                let pairs = _mm256_maddubs_epi16(codes, bytes);
                return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
            }
            let even_codes = _mm256_and_si256(codes, _mm256_set1_epi16(0xff));
            let odd_codes = _mm256_srli_epi16::<8>(codes);
            let even = _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(bytes));
            let odd = _mm256_srai_epi16::<8>(bytes);
            let sum = _mm256_add_epi32(sum, _mm256_madd_epi16(even_codes, even));
            _mm256_add_epi32(sum, _mm256_madd_epi16(odd_codes, odd))
        }
    }
}

/// Turns a square: element `i` of line `j` of `sums`, the lines `stride` apart, to `lines[i][at + j]`.
#[target_feature(enable = "avx2")]
pub(super) fn turn(sums: &[f32], stride: usize, lines: &mut [[f32; WIDTH]; TURN], at: usize) {
    let mut square = [_mm256_setzero_ps(); TURN];
    for (j, line) in square.iter_mut().enumerate() {
        let from = &sums[j * stride..][..TURN];
        // SAFETY: the slice has as many elements as the vector.
        *line = unsafe { _mm256_loadu_ps(from.as_ptr()) };
    }
    for (line, turned) in lines.iter_mut().zip(transposed(square)) {
        let to = &mut line[at..][..TURN];
        // SAFETY: as above.
        unsafe { _mm256_storeu_ps(to.as_mut_ptr(), turned) };
    }
}
