//! The vectors in plain Rust.

use super::kernel::Simd;
use crate::blocks::Words;

const LANES: usize = 8;

/// Eight lanes, on every machine.
#[derive(Clone, Copy)]
pub(super) struct Portable;

/// Applies `f` lane by lane.
#[inline(always)]
fn each<T: Copy + Default>(f: impl Fn(usize) -> T) -> [T; LANES] {
    let mut out = [T::default(); LANES];
    for lane in 0..LANES {
        out[lane] = f(lane);
    }
    out
}

impl Simd for Portable {
    type Ints = [i32; LANES];
    type Floats = [f32; LANES];
    type Bytes = Words;
    const LANES: usize = LANES;

    #[inline(always)]
    fn bytes(self) -> Words {
        Words
    }

    #[inline(always)]
    unsafe fn ints(self, from: *const i32) -> Self::Ints {
        // SAFETY: the elements can be read.
        unsafe { from.cast::<Self::Ints>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn floats(self, from: *const f32) -> Self::Floats {
        // SAFETY: as above.
        unsafe { from.cast::<Self::Floats>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn write(self, v: Self::Floats, to: *mut f32) {
        // SAFETY: the elements can be written.
        unsafe { to.cast::<Self::Floats>().write_unaligned(v) }
    }

    #[inline(always)]
    fn prefetch(self, _: *const u8) {}

    #[inline(always)]
    fn splat(self, x: f32) -> Self::Floats {
        [x; LANES]
    }

    #[inline(always)]
    fn splat_int(self, x: i32) -> Self::Ints {
        [x; LANES]
    }

    #[inline(always)]
    fn add(self, a: Self::Ints, b: Self::Ints) -> Self::Ints {
        each(|i| a[i] + b[i])
    }

    #[inline(always)]
    fn minus_shifted(self, a: Self::Ints, bits: u32) -> Self::Ints {
        each(|i| -(a[i] << bits))
    }

    #[inline(always)]
    fn dot(self, sum: Self::Ints, codes: Self::Ints, bytes: Self::Ints, _: bool) -> Self::Ints {
        let mut sum = sum;
        for i in 0..LANES {
            let (code, byte) = (codes[i] as u32, bytes[i]);
            sum[i] += (code & 0xff) as i32 * (byte << 24 >> 24);
            sum[i] += (code >> 8 & 0xff) as i32 * (byte << 16 >> 24);
            sum[i] += (code >> 16 & 0xff) as i32 * (byte << 8 >> 24);
            sum[i] += (code >> 24) as i32 * (byte >> 24);
        }
        sum
    }

    #[inline(always)]
    fn to_floats(self, a: Self::Ints) -> Self::Floats {
        a.map(|a| a as f32)
    }

    #[inline(always)]
    fn mul_add(self, a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats {
        each(|i| a[i].mul_add(b[i], c[i]))
    }

    #[inline(always)]
    fn neg_mul_add(self, a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats {
        each(|i| (-a[i]).mul_add(b[i], c[i]))
    }
}
