//! Where the numbers of a parameter lie.

use std::{ops::Range, sync::Arc};

use llada_kernels::{DType, Mapping, WeightView};

/// The numbers of one parameter: owned `f32`, or bytes of a mapped file in their storage type.
#[derive(Debug, Clone)]
pub enum Tensor {
    /// Owned.
    Owned(Vec<f32>),
    /// A part of a mapped file. The bytes are aligned for `dtype`; [`Tensor::mapped`] checks.
    Mapped {
        /// The file.
        file: Arc<Mapping>,
        /// Its bytes that hold the tensor.
        bytes: Range<usize>,
        /// How they are stored.
        dtype: DType,
    },
}

impl Tensor {
    /// A tensor of a mapped file, little-endian as safetensors stores it. Where the bytes are not
    /// aligned (or the machine is big-endian) they are copied out as `f32`. `None` when `bytes`
    /// lies outside the file or is not a whole number of elements.
    pub fn mapped(file: Arc<Mapping>, bytes: Range<usize>, dtype: DType) -> Option<Self> {
        let slice = file.get(bytes.clone())?;
        dtype.len(slice.len())?;
        let aligned = slice.as_ptr().align_offset(dtype.align()) == 0;
        if aligned && (cfg!(target_endian = "little") || dtype.align() == 1) {
            return Some(Self::Mapped { file, bytes, dtype });
        }
        Some(Self::Owned(decode(slice, dtype)))
    }

    /// Its elements `range`, mapped where it is mapped; `None` where they are not all there, or not
    /// whole blocks.
    pub fn part(&self, range: Range<usize>) -> Option<Self> {
        match self {
            Self::Owned(values) => values.get(range).map(|part| Self::Owned(part.to_vec())),
            Self::Mapped { file, bytes, dtype } => {
                let first = bytes.start.checked_add(dtype.bytes(range.start)?)?;
                let end = bytes.start.checked_add(dtype.bytes(range.end)?)?;
                (first <= end && end <= bytes.end)
                    .then(|| Self::mapped(file.clone(), first..end, *dtype))?
            }
        }
    }

    /// The numbers, in their storage type.
    pub fn view(&self) -> WeightView<'_> {
        match self {
            Self::Owned(values) => WeightView::F32(values),
            Self::Mapped { file, bytes, dtype } => {
                let slice = &file[bytes.clone()];
                match dtype {
                    DType::F32 => WeightView::F32(bytemuck::cast_slice(slice)),
                    DType::Bf16 => WeightView::Bf16(bytemuck::cast_slice(slice)),
                    DType::F16 => WeightView::F16(bytemuck::cast_slice(slice)),
                    DType::Blocks(format) => WeightView::Blocks { format: *format, bytes: slice },
                }
            }
        }
    }

    /// The storage type.
    pub fn dtype(&self) -> DType {
        match self {
            Self::Owned(_) => DType::F32,
            Self::Mapped { dtype, .. } => *dtype,
        }
    }

    /// The numbers as `f32`, copied.
    pub fn to_f32(&self) -> Vec<f32> {
        self.view().to_f32()
    }
}

fn decode(bytes: &[u8], dtype: DType) -> Vec<f32> {
    let pair = |b: &[u8]| u16::from_le_bytes([b[0], b[1]]);
    match dtype {
        DType::F32 => {
            bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
        }
        DType::Bf16 => {
            bytes.chunks_exact(2).map(|b| half::bf16::from_bits(pair(b)).to_f32()).collect()
        }
        DType::F16 => {
            bytes.chunks_exact(2).map(|b| half::f16::from_bits(pair(b)).to_f32()).collect()
        }
        DType::Blocks(format) => WeightView::Blocks { format, bytes }.to_f32(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use llada_kernels::{BlockFormat, Cpu};

    #[test]
    fn blocks_of_a_mapped_file_are_viewed_at_any_address() {
        let format = BlockFormat::Q4K;
        let weights: Vec<f32> = (0..512).map(|i| (i as f32).sin()).collect();
        let mut bytes = vec![0; format.bytes(512).unwrap()];
        format.quantize(&Cpu::new(1).unwrap(), &weights, &mut bytes).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("blocks");
        std::fs::write(&path, [&[7; 3], &bytes[..]].concat()).unwrap();
        let file = Arc::new(Mapping::open(&path).unwrap());
        let end = 3 + bytes.len();
        let tensor = Tensor::mapped(file.clone(), 3..end, DType::Blocks(format)).unwrap();
        assert!(matches!(tensor, Tensor::Mapped { .. }));
        assert_eq!(tensor.dtype(), DType::Blocks(format));
        assert_eq!(tensor.view().bytes(), bytes.len());
        assert!(tensor.to_f32().iter().zip(weights).all(|(a, b)| (a - b).abs() < 0.1));
        for range in [3..end - 1, 3..end + 1, end..end + 144] {
            assert!(Tensor::mapped(file.clone(), range, DType::Blocks(format)).is_none());
        }
    }
}
