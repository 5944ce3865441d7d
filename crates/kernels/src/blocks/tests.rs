use proptest::prelude::*;

use super::*;
use crate::testing::{cpus, noise};

/// A golden file: see `tests/fixtures/README.md`.
macro_rules! golden {
    ($name:literal) => {
        &include_bytes!(concat!("../../../../tests/fixtures/blocks/", $name))[..]
    };
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    let four = |b: &[u8]| f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
    bytes.chunks_exact(4).map(four).collect()
}

fn quantized(format: BlockFormat, x: &[f32]) -> Vec<u8> {
    let mut out = vec![0xaa; format.bytes(x.len()).unwrap()];
    format.quantize(&Cpu::new(1).unwrap(), x, &mut out).unwrap();
    out
}

fn widened(format: BlockFormat, bytes: &[u8]) -> Vec<f32> {
    let mut out = vec![f32::NAN; format.len(bytes.len()).unwrap()];
    format.dequantize(&Cpu::new(1).unwrap(), bytes, &mut out).unwrap();
    out
}

#[test]
fn golden_blocks_widen_to_the_bit() {
    let files = [
        (BlockFormat::Q8_0, golden!("q8_0.bin"), golden!("q8_0.f32")),
        (BlockFormat::Q4_0, golden!("q4_0.bin"), golden!("q4_0.f32")),
        (BlockFormat::Q4K, golden!("q4_k.bin"), golden!("q4_k.f32")),
        (BlockFormat::Q6K, golden!("q6_k.bin"), golden!("q6_k.f32")),
    ];
    for (format, blocks, expected) in files {
        for cpu in cpus() {
            let mut found = vec![0.0; expected.len() / 4];
            format.dequantize(&cpu, blocks, &mut found).unwrap();
            for (i, (found, expected)) in found.iter().zip(floats(expected)).enumerate() {
                assert_eq!(found.to_bits(), expected.to_bits(), "{format} weight {i}");
            }
        }
    }
}

#[test]
fn golden_weights_quantise_to_the_byte() {
    let weights = floats(golden!("weights.f32"));
    assert_eq!(quantized(BlockFormat::Q8_0, &weights), golden!("q8_0.bin"));
    assert_eq!(quantized(BlockFormat::Q4_0, &weights), golden!("q4_0.bin"));
    assert_eq!(quantized(BlockFormat::Q4K, &weights), golden!("q4_k_of_weights.bin"));
    assert_eq!(quantized(BlockFormat::Q6K, &weights), golden!("q6_k_of_weights.bin"));
}

/// The root of the mean squared error of a round trip, relative to that of the weights.
fn error(format: BlockFormat, x: &[f32]) -> f64 {
    let back = widened(format, &quantized(format, x));
    let square = |x: f32| f64::from(x) * f64::from(x);
    let off: f64 = x.iter().zip(&back).map(|(x, b)| square(x - b)).sum();
    (off / x.iter().map(|&x| square(x)).sum::<f64>()).sqrt()
}

#[test]
fn round_trips_of_normal_weights_lose_what_the_format_must() {
    // Sums of uniform numbers, close to a normal distribution.
    let x: Vec<f32> =
        noise(3, 12 * 4096).chunks(12).map(|x| x.iter().sum::<f32>() / 40.0).collect();
    for (format, bound) in [
        (BlockFormat::Q8_0, 0.0056),
        (BlockFormat::Q6K, 0.0175),
        (BlockFormat::Q4K, 0.077),
        (BlockFormat::Q4_0, 0.090),
    ] {
        let error = error(format, &x);
        assert!(error < bound && error > bound / 1.25, "{format}: {error}");
    }
}

#[test]
fn codes_of_every_format_are_found_again() {
    for format in BlockFormat::ALL {
        let x: Vec<f32> = noise(7, 512).iter().map(|x| x * 0.1).collect();
        let once = widened(format, &quantized(format, &x));
        // Of weights that a block can hold, what is lost is the rounding of the scales.
        assert!(error(format, &once) < 0.02, "{format}: {}", error(format, &once));
    }
}

#[test]
fn zeros_and_equal_weights() {
    for format in BlockFormat::ALL {
        assert_eq!(widened(format, &quantized(format, &[0.0; 512])), [0.0; 512], "{format}");
        for value in [1.0f32, -0.25, 65504.0, -65504.0, 0.02] {
            for back in widened(format, &quantized(format, &[value; 256])) {
                assert!((back - value).abs() <= 0.03 * value.abs(), "{format}: {back} of {value}");
            }
        }
        for tiny in [1e-12, 1e-30, 1e-42] {
            let back = widened(format, &quantized(format, &[tiny; 256]));
            assert!(back.iter().all(|x| x.abs() < 1e-6), "{format}");
        }
    }
}

#[test]
fn threads_do_not_matter() {
    let x = noise(5, 256 * (2 * CHUNK + 3));
    for format in BlockFormat::ALL {
        let expected = quantized(format, &x);
        for cpu in cpus() {
            let mut out = vec![0; expected.len()];
            format.quantize(&cpu, &x, &mut out).unwrap();
            assert!(out == expected, "{format} {cpu:?}");
        }
    }
}

#[test]
fn refuses_what_no_block_holds() {
    let cpu = Cpu::new(1).unwrap();
    for format in BlockFormat::ALL {
        let run = |x: &[f32], out: usize| format.quantize(&cpu, x, &mut vec![0; out]);
        let bytes = format.bytes(256).unwrap();
        assert!(run(&[1.0; 256], bytes).is_ok());
        assert!(run(&[1.0; 256], bytes - 1).is_err());
        assert!(run(&[1.0; 257], bytes).unwrap_err().to_string().contains("whole"));
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 65505.0] {
            let mut x = [1.0; 256];
            x[77] = bad;
            let error = run(&x, bytes).unwrap_err().to_string();
            assert!(error.contains("weight 77"), "{error}");
        }
        assert!(run(&[], 0).is_ok());
        assert!(format.dequantize(&cpu, &vec![0; bytes + 1], &mut [0.0; 256]).is_err());
        assert!(format.dequantize(&cpu, &vec![0; bytes], &mut [0.0; 255]).is_err());
        assert_eq!(format.len(bytes + 1), None);
        assert_eq!(format.bytes(format.block_len() + 1), None);
    }
    assert_eq!(BlockFormat::Q8_0.bytes(usize::MAX / 32 * 32), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_round_trip_is_within_half_a_step(
        seed in 0u64..1 << 32, exponent in -14i32..15, spread in 0.0f32..8.0
    ) {
        let scale = 2.0f32.powi(exponent);
        let x: Vec<f32> = noise(seed, 256).iter().map(|x| x * x.abs().powf(spread) * scale).collect();
        for (format, steps) in [(BlockFormat::Q8_0, 127.0), (BlockFormat::Q4_0, 8.0)] {
            let back = widened(format, &quantized(format, &x));
            for (x, back) in x.chunks(32).zip(back.chunks(32)) {
                let most = x.iter().fold(0.0f32, |m, x| m.max(x.abs()));
                // Half a step and the rounding of the scale; the last positive code of Q4_0 is one
                // step short of the greatest negative one.
                let step = if format == BlockFormat::Q4_0 { 1.01 } else { 0.6 } * most / steps;
                for (x, back) in x.iter().zip(back) {
                    prop_assert!((x - back).abs() <= step + 8e-6, "{format}: {x} {back}");
                }
            }
        }
    }

    #[test]
    fn any_bytes_are_blocks(seed in 0u64..1 << 32) {
        let noise = noise(seed, 210);
        let bytes: Vec<u8> = noise.iter().map(|x| (x * 127.0) as i8 as u8).collect();
        for format in BlockFormat::ALL {
            let whole = bytes.len() / format.block_bytes() * format.block_bytes();
            let found = widened(format, &bytes[..whole]);
            prop_assert_eq!(found.len(), format.len(whole).unwrap());
        }
    }
}

#[test]
fn columns_are_the_codes_of_eight_rows_transposed() {
    for format in BlockFormat::ALL {
        with_layout!(format, L => {
            let bytes: Vec<u8> =
                noise(7, RUN_ROWS * L::BYTES).iter().map(|x| (x * 127.0) as i8 as u8).collect();
            let blocks: [&[u8]; RUN_ROWS] = std::array::from_fn(|i| &bytes[i * L::BYTES..][..L::BYTES]);
            let (mut transposed, stride) = (vec![0xaa; L::LEN / 4 * 40], 40);
            L::columns(Portable, blocks, Columns { codes: &mut transposed, stride });
            for (i, block) in blocks.into_iter().enumerate() {
                let mut codes = vec![0; L::LEN];
                L::codes(Portable, block, &mut codes);
                for (column, four) in codes.chunks_exact(4).enumerate() {
                    assert_eq!(&transposed[column * stride + 4 * i..][..4], four, "{format}");
                }
            }
        });
    }
}
