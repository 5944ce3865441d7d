//! Weights as they are stored: `f32`, `bf16` or `f16`, computed in `f32`, or blocks of few bits.

use half::{bf16, f16};

use crate::{BlockFormat, Isa, KernelError, Result, error::check};

/// The storage type of a weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DType {
    /// 32-bit float.
    F32,
    /// bfloat16: the upper half of an `f32`.
    Bf16,
    /// IEEE half precision.
    F16,
    /// A block format of GGML.
    Blocks(BlockFormat),
}

impl DType {
    /// Bytes of `len` elements; `None` when they are not whole blocks.
    pub fn bytes(self, len: usize) -> Option<usize> {
        match self {
            Self::F32 => len.checked_mul(4),
            Self::Bf16 | Self::F16 => len.checked_mul(2),
            Self::Blocks(format) => format.bytes(len),
        }
    }

    /// Elements that are stored together: 1, or a block.
    pub fn block_len(self) -> usize {
        match self {
            Self::Blocks(format) => format.block_len(),
            _ => 1,
        }
    }

    /// Elements in `bytes` bytes; `None` when that is no whole number of elements or blocks.
    pub fn len(self, bytes: usize) -> Option<usize> {
        match self {
            Self::Blocks(format) => format.len(bytes),
            _ => bytes.is_multiple_of(self.align()).then(|| bytes / self.align()),
        }
    }

    /// The alignment that a view of it needs, in bytes.
    pub fn align(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 | Self::F16 => 2,
            Self::Blocks(_) => 1,
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
    /// Whole blocks of a format.
    Blocks {
        /// The format.
        format: BlockFormat,
        /// The blocks; any alignment will do.
        bytes: &'a [u8],
    },
}

impl<'a> WeightView<'a> {
    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Self::F32(w) => w.len(),
            Self::Bf16(w) => w.len(),
            Self::F16(w) => w.len(),
            Self::Blocks { format, bytes } => {
                bytes.len() / format.block_bytes() * format.block_len()
            }
        }
    }

    /// Bytes of memory or of a file that they take.
    pub fn bytes(&self) -> usize {
        match self {
            Self::F32(w) => size_of_val(*w),
            Self::Bf16(w) => size_of_val(*w),
            Self::F16(w) => size_of_val(*w),
            Self::Blocks { bytes, .. } => bytes.len(),
        }
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The numbers as `f32`, copied.
    pub fn to_f32(&self) -> Vec<f32> {
        let mut wide = vec![0.0; self.len()];
        self.widen(&mut wide);
        wide
    }

    /// The storage type.
    pub fn dtype(&self) -> DType {
        match self {
            Self::F32(_) => DType::F32,
            Self::Bf16(_) => DType::Bf16,
            Self::F16(_) => DType::F16,
            Self::Blocks { format, .. } => DType::Blocks(*format),
        }
    }

    /// The elements `range` of this weight.
    ///
    /// # Panics
    /// When there are no such elements, or when they are not whole blocks.
    pub fn slice(&self, range: std::ops::Range<usize>) -> WeightView<'a> {
        match self {
            Self::F32(w) => WeightView::F32(&w[range]),
            Self::Bf16(w) => WeightView::Bf16(&w[range]),
            Self::F16(w) => WeightView::F16(&w[range]),
            Self::Blocks { format, bytes } => {
                let at = |element: usize| {
                    let at = format.bytes(element);
                    assert!(at.is_some(), "{element} is inside a block, or beyond all");
                    at.unwrap_or(usize::MAX)
                };
                WeightView::Blocks {
                    format: *format,
                    bytes: &bytes[at(range.start)..at(range.end)],
                }
            }
        }
    }

    /// Writes the elements as `f32` into `out`, which has the same length.
    ///
    /// # Panics
    /// When it has another.
    pub fn widen(&self, out: &mut [f32]) {
        assert_eq!(out.len(), self.len(), "the weights and what they are written to");
        match self {
            Self::F32(w) => out.copy_from_slice(w),
            Self::Bf16(w) => out.iter_mut().zip(*w).for_each(|(o, x)| *o = x.to_f32()),
            Self::F16(w) => out.iter_mut().zip(*w).for_each(|(o, x)| *o = x.to_f32()),
            Self::Blocks { format, bytes } => format.widen(Isa::detect(), bytes, out),
        }
    }

    /// Checks that this is a matrix of `rows` rows of `columns`, each row whole blocks.
    pub(crate) fn check_matrix(
        &self,
        op: &'static str,
        what: &'static str,
        rows: usize,
        columns: usize,
    ) -> Result<()> {
        check(op, what, self.len(), &[rows, columns])?;
        match self {
            Self::Blocks { format, bytes } => {
                let row = format.whole_blocks(op, columns)?;
                // A part of a block at the end counts as no weight.
                check(op, "bytes of the weight", bytes.len(), &[rows, row])
            }
            _ => Ok(()),
        }
    }

    /// The numbers as they lie in memory, which blocks are not.
    pub(crate) fn floats(&self, op: &'static str) -> Result<Floats<'a>> {
        match self {
            Self::F32(w) => Ok(Floats::F32(w)),
            Self::Bf16(w) => Ok(Floats::Bf16(w)),
            Self::F16(w) => Ok(Floats::F16(w)),
            Self::Blocks { format, .. } => {
                let what = format!(
                    "{format} weights only go forward; dequantise them to train or to change them"
                );
                Err(KernelError::Argument { op, what })
            }
        }
    }
}

/// Weights of which each has a place of its own.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Floats<'a> {
    F32(&'a [f32]),
    Bf16(&'a [bf16]),
    F16(&'a [f16]),
}

impl<'a> Floats<'a> {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::F32(w) => w.len(),
            Self::Bf16(w) => w.len(),
            Self::F16(w) => w.len(),
        }
    }

    pub(crate) fn slice(&self, range: std::ops::Range<usize>) -> Floats<'a> {
        match self {
            Self::F32(w) => Floats::F32(&w[range]),
            Self::Bf16(w) => Floats::Bf16(&w[range]),
            Self::F16(w) => Floats::F16(&w[range]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Cpu;

    #[test]
    fn bytes_and_elements_of_every_type() {
        for (dtype, bytes) in [(DType::F32, 1024), (DType::Bf16, 512), (DType::F16, 512)] {
            assert_eq!((dtype.bytes(256), dtype.len(bytes)), (Some(bytes), Some(256)));
            assert_eq!(dtype.len(bytes + 1), None);
            assert_eq!(dtype.bytes(usize::MAX), None);
        }
        for format in BlockFormat::ALL {
            let dtype = DType::Blocks(format);
            assert_eq!(dtype.len(dtype.bytes(512).unwrap()), Some(512));
            assert_eq!((dtype.bytes(511), dtype.len(1), dtype.align()), (None, None, 1));
        }
    }

    #[test]
    fn slices_of_blocks_hold_their_weights() {
        let x: Vec<f32> = (0..1024).map(|i| i as f32).collect();
        let cpu = Cpu::new(1).unwrap();
        for format in BlockFormat::ALL {
            let mut bytes = vec![0; format.bytes(x.len()).unwrap()];
            format.quantize(&cpu, &x, &mut bytes).unwrap();
            let view = WeightView::Blocks { format, bytes: &bytes };
            assert_eq!((view.len(), view.bytes()), (1024, bytes.len()));
            assert_eq!(view.dtype(), DType::Blocks(format));
            let (mut whole, mut part) = (vec![0.0; 1024], vec![0.0; 512]);
            view.widen(&mut whole);
            view.slice(256..768).widen(&mut part);
            assert_eq!(part, whole[256..768]);
            assert!(view.slice(512..512).is_empty());
        }
    }

    #[test]
    #[should_panic(expected = "inside a block")]
    fn a_slice_does_not_cut_a_block() {
        WeightView::Blocks { format: BlockFormat::Q8_0, bytes: &[0; 68] }.slice(16..32);
    }
}
