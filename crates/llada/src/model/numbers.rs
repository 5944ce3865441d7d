//! Numbers in the types that they are stored in.

use half::{bf16, f16};
use llada_kernels::{BlockFormat, DType, WeightView};

/// All exponent bits, in the upper two bytes of a number.
const EXPONENT: u16 = 0x7f80;
/// Those of an `f16`.
const EXPONENT_F16: u16 = 0x7c00;

/// Encodes numbers in a type of one number each, or as they are stored already; gives the index of
/// the first that is not finite in it. Blocks are not made here.
pub(crate) fn encode(
    values: WeightView<'_>,
    dtype: DType,
    bytes: &mut Vec<u8>,
) -> std::result::Result<(), usize> {
    bytes.clear();
    match (values, dtype) {
        (WeightView::F32(w), DType::F32) => put(w, f32::to_le_bytes, EXPONENT, bytes),
        (WeightView::Bf16(w), DType::Bf16) => put(w, bf16::to_le_bytes, EXPONENT, bytes),
        (WeightView::F16(w), DType::F16) => put(w, f16::to_le_bytes, EXPONENT_F16, bytes),
        (WeightView::Blocks { bytes: blocks, .. }, dtype) if dtype == values.dtype() => {
            bytes.extend(blocks);
            first_non_finite(values).map_or(Ok(()), Err)
        }
        (_, DType::F32 | DType::Blocks(_)) => {
            put(&values.to_f32(), f32::to_le_bytes, EXPONENT, bytes)
        }
        (_, DType::Bf16) => {
            put(&values.to_f32(), |x| bf16::from_f32(x).to_le_bytes(), EXPONENT, bytes)
        }
        (_, DType::F16) => {
            put(&values.to_f32(), |x| f16::from_f32(x).to_le_bytes(), EXPONENT_F16, bytes)
        }
    }
}

/// Encodes numbers and looks at each of them, in one pass. Which of them is not finite is found once
/// it is known that one is.
fn put<T: Copy, const N: usize>(
    values: &[T],
    encode: impl Fn(T) -> [u8; N],
    exponent: u16,
    bytes: &mut Vec<u8>,
) -> std::result::Result<(), usize> {
    let is_full = |b: &[u8; N]| u16::from_le_bytes([b[N - 2], b[N - 1]]) & exponent == exponent;
    bytes.resize(values.len() * N, 0);
    let mut any = false;
    for (out, &x) in bytes.as_chunks_mut::<N>().0.iter_mut().zip(values) {
        *out = encode(x);
        any |= is_full(out);
    }
    match any {
        true => Err(bytes.as_chunks::<N>().0.iter().position(is_full).unwrap_or(0)),
        false => Ok(()),
    }
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

    #[test]
    fn what_is_encoded_is_finite_in_its_type() {
        let wide: Vec<f32> = (0..9000).map(|i| (i as f32 - 4500.0) * 0.37).collect();
        let mut bytes = Vec::new();
        for (dtype, limit) in [(DType::F32, f32::MAX), (DType::Bf16, 3.3e38), (DType::F16, 65504.0)]
        {
            for index in [0, 4096, 8999] {
                let mut values = wide.clone();
                values[index] = limit;
                assert_eq!(encode(WeightView::F32(&values), dtype, &mut bytes), Ok(()));
                assert_eq!(bytes.len(), dtype.bytes(values.len()).unwrap());
                values[index] = if dtype == DType::F16 { 65520.0 } else { f32::INFINITY };
                assert_eq!(encode(WeightView::F32(&values), dtype, &mut bytes), Err(index));
            }
        }
        let brain: Vec<bf16> = wide.iter().map(|&x| bf16::from_f32(x)).collect();
        encode(WeightView::Bf16(&brain), DType::F32, &mut bytes).unwrap();
        let pairs = bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).zip(&brain);
        assert!(pairs.into_iter().all(|(found, x)| found == x.to_f32()));
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
