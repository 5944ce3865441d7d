//! The matrix product behind the linear layers: `C (+)= A B^T`, summed in `f32`, cache-blocked. The factors
//! are `f32`, or rounded to `bf16` while they are packed ([`Compute`]), and then multiplied by a matrix unit
//! where there is one ([`tiled`]).
//!
//! Both operands are copied, a block at a time, into panels in which the tile kernel reads straight
//! on (Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication", 2008). `A` is
//! packed for a block of rows; `B` a panel at a time, converted on the way, so a weight never exists
//! twice. A place of a panel holds a term, or two in `bf16`.
//!
//! Every element of `C` is summed in the same order, whatever the rows around it and the threads:
//! straight along `k` in one lane within blocks of [`KC`], block after block into `C`. Tiles cut
//! short at an edge only leave lanes out. So a product of few rows, for which packing would be most
//! of the work, may do without, and is limited by the memory that `B` is read from.

mod kernel;
mod tiled;

use std::{cell::Cell, ops::Range, thread::LocalKey};

use kernel::{Few, Next, Pair, Panel, Place, Single, Tile};
pub(crate) use tiled::{Source, gemm as gemm_on_tiles};

use crate::{
    Compute, Cpu,
    product::{Out, Shape},
    simd::{self, MAX_LANES, Simd},
    weights::Floats,
};

/// Places of a panel that are summed in a lane before they are added to `C`.
const KC: usize = 384;
/// Rows of `A` packed at once: with `KC` places they stay in a second-level cache.
const MC: usize = 384;
/// Terms of `A` packed at once where the rows lie side by side, so that lines are read to their end.
const CHUNK: usize = 8;
/// Rows of `A` at most for which `B` is not packed.
const FEW: usize = 8;
/// Elements between two packed panels: those of the widest vector.
const SLACK: usize = MAX_LANES;
/// Products of fewer multiplications than this run on the calling thread.
const SERIAL: usize = 64 * 64 * 64;
/// Elements of a block of `C` where it is large: enough for packing to cost little.
const BLOCK: usize = 512 * 512;

/// How a matrix of `len` vectors with `k` terms each is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// `[len, k]`: the terms of a vector lie side by side.
    KInner,
    /// `[k, len]`: the vectors lie side by side.
    KOuter,
}

/// One side of the product: the rows of `A` or of `B`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Operand<'a> {
    /// The elements, `len * k` of them.
    pub(crate) data: Floats<'a>,
    /// How they are stored.
    pub(crate) layout: Layout,
}

impl<'a> Operand<'a> {
    /// The vectors `vectors` (of `len`) over the terms `terms` (of `k`).
    fn panel(&self, len: usize, k: usize, vectors: Range<usize>, terms: Range<usize>) -> Panel<'a> {
        let (ld, start) = match self.layout {
            Layout::KInner => (k, vectors.start * k + terms.start),
            Layout::KOuter => (len, terms.start * len + vectors.start),
        };
        let data = self.data.slice(start..len * k);
        Panel { data, layout: self.layout, ld, len: vectors.len(), kc: terms.len() }
    }
}

/// Where packed panel number `panel` begins, `vectors` vectors of `kc` places coming before it: after
/// each panel there is room for what a vector store writes beyond its last element.
const fn panel_at(vectors: usize, panel: usize, kc: usize) -> usize {
    vectors * kc + panel * SLACK
}

/// `C` as the tasks see it, each writing its own block.
#[derive(Clone, Copy)]
struct Output(*mut f32);

// SAFETY: the pointer is to elements of which every task writes a part that is its own.
unsafe impl Send for Output {}
// SAFETY: as above.
unsafe impl Sync for Output {}

struct Product<'a, P> {
    /// What the places of packed panels hold.
    place: P,
    cpu: &'a Cpu,
    a: Operand<'a>,
    b: Operand<'a>,
    m: usize,
    n: usize,
    k: usize,
    c: Output,
    add: bool,
}

/// `c[m, n] (+)= a[m, k] b[n, k]^T`, each operand in its layout.
///
/// The buffers must have the lengths of their shapes: the linear layer has checked them.
pub(crate) fn gemm(
    cpu: &Cpu,
    Shape { m, n, k }: Shape,
    a: Operand<'_>,
    b: Operand<'_>,
    c: &mut [f32],
    out: Out,
) {
    assert!(a.data.len() == m * k && b.data.len() == n * k && c.len() == m * n);
    let add = out == Out::Add;
    if k == 0 && !add {
        c.fill(0.0);
    }
    if m == 0 || n == 0 || k == 0 {
        return;
    }
    if let Some(tiles) = cpu.tiles() {
        return tiled::gemm(cpu, tiles, Shape { m, n, k }, a, Source::Floats(b), c, out);
    }
    let c = Output(c.as_mut_ptr());
    match cpu.compute() {
        Compute::F32 => {
            simd::run(cpu.isa(), Product { place: Single, cpu, a, b, m, n, k, c, add });
        }
        Compute::Bf16 => {
            simd::run_bf16(cpu.isa(), Product { place: Pair, cpu, a, b, m, n, k, c, add });
        }
    }
}

impl<P: Place> simd::Kernel for Product<'_, P> {
    /// Cuts the product into blocks; only what these call touches vectors.
    fn call<S: Simd>(self, s: S) {
        let small = self.m.saturating_mul(self.n).saturating_mul(self.k) <= SERIAL;
        let threads = if small { 1 } else { self.cpu.threads() };
        let width = kernel::columns::<S>();
        let panels = self.n.div_ceil(width);
        let (rows, columns) = grid(self.m, panels, width, threads);
        self.cpu.for_each(rows * columns, |task| {
            let panels = share(panels, columns, task / rows);
            let (from, to) = (panels.start * width, (panels.end * width).min(self.n));
            self.block(s, share(self.m, rows, task % rows), from..to);
        });
    }
}

impl<P: Place> Product<'_, P> {
    /// One block of `C`, on one thread.
    fn block<S: Simd>(&self, s: S, rows: Range<usize>, columns: Range<usize>) {
        if P::TERMS == 1
            && let (1..=FEW, Layout::KInner, Operand { layout: Layout::KInner, data }) =
                (rows.len(), self.b.layout, self.a)
            && let Floats::F32(a) = data
        {
            return self.few(s, a, rows, columns);
        }
        let parts = rows.len().div_ceil(MC);
        let kc = self.k.div_ceil(P::TERMS).min(KC);
        let mut scratch = Scratch::take(&SCRATCH);
        // Room for any number of rows, so that fewer rows in more of a part need no more memory.
        let width = kernel::columns::<S>();
        let (a, b) = scratch.split(panel_at(MC, MC.div_ceil(S::ROWS), kc), panel_at(width, 1, kc));
        for part in 0..parts {
            let part = share(rows.len(), parts, part);
            let rows = rows.start + part.start..rows.start + part.end;
            for start in (0..self.k).step_by(KC * P::TERMS) {
                let terms = start..(start + KC * P::TERMS).min(self.k);
                self.pack_a(s, rows.clone(), terms.clone(), a);
                for j in columns.clone().step_by(width) {
                    let columns = j..(j + width).min(columns.end);
                    self.panel(s, rows.clone(), columns, terms.clone(), a, b);
                }
            }
        }
    }

    /// The same for a few rows of `a`, reading each row of `B` from beginning to end.
    fn few<S: Simd>(&self, s: S, a: &[f32], rows: Range<usize>, columns: Range<usize>) {
        for j in columns.clone().step_by(S::LANES) {
            let columns = j..(j + S::LANES).min(columns.end);
            for start in (0..self.k).step_by(KC) {
                let terms = start..(start + KC).min(self.k);
                let panel = self.b.panel(self.n, self.k, columns.clone(), terms);
                let (left, add) = (self.k - start, self.add || start > 0);
                let a = a[rows.start * self.k + start..].as_ptr();
                // SAFETY: these elements of `C` are in the block of this task.
                let c = unsafe { self.c.0.add(rows.start * self.n + j) };
                let (rows, lda, ldc) = (rows.len(), self.k, self.n);
                // SAFETY: the rows of `A` and of `B` are `k` long.
                unsafe { Few { rows, a, lda, panel, left, c, ldc, add }.compute(s) };
            }
        }
    }

    /// Packs a block of `A`: the panels of its rows one after the other.
    fn pack_a<S: Simd>(&self, s: S, rows: Range<usize>, terms: Range<usize>, out: &mut [f32]) {
        // A panel is packed in vectors, of which the next line overwrites what is too much.
        const { assert!(S::ROWS <= S::LANES) };
        let panels = rows.len().div_ceil(S::ROWS);
        let kc = terms.len().div_ceil(P::TERMS);
        let chunk = match self.a.layout {
            Layout::KInner => terms.len(),
            Layout::KOuter => CHUNK * P::TERMS,
        };
        for p in terms.clone().step_by(chunk) {
            let chunk = p..(p + chunk).min(terms.end);
            for panel in 0..panels {
                let part = share(rows.len(), panels, panel);
                let vectors = rows.start + part.start..rows.start + part.end;
                let source = self.a.panel(self.m, self.k, vectors, chunk.clone());
                let before = (p - terms.start) / P::TERMS * part.len();
                let at = panel_at(part.start, panel, kc) + before;
                // SAFETY: the panel and the slack after it lie in `out`.
                unsafe { source.pack(s, self.place, part.len(), &mut out[at..]) };
            }
        }
    }

    /// One panel of columns of a block of `C`, from packed rows of `A`; `b` is scratch.
    fn panel<S: Simd>(
        &self,
        s: S,
        rows: Range<usize>,
        columns: Range<usize>,
        terms: Range<usize>,
        a: &[f32],
        b: &mut [f32],
    ) {
        let panels = rows.len().div_ceil(S::ROWS);
        let (kc, width) = (terms.len().div_ceil(P::TERMS), columns.len());
        let add = self.add || terms.start > 0;
        let source = self.b.panel(self.n, self.k, columns.clone(), terms.clone());
        let columns_of_tile = kernel::columns::<S>();
        // SAFETY: `b` was made for `KC` places of as many columns.
        unsafe { source.pack(s, self.place, columns_of_tile, b) };
        let columns_after =
            columns.end.min(self.n - 1)..(columns.end + columns_of_tile).min(self.n);
        let after = self.b.panel(self.n, self.k, columns_after, terms);
        for panel in 0..panels {
            let part = share(rows.len(), panels, panel);
            let at = (rows.start + part.start) * self.n + columns.start;
            // SAFETY: the panels are packed for these rows and columns, and the tile, `width` wide, lies
            // in the block of `C` that this task alone writes.
            unsafe {
                let tile = Tile {
                    rows: part.len(),
                    kc,
                    a: a[panel_at(part.start, panel, kc)..].as_ptr(),
                    b: b.as_ptr(),
                    c: self.c.0.add(at),
                    ldc: self.n,
                    add,
                    next: Next::of(&after, panel, P::TERMS),
                };
                tile.compute(s, self.place, width);
            }
        }
    }
}

/// Part `i` of `0..len` cut into `parts` whose sizes differ by one at most.
fn share(len: usize, parts: usize, i: usize) -> Range<usize> {
    let (size, longer) = (len / parts, len % parts);
    let start = i * size + i.min(longer);
    start..start + size + usize::from(i < longer)
}

/// Blocks of `C` down and across: enough for a thread that falls behind to be helped, and as square
/// as they come, because each block packs its rows of `A` and its columns of `B` anew.
fn grid(m: usize, panels: usize, nr: usize, threads: usize) -> (usize, usize) {
    let wanted = match threads {
        1 => 1,
        _ => (m * panels * nr / BLOCK).clamp(2 * threads, 8 * threads),
    };
    let (mut rows, mut columns) = (1, 1);
    while rows * columns < wanted {
        let tall = m / rows > panels * nr / columns;
        if tall {
            rows *= 2;
        } else if columns < panels {
            columns = (2 * columns).min(panels);
        } else {
            break;
        }
    }
    (rows, columns)
}

thread_local! {
    static SCRATCH: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// This thread's buffer for packed panels, kept from one product to the next.
type Kept = &'static LocalKey<Cell<Vec<f32>>>;

/// Such a buffer while it is used.
struct Scratch(Vec<f32>, Kept);

impl Scratch {
    fn take(kept: Kept) -> Self {
        Self(kept.take(), kept)
    }

    /// Two buffers of `a` and `b` elements, each on a cache line of its own.
    fn split(&mut self, a: usize, b: usize) -> (&mut [f32], &mut [f32]) {
        const LINE: usize = 16;
        let a = a.next_multiple_of(LINE);
        let needed = a + b + LINE;
        if self.0.len() < needed {
            self.0.resize(needed, 0.0);
        }
        let skip = self.0.as_ptr().align_offset(4 * LINE).min(LINE);
        let (first, second) = self.0[skip..].split_at_mut(a);
        (first, &mut second[..b])
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        self.1.set(std::mem::take(&mut self.0));
    }
}

#[cfg(test)]
mod tests;
