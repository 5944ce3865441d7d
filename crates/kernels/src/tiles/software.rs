//! The matrix unit in plain Rust, after the operation of TDPBF16PS in Intel's Software Developer's
//! Manual, and one that does not multiply.

use super::{COLUMNS, PLACES, REGISTERS, ROWS, TileUnit};
use crate::{Isa, isa::vectorised};

/// A model of the unit: its registers.
pub(super) struct Software([[u32; PLACES]; REGISTERS]);

impl Software {
    pub(super) fn new() -> Self {
        Self([[0; PLACES]; REGISTERS])
    }
}

impl TileUnit for Software {
    fn zero<const T: usize>(&mut self) {
        self.0[T] = [0; PLACES];
    }

    unsafe fn load<const T: usize>(&mut self, from: *const f32, line: usize) {
        for (i, row) in self.0[T].as_chunks_mut::<COLUMNS>().0.iter_mut().enumerate() {
            // SAFETY: the caller's promise.
            *row = unsafe { from.byte_add(i * line).cast::<[u32; COLUMNS]>().read_unaligned() };
        }
    }

    unsafe fn store<const T: usize>(&mut self, to: *mut f32, line: usize) {
        for (i, row) in self.0[T].as_chunks::<COLUMNS>().0.iter().enumerate() {
            // SAFETY: the caller's promise.
            unsafe { to.byte_add(i * line).cast::<[u32; COLUMNS]>().write_unaligned(*row) };
        }
    }

    fn multiply<const C: usize, const A: usize, const B: usize>(&mut self) {
        let (a, b) = (self.0[A], self.0[B]);
        multiply(Isa::detect(), &mut self.0[C], &a, &b);
    }
}

vectorised! {
    /// Adds the product of two tiles to `sums`.
    fn multiply(sums: &mut [u32; PLACES], a: &[u32; PLACES], b: &[u32; PLACES]) {
        for i in 0..ROWS {
            // The terms of even and of odd number are summed apart, from zero.
            let mut even = [0.0; COLUMNS];
            let mut odd = [0.0; COLUMNS];
            for p in 0..COLUMNS {
                let (x, y) = (a[i * COLUMNS + p], &b[p * COLUMNS..][..COLUMNS]);
                for j in 0..COLUMNS {
                    even[j] = add_product(even[j], x << 16, y[j] << 16);
                    odd[j] = add_product(odd[j], x & 0xffff_0000, y[j] & 0xffff_0000);
                }
            }
            for (j, sum) in sums[i * COLUMNS..][..COLUMNS].iter_mut().enumerate() {
                let both = flushed(even[j] + odd[j]);
                *sum = flushed(flushed(f32::from_bits(*sum)) + both).to_bits();
            }
        }
    }
}

/// `sum + a b`, rounded once; what is denormal counts as zero, before and after.
#[inline(always)]
fn add_product(sum: f32, a: u32, b: u32) -> f32 {
    let (a, b) = (flushed(f32::from_bits(a)), flushed(f32::from_bits(b)));
    flushed(a.mul_add(b, sum))
}

/// Zero with the sign of `x` where that is denormal.
#[inline(always)]
fn flushed(x: f32) -> f32 {
    if x.abs() < f32::MIN_POSITIVE { 0f32.copysign(x) } else { x }
}

/// A unit that only writes zeros.
pub(super) struct Idle;

impl TileUnit for Idle {
    fn zero<const T: usize>(&mut self) {}

    unsafe fn load<const T: usize>(&mut self, _: *const f32, _: usize) {}

    unsafe fn store<const T: usize>(&mut self, to: *mut f32, line: usize) {
        for i in 0..ROWS {
            // SAFETY: the caller's promise.
            unsafe {
                to.byte_add(i * line).cast::<[f32; COLUMNS]>().write_unaligned([0.0; COLUMNS])
            };
        }
    }

    fn multiply<const C: usize, const A: usize, const B: usize>(&mut self) {}
}
