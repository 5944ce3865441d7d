//! Keys and values in the order in which the forward pass reads them, and their keeping from one
//! call to the next.

use super::{
    Shape,
    scratch::{Head, LINE, line, skip_to_line},
};
use crate::{KernelError, Result};

/// Keys of one tile.
pub(super) const KEYS: usize = 128;

/// Keys and values of one row, by position, kept between calls of
/// [`forward_cached`](super::forward_cached).
///
/// They are stored as the forward pass reads them, so that a call packs no more than its own tokens:
/// `2 * kv_heads * head_dim` numbers for each position, `head_dim` and the capacity rounded up to
/// 16.
#[derive(Debug)]
pub struct Cache {
    pub(super) layout: Layout,
    /// The packed elements after up to a cache line of nothing.
    buffer: Vec<f32>,
}

impl Cache {
    /// Room for the keys and values of the positions below `capacity`, all zero.
    ///
    /// # Errors
    /// [`KernelError::Argument`] if that is more than memory can address.
    pub fn new(shape: Shape, capacity: usize) -> Result<Self> {
        let layout = Layout::new(shape, capacity);
        let per_position = shape.kv_heads.saturating_mul(2).saturating_mul(line(shape.head_dim));
        let bytes = per_position.saturating_mul(size_of::<f32>());
        if capacity.saturating_add(2 * LINE).saturating_mul(bytes) > isize::MAX as usize {
            return Err(KernelError::Argument {
                op: "attention::Cache",
                what: format!("{capacity} positions of {bytes} bytes are more than memory holds"),
            });
        }
        Ok(Self { layout, buffer: vec![0.0; layout.len() + LINE] })
    }

    /// Whether it was made for these key heads.
    pub fn fits(&self, shape: Shape) -> bool {
        self.layout == Layout::new(shape, self.layout.capacity)
    }

    /// Positions that there is room for.
    pub fn capacity(&self) -> usize {
        self.layout.capacity
    }

    /// Bytes of memory.
    pub fn bytes(&self) -> usize {
        size_of_val(self.buffer.as_slice())
    }

    /// The packed elements.
    pub(super) fn packed(&self) -> &[f32] {
        &self.buffer[skip_to_line(&self.buffer)..][..self.layout.len()]
    }

    /// The same, to be written.
    pub(super) fn packed_mut(&mut self) -> &mut [f32] {
        let skip = skip_to_line(&self.buffer);
        &mut self.buffer[skip..][..self.layout.len()]
    }
}

/// Where the packed keys and values of a row lie. For each key head there are first the keys, each
/// tile of [`KEYS`] transposed to `[head_dim, keys]`, then the values, by rows. Tiles and rows are
/// rounded up to whole cache lines; what fills them up is never used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) kv_heads: usize,
    pub(super) head_dim: usize,
    /// Positions that there is room for.
    pub(super) capacity: usize,
}

impl Layout {
    pub(super) fn new(shape: Shape, capacity: usize) -> Self {
        Self { kv_heads: shape.kv_heads, head_dim: shape.head_dim, capacity }
    }

    /// Elements of all heads.
    pub(super) fn len(self) -> usize {
        self.head_len() * self.kv_heads
    }

    /// Elements of one head.
    pub(super) fn head_len(self) -> usize {
        2 * self.values_at()
    }

    /// Where the values of a head begin.
    pub(super) fn values_at(self) -> usize {
        line(self.capacity) * line(self.head_dim)
    }

    /// Elements from one line to the next of the key tile that begins with key `first`.
    pub(super) fn stride(self, first: usize) -> usize {
        line(KEYS.min(self.capacity - first))
    }

    /// Packs `count` keys and values, rows of `keys` and `values`, as those of the positions from
    /// `first` on into the `packed` elements of their head.
    pub(super) fn pack(
        self,
        keys: Head<'_>,
        values: Head<'_>,
        (first, count): (usize, usize),
        packed: &mut [f32],
    ) {
        let width = line(self.head_dim);
        let (packed_keys, packed_values) = packed.split_at_mut(self.values_at());
        let mut done = 0;
        while done < count {
            let position = first + done;
            let (tile, column) = (position / KEYS * KEYS, position % KEYS);
            let rows = (KEYS - column).min(count - done);
            let out = &mut packed_keys[tile * width + column..];
            keys.transpose(done, rows, out, self.stride(tile));
            done += rows;
        }
        values.copy(0, count, 1.0, &mut packed_values[first * width..], width);
    }
}
