//! Working memory of the attention kernels, and the packing of operands into it.

use std::{
    cell::Cell,
    marker::PhantomData,
    ops::{Deref, DerefMut},
};

use half::bf16;

/// A buffer aligned to cache lines, lent by this thread and given back when dropped, so that a
/// steady state allocates nothing.
pub(super) struct Scratch {
    buffer: Vec<f32>,
    skip: usize,
    len: usize,
    home: &'static std::thread::LocalKey<Cell<Vec<f32>>>,
}

thread_local! {
    /// The memory of one task.
    pub(super) static TASK: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
    /// What one call shares between its tasks.
    pub(super) static CALL: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

impl Scratch {
    /// `len` elements of any value. The buffer is taken out of `home`: a call within
    /// another's task finds an empty one and not a borrowed one.
    pub(super) fn take(home: &'static std::thread::LocalKey<Cell<Vec<f32>>>, len: usize) -> Self {
        let mut buffer = home.take();
        if buffer.len() < len + LINE {
            buffer.resize(len + LINE, 0.0);
        }
        let skip = skip_to_line(&buffer);
        Self { buffer, skip, len, home }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        self.home.set(std::mem::take(&mut self.buffer));
    }
}

impl Deref for Scratch {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.buffer[self.skip..][..self.len]
    }
}

impl DerefMut for Scratch {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.buffer[self.skip..][..self.len]
    }
}

/// Takes the first `len` elements, rounded up to whole cache lines, off `rest`.
#[inline(always)]
pub(super) fn split<'a>(rest: &mut &'a mut [f32], len: usize) -> &'a mut [f32] {
    let (part, tail) = std::mem::take(rest).split_at_mut(line(len));
    *rest = tail;
    &mut part[..len]
}

/// Elements of a cache line.
pub(super) const LINE: usize = 16;

/// `len` rounded up to whole cache lines.
#[inline(always)]
pub(super) fn line(len: usize) -> usize {
    len.next_multiple_of(LINE)
}

/// How many of the first elements lie before the first whole cache line.
pub(super) fn skip_to_line<E>(buffer: &[E]) -> usize {
    let bytes = LINE * size_of::<f32>();
    buffer.as_ptr().align_offset(bytes).min(bytes / size_of::<E>().max(1))
}

/// A number as it is packed.
pub(super) trait Element: Copy + Send {
    /// The nearest to `x`.
    fn of(x: f32) -> Self;
}

impl Element for f32 {
    #[inline(always)]
    fn of(x: f32) -> Self {
        x
    }
}

impl Element for bf16 {
    #[inline(always)]
    fn of(x: f32) -> Self {
        Self::from_f32(x)
    }
}

/// A slice that tasks write to in disjoint places.
#[derive(Clone, Copy)]
pub(super) struct Shared<'a> {
    data: *mut f32,
    len: usize,
    of: PhantomData<&'a mut [f32]>,
}

// SAFETY: only `part` gives access, and its callers keep the parts disjoint.
unsafe impl Send for Shared<'_> {}
// SAFETY: as above.
unsafe impl Sync for Shared<'_> {}

impl<'a> Shared<'a> {
    /// Shares `data`.
    pub(super) fn new(data: &'a mut [f32]) -> Self {
        Self { data: data.as_mut_ptr(), len: data.len(), of: PhantomData }
    }

    /// The elements `start..start + len`.
    ///
    /// # Safety
    /// No other part that is alive has one of them.
    #[inline(always)]
    pub(super) unsafe fn part(self, start: usize, len: usize) -> &'a mut [f32] {
        assert!(start <= self.len && len <= self.len - start);
        // SAFETY: inside the slice, and the caller has it alone.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(start), len) }
    }
}

/// Rows of one head, inside a matrix of `[tokens, heads, head_dim]`.
#[derive(Clone, Copy)]
pub(super) struct Head<'a> {
    data: &'a [f32],
    stride: usize,
    dim: usize,
}

impl<'a> Head<'a> {
    /// Head `head` of `heads` from `token` on.
    #[inline(always)]
    pub(super) fn new(x: &'a [f32], token: usize, heads: usize, head: usize, dim: usize) -> Self {
        Self { data: &x[(token * heads + head) * dim..], stride: heads * dim, dim }
    }

    /// The elements of row `i`.
    #[inline(always)]
    pub(super) fn row(&self, i: usize) -> &'a [f32] {
        &self.data[i * self.stride..][..self.dim]
    }

    /// Copies `rows` rows from `first` on, times `factor`, into rows of `width`, filled with zeros.
    #[inline(always)]
    pub(super) fn copy<E: Element>(
        &self,
        first: usize,
        rows: usize,
        factor: f32,
        out: &mut [E],
        width: usize,
    ) {
        for (i, out) in out.chunks_exact_mut(width).take(rows).enumerate() {
            let (whole, fill) = out.split_at_mut(self.dim);
            for (o, x) in whole.iter_mut().zip(self.row(first + i)) {
                *o = E::of(x * factor);
            }
            fill.fill(E::of(0.0));
        }
    }

    /// Transposes `rows` rows from `first` on into the first columns of `out`, which is
    /// `[head_dim, width]`; its other columns stay.
    #[inline(always)]
    pub(super) fn transpose<E: Element>(
        &self,
        first: usize,
        rows: usize,
        out: &mut [E],
        width: usize,
    ) {
        for i in 0..rows {
            for (o, x) in out[i..].iter_mut().step_by(width).zip(self.row(first + i)) {
                *o = E::of(*x);
            }
        }
    }
}
