//! Numbers in the types that they are stored in.

use half::{bf16, f16};
use llada_kernels::{BlockFormat, DType, WeightView};

/// Encodes numbers in a type of one number each, or as they are stored already; gives the index of
/// the first that is not finite in it. Blocks are not made here.
pub(crate) fn encode(
    values: WeightView<'_>,
    dtype: DType,
    bytes: &mut Vec<u8>,
) -> std::result::Result<(), usize> {
    fn all<const N: usize>(bytes: &mut Vec<u8>, values: impl Iterator<Item = [u8; N]>) {
        bytes.extend(values.flatten());
    }
    bytes.clear();
    match (values, dtype) {
        (WeightView::F32(w), DType::F32) => all(bytes, w.iter().map(|x| x.to_le_bytes())),
        (WeightView::Bf16(w), DType::Bf16) => all(bytes, w.iter().map(|x| x.to_le_bytes())),
        (WeightView::F16(w), DType::F16) => all(bytes, w.iter().map(|x| x.to_le_bytes())),
        (WeightView::Blocks { bytes: blocks, .. }, dtype) if dtype == values.dtype() => {
            bytes.extend(blocks);
        }
        _ => {
            let mut wide = vec![0.0; values.len()];
            values.widen(&mut wide);
            return match dtype {
                DType::F32 | DType::Blocks(_) => encode(WeightView::F32(&wide), DType::F32, bytes),
                DType::Bf16 => {
                    let narrow: Vec<_> = wide.iter().map(|&x| bf16::from_f32(x)).collect();
                    encode(WeightView::Bf16(&narrow), dtype, bytes)
                }
                DType::F16 => {
                    let narrow: Vec<_> = wide.iter().map(|&x| f16::from_f32(x)).collect();
                    encode(WeightView::F16(&narrow), dtype, bytes)
                }
            };
        }
    }
    first_non_finite(values).map_or(Ok(()), Err)
}

/// The first NaN or infinity: all exponent bits set. Tested on the bits, in whole chunks, so that
/// the compiler can use the widest registers; loading is bound by the disk and not by this.
pub(crate) fn first_non_finite(values: WeightView<'_>) -> Option<usize> {
    fn scan<T: Copy>(bits: &[T], exponent_full: impl Fn(T) -> bool) -> Option<usize> {
        bits.chunks(4096).enumerate().find_map(|(n, chunk)| {
            let any = chunk.iter().fold(false, |any, &b| any | exponent_full(b));
            if !any {
                return None;
            }
            chunk.iter().position(|&b| exponent_full(b)).map(|i| n * 4096 + i)
        })
    }
    let all = |mask: u16| move |b: u16| b & mask == mask;
    match values {
        WeightView::F32(w) => {
            const EXPONENT: u32 = 0x7f80_0000;
            scan(bytemuck::cast_slice::<f32, u32>(w), |b| b & EXPONENT == EXPONENT)
        }
        WeightView::Bf16(w) => scan(bytemuck::cast_slice::<bf16, u16>(w), all(0x7f80)),
        WeightView::F16(w) => scan(bytemuck::cast_slice::<f16, u16>(w), all(0x7c00)),
        WeightView::Blocks { format, bytes } => {
            // Codes are whole numbers: only the scales of a block can be at fault.
            let wrong = |block: &[u8]| {
                let scale = |&at: &usize| u16::from_le_bytes([block[at], block[at + 1]]);
                scales(format).iter().map(scale).any(all(0x7c00))
            };
            let block = bytes.chunks_exact(format.block_bytes()).position(wrong);
            block.map(|n| n * format.block_len())
        }
    }
}

/// Where the scales of a block, of type `f16`, lie among its bytes.
fn scales(format: BlockFormat) -> &'static [usize] {
    match format {
        BlockFormat::Q8_0 | BlockFormat::Q4_0 => &[0],
        BlockFormat::Q4K => &[0, 2],
        BlockFormat::Q6K => &[208],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_are_not_finite_are_found_wherever_they_are() {
        for index in [0, 1, 4095, 4096, 9999] {
            for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let mut wide = vec![f32::MAX; 10_000];
                wide[index] = bad;
                assert_eq!(first_non_finite(WeightView::F32(&wide)), Some(index));
                let brain: Vec<bf16> = wide.iter().map(|x| bf16::from_f32(x * 0.5)).collect();
                assert_eq!(first_non_finite(WeightView::Bf16(&brain)), Some(index));
                let half: Vec<f16> = wide.iter().map(|x| f16::from_f32(x * 1e-35)).collect();
                assert_eq!(first_non_finite(WeightView::F16(&half)), Some(index));
            }
        }
        let fine = [f32::MAX, f32::MIN, 0.0, -0.0, f32::MIN_POSITIVE, 1e-45];
        assert_eq!(first_non_finite(WeightView::F32(&fine)), None);
        assert_eq!(first_non_finite(WeightView::F32(&[])), None);
    }

    /// The scales are where the formats have them: any of them at fault spoils a weight of the block,
    /// and no other two bytes do.
    #[test]
    fn blocks_are_finite_when_their_weights_are() {
        for format in BlockFormat::ALL {
            let size = format.block_bytes();
            for at in 0..=size - 2 {
                let mut bytes = vec![0x11; 3 * size];
                bytes[size + at..][..2].copy_from_slice(&0x7c00u16.to_le_bytes());
                let blocks = WeightView::Blocks { format, bytes: &bytes };
                let mut wide = vec![0.0; blocks.len()];
                blocks.widen(&mut wide);
                let spoilt = wide.iter().position(|x| !x.is_finite());
                assert_eq!(first_non_finite(blocks).is_some(), spoilt.is_some(), "{format} {at}");
                assert!(spoilt.is_none_or(|at| at / format.block_len() == 1), "{format} {at}");
                let first = first_non_finite(blocks);
                assert!(first.is_none_or(|first| first == format.block_len()), "{format} {at}");
            }
        }
    }
}
