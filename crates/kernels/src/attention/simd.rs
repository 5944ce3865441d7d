//! Vectors of `f32` for the attention kernels: one source, compiled for every instruction set.
//!
//! A kernel is written once over [`Simd`] and run by [`run`], which compiles it for the chosen
//! instruction set. A value of a vector type exists only inside `run`, so holding one
//! proves that the processor has the instructions. All code that touches vectors must be
//! `#[inline(always)]`, and no closure: only then does it end up in the function that `run` compiles
//! with those instructions on.

#[cfg(target_arch = "x86_64")]
use super::x86::{Avx2, Avx512};
use crate::Isa;

/// The widest vector of any instruction set, in elements.
pub(super) const MAX_LANES: usize = 16;

/// A computation written for any instruction set.
pub(super) trait Kernel {
    /// Does the work; must be `#[inline(always)]`.
    fn call<S: Simd>(self, s: S);
}

/// Runs `kernel`, compiled for `isa`.
pub(super) fn run(isa: Isa, kernel: impl Kernel) {
    match isa {
        // SAFETY: a `Cpu` is only made for an instruction set that the machine has.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => unsafe { run_avx512(kernel) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => unsafe { run_avx2(kernel) },
        _ => kernel.call(Portable),
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,fma")]
fn run_avx512(kernel: impl Kernel) {
    // SAFETY: this function is only run where the instructions are.
    kernel.call(unsafe { Avx512::new() });
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn run_avx2(kernel: impl Kernel) {
    // SAFETY: as above.
    kernel.call(unsafe { Avx2::new() });
}

/// The vector operations of one instruction set.
pub(super) trait Simd: Copy {
    /// A vector of [`LANES`](Self::LANES) elements.
    type V: Copy;
    /// Elements in a vector.
    const LANES: usize;
    /// Rows of the register tile of a matrix product: as many as the registers hold.
    const ROWS: usize;

    /// `x` in every element.
    fn splat(self, x: f32) -> Self::V;
    /// Reads a vector.
    ///
    /// # Safety
    /// `from` points to `LANES` readable elements.
    unsafe fn read(self, from: *const f32) -> Self::V;
    /// Writes a vector.
    ///
    /// # Safety
    /// `to` points to `LANES` writable elements.
    unsafe fn write(self, v: Self::V, to: *mut f32);
    /// `a + b`
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a - b`
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a * b`
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a * b + c`, fused where the instruction set does so.
    fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// The greater of each pair; `b` where one of them is NaN.
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    /// `value`, but 0 where `x < floor`.
    fn zero_below(self, x: Self::V, floor: f32, value: Self::V) -> Self::V;
    /// The low bits of `x` moved up into the exponent.
    fn as_exponent(self, x: Self::V) -> Self::V;

    /// Reads the first `LANES` elements.
    #[inline(always)]
    fn load(self, from: &[f32]) -> Self::V {
        let from = &from[..Self::LANES];
        // SAFETY: the slice has `LANES` elements.
        unsafe { self.read(from.as_ptr()) }
    }

    /// Writes the first `LANES` elements.
    #[inline(always)]
    fn store(self, v: Self::V, to: &mut [f32]) {
        let to = &mut to[..Self::LANES];
        // SAFETY: the slice has `LANES` elements.
        unsafe { self.write(v, to.as_mut_ptr()) }
    }

    /// The sum of the elements, by halves.
    #[inline(always)]
    fn sum_across(self, v: Self::V) -> f32 {
        let mut x = [0.0; MAX_LANES];
        self.store(v, &mut x);
        let mut half = Self::LANES / 2;
        while half > 0 {
            for i in 0..half {
                x[i] += x[i + half];
            }
            half /= 2;
        }
        x[0]
    }

    /// The greatest element, by halves, of a vector without NaN.
    #[inline(always)]
    fn max_across(self, v: Self::V) -> f32 {
        let mut x = [0.0; MAX_LANES];
        self.store(v, &mut x);
        let mut half = Self::LANES / 2;
        while half > 0 {
            for i in 0..half {
                x[i] = if x[i] > x[i + half] { x[i] } else { x[i + half] };
            }
            half /= 2;
        }
        x[0]
    }

    /// `e^x` for `x <= 0` with a relative error below 2e-7; what would be denormal is 0, NaN stays.
    ///
    /// The range reduction and the polynomial are those of `expf` in Cephes.
    #[inline(always)]
    fn exp(self, x: Self::V) -> Self::V {
        /// 1.5 * 2^23 + 127: adding it rounds to an integer, whose biased exponent is then in the
        /// low bits of the sum.
        const ROUND: f32 = 12_582_912.0 + 127.0;
        /// The logarithm of the least normal number.
        const FLOOR: f32 = -87.336_54;
        // ln 2 in two parts; the first has so few bits that its product with `n` is exact.
        const LN2_HIGH: f32 = 355.0 / 512.0;
        const LN2_LOW: f32 = -2.121_944_4e-4;

        let shifted = self.mul_add(x, self.splat(std::f32::consts::LOG2_E), self.splat(ROUND));
        let n = self.sub(shifted, self.splat(ROUND));
        let r = self.mul_add(n, self.splat(-LN2_HIGH), x);
        let r = self.mul_add(n, self.splat(-LN2_LOW), r);
        let mut p = self.splat(1.987_569_1e-4);
        p = self.mul_add(p, r, self.splat(1.398_2e-3));
        p = self.mul_add(p, r, self.splat(8.333_452e-3));
        p = self.mul_add(p, r, self.splat(4.166_579_6e-2));
        p = self.mul_add(p, r, self.splat(1.666_666_5e-1));
        p = self.mul_add(p, r, self.splat(0.5));
        let p = self.mul_add(p, self.mul(r, r), self.add(r, self.splat(1.0)));
        self.zero_below(x, FLOOR, self.mul(p, self.as_exponent(shifted)))
    }
}

/// Arrays of plain numbers, for any processor.
#[derive(Clone, Copy)]
pub(super) struct Portable;

impl Simd for Portable {
    type V = [f32; 4];
    const LANES: usize = 4;
    const ROWS: usize = 4;

    #[inline(always)]
    fn splat(self, x: f32) -> Self::V {
        [x; 4]
    }
    #[inline(always)]
    unsafe fn read(self, from: *const f32) -> Self::V {
        // SAFETY: the caller gives `LANES` elements; an array needs no more alignment than they.
        unsafe { from.cast::<Self::V>().read() }
    }
    #[inline(always)]
    unsafe fn write(self, v: Self::V, to: *mut f32) {
        // SAFETY: as in `read`.
        unsafe { to.cast::<Self::V>().write(v) }
    }
    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        [a[0] + b[0], a[1] + b[1], a[2] + b[2], a[3] + b[3]]
    }
    #[inline(always)]
    fn sub(self, a: Self::V, b: Self::V) -> Self::V {
        [a[0] - b[0], a[1] - b[1], a[2] - b[2], a[3] - b[3]]
    }
    #[inline(always)]
    fn mul(self, a: Self::V, b: Self::V) -> Self::V {
        [a[0] * b[0], a[1] * b[1], a[2] * b[2], a[3] * b[3]]
    }
    #[inline(always)]
    fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        self.add(self.mul(a, b), c)
    }
    #[inline(always)]
    fn max(self, a: Self::V, b: Self::V) -> Self::V {
        let mut out = b;
        for i in 0..4 {
            out[i] = if a[i] > b[i] { a[i] } else { b[i] };
        }
        out
    }
    #[inline(always)]
    fn zero_below(self, x: Self::V, floor: f32, value: Self::V) -> Self::V {
        let mut out = value;
        for i in 0..4 {
            // A mask and not a branch, which would keep the compiler from making vectors.
            let keep = u32::from(x[i] < floor).wrapping_sub(1);
            out[i] = f32::from_bits(value[i].to_bits() & keep);
        }
        out
    }
    #[inline(always)]
    fn as_exponent(self, x: Self::V) -> Self::V {
        let mut out = x;
        for i in 0..4 {
            out[i] = f32::from_bits(x[i].to_bits() << 23);
        }
        out
    }
}
