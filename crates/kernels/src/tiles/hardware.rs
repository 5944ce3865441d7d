//! The processor's matrix unit, by its instructions, which have no stable intrinsics.

use std::{arch::asm, marker::PhantomData};

use super::{COLUMNS, REGISTERS, ROWS, TileUnit};

/// The unit, configured for the thread that holds this. The compiler uses no tile registers of its own, so that
/// they keep between two instructions what the first left there.
pub(super) struct Hardware(PhantomData<*mut ()>);

/// The operand of LDTILECFG.
#[repr(C, align(64))]
struct Config {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    /// Bytes of a row of each register, of which there may be sixteen one day.
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

/// Whole tiles in all registers.
static CONFIG: Config = {
    let (mut row_bytes, mut rows) = ([0; 16], [0; 16]);
    let mut i = 0;
    while i < REGISTERS {
        (row_bytes[i], rows[i]) = (4 * COLUMNS as u16, ROWS as u8);
        i += 1;
    }
    Config { palette: 1, start_row: 0, reserved: [0; 14], row_bytes, rows }
};

impl Hardware {
    /// # Safety
    /// The processor has the unit, and the system lets this process use it.
    pub(super) unsafe fn configured() -> Self {
        // SAFETY: the caller's promise; the configuration is valid and 64 bytes long.
        unsafe {
            asm!("ldtilecfg [{}]", in(reg) &raw const CONFIG,
                options(readonly, nostack, preserves_flags));
        }
        Self(PhantomData)
    }
}

impl Drop for Hardware {
    fn drop(&mut self) {
        // SAFETY: that there is a value proves that the processor has the unit. Registers that hold nothing
        // need not be saved when the system changes threads.
        unsafe { asm!("tilerelease", options(nomem, nostack, preserves_flags)) }
    }
}

impl TileUnit for Hardware {
    #[inline(always)]
    fn zero<const T: usize>(&mut self) {
        // SAFETY: that there is a value proves that the unit is there and configured.
        unsafe { asm!("tilezero tmm{}", const T, options(nomem, nostack, preserves_flags)) }
    }

    #[inline(always)]
    unsafe fn load<const T: usize>(&mut self, from: *const f32, line: usize) {
        // SAFETY: as above, and the caller's promise.
        unsafe {
            asm!("tileloadd tmm{}, [{} + {} * 1]", const T, in(reg) from, in(reg) line,
                options(readonly, nostack, preserves_flags));
        }
    }

    #[inline(always)]
    unsafe fn store<const T: usize>(&mut self, to: *mut f32, line: usize) {
        // SAFETY: as above, and the caller's promise.
        unsafe {
            asm!("tilestored [{} + {} * 1], tmm{}", in(reg) to, in(reg) line, const T,
                options(nostack, preserves_flags));
        }
    }

    #[inline(always)]
    fn multiply<const C: usize, const A: usize, const B: usize>(&mut self) {
        // SAFETY: as above.
        unsafe {
            asm!("tdpbf16ps tmm{}, tmm{}, tmm{}", const C, const A, const B,
                options(nomem, nostack, preserves_flags));
        }
    }
}
