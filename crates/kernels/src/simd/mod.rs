//! Vectors: one source for every instruction set.
//!
//! A kernel is written once over [`Simd`] and run by [`run`], or by [`run_int8`] if it multiplies
//! bytes: they choose the instruction set and compile the kernel for it. A value of a type that is
//! [`Simd`] exists only where the processor has the instructions, so holding one proves that they may
//! be used. All code that touches vectors must be `#[inline(always)]`, and no closure: only then does
//! it end up in the function that [`Simd::run`] compiles with those instructions on.

mod portable;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod x86;

use std::ops::IndexMut;

use half::{bf16, f16};

pub(crate) use portable::Portable;
#[cfg(target_arch = "x86_64")]
use x86::{Avx2, Avx512, Avx512Bf16, Avx512Vnni, AvxVnni};

use crate::{Isa, math::by_halves};

/// The widest vector of any instruction set, in elements.
pub(crate) const MAX_LANES: usize = 16;
/// Bytes of a run.
pub(crate) const RUN: usize = 32;
/// Rows of which a run has four bytes each.
pub(crate) const RUN_ROWS: usize = RUN / 4;

/// A computation written for any instruction set.
pub(crate) trait Kernel {
    /// Does the work; `#[inline(always)]` where it touches vectors.
    fn call<S: Simd>(self, s: S);
}

/// Runs `kernel`, compiled for `isa`.
pub(crate) fn run(isa: Isa, kernel: impl Kernel) {
    match isa {
        // SAFETY: a `Cpu` is only made for an instruction set that the machine has.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => unsafe { Avx512::new() }.run(kernel),
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => unsafe { Avx2::new() }.run(kernel),
        _ => Portable.run(kernel),
    }
}

/// Runs a `kernel` that uses [`Simd::dot`], compiled for `isa` and for VNNI where the processor has it.
///
/// Others do without, so that they are not compiled twice.
pub(crate) fn run_int8(isa: Isa, kernel: impl Kernel) {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 if is_x86_feature_detected!("avx512vnni") => {
            // SAFETY: as in `run`, and VNNI is there.
            unsafe { Avx512Vnni::new() }.run(kernel)
        }
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 if is_x86_feature_detected!("avxvnni") => unsafe { AvxVnni::new() }.run(kernel),
        _ => run(isa, kernel),
    }
}

/// Whether a processor multiplies pairs of `bf16`, if `isa` is what it is used for.
pub(crate) fn has_bf16(isa: Isa) -> bool {
    #[cfg(target_arch = "x86_64")]
    return isa == Isa::Avx512 && is_x86_feature_detected!("avx512bf16");
    #[cfg(not(target_arch = "x86_64"))]
    return false;
}

/// Runs a `kernel` that uses [`Simd::dot_pairs`], in plain Rust where the processor has no such products.
pub(crate) fn run_bf16(isa: Isa, kernel: impl Kernel) {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 if has_bf16(isa) => {
            // SAFETY: as in `run`, and products of pairs are there.
            unsafe { Avx512Bf16::new() }.run(kernel)
        }
        _ => Portable.run(kernel),
    }
}

/// The vector operations of one instruction set.
pub(crate) trait Simd: Copy + Send + Sync {
    /// [`LANES`](Self::LANES) numbers of type `f32`.
    type Floats: Copy;
    /// As many of type `i32`, or four bytes in the place of each.
    type Ints: Copy;
    /// As many vectors as a vector has elements.
    type Square: Copy + IndexMut<usize, Output = Self::Floats>;
    /// [`RUN`] bytes.
    type Run: Copy;
    /// The same instructions with vectors of at most 8 elements.
    type Narrow: Simd;
    /// Elements in a vector.
    const LANES: usize;
    /// Rows of the register tile of a matrix product, two vectors wide: as many as the registers hold.
    const ROWS: usize;

    /// Runs `kernel` in a function of its own, compiled with the instructions on.
    fn run(self, kernel: impl Kernel);
    /// The same instructions with vectors of at most 8 elements.
    fn narrow(self) -> Self::Narrow;
    /// Loads the cache line at `at`, which need not exist, into the second-level cache.
    fn prefetch(self, at: *const u8);
    /// The same into the first-level cache.
    fn prefetch_near(self, at: *const u8);

    /// `x` in every element.
    fn splat(self, x: f32) -> Self::Floats;
    /// Reads a vector, of any alignment.
    ///
    /// # Safety
    /// `from` points to `LANES` readable elements.
    unsafe fn read(self, from: *const f32) -> Self::Floats;
    /// Writes a vector.
    ///
    /// # Safety
    /// `to` points to `LANES` writable elements.
    unsafe fn write(self, v: Self::Floats, to: *mut f32);
    /// Reads the first `count` elements of a vector and nothing beyond; the others are zero.
    ///
    /// # Safety
    /// `from` points to `count <= LANES` readable elements.
    unsafe fn read_first(self, from: *const f32, count: usize) -> Self::Floats;
    /// The same, widened.
    ///
    /// # Safety
    /// `from` points to `count <= LANES` readable elements.
    unsafe fn read_first_bf16(self, from: *const bf16, count: usize) -> Self::Floats;
    /// The same, widened.
    ///
    /// # Safety
    /// `from` points to `count <= LANES` readable elements.
    unsafe fn read_first_f16(self, from: *const f16, count: usize) -> Self::Floats;
    /// Writes the first `count` elements of a vector and nothing beyond.
    ///
    /// # Safety
    /// `to` points to `count <= LANES` writable elements.
    unsafe fn write_first(self, v: Self::Floats, to: *mut f32, count: usize);
    /// `a + b`
    fn add(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// `a - b`
    fn sub(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// `a * b`
    fn mul(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// `a * b + c`, fused where the instruction set does so.
    fn mul_add(self, a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats;
    /// `a * b + c`, rounded once on every instruction set, however slowly.
    fn fma(self, a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats;
    /// `c - a * b`, rounded once on every instruction set, however slowly.
    fn neg_fma(self, a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats;
    /// The greater of each pair; `b` where one of them is NaN.
    fn max(self, a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// `value`, but 0 where `x < floor`.
    fn zero_below(self, x: Self::Floats, floor: f32, value: Self::Floats) -> Self::Floats;
    /// The low bits of `x` moved up into the exponent.
    fn as_exponent(self, x: Self::Floats) -> Self::Floats;
    /// A square of zeros.
    fn zeros(self) -> Self::Square;
    /// Element `i` of vector `j` as element `j` of vector `i`.
    fn transposed(self, square: Self::Square) -> Self::Square;

    /// Two vectors rounded to `bf16`, of which each element is a pair: that of `even` in the lower half, that
    /// of `odd` in the upper.
    #[inline(always)]
    fn pair(self, even: Self::Floats, odd: Self::Floats) -> Self::Floats {
        let (mut a, mut b) = ([0.0; MAX_LANES], [0.0; MAX_LANES]);
        self.store(even, &mut a);
        self.store(odd, &mut b);
        for i in 0..Self::LANES {
            a[i] = pair_of(a[i], b[i]);
        }
        self.load(&a)
    }
    /// Two vectors that follow each other, rounded to `bf16`: two neighbours in the place of one element.
    #[inline(always)]
    fn pairs(self, low: Self::Floats, high: Self::Floats) -> Self::Floats {
        let mut all = [0.0; 2 * MAX_LANES];
        self.store(low, &mut all);
        self.store(high, &mut all[Self::LANES..]);
        for i in 0..Self::LANES {
            all[i] = pair_of(all[2 * i], all[2 * i + 1]);
        }
        self.load(&all)
    }
    /// `sum` and, for each element, the products of the upper and then of the lower halves of the pairs `a` and
    /// `b`. An instruction may take what is denormal for 0.
    #[inline(always)]
    fn dot_pairs(self, a: Self::Floats, b: Self::Floats, sum: Self::Floats) -> Self::Floats {
        let (mut x, mut y, mut z) = ([0.0; MAX_LANES], [0.0; MAX_LANES], [0.0; MAX_LANES]);
        self.store(a, &mut x);
        self.store(b, &mut y);
        self.store(sum, &mut z);
        for i in 0..Self::LANES {
            let (x, y) = (x[i].to_bits(), y[i].to_bits());
            let half = |bits: u32| f32::from_bits(bits);
            // The product of two `bf16` is exact.
            z[i] += half(x & 0xffff_0000) * half(y & 0xffff_0000);
            z[i] += half(x << 16) * half(y << 16);
        }
        self.load(&z)
    }

    /// Reads a vector.
    ///
    /// # Safety
    /// `from` points to `LANES` readable elements.
    unsafe fn read_ints(self, from: *const i32) -> Self::Ints;
    /// `x` in every element.
    fn splat_int(self, x: i32) -> Self::Ints;
    /// `a + b`
    fn add_ints(self, a: Self::Ints, b: Self::Ints) -> Self::Ints;
    /// `-a * 2^bits`
    fn minus_shifted(self, a: Self::Ints, bits: u32) -> Self::Ints;
    /// `sum` and, for each element, the four products of the unsigned bytes `codes` with the signed
    /// `bytes`; `small` is known to the compiler and says that no code is above 63.
    fn dot(self, sum: Self::Ints, codes: Self::Ints, bytes: Self::Ints, small: bool) -> Self::Ints;
    /// The same numbers.
    fn to_floats(self, a: Self::Ints) -> Self::Floats;

    /// `LANES` unsigned bytes as numbers.
    ///
    /// # Safety
    /// `from` points to `LANES` readable bytes.
    unsafe fn read_bytes(self, from: *const u8) -> Self::Floats;
    /// Reads a run.
    fn read_run(self, from: &[u8; RUN]) -> Self::Run;
    /// Writes a run.
    fn write_run(self, run: Self::Run, to: &mut [u8; RUN]);
    /// The lower four bits of sixteen bytes, then the upper four.
    fn nibbles(self, from: &[u8; RUN / 2]) -> Self::Run;
    /// `byte` in every place.
    fn splat_byte(self, byte: u8) -> Self::Run;
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
    /// Sixteen bytes of each row, transposed by fours: run `i` has the bytes `4 i .. 4 i + 4` of every row.
    fn columns(self, rows: [&[u8; RUN / 2]; RUN_ROWS]) -> [Self::Run; 4];
    /// An `f16` as `f32`, exactly.
    fn half(self, bits: u16) -> f32;

    /// Reads the first `LANES` elements.
    #[inline(always)]
    fn load(self, from: &[f32]) -> Self::Floats {
        let from = &from[..Self::LANES];
        // SAFETY: the slice has `LANES` elements.
        unsafe { self.read(from.as_ptr()) }
    }

    /// Writes the first `LANES` elements.
    #[inline(always)]
    fn store(self, v: Self::Floats, to: &mut [f32]) {
        let to = &mut to[..Self::LANES];
        // SAFETY: the slice has `LANES` elements.
        unsafe { self.write(v, to.as_mut_ptr()) }
    }

    /// Transposes a square in memory, its lines `from_line` and `to_line` elements apart.
    ///
    /// # Safety
    /// `LANES` lines of `LANES` elements can be read, and as many written.
    #[inline(always)]
    unsafe fn transpose(self, from: *const f32, from_line: usize, to: *mut f32, to_line: usize) {
        let mut square = self.zeros();
        // SAFETY: these are the lines that the caller vouches for.
        unsafe {
            for i in 0..Self::LANES {
                square[i] = self.read(from.add(i * from_line));
            }
            let square = self.transposed(square);
            for i in 0..Self::LANES {
                self.write(square[i], to.add(i * to_line));
            }
        }
    }

    /// The sum of the elements, by halves.
    #[inline(always)]
    fn sum_across(self, v: Self::Floats) -> f32 {
        let mut x = [0.0; MAX_LANES];
        self.store(v, &mut x);
        by_halves(&mut x[..Self::LANES], |a, b| a + b)
    }

    /// The greatest element, by halves, of a vector without NaN.
    #[inline(always)]
    fn max_across(self, v: Self::Floats) -> f32 {
        let mut x = [0.0; MAX_LANES];
        self.store(v, &mut x);
        by_halves(&mut x[..Self::LANES], |a, b| if a > b { a } else { b })
    }

    /// `e^x` for `x <= 0` with a relative error below 2e-7; what would be denormal is 0, NaN stays.
    ///
    /// The range reduction and the polynomial are those of `expf` in Cephes.
    #[inline(always)]
    fn exp(self, x: Self::Floats) -> Self::Floats {
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

/// Two numbers rounded to `bf16`, in the bits of one.
fn pair_of(low: f32, high: f32) -> f32 {
    let bits = |x| u32::from(bf16::from_f32(x).to_bits());
    f32::from_bits(bits(low) | bits(high) << 16)
}

/// Numbers that are read as `f32`.
pub(crate) trait Element: Copy {
    /// Reads the first `count` elements of a vector and nothing beyond; the others are zero.
    ///
    /// # Safety
    /// `from` points to `count <= LANES` readable elements.
    unsafe fn read_first<S: Simd>(s: S, from: *const Self, count: usize) -> S::Floats;

    /// Reads elements for the places of a vector, rounded to `bf16`: two neighbours in each.
    ///
    /// # Safety
    /// `from` points to `2 * LANES` readable elements.
    #[inline(always)]
    unsafe fn read_pairs<S: Simd>(s: S, from: *const Self) -> S::Floats {
        // SAFETY: the caller's promise.
        unsafe {
            let low = Self::read_first(s, from, S::LANES);
            s.pairs(low, Self::read_first(s, from.add(S::LANES), S::LANES))
        }
    }
}

impl Element for f32 {
    #[inline(always)]
    unsafe fn read_first<S: Simd>(s: S, from: *const Self, count: usize) -> S::Floats {
        // SAFETY: the caller's promise.
        unsafe { s.read_first(from, count) }
    }
}

impl Element for bf16 {
    #[inline(always)]
    unsafe fn read_first<S: Simd>(s: S, from: *const Self, count: usize) -> S::Floats {
        // SAFETY: the caller's promise.
        unsafe { s.read_first_bf16(from, count) }
    }
    #[inline(always)]
    unsafe fn read_pairs<S: Simd>(s: S, from: *const Self) -> S::Floats {
        // SAFETY: the caller's promise; as they lie in memory they are pairs.
        unsafe { s.read(from.cast()) }
    }
}

impl Element for f16 {
    #[inline(always)]
    unsafe fn read_first<S: Simd>(s: S, from: *const Self, count: usize) -> S::Floats {
        // SAFETY: the caller's promise.
        unsafe { s.read_first_f16(from, count) }
    }
}

/// The `count <= N` numbers at `from`, then zeros: a whole vector where fewer may be read.
///
/// # Safety
/// `from` points to `count` readable elements.
#[inline(always)]
unsafe fn padded<T: Copy + Default, const N: usize>(from: *const T, count: usize) -> [T; N] {
    let mut all = [T::default(); N];
    for i in 0..count.min(N) {
        // SAFETY: one of the elements.
        all[i] = unsafe { from.add(i).read() };
    }
    all
}
