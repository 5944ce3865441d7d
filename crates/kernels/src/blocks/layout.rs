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

    /// Spreads a block of `BYTES` bytes out: run `j` of its codes to `codes[j * RUN * stride..]`, factor
    /// `i` of that run to `factors[(j * FACTORS + i) * stride]`.
    fn unpack(block: &[u8], codes: &mut [u8], factors: &mut [f32], stride: usize);
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

/// `d: f16, q: [i8; 32]`.
pub(crate) struct Q8Zero;

impl Layout for Q8Zero {
    const LEN: usize = 32;
    const BYTES: usize = 34;
    const GROUP: usize = 32;
    const OFFSET: i32 = 128;
    const MINS: bool = false;

    #[inline(always)]
    fn unpack(block: &[u8], codes: &mut [u8], factors: &mut [f32], _: usize) {
        let block = &block[..Self::BYTES];
        for (code, q) in codes[..RUN].iter_mut().zip(&block[2..]) {
            *code = q ^ 0x80;
        }
        factors[0] = half([block[0], block[1]]);
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
    fn unpack(block: &[u8], codes: &mut [u8], factors: &mut [f32], _: usize) {
        let block = &block[..Self::BYTES];
        let (low, high) = codes[..RUN].split_at_mut(16);
        for i in 0..16 {
            low[i] = block[2 + i] & 0xf;
            high[i] = block[2 + i] >> 4;
        }
        factors[0] = half([block[0], block[1]]);
    }
}

/// `d: f16, dmin: f16, scales: [u8; 12], q: [u8; 128]`: of each 64 weights the first 32 are in the low
/// nibbles of 32 bytes.
pub(crate) struct Q4K;

impl Q4K {
    /// The 6-bit scale and minimum of group `j`, of 8. The first four of each lie in the low bits of
    /// bytes 0..4 and 4..8, the others in bytes 8..12 with their upper bits in the first ones' bytes.
    #[inline(always)]
    pub(super) fn scale_and_min(s: &[u8], j: usize) -> (u8, u8) {
        match j {
            0..4 => (s[j] & 63, s[j + 4] & 63),
            _ => (s[j + 4] & 15 | s[j - 4] >> 6 << 4, s[j + 4] >> 4 | s[j] >> 6 << 4),
        }
    }
}

impl Layout for Q4K {
    const LEN: usize = 256;
    const BYTES: usize = 144;
    const GROUP: usize = 32;
    const OFFSET: i32 = 0;
    const MINS: bool = true;

    #[inline(always)]
    fn unpack(block: &[u8], codes: &mut [u8], factors: &mut [f32], stride: usize) {
        let block = &block[..Self::BYTES];
        let (scales, q) = block[4..].split_at(12);
        for (j, q) in q.chunks_exact(RUN).enumerate() {
            let (low, high) = codes[2 * j * RUN * stride..].split_at_mut(RUN * stride);
            for ((low, high), q) in low[..RUN].iter_mut().zip(&mut high[..RUN]).zip(q) {
                *low = q & 0xf;
                *high = q >> 4;
            }
        }
        let (d, dmin) = (half([block[0], block[1]]), half([block[2], block[3]]));
        for j in 0..8 {
            let (scale, min) = Self::scale_and_min(scales, j);
            factors[2 * j * stride] = d * f32::from(scale);
            factors[(2 * j + 1) * stride] = dmin * f32::from(min);
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
    fn unpack(block: &[u8], codes: &mut [u8], factors: &mut [f32], stride: usize) {
        let block = &block[..Self::BYTES];
        for j in 0..8 {
            let (part, quarter) = (j / 4, j % 4);
            let low = &block[part * 64 + quarter % 2 * RUN..][..RUN];
            let high = &block[128 + part * RUN..][..RUN];
            let codes = &mut codes[j * RUN * stride..][..RUN];
            for ((code, low), high) in codes.iter_mut().zip(low).zip(high) {
                let low = if quarter < 2 { low & 0xf } else { low >> 4 };
                *code = low | (high >> (2 * quarter) & 3) << 4;
            }
        }
        let d = half([block[208], block[209]]);
        for j in 0..16 {
            factors[j * stride] = d * f32::from(block[192 + j] as i8);
        }
    }
}
