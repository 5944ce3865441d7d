//! The vectors of AVX2 and AVX-512, each with and without VNNI.

use std::{arch::x86_64::*, mem::transmute};

use half::{bf16, f16};

use super::{Kernel, RUN, RUN_ROWS, Simd, padded};

/// Defines an instruction set: the extensions that [`Simd::run`] compiles for.
macro_rules! instruction_set {
    ($(#[$doc:meta])* $name:ident, $features:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy)]
        pub(super) struct $name(());

        impl $name {
            /// # Safety
            /// The processor has these extensions.
            #[inline(always)]
            pub(super) unsafe fn new() -> Self {
                Self(())
            }

            #[target_feature(enable = $features)]
            fn compiled(self, kernel: impl Kernel) {
                kernel.call(self);
            }
        }
    };
}

instruction_set! {
    /// Eight elements, sixteen registers.
    Avx2, "avx2,fma,f16c"
}
instruction_set! {
    /// Eight elements, sixteen registers, products of bytes.
    AvxVnni, "avx2,avxvnni,fma,f16c"
}
instruction_set! {
    /// Sixteen elements, thirty-two registers.
    Avx512, "avx512f,avx512bw,avx512dq,avx512vl,fma,f16c"
}
instruction_set! {
    /// Sixteen elements, thirty-two registers, products of bytes.
    Avx512Vnni, "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,fma,f16c"
}
instruction_set! {
    /// Sixteen elements, thirty-two registers, products of pairs of `bf16`.
    Avx512Bf16, "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,fma,f16c"
}
instruction_set! {
    /// Eight elements, of the same instructions.
    NarrowVnni, "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,fma,f16c"
}

/// Defines operations that are one intrinsic each.
macro_rules! intrinsics {
    ($($name:ident($($arg:ident: $type:ty),*) -> $result:ty = $intrinsic:ident;)*) => {$(
        #[inline(always)]
        fn $name(self, $($arg: $type),*) -> $result {
            // SAFETY: `self` proves that the processor has the instruction.
            unsafe { $intrinsic($($arg),*) }
        }
    )*};
}

/// Defines `dot` as a product of VNNI.
macro_rules! dot_vnni {
    ($vector:ident, $dot:ident) => {
        #[inline(always)]
        fn dot(self, sum: $vector, codes: $vector, bytes: $vector, _: bool) -> $vector {
            // SAFETY: `self` proves that the processor has the instruction.
            unsafe { $dot(sum, codes, bytes) }
        }
    };
}

/// Defines `dot` without VNNI. `maddubs` adds two products in 16 bits, which small codes cannot leave;
/// others are widened before.
macro_rules! dot_by_words {
    (
        $vector:ident, $maddubs:ident $madd:ident $add:ident $and:ident $splat:ident $up:ident
        $down:ident $down_signed:ident
    ) => {
        #[inline(always)]
        fn dot(self, sum: $vector, codes: $vector, bytes: $vector, small: bool) -> $vector {
            // SAFETY: `self` proves that the processor has the instructions.
            unsafe {
                if small {
                    return $add(sum, $madd($maddubs(codes, bytes), $splat(1)));
                }
                let (even_codes, odd_codes) = ($and(codes, $splat(0xff)), $down::<8>(codes));
                let (even, odd) = ($down_signed::<8>($up::<8>(bytes)), $down_signed::<8>(bytes));
                $add($add(sum, $madd(even_codes, even)), $madd(odd_codes, odd))
            }
        }
    };
}

/// What every instruction set here has in common.
macro_rules! common {
    () => {
        type Run = __m256i;

        fn run(self, kernel: impl Kernel) {
            // SAFETY: `self` proves that the processor has the instructions.
            unsafe { self.compiled(kernel) }
        }
        #[inline(always)]
        fn prefetch(self, at: *const u8) {
            // SAFETY: prefetching touches nothing.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(at.cast()) }
        }
        #[inline(always)]
        fn prefetch_near(self, at: *const u8) {
            // SAFETY: prefetching touches nothing.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
        }

        #[inline(always)]
        fn read_run(self, from: &[u8; RUN]) -> __m256i {
            // SAFETY: as many bytes as a vector has; `self` proves that the processor has the instruction.
            unsafe { _mm256_loadu_si256(from.as_ptr().cast()) }
        }
        #[inline(always)]
        fn write_run(self, run: __m256i, to: &mut [u8; RUN]) {
            // SAFETY: as above.
            unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), run) }
        }
        #[inline(always)]
        fn nibbles(self, from: &[u8; RUN / 2]) -> __m256i {
            // SAFETY: as above, half a vector.
            unsafe {
                let bytes = _mm_loadu_si128(from.as_ptr().cast());
                let both = _mm256_set_m128i(_mm_srli_epi16::<4>(bytes), bytes);
                _mm256_and_si256(both, _mm256_set1_epi8(0xf))
            }
        }
        #[inline(always)]
        fn splat_byte(self, byte: u8) -> __m256i {
            // SAFETY: `self` proves that the processor has the instruction.
            unsafe { _mm256_set1_epi8(byte as i8) }
        }
        intrinsics! {
            and(a: __m256i, b: __m256i) -> __m256i = _mm256_and_si256;
            or(a: __m256i, b: __m256i) -> __m256i = _mm256_or_si256;
            xor(a: __m256i, b: __m256i) -> __m256i = _mm256_xor_si256;
        }
        #[inline(always)]
        fn up<const BITS: i32>(self, a: __m256i) -> __m256i {
            // SAFETY: `self` proves that the processor has the instruction.
            unsafe { _mm256_slli_epi16::<BITS>(a) }
        }
        #[inline(always)]
        fn down<const BITS: i32>(self, a: __m256i) -> __m256i {
            // SAFETY: as above.
            unsafe { _mm256_srli_epi16::<BITS>(a) }
        }
        #[inline(always)]
        fn columns(self, rows: [&[u8; RUN / 2]; RUN_ROWS]) -> [__m256i; 4] {
            // SAFETY: as above, half a vector each.
            unsafe {
                let mut pairs = [_mm256_setzero_si256(); 4];
                for i in 0..4 {
                    let low = _mm256_castsi128_si256(_mm_loadu_si128(rows[i].as_ptr().cast()));
                    let high = _mm_loadu_si128(rows[i + 4].as_ptr().cast());
                    pairs[i] = _mm256_inserti128_si256::<1>(low, high);
                }
                let [a, b, c, d] = pairs;
                let low = [_mm256_unpacklo_epi32(a, b), _mm256_unpacklo_epi32(c, d)];
                let high = [_mm256_unpackhi_epi32(a, b), _mm256_unpackhi_epi32(c, d)];
                [
                    _mm256_unpacklo_epi64(low[0], low[1]),
                    _mm256_unpackhi_epi64(low[0], low[1]),
                    _mm256_unpacklo_epi64(high[0], high[1]),
                    _mm256_unpackhi_epi64(high[0], high[1]),
                ]
            }
        }
        #[inline(always)]
        fn half(self, bits: u16) -> f32 {
            // SAFETY: as above.
            unsafe { _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(i32::from(bits)))) }
        }
    };
}

/// What those with vectors of eight elements have in common.
macro_rules! eight_lanes {
    () => {
        common!();
        type Floats = __m256;
        type Ints = __m256i;
        type Square = [__m256; 8];
        type Narrow = Self;
        const LANES: usize = 8;

        #[inline(always)]
        fn narrow(self) -> Self {
            self
        }

        intrinsics! {
            splat(x: f32) -> __m256 = _mm256_set1_ps;
            add(a: __m256, b: __m256) -> __m256 = _mm256_add_ps;
            sub(a: __m256, b: __m256) -> __m256 = _mm256_sub_ps;
            mul(a: __m256, b: __m256) -> __m256 = _mm256_mul_ps;
            mul_add(a: __m256, b: __m256, c: __m256) -> __m256 = _mm256_fmadd_ps;
            fma(a: __m256, b: __m256, c: __m256) -> __m256 = _mm256_fmadd_ps;
            neg_fma(a: __m256, b: __m256, c: __m256) -> __m256 = _mm256_fnmadd_ps;
            max(a: __m256, b: __m256) -> __m256 = _mm256_max_ps;
            splat_int(x: i32) -> __m256i = _mm256_set1_epi32;
            add_ints(a: __m256i, b: __m256i) -> __m256i = _mm256_add_epi32;
            to_floats(a: __m256i) -> __m256 = _mm256_cvtepi32_ps;
        }
        #[inline(always)]
        unsafe fn read(self, from: *const f32) -> __m256 {
            // SAFETY: the caller gives eight elements; `self` proves that the processor has the instruction.
            unsafe { _mm256_loadu_ps(from) }
        }
        #[inline(always)]
        unsafe fn write(self, v: __m256, to: *mut f32) {
            // SAFETY: as above.
            unsafe { _mm256_storeu_ps(to, v) }
        }
        #[inline(always)]
        unsafe fn read_first(self, from: *const f32, count: usize) -> __m256 {
            // SAFETY: only the first `count` elements are read, which the caller gives.
            unsafe {
                let places = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
                let below = _mm256_cmpgt_epi32(_mm256_set1_epi32(count as i32), places);
                _mm256_maskload_ps(from, below)
            }
        }
        #[inline(always)]
        unsafe fn read_first_bf16(self, from: *const bf16, count: usize) -> __m256 {
            // SAFETY: as above.
            unsafe {
                let bits = first_words(from.cast(), count);
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(bits)))
            }
        }
        #[inline(always)]
        unsafe fn read_first_f16(self, from: *const f16, count: usize) -> __m256 {
            // SAFETY: as above.
            unsafe { _mm256_cvtph_ps(first_words(from.cast(), count)) }
        }
        #[inline(always)]
        unsafe fn write_first(self, v: __m256, to: *mut f32, count: usize) {
            let mut all = [0.0; 8];
            self.store(v, &mut all);
            for i in 0..count.min(8) {
                // SAFETY: the caller gives `count` elements.
                unsafe { to.add(i).write(all[i]) };
            }
        }
        #[inline(always)]
        fn zero_below(self, x: __m256, floor: f32, value: __m256) -> __m256 {
            // SAFETY: `self` proves that the processor has the instructions.
            unsafe {
                _mm256_andnot_ps(_mm256_cmp_ps::<_CMP_LT_OQ>(x, _mm256_set1_ps(floor)), value)
            }
        }
        #[inline(always)]
        fn as_exponent(self, x: __m256) -> __m256 {
            // SAFETY: as above.
            unsafe { _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_castps_si256(x))) }
        }
        #[inline(always)]
        fn zeros(self) -> [__m256; 8] {
            [self.splat(0.0); 8]
        }
        #[inline(always)]
        fn transposed(self, rows: [__m256; 8]) -> [__m256; 8] {
            // Vector `4 g + j` of `quads` holds, in its 128-bit part `l`, column `4 l + j` of rows
            // `4 g ..`.
            let (mut quads, mut columns) = (rows, rows);
            // SAFETY: as above.
            unsafe {
                for g in [0, 4] {
                    let l0 = _mm256_castps_pd(_mm256_unpacklo_ps(rows[g], rows[g + 1]));
                    let h0 = _mm256_castps_pd(_mm256_unpackhi_ps(rows[g], rows[g + 1]));
                    let l1 = _mm256_castps_pd(_mm256_unpacklo_ps(rows[g + 2], rows[g + 3]));
                    let h1 = _mm256_castps_pd(_mm256_unpackhi_ps(rows[g + 2], rows[g + 3]));
                    quads[g] = _mm256_castpd_ps(_mm256_unpacklo_pd(l0, l1));
                    quads[g + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(l0, l1));
                    quads[g + 2] = _mm256_castpd_ps(_mm256_unpacklo_pd(h0, h1));
                    quads[g + 3] = _mm256_castpd_ps(_mm256_unpackhi_pd(h0, h1));
                }
                for j in 0..4 {
                    columns[j] = _mm256_permute2f128_ps::<0x20>(quads[j], quads[4 + j]);
                    columns[4 + j] = _mm256_permute2f128_ps::<0x31>(quads[j], quads[4 + j]);
                }
            }
            columns
        }

        #[inline(always)]
        unsafe fn read_bytes(self, from: *const u8) -> __m256 {
            // SAFETY: the caller gives eight bytes; `self` proves that the processor has the instructions.
            unsafe { _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(from.cast()))) }
        }
        #[inline(always)]
        unsafe fn read_ints(self, from: *const i32) -> __m256i {
            // SAFETY: the caller gives eight elements.
            unsafe { _mm256_loadu_si256(from.cast()) }
        }
        #[inline(always)]
        fn minus_shifted(self, a: __m256i, bits: u32) -> __m256i {
            // SAFETY: `self` proves that the processor has the instructions.
            unsafe {
                let shifted = _mm256_sll_epi32(a, _mm_cvtsi32_si128(bits as i32));
                _mm256_sub_epi32(_mm256_setzero_si256(), shifted)
            }
        }
    };
}

/// The first `count` of eight numbers of 16 bits, then zeros.
///
/// # Safety
/// The processor has AVX2, and `from` points to `count` readable elements.
#[inline(always)]
unsafe fn first_words(from: *const u16, count: usize) -> __m128i {
    // SAFETY: only these elements are read.
    unsafe {
        if count == 8 {
            return _mm_loadu_si128(from.cast());
        }
        _mm_loadu_si128(padded::<_, 8>(from, count).as_ptr().cast())
    }
}

/// What those with vectors of sixteen elements have in common.
macro_rules! sixteen_lanes {
    () => {
        common!();
        type Floats = __m512;
        type Ints = __m512i;
        type Square = [__m512; 16];
        const LANES: usize = 16;
        const ROWS: usize = 14;

        intrinsics! {
            splat(x: f32) -> __m512 = _mm512_set1_ps;
            add(a: __m512, b: __m512) -> __m512 = _mm512_add_ps;
            sub(a: __m512, b: __m512) -> __m512 = _mm512_sub_ps;
            mul(a: __m512, b: __m512) -> __m512 = _mm512_mul_ps;
            mul_add(a: __m512, b: __m512, c: __m512) -> __m512 = _mm512_fmadd_ps;
            fma(a: __m512, b: __m512, c: __m512) -> __m512 = _mm512_fmadd_ps;
            neg_fma(a: __m512, b: __m512, c: __m512) -> __m512 = _mm512_fnmadd_ps;
            max(a: __m512, b: __m512) -> __m512 = _mm512_max_ps;
            splat_int(x: i32) -> __m512i = _mm512_set1_epi32;
            add_ints(a: __m512i, b: __m512i) -> __m512i = _mm512_add_epi32;
            to_floats(a: __m512i) -> __m512 = _mm512_cvtepi32_ps;
        }
        #[inline(always)]
        unsafe fn read(self, from: *const f32) -> __m512 {
            // SAFETY: the caller gives sixteen elements; `self` proves that the processor has the
            // instruction.
            unsafe { _mm512_loadu_ps(from) }
        }
        #[inline(always)]
        unsafe fn write(self, v: __m512, to: *mut f32) {
            // SAFETY: as above.
            unsafe { _mm512_storeu_ps(to, v) }
        }
        #[inline(always)]
        unsafe fn read_first(self, from: *const f32, count: usize) -> __m512 {
            // SAFETY: only the first `count` elements are read, which the caller gives.
            unsafe { _mm512_maskz_loadu_ps(below(count), from) }
        }
        #[inline(always)]
        unsafe fn read_first_bf16(self, from: *const bf16, count: usize) -> __m512 {
            // SAFETY: as above.
            unsafe {
                let bits = _mm256_maskz_loadu_epi16(below(count), from.cast());
                _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(bits)))
            }
        }
        #[inline(always)]
        unsafe fn read_first_f16(self, from: *const f16, count: usize) -> __m512 {
            // SAFETY: as above.
            unsafe { _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(below(count), from.cast())) }
        }
        #[inline(always)]
        unsafe fn write_first(self, v: __m512, to: *mut f32, count: usize) {
            // SAFETY: only the first `count` elements are written, which the caller gives.
            unsafe { _mm512_mask_storeu_ps(to, below(count), v) }
        }
        #[inline(always)]
        fn zero_below(self, x: __m512, floor: f32, value: __m512) -> __m512 {
            // SAFETY: `self` proves that the processor has the instructions.
            unsafe {
                let keep = _mm512_cmp_ps_mask::<_CMP_NLT_UQ>(x, _mm512_set1_ps(floor));
                _mm512_maskz_mov_ps(keep, value)
            }
        }
        #[inline(always)]
        fn as_exponent(self, x: __m512) -> __m512 {
            // SAFETY: as above.
            unsafe { _mm512_castsi512_ps(_mm512_slli_epi32::<23>(_mm512_castps_si512(x))) }
        }
        #[inline(always)]
        fn zeros(self) -> [__m512; 16] {
            [self.splat(0.0); 16]
        }
        #[inline(always)]
        fn transposed(self, rows: [__m512; 16]) -> [__m512; 16] {
            // As with eight elements; even and odd parts are then brought together.
            let (mut quads, mut columns) = (rows, rows);
            // SAFETY: as above.
            unsafe {
                for g in [0, 4, 8, 12] {
                    let l0 = _mm512_castps_pd(_mm512_unpacklo_ps(rows[g], rows[g + 1]));
                    let h0 = _mm512_castps_pd(_mm512_unpackhi_ps(rows[g], rows[g + 1]));
                    let l1 = _mm512_castps_pd(_mm512_unpacklo_ps(rows[g + 2], rows[g + 3]));
                    let h1 = _mm512_castps_pd(_mm512_unpackhi_ps(rows[g + 2], rows[g + 3]));
                    quads[g] = _mm512_castpd_ps(_mm512_unpacklo_pd(l0, l1));
                    quads[g + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(l0, l1));
                    quads[g + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(h0, h1));
                    quads[g + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(h0, h1));
                }
                for j in 0..4 {
                    let even_ab = _mm512_shuffle_f32x4::<0x88>(quads[j], quads[4 + j]);
                    let odd_ab = _mm512_shuffle_f32x4::<0xdd>(quads[j], quads[4 + j]);
                    let even_cd = _mm512_shuffle_f32x4::<0x88>(quads[8 + j], quads[12 + j]);
                    let odd_cd = _mm512_shuffle_f32x4::<0xdd>(quads[8 + j], quads[12 + j]);
                    columns[j] = _mm512_shuffle_f32x4::<0x88>(even_ab, even_cd);
                    columns[4 + j] = _mm512_shuffle_f32x4::<0x88>(odd_ab, odd_cd);
                    columns[8 + j] = _mm512_shuffle_f32x4::<0xdd>(even_ab, even_cd);
                    columns[12 + j] = _mm512_shuffle_f32x4::<0xdd>(odd_ab, odd_cd);
                }
            }
            columns
        }

        #[inline(always)]
        unsafe fn read_bytes(self, from: *const u8) -> __m512 {
            // SAFETY: the caller gives sixteen bytes; `self` proves that the processor has the instructions.
            unsafe { _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(from.cast()))) }
        }
        #[inline(always)]
        unsafe fn read_ints(self, from: *const i32) -> __m512i {
            // SAFETY: the caller gives sixteen elements.
            unsafe { _mm512_loadu_si512(from.cast()) }
        }
        #[inline(always)]
        fn minus_shifted(self, a: __m512i, bits: u32) -> __m512i {
            // SAFETY: `self` proves that the processor has the instructions.
            unsafe {
                let shifted = _mm512_sll_epi32(a, _mm_cvtsi32_si128(bits as i32));
                _mm512_sub_epi32(_mm512_setzero_si512(), shifted)
            }
        }
    };
}

/// What those of sixteen elements without products of bytes have in common.
macro_rules! without_vnni {
    () => {
        type Narrow = Avx2;
        dot_by_words!(
            __m512i, _mm512_maddubs_epi16 _mm512_madd_epi16 _mm512_add_epi32 _mm512_and_si512
            _mm512_set1_epi16 _mm512_slli_epi16 _mm512_srli_epi16 _mm512_srai_epi16
        );

        #[inline(always)]
        fn narrow(self) -> Avx2 {
            // SAFETY: `self` proves that the processor has more than these extensions.
            unsafe { Avx2::new() }
        }
    };
}

/// The elements below `count`.
#[inline(always)]
fn below(count: usize) -> __mmask16 {
    ((1u32 << count) - 1) as __mmask16
}

impl Simd for Avx2 {
    eight_lanes!();
    const ROWS: usize = 6;
    dot_by_words!(
        __m256i, _mm256_maddubs_epi16 _mm256_madd_epi16 _mm256_add_epi32 _mm256_and_si256
        _mm256_set1_epi16 _mm256_slli_epi16 _mm256_srli_epi16 _mm256_srai_epi16
    );
}

impl Simd for AvxVnni {
    eight_lanes!();
    const ROWS: usize = 6;
    dot_vnni!(__m256i, _mm256_dpbusd_avx_epi32);
}

impl Simd for NarrowVnni {
    eight_lanes!();
    const ROWS: usize = 14;
    dot_vnni!(__m256i, _mm256_dpbusd_epi32);
}

impl Simd for Avx512 {
    sixteen_lanes!();
    without_vnni!();
}

impl Simd for Avx512Bf16 {
    sixteen_lanes!();
    without_vnni!();
    #[inline(always)]
    fn pair(self, even: __m512, odd: __m512) -> __m512 {
        // SAFETY: `self` proves that the processor has the instructions; any bits are a vector.
        unsafe {
            let (even, odd) = (_mm512_cvtneps_pbh(even), _mm512_cvtneps_pbh(odd));
            let even = _mm512_cvtepu16_epi32(transmute::<__m256bh, __m256i>(even));
            let odd = _mm512_cvtepu16_epi32(transmute::<__m256bh, __m256i>(odd));
            _mm512_castsi512_ps(_mm512_or_si512(even, _mm512_slli_epi32::<16>(odd)))
        }
    }
    #[inline(always)]
    fn pairs(self, low: __m512, high: __m512) -> __m512 {
        // SAFETY: as above.
        unsafe { transmute::<__m512bh, __m512>(_mm512_cvtne2ps_pbh(high, low)) }
    }
    #[inline(always)]
    fn dot_pairs(self, a: __m512, b: __m512, sum: __m512) -> __m512 {
        // SAFETY: as above.
        unsafe {
            let (a, b) = (transmute::<__m512, __m512bh>(a), transmute::<__m512, __m512bh>(b));
            _mm512_dpbf16_ps(sum, a, b)
        }
    }
}

impl Simd for Avx512Vnni {
    sixteen_lanes!();
    type Narrow = NarrowVnni;
    dot_vnni!(__m512i, _mm512_dpbusd_epi32);

    #[inline(always)]
    fn narrow(self) -> NarrowVnni {
        // SAFETY: `self` proves that the processor has these extensions.
        unsafe { NarrowVnni::new() }
    }
}
