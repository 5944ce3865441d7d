//! Where each format keeps its codes and scales: what the widening and the product both read.

use crate::simd::Simd;
/// Codes that lie side by side wherever a block is unpacked, and the rows that columns are of.
pub(crate) use crate::simd::{RUN, RUN_ROWS};

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

    /// Unpacks the codes of a block in their order.
    fn codes<S: Simd>(s: S, block: &[u8], codes: &mut [u8]);

    /// Unpacks the factors of each run of a block.
    fn factors<S: Simd>(s: S, block: &[u8], factors: &mut [f32]);

    /// Unpacks the codes of a block of each of [`RUN_ROWS`] rows, transposed by fours: column `i` has the
    /// codes `4 i .. 4 i + 4` of every row.
    fn columns<S: Simd>(s: S, blocks: [&[u8]; RUN_ROWS], columns: Columns<'_>);
}

/// Where transposed codes go: a run of each column, `stride` bytes apart.
pub(crate) struct Columns<'a> {
    pub(crate) codes: &'a mut [u8],
    pub(crate) stride: usize,
}

impl Columns<'_> {
    #[inline(always)]
    fn write<S: Simd>(&mut self, s: S, column: usize, run: S::Run) {
        s.write_run(run, &mut self.codes[column * self.stride..].as_chunks_mut().0[0]);
    }
}

/// Sixteen bytes of each block from `at` on, transposed.
#[inline(always)]
fn columns<S: Simd>(s: S, blocks: [&[u8]; RUN_ROWS], at: usize) -> [S::Run; 4] {
    let mut pieces = [&[0; RUN / 2]; RUN_ROWS];
    for (piece, block) in pieces.iter_mut().zip(blocks) {
        *piece = &block[at..].as_chunks().0[0];
    }
    s.columns(pieces)
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
    fn codes<S: Simd>(s: S, block: &[u8], codes: &mut [u8]) {
        let runs = codes.as_chunks_mut::<RUN>().0;
        s.write_run(s.xor(s.read_run(run(&block[2..])), s.splat_byte(0x80)), &mut runs[0]);
    }

    #[inline(always)]
    fn factors<S: Simd>(s: S, block: &[u8], factors: &mut [f32]) {
        factors[0] = s.half(word(block, 0));
    }

    #[inline(always)]
    fn columns<S: Simd>(s: S, blocks: [&[u8]; RUN_ROWS], mut to: Columns<'_>) {
        for half in 0..2 {
            let bytes = columns(s, blocks, 2 + 16 * half);
            for i in 0..4 {
                to.write(s, 4 * half + i, s.xor(bytes[i], s.splat_byte(0x80)));
            }
        }
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
    fn codes<S: Simd>(s: S, block: &[u8], codes: &mut [u8]) {
        let runs = codes.as_chunks_mut::<RUN>().0;
        s.write_run(s.nibbles(&block[2..].as_chunks().0[0]), &mut runs[0]);
    }

    #[inline(always)]
    fn factors<S: Simd>(s: S, block: &[u8], factors: &mut [f32]) {
        factors[0] = s.half(word(block, 0));
    }

    #[inline(always)]
    fn columns<S: Simd>(s: S, blocks: [&[u8]; RUN_ROWS], mut to: Columns<'_>) {
        let (bytes, mask) = (columns(s, blocks, 2), s.splat_byte(0xf));
        for i in 0..4 {
            to.write(s, i, s.and(bytes[i], mask));
            to.write(s, 4 + i, s.and(s.down::<4>(bytes[i]), mask));
        }
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
    fn codes<S: Simd>(s: S, block: &[u8], codes: &mut [u8]) {
        let (q, runs) = (&block[16..], codes.as_chunks_mut::<RUN>().0);
        let mask = s.splat_byte(0xf);
        for j in 0..4 {
            let q = s.read_run(run(&q[j * RUN..]));
            s.write_run(s.and(q, mask), &mut runs[2 * j]);
            s.write_run(s.and(s.down::<4>(q), mask), &mut runs[2 * j + 1]);
        }
    }

    #[inline(always)]
    fn columns<S: Simd>(s: S, blocks: [&[u8]; RUN_ROWS], mut to: Columns<'_>) {
        let mask = s.splat_byte(0xf);
        for part in 0..8 {
            let (bytes, first) = (columns(s, blocks, 16 + 16 * part), part / 2 * 16 + part % 2 * 4);
            for i in 0..4 {
                to.write(s, first + i, s.and(bytes[i], mask));
                to.write(s, first + 8 + i, s.and(s.down::<4>(bytes[i]), mask));
            }
        }
    }

    #[inline(always)]
    fn factors<S: Simd>(s: S, block: &[u8], factors: &mut [f32]) {
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
    fn join<S: Simd>(s: S, lower: S::Run, upper: S::Run) -> S::Run {
        s.or(s.and(lower, s.splat_byte(0x0f)), s.and(upper, s.splat_byte(0x30)))
    }

    /// The codes of the four quarters, whose lower bits lie in two runs of bytes and whose upper ones in
    /// a third.
    #[inline(always)]
    fn quarters<S: Simd>(s: S, first: S::Run, second: S::Run, high: S::Run) -> [S::Run; 4] {
        [
            Self::join(s, first, s.up::<4>(high)),
            Self::join(s, second, s.up::<2>(high)),
            Self::join(s, s.down::<4>(first), high),
            Self::join(s, s.down::<4>(second), s.down::<2>(high)),
        ]
    }
}

impl Layout for Q6K {
    const LEN: usize = 256;
    const BYTES: usize = 210;
    const GROUP: usize = 16;
    const OFFSET: i32 = 32;
    const MINS: bool = false;

    #[inline(always)]
    fn codes<S: Simd>(s: S, block: &[u8], codes: &mut [u8]) {
        let runs = codes.as_chunks_mut::<RUN>().0;
        for part in 0..2 {
            let first = s.read_run(run(&block[2 * part * RUN..]));
            let second = s.read_run(run(&block[(2 * part + 1) * RUN..]));
            let high = s.read_run(run(&block[128 + part * RUN..]));
            let quarters = Self::quarters(s, first, second, high);
            for i in 0..4 {
                s.write_run(quarters[i], &mut runs[4 * part + i]);
            }
        }
    }

    #[inline(always)]
    fn columns<S: Simd>(s: S, blocks: [&[u8]; RUN_ROWS], mut to: Columns<'_>) {
        for part in 0..2 {
            for half in 0..2 {
                let at = 64 * part + 16 * half;
                let (first, second) = (columns(s, blocks, at), columns(s, blocks, at + 32));
                let high = columns(s, blocks, 128 + 32 * part + 16 * half);
                for i in 0..4 {
                    let quarters = Self::quarters(s, first[i], second[i], high[i]);
                    for quarter in 0..4 {
                        to.write(s, 8 * (4 * part + quarter) + 4 * half + i, quarters[quarter]);
                    }
                }
            }
        }
    }

    #[inline(always)]
    fn factors<S: Simd>(s: S, block: &[u8], factors: &mut [f32]) {
        let d = s.half(word(block, 208));
        for j in 0..16 {
            factors[j] = d * f32::from(block[192 + j] as i8);
        }
    }
}
