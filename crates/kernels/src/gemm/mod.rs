//! The matrix product behind the linear layers: `C (+)= A B^T` in `f32`, cache-blocked.
//!
//! Both operands are copied, a block at a time, into panels in which the tile kernel reads straight
//! on (Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication", 2008). `A` is
//! packed for a block of rows; `B` a panel at a time, widened to `f32` on the way, so a weight never
//! exists twice.
//!
//! Every element of `C` is summed in the same order, whatever the rows around it and the threads:
//! straight along `k` in one lane within blocks of [`KC`], block after block into `C`. Tiles cut
//! short at an edge only leave lanes out. So a product of few rows, for which packing would be most
//! of the work, may do without, and is limited by the memory that `B` is read from.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;

#[cfg(target_arch = "x86_64")]
pub(crate) use avx2::transposed;

use std::{cell::Cell, ops::Range};

use crate::{
    Cpu, Isa,
    linear::{Out, Shape},
    weights::Floats,
};

/// Terms summed in a lane before they are added to `C`.
const KC: usize = 384;
/// Rows of `A` packed at once: with `KC` terms they stay in a second-level cache.
const MC: usize = 384;
/// Terms of `A` packed at once where the rows lie side by side, so that lines are read to their end.
const CHUNK: usize = 8;
/// Rows of `A` at most for which `B` is not packed.
const FEW: usize = 8;
/// Terms ahead of those at work that are asked for where `B` is not packed.
const AHEAD: usize = 64;
/// Elements between two packed panels: those of the widest vector.
const SLACK: usize = 16;
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

/// A few vectors of an operand over a few terms: what is packed at once.
#[derive(Clone, Copy)]
struct Panel<'a> {
    /// The elements from the panel's first on.
    data: Floats<'a>,
    layout: Layout,
    /// Elements from one stored line to the next.
    ld: usize,
    /// Vectors in the panel.
    len: usize,
    /// Terms in the panel.
    kc: usize,
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

/// The part of the product that is written for an instruction set.
trait Kernel {
    /// Rows of a tile of `C`, at most.
    const MR: usize;
    /// Columns of a tile of `C`.
    const NR: usize;
    /// Elements of a vector: columns that [`few`](Kernel::few) takes at most.
    const LANES: usize;

    /// Writes term `p` of vector `i` of `panel` to `out[p * stride + i]`, and zeros for the vectors
    /// from `panel.len` to `stride`.
    ///
    /// # Safety
    /// The processor has the instruction set, and `out` is at least `kc * stride + SLACK` long.
    unsafe fn pack(panel: Panel<'_>, stride: usize, out: &mut [f32]);

    /// Computes a tile of [`NR`](Kernel::NR) columns.
    ///
    /// # Safety
    /// The processor has the instruction set, `1 <= rows <= MR`, and the pointers are to what
    /// [`Tile`] says.
    unsafe fn tile(tile: Tile);

    /// Computes a few rows from what is not packed.
    ///
    /// # Safety
    /// The processor has the instruction set, `1 <= rows <= FEW`, `panel.len <= LANES`, and the
    /// pointers are to what [`Few`] says.
    unsafe fn few(few: Few<'_>);
}

/// A tile of `C`: overwritten with the product of two packed panels, or added to.
#[derive(Clone, Copy)]
struct Tile {
    /// Rows of the tile.
    rows: usize,
    /// Terms of the panels.
    kc: usize,
    /// The packed rows of `A`, `[kc, rows]`.
    a: *const f32,
    /// The packed rows of `B`, `[kc, NR]`.
    b: *const f32,
    /// The tile, `[rows, NR]`, its rows `ldc` elements apart.
    c: *mut f32,
    ldc: usize,
    /// Whether the product is added to what `c` holds.
    add: bool,
    /// What is prefetched meanwhile.
    next: Next,
}

/// A few rows of `C`: overwritten with the product of rows of `A` with a panel of `B` whose terms lie
/// side by side, neither of them packed, or added to.
#[derive(Clone, Copy)]
struct Few<'a> {
    /// Rows of `A` and of `C`.
    rows: usize,
    /// The rows of `A`, of `panel.kc` elements, `lda` elements apart.
    a: *const f32,
    lda: usize,
    /// The rows of `B`. They end `left` terms after their beginning; those of the next panel follow.
    panel: Panel<'a>,
    left: usize,
    /// The elements of `C`, `[rows, panel.len]`, their rows `ldc` elements apart.
    c: *mut f32,
    ldc: usize,
    /// Whether the product is added to what `c` holds.
    add: bool,
}

/// How far behind element `p` of a row of an unpacked panel lies what will be read [`AHEAD`] terms
/// later: in the same row, or in the row as far down in the next panel of `lanes` rows.
fn ahead(p: usize, left: usize, ld: usize, lanes: usize) -> usize {
    if p + AHEAD < left { AHEAD } else { AHEAD + (lanes - 1) * ld }
}

/// Lines that a tile kernel asks the memory for while it computes, because packing will read them
/// soon: every [`Next::EVERY`] terms, [`Next::LINES`] lines.
#[derive(Clone, Copy)]
struct Next {
    at: *const u8,
    /// Bytes from one group of lines to the next.
    step: usize,
    /// Bytes from one line of a group to the next.
    line: usize,
}

impl Next {
    const EVERY: usize = 16;
    /// A constant, because loops of unknown length here cost more than they bring.
    const LINES: usize = 4;

    /// The share of `panel` that tile number `tile` asks for; nothing new once all is asked for.
    ///
    /// Rows of a few lines are asked for by their ends: where a row begins in the middle of a line,
    /// the panel before it has read that line already.
    fn of(panel: &Panel<'_>, tile: usize) -> Self {
        const LINE: usize = 64;
        let (at, size) = match panel.data {
            Floats::F32(data) => (data.as_ptr().cast::<u8>(), 4),
            Floats::Bf16(data) => (data.as_ptr().cast(), 2),
            Floats::F16(data) => (data.as_ptr().cast(), 2),
        };
        let line = panel.ld * size;
        let (skip, step) = match panel.layout {
            Layout::KInner if tile * Self::LINES < panel.len => {
                (tile * Self::LINES * line, Self::EVERY * size)
            }
            Layout::KOuter if tile / 4 * LINE < panel.len * size => {
                let quarter = panel.kc.div_ceil(4).next_multiple_of(Self::LINES);
                (tile % 4 * quarter * line + tile / 4 * LINE + LINE - 1, Self::LINES * line)
            }
            _ => return Self { at, step: 0, line: 0 },
        };
        Self { at: at.wrapping_add(skip), step, line }
    }
}

/// Where packed panel number `panel` begins, `vectors` vectors of `kc` terms coming before it: after
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

struct Product<'a> {
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
    let product = Product { a, b, m, n, k, c: Output(c.as_mut_ptr()), add };
    match cpu.isa() {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => product.run::<avx512::Avx512>(cpu),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => product.run::<avx2::Avx2>(cpu),
        _ => product.run::<portable::Portable>(cpu),
    }
}

impl Product<'_> {
    fn run<K: Kernel>(&self, cpu: &Cpu) {
        let small = self.m.saturating_mul(self.n).saturating_mul(self.k) <= SERIAL;
        let threads = if small { 1 } else { cpu.threads() };
        let panels = self.n.div_ceil(K::NR);
        let (rows, columns) = grid(self.m, panels, K::NR, threads);
        cpu.for_each(rows * columns, |task| {
            let panels = share(panels, columns, task / rows);
            let from = panels.start * K::NR;
            let to = (panels.end * K::NR).min(self.n);
            self.block::<K>(share(self.m, rows, task % rows), from..to);
        });
    }

    /// One block of `C`, on one thread.
    fn block<K: Kernel>(&self, rows: Range<usize>, columns: Range<usize>) {
        if let (1..=FEW, Layout::KInner, Operand { layout: Layout::KInner, data }) =
            (rows.len(), self.b.layout, self.a)
            && let Floats::F32(a) = data
        {
            return self.few::<K>(a, rows, columns);
        }
        let parts = rows.len().div_ceil(MC);
        let kc = self.k.min(KC);
        let mut scratch = Scratch::take();
        // Room for any number of rows, so that fewer rows in more of a part need no more memory.
        let (a, b) = scratch.split(panel_at(MC, MC.div_ceil(K::MR), kc), panel_at(K::NR, 1, kc));
        for part in 0..parts {
            let part = share(rows.len(), parts, part);
            let rows = rows.start + part.start..rows.start + part.end;
            for start in (0..self.k).step_by(KC) {
                let terms = start..(start + KC).min(self.k);
                self.pack_a::<K>(rows.clone(), terms.clone(), a);
                for j in columns.clone().step_by(K::NR) {
                    let columns = j..(j + K::NR).min(columns.end);
                    self.panel::<K>(rows.clone(), columns, terms.clone(), a, b);
                }
            }
        }
    }

    /// The same for a few rows of `a`, reading each row of `B` from beginning to end.
    fn few<K: Kernel>(&self, a: &[f32], rows: Range<usize>, columns: Range<usize>) {
        for j in columns.clone().step_by(K::LANES) {
            let columns = j..(j + K::LANES).min(columns.end);
            for start in (0..self.k).step_by(KC) {
                let terms = start..(start + KC).min(self.k);
                let panel = self.b.panel(self.n, self.k, columns.clone(), terms);
                let (left, add) = (self.k - start, self.add || start > 0);
                let a = a[rows.start * self.k + start..].as_ptr();
                // SAFETY: these elements of `C` are in the block of this task.
                let c = unsafe { self.c.0.add(rows.start * self.n + j) };
                let (rows, lda, ldc) = (rows.len(), self.k, self.n);
                // SAFETY: the instruction set is there, and the rows of `A` are `k` long.
                unsafe { K::few(Few { rows, a, lda, panel, left, c, ldc, add }) };
            }
        }
    }

    /// Packs a block of `A`: the panels of its rows one after the other.
    fn pack_a<K: Kernel>(&self, rows: Range<usize>, terms: Range<usize>, out: &mut [f32]) {
        let panels = rows.len().div_ceil(K::MR);
        let chunk = match self.a.layout {
            Layout::KInner => terms.len(),
            Layout::KOuter => CHUNK,
        };
        for p in terms.clone().step_by(chunk) {
            let chunk = p..(p + chunk).min(terms.end);
            for panel in 0..panels {
                let part = share(rows.len(), panels, panel);
                let vectors = rows.start + part.start..rows.start + part.end;
                let source = self.a.panel(self.m, self.k, vectors, chunk.clone());
                let at = panel_at(part.start, panel, terms.len()) + (p - terms.start) * part.len();
                // SAFETY: the instruction set was chosen by `Cpu`, which has checked it; the panel
                // and the slack after it lie in `out`.
                unsafe { K::pack(source, part.len(), &mut out[at..]) };
            }
        }
    }

    /// One panel of columns of a block of `C`, from packed rows of `A`; `b` is scratch.
    fn panel<K: Kernel>(
        &self,
        rows: Range<usize>,
        columns: Range<usize>,
        terms: Range<usize>,
        a: &[f32],
        b: &mut [f32],
    ) {
        let panels = rows.len().div_ceil(K::MR);
        let (kc, width) = (terms.len(), columns.len());
        let add = self.add || terms.start > 0;
        let source = self.b.panel(self.n, self.k, columns.clone(), terms.clone());
        // SAFETY: the instruction set is there, and `b` was made for `KC` terms of `NR` columns.
        unsafe { K::pack(source, K::NR, b) };
        let columns_after = columns.end.min(self.n - 1)..(columns.end + K::NR).min(self.n);
        let after = self.b.panel(self.n, self.k, columns_after, terms);
        for panel in 0..panels {
            let part = share(rows.len(), panels, panel);
            let at = (rows.start + part.start) * self.n + columns.start;
            // SAFETY: the panels are packed for these rows and `NR`, and the tile, `width` wide, lies
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
                    next: Next::of(&after, panel),
                };
                tile.compute::<K>(width);
            }
        }
    }
}

impl Tile {
    /// Computes the first `width` columns of a tile.
    ///
    /// # Safety
    /// As [`Kernel::tile`], but for the columns of `c` from `width` on.
    unsafe fn compute<K: Kernel>(self, width: usize) {
        if width == K::NR {
            // SAFETY: the caller's promises, and the whole tile lies in `C`.
            unsafe { K::tile(self) };
            return;
        }
        let mut whole = [0.0f32; 16 * 64];
        debug_assert!(K::MR * K::NR <= whole.len());
        // SAFETY: as above, into a buffer that holds the largest tile.
        unsafe { K::tile(Self { c: whole.as_mut_ptr(), ldc: K::NR, add: false, ..self }) };
        for (i, line) in whole.chunks_exact(K::NR).take(self.rows).enumerate() {
            // SAFETY: row `i` of the tile, cut at the last column of `C`.
            let c = unsafe { std::slice::from_raw_parts_mut(self.c.add(i * self.ldc), width) };
            for (c, sum) in c.iter_mut().zip(line) {
                *c = if self.add { *c + sum } else { *sum };
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
struct Scratch(Vec<f32>);

impl Scratch {
    fn take() -> Self {
        Self(SCRATCH.take())
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
        SCRATCH.set(std::mem::take(&mut self.0));
    }
}

#[cfg(test)]
mod tests;
