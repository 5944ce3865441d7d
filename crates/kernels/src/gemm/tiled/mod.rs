//! The matrix product on a matrix unit: factors of `bf16`, sums of `f32`.
//!
//! The unit multiplies a tile whose rows are vectors with one whose columns are, pairs of their terms in each
//! place. `A` is packed into tiles once, by all threads; of `B` a panel at a time, which stays in the first-level
//! cache while tiles of `A` come from the second. Which of the two lies in rows is chosen by what has to be
//! transposed then: an operand while it is packed, or `C` while it is written.
//!
//! Every element of `C` is summed from zero in the same order, [`DEPTH`] terms by [`DEPTH`] terms as the unit does
//! it, whatever the rows around it, the threads and the choice, and then written or added to what is there.
//! What is denormal counts as zero.
//!
//! With `x` and `w` the vectors of an element, it differs from their exact product by
//! `(2^-7 + 2^-16 + (k / 32 + 18) 2^-24) sum |x w|` at most: each factor is rounded to 8 bits, and a term goes
//! through 16 sums of the unit, two more at its end and one for each 32 terms.

mod kernel;
#[cfg(test)]
mod tests;

use std::{cell::Cell, ops::Range};

use kernel::{PAIR_SUMS, PANEL, Pack, STEP, Written, multiply};

use super::{Layout, Operand, Output, Panel, SCRATCH, SERIAL, Scratch, kernel::Next};
use crate::{
    BlockFormat, Cpu,
    product::{Out, Shape},
    simd::{self, Simd},
    tiles::{self, DEPTH, TileKernel, TileUnit, Tiles},
    weights::Floats,
};

/// Terms of a panel of `B`: with 32 vectors 32 KB, which a first-level cache of 48 KB holds. They are whole blocks of
/// every format and whole tiles.
const KC: usize = 512;
/// Rows of a block of `C` at most: [`KC`] terms of them stay in a second-level cache.
const MC: usize = 256;
/// Columns of a block at most: its sums stay there too.
const NC: usize = 256;
/// Places of packed `A` at most: 32 MB.
const ROOM: usize = 8 << 20;

/// The rows of `B`.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Source<'a> {
    Floats(Operand<'a>),
    /// Whole blocks of a format, the terms of a row side by side.
    Blocks(BlockFormat, &'a [u8]),
}

thread_local! {
    static PACKED: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

struct Product<'a> {
    cpu: &'a Cpu,
    tiles: Tiles,
    a: Operand<'a>,
    b: Source<'a>,
    m: usize,
    n: usize,
    k: usize,
    c: Output,
    add: bool,
    /// Whether it is the vectors of `B` that lie in rows of tiles.
    flip: bool,
    /// Places of packed `A` at most, unless a block of rows has more.
    room: usize,
}

/// `c[m, n] (+)= a[m, k] b[n, k]^T`, each operand in its layout.
///
/// The buffers must have the lengths of their shapes, and rows of blocks be whole: the linear layer has checked
/// them.
pub(crate) fn gemm(
    cpu: &Cpu,
    tiles: Tiles,
    Shape { m, n, k }: Shape,
    a: Operand<'_>,
    b: Source<'_>,
    c: &mut [f32],
    out: Out,
) {
    let fits = match b {
        Source::Floats(b) => b.data.len() == n * k,
        Source::Blocks(format, bytes) => format.bytes(k).is_some_and(|row| row * n == bytes.len()),
    };
    assert!(fits && a.data.len() == m * k && c.len() == m * n);
    let add = out == Out::Add;
    if k == 0 && !add {
        c.fill(0.0);
    }
    if m == 0 || n == 0 || k == 0 {
        return;
    }
    let (c, flip) = (Output(c.as_mut_ptr()), is_flipped(Shape { m, n, k }, a.layout, b.layout()));
    simd::run_bf16(cpu.isa(), Product { cpu, tiles, a, b, m, n, k, c, add, flip, room: ROOM });
}

/// Whether it is less to transpose if the vectors of `B` lie in rows of tiles.
fn is_flipped(Shape { m, n, k }: Shape, a: Layout, b: Layout) -> bool {
    let (a_len, b_len) = ((m * k) as f64, (n * k) as f64 * m.div_ceil(MC) as f64);
    let cost = |is: bool, len: f64| if is { len } else { 0.0 };
    // An element of `C` is as large as two that are packed.
    let flipped = cost(a == Layout::KInner, a_len)
        + cost(b == Layout::KOuter, b_len)
        + 2.0 * m as f64 * n as f64;
    flipped < cost(a == Layout::KOuter, a_len) + cost(b == Layout::KInner, b_len)
}

/// Rows and columns of a block of `C`, whole panels: enough blocks for a thread that falls behind to be helped.
fn block_size(m: usize, n: usize, threads: usize) -> (usize, usize) {
    let wanted = if threads == 1 { 1 } else { 4 * threads };
    let (mut height, mut width) =
        (m.next_multiple_of(PANEL).min(MC), n.next_multiple_of(PANEL).min(NC));
    while m.div_ceil(height) * n.div_ceil(width) < wanted {
        // Each panel of `B` is packed anew for every block below another, so these stay as high as they can.
        if width > 2 * PANEL {
            width = (width / 2).next_multiple_of(PANEL);
        } else if height > 2 * PANEL {
            height = (height / 2).next_multiple_of(PANEL);
        } else {
            break;
        }
    }
    (height, width)
}

impl Source<'_> {
    fn layout(&self) -> Layout {
        match self {
            Self::Floats(operand) => operand.layout,
            Self::Blocks(..) => Layout::KInner,
        }
    }
}

impl simd::Kernel for Product<'_> {
    /// Cuts the product into blocks; only what these call touches vectors.
    fn call<S: Simd>(self, s: S) {
        let small = self.m.saturating_mul(self.n).saturating_mul(self.k) <= SERIAL;
        let threads = if small { 1 } else { self.cpu.threads() };
        let (height, width) = block_size(self.m, self.n, threads);
        let panel = self.panel_len();
        let most = (self.room / panel * PANEL / height).max(1) * height;
        let mut scratch = Scratch::take(&PACKED);
        for start in (0..self.m).step_by(most) {
            let band = start..(start + most).min(self.m);
            let (packed, _) = scratch.split(band.len().div_ceil(PANEL) * panel, 0);
            let pack = |i: usize, out: &mut [f32]| {
                let first = band.start + i * PANEL;
                self.pack_a(s, first..(first + PANEL).min(band.end), out);
            };
            if small {
                packed.chunks_mut(panel).enumerate().for_each(|(i, out)| pack(i, out));
            } else {
                self.cpu.chunks(packed, panel, pack);
            }
            let packed = &*packed;
            let (down, across) = (band.len().div_ceil(height), self.n.div_ceil(width));
            self.cpu.for_each(down * across, |task| {
                let (row, column) = (band.start + task % down * height, task / down * width);
                let block = Block {
                    product: &self,
                    s,
                    packed: &packed[task % down * height / PANEL * panel..],
                    rows: row..(row + height).min(band.end),
                    columns: column..(column + width).min(self.n),
                };
                tiles::run(self.tiles, block);
            });
        }
    }
}

impl Product<'_> {
    /// Places of a packed panel of `A`.
    fn panel_len(&self) -> usize {
        self.k.div_ceil(DEPTH) * STEP
    }

    /// Packs a panel of `A`.
    fn pack_a<S: Simd>(&self, s: S, rows: Range<usize>, out: &mut [f32]) {
        let panel = self.a.panel(self.m, self.k, rows, 0..self.k);
        // SAFETY: the elements of `A` are there.
        unsafe { Pack { panel, in_rows: !self.flip }.run(s, out) }
    }

    /// What will be packed of `B` after a panel, if it is not blocks, which are few bytes.
    fn after(&self, left: Range<usize>, terms: &Range<usize>) -> Option<Panel<'_>> {
        let columns = left.start..(left.start + PANEL).min(left.end);
        match self.b {
            Source::Floats(b) if !columns.is_empty() => {
                Some(b.panel(self.n, self.k, columns, terms.clone()))
            }
            _ => None,
        }
    }

    /// Packs a panel of `B`; blocks are unpacked before.
    fn pack_b<S: Simd>(
        &self,
        s: S,
        columns: Range<usize>,
        terms: Range<usize>,
        unpacked: &mut [f32],
        out: &mut [f32],
    ) {
        let panel = match self.b {
            Source::Floats(b) => b.panel(self.n, self.k, columns, terms),
            Source::Blocks(format, bytes) => {
                let (len, size) = (format.block_len(), format.block_bytes());
                let (ld, line) = (terms.len(), self.k / len * size);
                for (column, pairs) in columns.clone().zip(unpacked.chunks_exact_mut(ld / 2)) {
                    let blocks = &bytes[column * line + terms.start / len * size..];
                    format.round(s, &blocks[..ld / len * size], pairs);
                }
                let data = Floats::Bf16(bytemuck::cast_slice(unpacked));
                Panel { data, layout: Layout::KInner, ld, len: columns.len(), kc: ld }
            }
        };
        // SAFETY: the elements of `B` are there, and those of a panel of blocks in `unpacked`.
        unsafe { Pack { panel, in_rows: self.flip }.run(s, out) }
    }
}

/// A block of `C`, on one thread.
struct Block<'a, S> {
    product: &'a Product<'a>,
    s: S,
    /// The packed panels of `A`, from that of the first row on.
    packed: &'a [f32],
    rows: Range<usize>,
    columns: Range<usize>,
}

impl<S: Simd> TileKernel for Block<'_, S> {
    fn call<U: TileUnit>(self, unit: &mut U) {
        let Self { product, s, packed, rows, columns } = self;
        let &Product { n, k, b, c, add, flip, .. } = product;
        let panel_len = product.panel_len();
        let panels = rows.len().div_ceil(PANEL);
        // Sums are kept from one part of the terms to the next.
        let kept = if k > KC { panels * columns.len().div_ceil(PANEL) } else { 1 };
        let unpacked = if matches!(b, Source::Blocks(..)) { PANEL * k.min(KC) / 2 } else { 0 };
        let mut scratch = Scratch::take(&SCRATCH);
        let (b_panel, rest) =
            scratch.split(k.min(KC).div_ceil(DEPTH) * STEP, kept * PAIR_SUMS + unpacked);
        let (sums, unpacked) = rest.split_at_mut(kept * PAIR_SUMS);
        for start in (0..k).step_by(KC) {
            let terms = start..(start + KC).min(k);
            let places = terms.len().div_ceil(DEPTH) * STEP;
            for (j, column) in columns.clone().step_by(PANEL).enumerate() {
                let width = (columns.end - column).min(PANEL);
                let b = &mut b_panel[..places];
                product.pack_b(s, column..column + width, terms.clone(), unpacked, b);
                let after = product.after(column + width..columns.end, &terms);
                for i in 0..panels {
                    let a = &packed[i * panel_len + start / DEPTH * STEP..][..places];
                    let at = (j * panels + i) % kept * PAIR_SUMS;
                    let sums = &mut sums[at..][..PAIR_SUMS];
                    let next = (
                        s,
                        [2 * i, 2 * i + 1].map(|share| {
                            after.map_or(Next::nothing(), |panel| Next::of(&panel, share, 2))
                        }),
                    );
                    if flip {
                        multiply::<_, _, true>(unit, next, a, b, sums, start == 0);
                    } else {
                        multiply::<_, _, false>(unit, next, a, b, sums, start == 0);
                    }
                    if terms.end == k {
                        let row = rows.start + i * PANEL;
                        let height = (rows.end - row).min(PANEL);
                        // SAFETY: these elements of `C` are in the block, which is this task's alone.
                        unsafe {
                            let c = c.0.add(row * n + column);
                            s.run(Written { sums, flip, c, ldc: n, height, width, add });
                        }
                    }
                }
            }
        }
    }
}
