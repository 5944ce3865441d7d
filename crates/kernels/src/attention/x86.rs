//! The vectors of AVX2 and AVX-512.

use std::arch::x86_64::*;

use super::simd::Simd;

/// Implements [`Simd`] by the intrinsics of one instruction set.
macro_rules! vectors {
    (
        $(#[$doc:meta])*
        $name:ident: $vector:ident, lanes $lanes:literal, rows $rows:literal,
        $splat:ident $read:ident $write:ident $add:ident $sub:ident $mul:ident $mul_add:ident
        $max:ident,
        zero_below($x:ident, $floor:ident, $value:ident) $zero_below:block,
        as_exponent($bits:ident) $as_exponent:block
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy)]
        pub(super) struct $name(());

        impl $name {
            /// Vectors of this instruction set.
            ///
            /// # Safety
            /// The processor must have the instructions.
            #[inline(always)]
            pub(super) unsafe fn new() -> Self {
                Self(())
            }
        }

        impl Simd for $name {
            type V = $vector;
            const LANES: usize = $lanes;
            const ROWS: usize = $rows;

            #[inline(always)]
            fn splat(self, x: f32) -> Self::V {
                // SAFETY: `self` proves that the processor has the instruction.
                unsafe { $splat(x) }
            }
            #[inline(always)]
            unsafe fn read(self, from: *const f32) -> Self::V {
                // SAFETY: as in `splat`; the caller gives `LANES` elements.
                unsafe { $read(from) }
            }
            #[inline(always)]
            unsafe fn write(self, v: Self::V, to: *mut f32) {
                // SAFETY: as in `read`.
                unsafe { $write(to, v) }
            }
            #[inline(always)]
            fn add(self, a: Self::V, b: Self::V) -> Self::V {
                // SAFETY: as in `splat`.
                unsafe { $add(a, b) }
            }
            #[inline(always)]
            fn sub(self, a: Self::V, b: Self::V) -> Self::V {
                // SAFETY: as in `splat`.
                unsafe { $sub(a, b) }
            }
            #[inline(always)]
            fn mul(self, a: Self::V, b: Self::V) -> Self::V {
                // SAFETY: as in `splat`.
                unsafe { $mul(a, b) }
            }
            #[inline(always)]
            fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
                // SAFETY: as in `splat`.
                unsafe { $mul_add(a, b, c) }
            }
            #[inline(always)]
            fn max(self, a: Self::V, b: Self::V) -> Self::V {
                // SAFETY: as in `splat`.
                unsafe { $max(a, b) }
            }
            #[inline(always)]
            fn zero_below(self, $x: Self::V, $floor: f32, $value: Self::V) -> Self::V {
                // SAFETY: as in `splat`.
                unsafe { $zero_below }
            }
            #[inline(always)]
            fn as_exponent(self, $bits: Self::V) -> Self::V {
                // SAFETY: as in `splat`.
                unsafe { $as_exponent }
            }
        }
    };
}

vectors! {
    /// Eight elements, sixteen registers.
    Avx2: __m256, lanes 8, rows 6,
    _mm256_set1_ps _mm256_loadu_ps _mm256_storeu_ps _mm256_add_ps _mm256_sub_ps _mm256_mul_ps
    _mm256_fmadd_ps _mm256_max_ps,
    zero_below(x, floor, value) {
        _mm256_andnot_ps(_mm256_cmp_ps::<_CMP_LT_OQ>(x, _mm256_set1_ps(floor)), value)
    },
    as_exponent(bits) {
        _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_castps_si256(bits)))
    }
}

vectors! {
    /// Sixteen elements, thirty-two registers.
    Avx512: __m512, lanes 16, rows 8,
    _mm512_set1_ps _mm512_loadu_ps _mm512_storeu_ps _mm512_add_ps _mm512_sub_ps _mm512_mul_ps
    _mm512_fmadd_ps _mm512_max_ps,
    zero_below(x, floor, value) {
        _mm512_maskz_mov_ps(_mm512_cmp_ps_mask::<_CMP_NLT_UQ>(x, _mm512_set1_ps(floor)), value)
    },
    as_exponent(bits) {
        _mm512_castsi512_ps(_mm512_slli_epi32::<23>(_mm512_castps_si512(bits)))
    }
}
