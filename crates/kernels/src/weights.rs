//! Weights as they are stored: `f32`, `bf16` or `f16`, always computed in `f32`.

use half::{bf16, f16};

/// The storage type of a weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DType {
    /// 32-bit float.
    F32,
    /// bfloat16: the upper half of an `f32`.
    Bf16,
    /// IEEE half precision.
    F16,
}

impl DType {
    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 | Self::F16 => 2,
        }
    }
}

/// A borrowed weight in its storage type; the shape is the operation's to know.
#[derive(Debug, Clone, Copy)]
pub enum WeightView<'a> {
    /// 32-bit floats.
    F32(&'a [f32]),
    /// bfloat16.
    Bf16(&'a [bf16]),
    /// IEEE half precision.
    F16(&'a [f16]),
}

impl<'a> WeightView<'a> {
    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Self::F32(w) => w.len(),
            Self::Bf16(w) => w.len(),
            Self::F16(w) => w.len(),
        }
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The elements `range` of this weight.
    pub fn slice(&self, range: std::ops::Range<usize>) -> WeightView<'a> {
        match self {
            Self::F32(w) => WeightView::F32(&w[range]),
            Self::Bf16(w) => WeightView::Bf16(&w[range]),
            Self::F16(w) => WeightView::F16(&w[range]),
        }
    }

    /// Writes the elements as `f32` into `out`, which has the same length.
    pub fn widen(&self, out: &mut [f32]) {
        match self {
            Self::F32(w) => out.copy_from_slice(w),
            Self::Bf16(w) => out.iter_mut().zip(*w).for_each(|(o, x)| *o = x.to_f32()),
            Self::F16(w) => out.iter_mut().zip(*w).for_each(|(o, x)| *o = x.to_f32()),
        }
    }
}
