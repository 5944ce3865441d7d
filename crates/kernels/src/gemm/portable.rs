//! The tile kernel in plain Rust, which the compiler vectorises as the target allows.

use super::{Few, Kernel, Layout, Panel, Tile};
use crate::weights::Floats;

/// The kernel of every machine.
pub(super) struct Portable;

impl Kernel for Portable {
    const MR: usize = 4;
    const NR: usize = 8;
    const LANES: usize = 8;

    unsafe fn pack(panel: Panel<'_>, stride: usize, out: &mut [f32]) {
        match panel.data {
            Floats::F32(data) => pack(data, |x| x, panel, stride, out),
            Floats::Bf16(data) => pack(data, |x| x.to_f32(), panel, stride, out),
            Floats::F16(data) => pack(data, |x| x.to_f32(), panel, stride, out),
        }
    }

    unsafe fn tile(work: Tile) {
        let Tile { rows, kc, a, b, c, ldc, add, .. } = work;
        // SAFETY: the caller vouches for `[kc, rows]` and `[kc, NR]` elements and for the tile.
        let (a, b) = unsafe {
            (std::slice::from_raw_parts(a, kc * rows), std::slice::from_raw_parts(b, kc * Self::NR))
        };
        // SAFETY: as above.
        unsafe {
            match rows {
                1 => tile::<1>(a, b, c, ldc, add),
                2 => tile::<2>(a, b, c, ldc, add),
                3 => tile::<3>(a, b, c, ldc, add),
                _ => tile::<4>(a, b, c, ldc, add),
            }
        }
    }

    unsafe fn few(work: Few<'_>) {
        let Few { rows, a, lda, panel, c, ldc, add, .. } = work;
        for r in 0..rows {
            // SAFETY: the caller vouches for these elements of `A` and of `C`.
            let (a, c) = unsafe {
                (
                    std::slice::from_raw_parts(a.add(r * lda), panel.kc),
                    std::slice::from_raw_parts_mut(c.add(r * ldc), panel.len),
                )
            };
            match panel.data {
                Floats::F32(data) => few(a, data, |x| x, panel.ld, c, add),
                Floats::Bf16(data) => few(a, data, |x| x.to_f32(), panel.ld, c, add),
                Floats::F16(data) => few(a, data, |x| x.to_f32(), panel.ld, c, add),
            }
        }
    }
}

/// The products of one row of `A` with the rows of a panel, `ld` apart.
fn few<T: Copy>(
    a: &[f32],
    data: &[T],
    widen: impl Fn(T) -> f32,
    ld: usize,
    c: &mut [f32],
    add: bool,
) {
    let mut sums = [0.0f32; Portable::LANES];
    for (p, a) in a.iter().enumerate() {
        for (i, sum) in sums[..c.len()].iter_mut().enumerate() {
            *sum += a * widen(data[i * ld + p]);
        }
    }
    for (c, sum) in c.iter_mut().zip(sums) {
        *c = if add { *c + sum } else { sum };
    }
}

fn pack<T: Copy>(
    data: &[T],
    widen: impl Fn(T) -> f32,
    panel: Panel<'_>,
    stride: usize,
    out: &mut [f32],
) {
    let Panel { layout, ld, len, kc, .. } = panel;
    let (along_i, along_p) = match layout {
        Layout::KInner => (ld, 1),
        Layout::KOuter => (1, ld),
    };
    for (p, line) in out[..kc * stride].chunks_exact_mut(stride).enumerate() {
        for (i, x) in line[..len].iter_mut().enumerate() {
            *x = widen(data[i * along_i + p * along_p]);
        }
        line[len..].fill(0.0);
    }
}

/// # Safety
/// `c` holds `R` rows of `NR` elements, `ldc` apart.
unsafe fn tile<const R: usize>(a: &[f32], b: &[f32], c: *mut f32, ldc: usize, add: bool) {
    const NR: usize = Portable::NR;
    let mut sums = [[0.0f32; NR]; R];
    for (a, b) in a.as_chunks::<R>().0.iter().zip(b.as_chunks::<NR>().0) {
        for (sums, a) in sums.iter_mut().zip(a) {
            for (sum, b) in sums.iter_mut().zip(b) {
                *sum += a * b;
            }
        }
    }
    for (i, sums) in sums.iter().enumerate() {
        // SAFETY: row `i` of the tile.
        let c = unsafe { std::slice::from_raw_parts_mut(c.add(i * ldc), NR) };
        for (c, sum) in c.iter_mut().zip(sums) {
            *c = if add { *c + sum } else { *sum };
        }
    }
}
