//! Keys and values in the order in which the forward pass reads them, and their keeping from one
//! call to the next.

use half::bf16;

use super::{
    Shape,
    scratch::{Element, Head, LINE, line, skip_to_line},
};
use crate::{KernelError, Result, memory::zeros};

/// Keys of one tile.
pub(super) const KEYS: usize = 128;

/// How the numbers of a [`Cache`] are kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Storage {
    /// As they are.
    #[default]
    F32,
    /// Rounded to the nearest of 8 significant bits, in half the memory: each key and value is off by
    /// 2⁻⁹ of itself at most. All keys are rounded, those of the tokens that are fed included.
    Bf16,
}

/// Keys and values of one sequence, by position, kept between calls of
/// [`forward_cached`](super::forward_cached).
///
/// They are stored as the forward pass reads them, so that a call packs no more than its own tokens:
/// `2 * kv_heads * head_dim` numbers for each position, `head_dim` and the capacity rounded up to
/// 16.
#[derive(Debug)]
pub struct Cache {
    pub(super) layout: Layout,
    elements: Elements,
}

/// The packed elements after up to a cache line of nothing.
#[derive(Debug)]
enum Elements {
    F32(Vec<f32>),
    Bf16(Vec<bf16>),
}

/// Packed elements, to be read.
#[derive(Clone, Copy)]
pub(super) enum Packed<'a> {
    F32(&'a [f32]),
    Bf16(&'a [bf16]),
}

/// Packed elements, to be written.
pub(super) enum PackedMut<'a> {
    F32(&'a mut [f32]),
    Bf16(&'a mut [bf16]),
}

impl Cache {
    /// Room for the keys and values of the positions below `capacity`, all zero.
    ///
    /// # Errors
    /// [`KernelError::Argument`] if the system does not give that much memory.
    pub fn new(shape: Shape, capacity: usize, storage: Storage) -> Result<Self> {
        const OP: &str = "attention::Cache";
        let layout = Layout::new(shape, capacity);
        let len = layout.checked_len().and_then(|len| len.checked_add(2 * LINE));
        let len = len.ok_or_else(|| KernelError::Argument {
            op: OP,
            what: format!(
                "{capacity} positions of {} key heads of {} are more than memory holds",
                shape.kv_heads, shape.head_dim
            ),
        })?;
        let elements = match storage {
            Storage::F32 => Elements::F32(zeros(OP, len - LINE)?),
            Storage::Bf16 => Elements::Bf16(zeros(OP, len)?),
        };
        Ok(Self { layout, elements })
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
        match &self.elements {
            Elements::F32(buffer) => size_of_val(buffer.as_slice()),
            Elements::Bf16(buffer) => size_of_val(buffer.as_slice()),
        }
    }

    /// Takes over the keys and values of the positions below `count` from a cache for the same key heads
    /// and of the same storage, whose capacity may be another.
    ///
    /// # Errors
    /// [`KernelError::Argument`] if heads or storage differ, or one of the two has no room for `count`.
    pub fn copy_prefix(&mut self, from: &Self, count: usize) -> Result<()> {
        let (into, source) = (self.layout, from.layout);
        let argument =
            |what: String| Err(KernelError::Argument { op: "attention::Cache::copy_prefix", what });
        if (into.kv_heads, into.head_dim) != (source.kv_heads, source.head_dim) {
            return argument("the caches are for other key heads".into());
        }
        let room = into.capacity.min(source.capacity);
        if count > room {
            return argument(format!("{count} positions are more than the {room} of a cache"));
        }
        match (self.packed_mut(), from.packed()) {
            (PackedMut::F32(out), Packed::F32(packed)) => into.copy(source, count, packed, out),
            (PackedMut::Bf16(out), Packed::Bf16(packed)) => into.copy(source, count, packed, out),
            _ => return argument("one cache is kept in f32 and the other in bf16".into()),
        }
        Ok(())
    }

    /// The packed elements.
    pub(super) fn packed(&self) -> Packed<'_> {
        let len = self.layout.len();
        match &self.elements {
            Elements::F32(buffer) => Packed::F32(&buffer[skip_to_line(buffer)..][..len]),
            Elements::Bf16(buffer) => Packed::Bf16(&buffer[skip_to_line(buffer)..][..len]),
        }
    }

    /// The same, to be written.
    pub(super) fn packed_mut(&mut self) -> PackedMut<'_> {
        let len = self.layout.len();
        match &mut self.elements {
            Elements::F32(buffer) => {
                let skip = skip_to_line(buffer);
                PackedMut::F32(&mut buffer[skip..][..len])
            }
            Elements::Bf16(buffer) => {
                let skip = skip_to_line(buffer);
                PackedMut::Bf16(&mut buffer[skip..][..len])
            }
        }
    }
}

/// Where the packed keys and values of a sequence lie. For each key head there are first the keys, each
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

    /// [`Self::len`] where it can be counted.
    fn checked_len(self) -> Option<usize> {
        let positions = self.capacity.checked_next_multiple_of(LINE)?;
        let width = self.head_dim.checked_next_multiple_of(LINE)?;
        positions.checked_mul(width)?.checked_mul(2)?.checked_mul(self.kv_heads)
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

    /// Copies the first `count` keys and values of `packed`, which are laid out as `source` says, into
    /// `out`.
    fn copy<E: Copy>(self, source: Self, count: usize, packed: &[E], out: &mut [E]) {
        if count == 0 || self.head_dim == 0 {
            return;
        }
        let width = line(self.head_dim);
        let (from_heads, heads) =
            (packed.chunks_exact(source.head_len()), out.chunks_exact_mut(self.head_len()));
        for (from, head) in from_heads.zip(heads) {
            let (from_keys, from_values) = from.split_at(source.values_at());
            let (keys, values) = head.split_at_mut(self.values_at());
            for first in (0..count).step_by(KEYS) {
                let shared = KEYS.min(count - first);
                let from = from_keys[first * width..].chunks(source.stride(first));
                let rows = keys[first * width..].chunks_mut(self.stride(first));
                for (from, row) in from.zip(rows).take(self.head_dim) {
                    row[..shared].copy_from_slice(&from[..shared]);
                }
            }
            values[..count * width].copy_from_slice(&from_values[..count * width]);
        }
    }

    /// Packs `count` keys and values, rows of `keys` and `values`, as those of the positions from
    /// `first` on into the `packed` elements of their head.
    pub(super) fn pack<E: Element>(
        self,
        keys: Head<'_>,
        values: Head<'_>,
        (first, count): (usize, usize),
        packed: &mut [E],
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
