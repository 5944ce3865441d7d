//! The matrix unit (AMX of x86-64): registers that hold a tile of 16 rows of 64 bytes, and products of
//! two tiles of `bf16` that are added to a tile of `f32`.
//!
//! A kernel is written over [`TileUnit`] and run by [`run`]: on the processor's own unit, or on a model of it in
//! plain Rust, by which the kernels are tested everywhere.

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod hardware;
mod software;
#[cfg(test)]
mod tests;
mod usable;

use software::{Idle, Software};
pub(crate) use usable::is_usable;

/// Rows of a tile.
pub(crate) const ROWS: usize = 16;
/// Places of a row, each of 32 bits: a sum, or a pair of `bf16`.
pub(crate) const COLUMNS: usize = 16;
/// Places of a tile.
pub(crate) const PLACES: usize = ROWS * COLUMNS;
/// Terms that a product of tiles sums in each place.
pub(crate) const DEPTH: usize = 2 * COLUMNS;
/// Registers.
const REGISTERS: usize = 8;

/// What multiplies tiles.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tiles {
    /// The processor's matrix unit.
    Hardware,
    /// A model of it in plain Rust, after Intel's manual.
    Software,
    /// Nothing: sums are zeros. It measures what a product costs beside the products of tiles.
    Idle,
}

/// A matrix unit that is ready for the thread that holds it. All registers are whole tiles.
pub(crate) trait TileUnit {
    /// Zeros in register `T`.
    fn zero<const T: usize>(&mut self);

    /// Reads register `T`, its rows `line` bytes apart.
    ///
    /// # Safety
    /// [`ROWS`] rows of [`COLUMNS`] places can be read.
    unsafe fn load<const T: usize>(&mut self, from: *const f32, line: usize);

    /// Writes register `T`, its rows `line` bytes apart.
    ///
    /// # Safety
    /// [`ROWS`] rows of [`COLUMNS`] places can be written.
    unsafe fn store<const T: usize>(&mut self, to: *mut f32, line: usize);

    /// Adds to the sums in register `C` the product of the `bf16` in `A` and `B`: to place `(i, j)` the sum over
    /// `p` of the pairs `(i, p)` of `A` and `(p, j)` of `B`, term by term.
    fn multiply<const C: usize, const A: usize, const B: usize>(&mut self);
}

/// A computation on a matrix unit.
pub(crate) trait TileKernel {
    /// Does the work on `unit`.
    fn call<U: TileUnit>(self, unit: &mut U);
}

/// Runs `kernel` on a unit that is configured for this thread meanwhile.
pub(crate) fn run(tiles: Tiles, kernel: impl TileKernel) {
    match tiles {
        #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
        Tiles::Hardware if is_usable() => {
            // SAFETY: the unit is there and the system lets this process use it.
            let mut unit = unsafe { hardware::Hardware::configured() };
            kernel.call(&mut unit);
        }
        Tiles::Idle => kernel.call(&mut Idle),
        _ => kernel.call(&mut Software::new()),
    }
}
