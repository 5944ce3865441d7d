//! The bytes of a run, worked on together: what spreading blocks out is made of.

use super::RUN;

/// Operations on 32 bytes. A value exists only where the processor has the instructions; all of it is
/// `#[inline(always)]`, so that it ends up in a function compiled with them on.
///
/// Loops over bytes would do where the compiler makes vectors of them, which it does not between the
/// vectors of a product.
pub(crate) trait Bytes: Copy {
    /// The 32 bytes.
    type Run: Copy;

    /// Reads them.
    fn read(self, from: &[u8; RUN]) -> Self::Run;
    /// Writes them.
    fn write(self, run: Self::Run, to: &mut [u8; RUN]);
    /// The lower four bits of sixteen bytes, then the upper four.
    fn nibbles(self, from: &[u8; RUN / 2]) -> Self::Run;
    /// `byte` in every place.
    fn splat(self, byte: u8) -> Self::Run;
    /// `a & b`
    fn and(self, a: Self::Run, b: Self::Run) -> Self::Run;
    /// `a | b`
    fn or(self, a: Self::Run, b: Self::Run) -> Self::Run;
    /// `a ^ b`
    fn xor(self, a: Self::Run, b: Self::Run) -> Self::Run;
    /// `a << BITS`, with bits of the byte before where zeros should be: to be masked.
    fn up<const BITS: i32>(self, a: Self::Run) -> Self::Run;
    /// `a >> BITS`, with bits of the byte after.
    fn down<const BITS: i32>(self, a: Self::Run) -> Self::Run;
    /// An `f16` as `f32`, exactly.
    fn half(self, bytes: [u8; 2]) -> f32;
}

/// Plain Rust: four words.
#[derive(Clone, Copy)]
pub(crate) struct Words;

#[inline(always)]
fn both(a: [u64; 4], b: [u64; 4], f: impl Fn(u64, u64) -> u64) -> [u64; 4] {
    let mut out = [0; 4];
    for i in 0..4 {
        out[i] = f(a[i], b[i]);
    }
    out
}

impl Bytes for Words {
    type Run = [u64; 4];

    #[inline(always)]
    fn read(self, from: &[u8; RUN]) -> [u64; 4] {
        let words = from.as_chunks::<8>().0;
        [0, 1, 2, 3].map(|i| u64::from_le_bytes(words[i]))
    }

    #[inline(always)]
    fn write(self, run: [u64; 4], to: &mut [u8; RUN]) {
        to.as_chunks_mut::<8>().0.copy_from_slice(&run.map(u64::to_le_bytes));
    }

    #[inline(always)]
    fn nibbles(self, from: &[u8; RUN / 2]) -> [u64; 4] {
        let words = from.as_chunks::<8>().0;
        let [a, b] = [0, 1].map(|i| u64::from_le_bytes(words[i]));
        self.and([a, b, a >> 4, b >> 4], self.splat(0xf))
    }

    #[inline(always)]
    fn splat(self, byte: u8) -> [u64; 4] {
        [u64::from_ne_bytes([byte; 8]); 4]
    }

    #[inline(always)]
    fn and(self, a: [u64; 4], b: [u64; 4]) -> [u64; 4] {
        both(a, b, |a, b| a & b)
    }

    #[inline(always)]
    fn or(self, a: [u64; 4], b: [u64; 4]) -> [u64; 4] {
        both(a, b, |a, b| a | b)
    }

    #[inline(always)]
    fn xor(self, a: [u64; 4], b: [u64; 4]) -> [u64; 4] {
        both(a, b, |a, b| a ^ b)
    }

    #[inline(always)]
    fn up<const BITS: i32>(self, a: [u64; 4]) -> [u64; 4] {
        a.map(|word| word << BITS)
    }

    #[inline(always)]
    fn down<const BITS: i32>(self, a: [u64; 4]) -> [u64; 4] {
        a.map(|word| word >> BITS)
    }

    /// Without a branch, so that loops over it become vectors.
    #[inline(always)]
    fn half(self, bytes: [u8; 2]) -> f32 {
        /// Moves the exponent from the bias of an `f16` to that of an `f32`.
        const BIAS: f32 = f32::from_bits((127 + 112) << 23);
        let bits = u32::from(u16::from_le_bytes(bytes));
        let magnitude = (f32::from_bits((bits & 0x7fff) << 13) * BIAS).to_bits();
        let special = if bits & 0x7c00 == 0x7c00 { 0x7f80_0000 } else { 0 };
        f32::from_bits(magnitude | special | (bits & 0x8000) << 16)
    }
}

#[cfg(target_arch = "x86_64")]
pub(crate) use x86::Ymm;

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{Bytes, RUN};

    /// One vector; AVX2 and F16C.
    #[derive(Clone, Copy)]
    pub(crate) struct Ymm(());

    impl Ymm {
        /// # Safety
        /// The processor has AVX2 and F16C.
        #[inline(always)]
        pub(crate) unsafe fn new() -> Self {
            Self(())
        }
    }

    impl Bytes for Ymm {
        type Run = __m256i;

        #[inline(always)]
        fn read(self, from: &[u8; RUN]) -> __m256i {
            // SAFETY: as many bytes as a vector has; whoever made `self` has the instructions.
            unsafe { _mm256_loadu_si256(from.as_ptr().cast()) }
        }

        #[inline(always)]
        fn write(self, run: __m256i, to: &mut [u8; RUN]) {
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
        fn splat(self, byte: u8) -> __m256i {
            // SAFETY: the instructions are there.
            unsafe { _mm256_set1_epi8(byte as i8) }
        }

        #[inline(always)]
        fn and(self, a: __m256i, b: __m256i) -> __m256i {
            // SAFETY: as above.
            unsafe { _mm256_and_si256(a, b) }
        }

        #[inline(always)]
        fn or(self, a: __m256i, b: __m256i) -> __m256i {
            // SAFETY: as above.
            unsafe { _mm256_or_si256(a, b) }
        }

        #[inline(always)]
        fn xor(self, a: __m256i, b: __m256i) -> __m256i {
            // SAFETY: as above.
            unsafe { _mm256_xor_si256(a, b) }
        }

        #[inline(always)]
        fn up<const BITS: i32>(self, a: __m256i) -> __m256i {
            // SAFETY: as above.
            unsafe { _mm256_slli_epi16::<BITS>(a) }
        }

        #[inline(always)]
        fn down<const BITS: i32>(self, a: __m256i) -> __m256i {
            // SAFETY: as above.
            unsafe { _mm256_srli_epi16::<BITS>(a) }
        }

        #[inline(always)]
        fn half(self, bytes: [u8; 2]) -> f32 {
            // SAFETY: as above.
            unsafe {
                let bits = _mm_cvtsi32_si128(i32::from(u16::from_le_bytes(bytes)));
                _mm_cvtss_f32(_mm_cvtph_ps(bits))
            }
        }
    }
}
