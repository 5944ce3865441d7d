//! Where each format keeps its codes and scales: what the widening and the product both read.

/// Codes that lie side by side wherever a block is spread out; a group is as long or half as long.
pub(crate) const RUN: usize = 32;

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

    /// Spreads whole blocks out: the codes in their order, and for each run its factors.
    fn unpack(blocks: &[u8], codes: &mut [u8], factors: &mut [f32]);
}

/// An `f16` as `f32`: exactly, and without a branch, so that loops over it become vectors.
#[inline(always)]
pub(crate) fn half(bytes: [u8; 2]) -> f32 {
    /// Moves the exponent from the bias of an `f16` to that of an `f32`.
    const BIAS: f32 = f32::from_bits((127 + 112) << 23);
    let bits = u32::from(u16::from_le_bytes(bytes));
    let magnitude = (f32::from_bits((bits & 0x7fff) << 13) * BIAS).to_bits();
    let special = if bits & 0x7c00 == 0x7c00 { 0x7f80_0000 } else { 0 };
    f32::from_bits(magnitude | special | (bits & 0x8000) << 16)
}

/// [`half`] of the lower 16 bits of each number, which a loop over blocks has put there.
#[inline(always)]
fn halves(factors: &mut [f32]) {
    for factor in factors {
        let [low, high, ..] = factor.to_bits().to_le_bytes();
        *factor = half([low, high]);
    }
}

/// Two bytes as the bits of a number, for [`halves`].
#[inline(always)]
fn bits(low: u8, high: u8) -> f32 {
    f32::from_bits(u32::from(u16::from_le_bytes([low, high])))
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
    fn unpack(blocks: &[u8], codes: &mut [u8], factors: &mut [f32]) {
        let blocks = blocks.as_chunks::<34>().0;
        let codes = &mut codes.as_chunks_mut::<RUN>().0[..blocks.len()];
        let factors = &mut factors[..blocks.len()];
        for b in 0..blocks.len() {
            let [low, high, q @ ..] = &blocks[b];
            for i in 0..RUN {
                codes[b][i] = q[i] ^ 0x80;
            }
            factors[b] = bits(*low, *high);
        }
        halves(factors);
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
    fn unpack(blocks: &[u8], codes: &mut [u8], factors: &mut [f32]) {
        let blocks = blocks.as_chunks::<18>().0;
        let codes = &mut codes.as_chunks_mut::<RUN>().0[..blocks.len()];
        let factors = &mut factors[..blocks.len()];
        for b in 0..blocks.len() {
            let [low, high, q @ ..] = &blocks[b];
            for i in 0..RUN / 2 {
                codes[b][i] = q[i] & 0xf;
                codes[b][RUN / 2 + i] = q[i] >> 4;
            }
            factors[b] = bits(*low, *high);
        }
        halves(factors);
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
    fn unpack(blocks: &[u8], codes: &mut [u8], factors: &mut [f32]) {
        let blocks = blocks.as_chunks::<144>().0;
        let codes = &mut codes.as_chunks_mut::<256>().0[..blocks.len()];
        let factors = &mut factors.as_chunks_mut::<16>().0[..blocks.len()];
        for b in 0..blocks.len() {
            let block = &blocks[b];
            let (q, s) = (&block[16..], &block[4..16]);
            for j in 0..4 {
                for i in 0..RUN {
                    codes[b][2 * j * RUN + i] = q[j * RUN + i] & 0xf;
                    codes[b][(2 * j + 1) * RUN + i] = q[j * RUN + i] >> 4;
                }
            }
            let (d, dmin) = (half([block[0], block[1]]), half([block[2], block[3]]));
            let (scales, mins) = Self::scales_and_mins(s);
            for j in 0..8 {
                factors[b][2 * j] = d * f32::from(scales[j]);
                factors[b][2 * j + 1] = dmin * f32::from(mins[j]);
            }
        }
    }
}

/// `low: [u8; 128], high: [u8; 64], scales: [i8; 16], d: f16`: of each 128 weights, which are four
/// quarters of 32, the lower 4 bits lie in 64 bytes (quarters 0 and 1 in their low nibbles, 2 and 3 in
/// their high ones) and the upper 2 bits in 32 bytes, lowest quarter first.
pub(crate) struct Q6K;

impl Layout for Q6K {
    const LEN: usize = 256;
    const BYTES: usize = 210;
    const GROUP: usize = 16;
    const OFFSET: i32 = 32;
    const MINS: bool = false;

    #[inline(always)]
    fn unpack(blocks: &[u8], codes: &mut [u8], factors: &mut [f32]) {
        let blocks = blocks.as_chunks::<210>().0;
        let codes = &mut codes.as_chunks_mut::<256>().0[..blocks.len()];
        let factors = &mut factors.as_chunks_mut::<16>().0[..blocks.len()];
        for b in 0..blocks.len() {
            let block = &blocks[b];
            for part in 0..2 {
                let (low, high) = (&block[part * 64..], &block[128 + part * 32..]);
                let codes = &mut codes[b][part * 128..];
                for i in 0..RUN {
                    codes[i] = low[i] & 0xf | (high[i] & 3) << 4;
                    codes[32 + i] = low[32 + i] & 0xf | (high[i] >> 2 & 3) << 4;
                    codes[64 + i] = low[i] >> 4 | (high[i] >> 4 & 3) << 4;
                    codes[96 + i] = low[32 + i] >> 4 | high[i] >> 6 << 4;
                }
            }
            let d = half([block[208], block[209]]);
            for j in 0..16 {
                factors[b][j] = d * f32::from(block[192 + j] as i8);
            }
        }
    }
}
