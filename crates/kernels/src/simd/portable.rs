//! The vectors in plain Rust.

use half::{bf16, f16};

use super::{Kernel, RUN, RUN_ROWS, Simd, padded};

const LANES: usize = 4;

/// Arrays of plain numbers, for any processor.
#[derive(Clone, Copy)]
pub(crate) struct Portable;

/// Applies `f` element by element.
#[inline(always)]
fn each<T: Copy + Default, const N: usize>(f: impl Fn(usize) -> T) -> [T; N] {
    let mut out = [T::default(); N];
    for i in 0..N {
        out[i] = f(i);
    }
    out
}

impl Simd for Portable {
    type Floats = [f32; LANES];
    type Ints = [i32; LANES];
    type Square = [[f32; LANES]; LANES];
    type Run = [u64; RUN / 8];
    type Narrow = Self;
    const LANES: usize = LANES;
    const ROWS: usize = 4;

    #[inline(never)]
    fn run(self, kernel: impl Kernel) {
        kernel.call(self);
    }
    #[inline(always)]
    fn narrow(self) -> Self {
        self
    }
    #[inline(always)]
    fn prefetch(self, _: *const u8) {}
    #[inline(always)]
    fn prefetch_near(self, _: *const u8) {}

    #[inline(always)]
    fn splat(self, x: f32) -> Self::Floats {
        [x; LANES]
    }
    #[inline(always)]
    unsafe fn read(self, from: *const f32) -> Self::Floats {
        // SAFETY: the caller gives `LANES` elements.
        unsafe { from.cast::<Self::Floats>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn write(self, v: Self::Floats, to: *mut f32) {
        // SAFETY: the caller gives `LANES` elements; an array needs no more alignment than they.
        unsafe { to.cast::<Self::Floats>().write(v) }
    }
    #[inline(always)]
    unsafe fn read_first(self, from: *const f32, count: usize) -> Self::Floats {
        // SAFETY: the caller gives `count` elements.
        unsafe { padded(from, count) }
    }
    #[inline(always)]
    unsafe fn read_first_bf16(self, from: *const bf16, count: usize) -> Self::Floats {
        // SAFETY: the caller gives `count` elements.
        let some: [bf16; LANES] = unsafe { padded(from, count) };
        each(|i| f32::from_bits(u32::from(some[i].to_bits()) << 16))
    }
    #[inline(always)]
    unsafe fn read_first_f16(self, from: *const f16, count: usize) -> Self::Floats {
        // SAFETY: the caller gives `count` elements.
        let some: [f16; LANES] = unsafe { padded(from, count) };
        each(|i| self.half(some[i].to_bits()))
    }
    #[inline(always)]
    unsafe fn write_first(self, v: Self::Floats, to: *mut f32, count: usize) {
        for i in 0..count.min(LANES) {
            // SAFETY: the caller gives `count` elements.
            unsafe { to.add(i).write(v[i]) };
        }
    }
    #[inline(always)]
    fn add(self, a: Self::Floats, b: Self::Floats) -> Self::Floats {
        each(|i| a[i] + b[i])
    }
    #[inline(always)]
    fn sub(self, a: Self::Floats, b: Self::Floats) -> Self::Floats {
        each(|i| a[i] - b[i])
    }
    #[inline(always)]
    fn mul(self, a: Self::Floats, b: Self::Floats) -> Self::Floats {
        each(|i| a[i] * b[i])
    }
    #[inline(always)]
    fn mul_add(self, a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats {
        self.add(self.mul(a, b), c)
    }
    #[inline(always)]
    fn fma(self, a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats {
        each(|i| a[i].mul_add(b[i], c[i]))
    }
    #[inline(always)]
    fn neg_fma(self, a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats {
        each(|i| (-a[i]).mul_add(b[i], c[i]))
    }
    #[inline(always)]
    fn max(self, a: Self::Floats, b: Self::Floats) -> Self::Floats {
        each(|i| if a[i] > b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    fn zero_below(self, x: Self::Floats, floor: f32, value: Self::Floats) -> Self::Floats {
        // A mask and not a branch, which would keep the compiler from making vectors.
        each(|i| {
            let keep = u32::from(x[i] < floor).wrapping_sub(1);
            f32::from_bits(value[i].to_bits() & keep)
        })
    }
    #[inline(always)]
    fn as_exponent(self, x: Self::Floats) -> Self::Floats {
        each(|i| f32::from_bits(x[i].to_bits() << 23))
    }
    #[inline(always)]
    fn zeros(self) -> Self::Square {
        [[0.0; LANES]; LANES]
    }
    #[inline(always)]
    fn transposed(self, square: Self::Square) -> Self::Square {
        each(|i| each(|j| square[j][i]))
    }

    #[inline(always)]
    unsafe fn read_ints(self, from: *const i32) -> Self::Ints {
        // SAFETY: the caller gives `LANES` elements.
        unsafe { from.cast::<Self::Ints>().read() }
    }
    #[inline(always)]
    fn splat_int(self, x: i32) -> Self::Ints {
        [x; LANES]
    }
    #[inline(always)]
    fn add_ints(self, a: Self::Ints, b: Self::Ints) -> Self::Ints {
        each(|i| a[i] + b[i])
    }
    #[inline(always)]
    fn minus_shifted(self, a: Self::Ints, bits: u32) -> Self::Ints {
        each(|i| -(a[i] << bits))
    }
    #[inline(always)]
    fn dot(self, sum: Self::Ints, codes: Self::Ints, bytes: Self::Ints, _: bool) -> Self::Ints {
        let mut sum = sum;
        for shift in [0, 8, 16, 24] {
            let code: Self::Ints = each(|i| codes[i] >> shift & 0xff);
            let byte: Self::Ints = each(|i| bytes[i] << (24 - shift) >> 24);
            sum = each(|i| sum[i] + code[i] * byte[i]);
        }
        sum
    }
    #[inline(always)]
    fn to_floats(self, a: Self::Ints) -> Self::Floats {
        each(|i| a[i] as f32)
    }

    #[inline(always)]
    unsafe fn read_bytes(self, from: *const u8) -> Self::Floats {
        // SAFETY: the caller gives `LANES` bytes.
        let bytes = unsafe { from.cast::<[u8; LANES]>().read() };
        each(|i| f32::from(bytes[i]))
    }
    #[inline(always)]
    fn read_run(self, from: &[u8; RUN]) -> Self::Run {
        let words = from.as_chunks::<8>().0;
        each(|i| u64::from_le_bytes(words[i]))
    }
    #[inline(always)]
    fn write_run(self, run: Self::Run, to: &mut [u8; RUN]) {
        to.as_chunks_mut::<8>().0.copy_from_slice(&run.map(u64::to_le_bytes));
    }
    #[inline(always)]
    fn nibbles(self, from: &[u8; RUN / 2]) -> Self::Run {
        let words = from.as_chunks::<8>().0;
        let [a, b] = [0, 1].map(|i| u64::from_le_bytes(words[i]));
        self.and([a, b, a >> 4, b >> 4], self.splat_byte(0xf))
    }
    #[inline(always)]
    fn splat_byte(self, byte: u8) -> Self::Run {
        [u64::from_ne_bytes([byte; 8]); RUN / 8]
    }
    #[inline(always)]
    fn and(self, a: Self::Run, b: Self::Run) -> Self::Run {
        each(|i| a[i] & b[i])
    }
    #[inline(always)]
    fn or(self, a: Self::Run, b: Self::Run) -> Self::Run {
        each(|i| a[i] | b[i])
    }
    #[inline(always)]
    fn xor(self, a: Self::Run, b: Self::Run) -> Self::Run {
        each(|i| a[i] ^ b[i])
    }
    #[inline(always)]
    fn up<const BITS: i32>(self, a: Self::Run) -> Self::Run {
        each(|i| a[i] << BITS)
    }
    #[inline(always)]
    fn down<const BITS: i32>(self, a: Self::Run) -> Self::Run {
        each(|i| a[i] >> BITS)
    }
    #[inline(always)]
    fn columns(self, rows: [&[u8; RUN / 2]; RUN_ROWS]) -> [Self::Run; 4] {
        let mut columns = [[0; RUN / 8]; 4];
        for (row, bytes) in rows.into_iter().enumerate() {
            for (column, four) in columns.iter_mut().zip(bytes.as_chunks::<4>().0) {
                column[row / 2] |= u64::from(u32::from_le_bytes(*four)) << (row % 2 * 32);
            }
        }
        columns
    }
    /// Without a branch, so that loops over it become vectors.
    #[inline(always)]
    fn half(self, bits: u16) -> f32 {
        /// Moves the exponent from the bias of an `f16` to that of an `f32`.
        const BIAS: f32 = f32::from_bits((127 + 112) << 23);
        let bits = u32::from(bits);
        let magnitude = (f32::from_bits((bits & 0x7fff) << 13) * BIAS).to_bits();
        let special = if bits & 0x7c00 == 0x7c00 { 0x7f80_0000 } else { 0 };
        f32::from_bits(magnitude | special | (bits & 0x8000) << 16)
    }
}
