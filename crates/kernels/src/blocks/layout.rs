//! Where each format keeps its codes and scales: what the widening and the product both read.

/// Codes that lie side by side wherever a block is unpacked; a group is as long or half as long.
pub(crate) use crate::simd::RUN;
use crate::simd::Simd;

/// A block format as the kernels see it: `w = scale * (code - OFFSET) - min` with unsigned codes.
pub(crate) trait Layout {
    /// Weights of a block.
    const LEN: usize;
    /// Bytes of a block.
    const BYTES: usize;
    /// Weights that share a scale: [`RUN`] or half of it.
    const GROUP: usize;
    /// The code of zero, before the minimum is taken off: zero or a power of two.
    const OFFSET: i32;
    /// Whether groups have a minimum.
    const MINS: bool;
    /// Factors of a run: the scales of its groups, then its minimum if there is one.
    const FACTORS: usize = RUN / Self::GROUP + Self::MINS as usize;

    /// Unpacks a block: the codes in their order, and for each run its factors. The slices are of a
    /// block, a block's codes and its factors.
    fn unpack<S: Simd>(s: S, block: &[u8], codes: &mut [u8], factors: &mut [f32]);
}

/// The first run of bytes.
#[inline(always)]
fn run(bytes: &[u8]) -> &[u8; RUN] {
    &bytes.as_chunks().0[0]
}

/// The 16 bits from byte `at` on.
#[inline(always)]
fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

/// `d: f16, q: [i8; 32]`.
pub(crate) struct Q8Zero;

impl Layout for Q8Zero {
    const LEN: usize = 32;
    const BYTES: usize = 34;
    const GROUP: usize = 32;
    const OFFSET: i32 = 128;
    const MINS: bool = false;

    #[inline(always)]
    fn unpack<S: Simd>(s: S, block: &[u8], codes: &mut [u8], factors: &mut [f32]) {
        let runs = codes.as_chunks_mut::<RUN>().0;
        s.write_run(s.xor(s.read_run(run(&block[2..])), s.splat_byte(0x80)), &mut runs[0]);
        factors[0] = s.half(word(block, 0));
    }
}

/// `d: f16, q: [u8; 16]`: weights 0..16 in the low nibbles, 16..32 in the high ones.
pub(crate) struct Q4Zero;

impl Layout for Q4Zero {
    const LEN: usize = 32;
    const BYTES: usize = 18;
    const GROUP: usize = 32;
    const OFFSET: i32 = 8;
    const MINS: bool = false;

    #[inline(always)]
    fn unpack<S: Simd>(s: S, block: &[u8], codes: &mut [u8], factors: &mut [f32]) {
        let runs = codes.as_chunks_mut::<RUN>().0;
        s.write_run(s.nibbles(&block[2..].as_chunks().0[0]), &mut runs[0]);
        factors[0] = s.half(word(block, 0));
    }
}

/// `d: f16, dmin: f16, scales: [u8; 12], q: [u8; 128]`: of each 64 weights the first 32 are in the low
/// nibbles of 32 bytes.
pub(crate) struct Q4K;

impl Q4K {
    /// The 6-bit scales and minima of the 8 groups. The first four of each lie in the low bits of bytes
    /// 0..4 and 4..8; the others in bytes 8..12, with their upper bits in the first ones' bytes.
    #[inline(always)]
    pub(super) fn scales_and_mins(s: &[u8]) -> ([u8; 8], [u8; 8]) {
        let word = |i: usize| u32::from_le_bytes([s[i], s[i + 1], s[i + 2], s[i + 3]]);
        let (first, second, third) = (word(0), word(4), word(8));
        let top = |word: u32| (word >> 6 & 0x0303_0303) << 4;
        let both = |low: u32, high: u32| (u64::from(high) << 32 | u64::from(low)).to_le_bytes();
        let scales = both(first & 0x3f3f_3f3f, third & 0x0f0f_0f0f | top(first));
        let mins = both(second & 0x3f3f_3f3f, third >> 4 & 0x0f0f_0f0f | top(second));
        (scales, mins)
    }
}

impl Layout for Q4K {
    const LEN: usize = 256;
    const BYTES: usize = 144;
    const GROUP: usize = 32;
    const OFFSET: i32 = 0;
    const MINS: bool = true;

    #[inline(always)]
    fn unpack<S: Simd>(s: S, block: &[u8], codes: &mut [u8], factors: &mut [f32]) {
        let (q, runs) = (&block[16..], codes.as_chunks_mut::<RUN>().0);
        let mask = s.splat_byte(0xf);
        for j in 0..4 {
            let q = s.read_run(run(&q[j * RUN..]));
            s.write_run(s.and(q, mask), &mut runs[2 * j]);
            s.write_run(s.and(s.down::<4>(q), mask), &mut runs[2 * j + 1]);
        }
        let (d, dmin) = (s.half(word(block, 0)), s.half(word(block, 2)));
        let (scales, mins) = Self::scales_and_mins(&block[4..16]);
        for j in 0..8 {
            factors[2 * j] = d * f32::from(scales[j]);
            factors[2 * j + 1] = dmin * f32::from(mins[j]);
        }
    }
}

/// `low: [u8; 128], high: [u8; 64], scales: [i8; 16], d: f16`: of each 128 weights, which are four
/// quarters of 32, the lower 4 bits lie in 64 bytes (quarters 0 and 1 in their low nibbles, 2 and 3 in
/// their high ones) and the upper 2 bits in 32 bytes, lowest quarter first.
pub(crate) struct Q6K;

impl Q6K {
    /// Codes of whose lower 4 and upper 2 bits the bytes have others around.
    #[inline(always)]
    fn codes<S: Simd>(s: S, lower: S::Run, upper: S::Run) -> S::Run {
        s.or(s.and(lower, s.splat_byte(0x0f)), s.and(upper, s.splat_byte(0x30)))
    }
}

impl Layout for Q6K {
    const LEN: usize = 256;
    const BYTES: usize = 210;
    const GROUP: usize = 16;
    const OFFSET: i32 = 32;
    const MINS: bool = false;

    #[inline(always)]
    fn unpack<S: Simd>(s: S, block: &[u8], codes: &mut [u8], factors: &mut [f32]) {
        let runs = codes.as_chunks_mut::<RUN>().0;
        for part in 0..2 {
            let first = s.read_run(run(&block[2 * part * RUN..]));
            let second = s.read_run(run(&block[(2 * part + 1) * RUN..]));
            let high = s.read_run(run(&block[128 + part * RUN..]));
            let runs = &mut runs[4 * part..];
            s.write_run(Self::codes(s, first, s.up::<4>(high)), &mut runs[0]);
            s.write_run(Self::codes(s, second, s.up::<2>(high)), &mut runs[1]);
            s.write_run(Self::codes(s, s.down::<4>(first), high), &mut runs[2]);
            s.write_run(Self::codes(s, s.down::<4>(second), s.down::<2>(high)), &mut runs[3]);
        }
        let d = s.half(word(block, 208));
        for j in 0..16 {
            factors[j] = d * f32::from(block[192 + j] as i8);
        }
    }
}
