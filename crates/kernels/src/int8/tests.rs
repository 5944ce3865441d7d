use proptest::prelude::*;

use super::*;
use crate::{
    KernelError, WeightView,
    linear::{Shape, forward, forward_quantized},
    reference::linear as reference,
    testing::{cpus, noise, on_every_cpu},
};

/// Weights in blocks, and the numbers that they stand for.
struct Weights {
    format: BlockFormat,
    bytes: Vec<u8>,
    wide: Vec<f32>,
}

impl Weights {
    fn of(format: BlockFormat, w: &[f32]) -> Self {
        let mut bytes = vec![0; format.bytes(w.len()).unwrap()];
        format.quantize(&Cpu::new(1).unwrap(), w, &mut bytes).unwrap();
        Self::from_bytes(format, bytes)
    }

    fn from_bytes(format: BlockFormat, bytes: Vec<u8>) -> Self {
        let mut wide = vec![0.0; format.len(bytes.len()).unwrap()];
        format.dequantize(&Cpu::new(1).unwrap(), &bytes, &mut wide).unwrap();
        Self { format, bytes, wide }
    }

    fn view(&self) -> WeightView<'_> {
        WeightView::Blocks { format: self.format, bytes: &self.bytes }
    }
}

/// The product on every instruction set and 1 to 3 threads, which must agree to the bit.
fn product(x: &[f32], w: &Weights, (m, n, k): (usize, usize, usize)) -> Vec<f32> {
    on_every_cpu(|cpu| {
        let mut y = vec![f32::NAN; m * n];
        forward(cpu, Shape { m, n, k }, x, w.view(), None, &mut y, Out::Write).unwrap();
        y
    })
}

fn most(x: &[f32]) -> f64 {
    f64::from(x.iter().fold(0.0f32, |most, x| most.max(x.abs())))
}

/// What the product is judged by: for each element the sum over the runs of 32 inputs of the greatest
/// `|w|` times the greatest `|x|` of the inputs that share its scale, times 32.
fn scale(x: &[f32], w: &[f32], (m, n, k): (usize, usize, usize)) -> Vec<f64> {
    let row = |x: &[f32]| -> Vec<f64> { x.chunks(SPAN).map(most).collect() };
    let x: Vec<f64> = x.chunks(k).flat_map(row).collect();
    let w: Vec<f64> = w.chunks(RUN).map(most).collect();
    let (runs, spans) = (k / RUN, k.div_ceil(SPAN));
    let most = |i, run| x[i * spans + run * RUN / SPAN];
    let sum = |i, j| (0..runs).map(|run| 32.0 * most(i, run) * w[j * runs + run]).sum();
    (0..m * n).map(|at| sum(at / n, at % n)).collect()
}

/// The twin's sum to the rounding of `f32`, and the unrounded one within the stated bound.
fn agrees(x: &[f32], w: &Weights, shape: (usize, usize, usize)) {
    let (m, n, k) = shape;
    let found = product(x, w, shape);
    let twin = reference::forward_quantized(x, &w.wide, m, n, k);
    let exact = reference::forward(x, &w.wide, None, m, n, k);
    let scale = scale(x, &w.wide, shape);
    // Each of a few steps a run rounds by 2^-24 of what is there, which grows to the whole.
    let rounding = 2.0f64.powi(-24) * (3 + k / RUN) as f64;
    for at in 0..m * n {
        let (y, what) = (f64::from(found[at]), format!("{} {shape:?} element {at}", w.format));
        let off = (y - twin[at]).abs();
        assert!(off <= rounding * scale[at], "{what}: {y} for {}, scale {}", twin[at], scale[at]);
        let weights = &w.wide[at % n * k..][..k];
        let lost: f64 = weights
            .chunks(SPAN)
            .zip(x[at / n * k..][..k].chunks(SPAN))
            .map(|(w, x)| w.iter().map(|w| f64::from(w.abs())).sum::<f64>() * most(x) / 254.0)
            .sum();
        let off = (y - exact[at]).abs();
        assert!(off <= lost * 1.0001 + rounding * scale[at], "{what}: off by {off:e}, {lost:e}");
    }
}

#[test]
fn odd_shapes_agree_with_the_twin() {
    let shapes =
        [(1, 1), (2, 17), (7, 16), (8, 15), (9, 33), (16, 31), (17, 5), (25, 48), (33, 50)];
    for format in BlockFormat::ALL {
        for (i, (m, n)) in shapes.into_iter().enumerate() {
            let k = format.block_len() * (1 + i % 3);
            let w = Weights::of(format, &noise(1, n * k));
            agrees(&noise(2, m * k), &w, (m, n, k));
        }
    }
}

#[test]
fn many_inputs_go_through_every_piece_of_them() {
    for format in BlockFormat::ALL {
        let (m, n, k) = (34, 18, 2 * KC + 256);
        let w = Weights::of(format, &noise(3, n * k));
        agrees(&noise(4, m * k), &w, (m, n, k));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn any_shape_agrees_with_the_twin(
        m in 1usize..70, n in 1usize..40, blocks in 1usize..4, which in 0usize..4, seed in 0u64..1000
    ) {
        let format = BlockFormat::ALL[which];
        let k = format.block_len() * blocks;
        let x: Vec<f32> = noise(seed, m * k).iter().map(|x| x * x * x * 30.0).collect();
        agrees(&x, &Weights::of(format, &noise(seed + 1, n * k)), (m, n, k));
    }
}

#[test]
fn blocks_of_any_bytes_agree_with_the_twin() {
    for format in BlockFormat::ALL {
        let (m, n, k) = (5, 19, 512);
        let len = format.bytes(n * k).unwrap();
        let mut bytes: Vec<u8> = noise(9, len).iter().map(|x| ((x + 1.0) * 128.0) as u8).collect();
        // Scales are to be finite.
        for block in bytes.chunks_mut(format.block_bytes()) {
            let halves: &[usize] = match format {
                BlockFormat::Q8_0 | BlockFormat::Q4_0 => &[1],
                BlockFormat::Q4K => &[1, 3],
                BlockFormat::Q6K => &[209],
            };
            halves.iter().for_each(|&at| block[at] &= 0xbb);
        }
        agrees(&noise(8, m * k), &Weights::from_bytes(format, bytes), (m, n, k));
    }
}

#[test]
fn extremes_do_not_saturate() {
    for format in BlockFormat::ALL {
        for fill in [0x00u8, 0x7f, 0x80, 0xff, 0xf0, 0x0f] {
            let (m, n, k) = (9, 16, 1024);
            let mut bytes = vec![fill; format.bytes(n * k).unwrap()];
            for block in bytes.chunks_mut(format.block_bytes()) {
                let one = 1.0f32.to_le_bytes();
                let one = &half::f16::from_f32(f32::from_le_bytes(one)).to_le_bytes();
                match format {
                    BlockFormat::Q6K => block[208..].copy_from_slice(one),
                    BlockFormat::Q4K => {
                        block[..2].copy_from_slice(one);
                        block[2..4].copy_from_slice(one);
                    }
                    _ => block[..2].copy_from_slice(one),
                }
            }
            let w = Weights::from_bytes(format, bytes);
            for value in [1.0, -1.0, 3e38 / 1e9, 1e-30] {
                agrees(&vec![value; m * k], &w, (m, n, k));
            }
            let signs: Vec<f32> = (0..m * k).map(|i| if i % 2 == 0 { 1.0 } else { -1.0 }).collect();
            agrees(&signs, &w, (m, n, k));
        }
    }
}

#[test]
fn nothing_and_next_to_nothing_give_zero() {
    for format in BlockFormat::ALL {
        let (m, n, k) = (3, 20, 256);
        let w = Weights::of(format, &noise(1, n * k));
        assert!(product(&vec![0.0; m * k], &w, (m, n, k)).iter().all(|&y| y == 0.0));
        assert!(product(&vec![1e-40; m * k], &w, (m, n, k)).iter().all(|&y| y == 0.0));
        let zeros = Weights::of(format, &vec![0.0; n * k]);
        assert!(product(&noise(2, m * k), &zeros, (m, n, k)).iter().all(|&y| y == 0.0));
    }
}

#[test]
fn what_is_not_a_number_stays_in_its_row() {
    for format in BlockFormat::ALL {
        let (m, n, k) = (41, 20, 512);
        let w = Weights::of(format, &noise(1, n * k));
        let clean = noise(2, m * k);
        let expected = product(&clean, &w, (m, n, k));
        for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x = clean.clone();
            (x[3 * k + 300], x[40 * k]) = (bad, bad);
            let found = product(&x, &w, (m, n, k));
            for (row, (found, expected)) in found.chunks(n).zip(expected.chunks(n)).enumerate() {
                match row {
                    3 | 40 => assert!(found.iter().all(|y| y.is_nan()), "{format} row {row}"),
                    _ => assert_eq!(found, expected, "{format} row {row}"),
                }
            }
        }
    }
}

#[test]
fn a_row_and_a_column_have_the_same_bits_in_any_company() {
    for format in BlockFormat::ALL {
        let (most, n, k) = (130, 50, 512);
        let w = Weights::of(format, &noise(1, n * k));
        let x = noise(2, most * k);
        let whole = product(&x, &w, (most, n, k));
        let cpu = Cpu::new(2).unwrap();
        for m in [1, 2, 7, 8, 9, 16, 17, 24, 25, 32, 33, 57, 64, 72, 129] {
            let mut y = vec![0.0; m * n];
            forward(&cpu, Shape { m, n, k }, &x[..m * k], w.view(), None, &mut y, Out::Write)
                .unwrap();
            assert!(y == whole[..m * n], "{format}: the first {m} rows");
        }
        for width in [1, 15, 16, 17, 32, 49] {
            let part = w.view().slice(0..width * k);
            let mut y = vec![0.0; most * width];
            forward(&cpu, Shape { m: most, n: width, k }, &x, part, None, &mut y, Out::Write)
                .unwrap();
            for (part, whole) in y.chunks(width).zip(whole.chunks(n)) {
                assert!(part == &whole[..width], "{format}: the first {width} columns");
            }
        }
    }
}

/// Where there are many rows, the inputs are cut into smaller pieces.
#[test]
fn a_row_has_the_same_bits_among_many() {
    for format in BlockFormat::ALL {
        let (m, n, k) = (HEIGHT - 3, STRIP + 1, KC);
        let w = Weights::of(format, &noise(1, n * k));
        let x = noise(2, m * k);
        let whole = product(&x, &w, (m, n, k));
        for few in [3, 40, 150] {
            assert!(product(&x[..few * k], &w, (few, n, k)) == whole[..few * n], "{format}: {few}");
        }
    }
}

#[test]
fn blocks_of_rows_and_of_columns_meet_without_a_gap() {
    let (m, n, k) = (2 * HEIGHT + 5, WIDTH + STRIP + 3, 32);
    let w = Weights::of(BlockFormat::Q4_0, &noise(1, n * k));
    agrees(&noise(2, m * k), &w, (m, n, k));
}

/// Strips follow each other over unequal pieces of the inputs and unequal blocks of the outputs, and each is
/// unpacked while the one before it is multiplied.
#[test]
fn every_strip_is_unpacked_before_it_is_multiplied() {
    for (format, k) in [(BlockFormat::Q8_0, KC + 160), (BlockFormat::Q4K, 2 * KC + 256)] {
        for (m, n) in [(3, WIDTH + STRIP + 3), (18, 2 * STRIP - 1), (35, STRIP)] {
            let w = Weights::of(format, &noise(1, n * k));
            agrees(&noise(2, m * k), &w, (m, n, k));
        }
    }
}

#[test]
fn biases_and_what_was_there_are_added() {
    let (m, n, k) = (10, 21, 256);
    let (bias, before) = (noise(3, n), noise(4, m * n));
    for format in BlockFormat::ALL {
        let w = Weights::of(format, &noise(1, n * k));
        let x = noise(2, m * k);
        let y = product(&x, &w, (m, n, k));
        for cpu in cpus() {
            let mut with_bias = vec![f32::NAN; m * n];
            let view = w.view();
            forward(&cpu, Shape { m, n, k }, &x, view, Some(&bias), &mut with_bias, Out::Write)
                .unwrap();
            let mut added = before.clone();
            forward(&cpu, Shape { m, n, k }, &x, view, None, &mut added, Out::Add).unwrap();
            for at in 0..m * n {
                assert_eq!(with_bias[at], bias[at % n] + y[at]);
                assert_eq!(added[at], before[at] + y[at]);
            }
        }
    }
}

#[test]
fn rows_quantised_once_give_the_same_bits() {
    let (n, k) = (40, 512);
    let mut rows = Activations::new();
    for m in [50, 3, 33, 0, 50] {
        let x = noise(m as u64, m * k);
        for cpu in cpus() {
            rows.quantize(&cpu, &x, m, k).unwrap();
            assert_eq!((rows.rows(), rows.inputs()), (m, k));
            let twin: Vec<f64> = x.chunks(k).flat_map(reference::rounded).collect();
            assert!(rows.dequantized() == twin, "{cpu:?}");
            for format in [BlockFormat::Q8_0, BlockFormat::Q4K] {
                let w = Weights::of(format, &noise(1, n * k));
                let (mut y, mut again) = (vec![0.0; m * n], vec![f32::NAN; m * n]);
                forward(&cpu, Shape { m, n, k }, &x, w.view(), None, &mut y, Out::Write).unwrap();
                forward_quantized(&cpu, &rows, w.view(), None, n, &mut again, Out::Write).unwrap();
                assert!(y == again);
            }
        }
    }
    let bytes = rows.bytes();
    rows.quantize(&Cpu::new(1).unwrap(), &noise(1, 10 * k), 10, k).unwrap();
    assert_eq!(rows.bytes(), bytes, "the buffer is kept");
}

#[test]
fn wrong_shapes_are_refused() {
    let cpu = Cpu::new(1).unwrap();
    let w = Weights::of(BlockFormat::Q4K, &noise(1, 512));
    let run = |x: usize, n: usize, k: usize, y: usize| {
        let (x, mut y) = (vec![0.0; x], vec![0.0; y]);
        forward(&cpu, Shape { m: 1, n, k }, &x, w.view(), None, &mut y, Out::Write)
    };
    assert!(run(512, 1, 512, 1).is_ok());
    assert!(run(511, 1, 512, 1).is_err());
    assert!(run(512, 1, 512, 2).is_err());
    assert!(run(256, 1, 256, 1).is_err());
    // As many weights, but rows of half a block.
    let error = run(128, 4, 128, 4).unwrap_err();
    assert!(matches!(error, KernelError::Argument { .. }));
    assert!(error.to_string().contains("whole Q4_K blocks of 256"), "{error}");

    let mut rows = Activations::new();
    assert!(rows.quantize(&cpu, &[0.0; 33], 1, 33).is_err());
    assert!(rows.quantize(&cpu, &[0.0; 33], 1, 32).is_err());
    rows.quantize(&cpu, &[0.0; 512], 1, 512).unwrap();
    let mut y = [0.0; 1];
    let floats = WeightView::F32(&[0.0; 512]);
    assert!(forward_quantized(&cpu, &rows, floats, None, 1, &mut y, Out::Write).is_err());
    assert!(forward_quantized(&cpu, &rows, w.view(), None, 2, &mut y, Out::Write).is_err());
    assert!(forward_quantized(&cpu, &rows, w.view(), None, 1, &mut y, Out::Write).is_ok());
}

#[test]
fn gradients_refuse_blocks() {
    let cpu = Cpu::new(1).unwrap();
    let w = Weights::of(BlockFormat::Q8_0, &noise(1, 64));
    let mut dx = [0.0; 32];
    let error = crate::linear::backward_input(
        &cpu,
        Shape { m: 1, n: 2, k: 32 },
        &[0.0; 2],
        w.view(),
        &mut dx,
        Out::Write,
    );
    assert!(error.unwrap_err().to_string().contains("Q8_0"));
}

#[test]
fn a_head_of_blocks_gives_the_loss_of_its_logits() {
    let (vocab, d, n) = (70, 256, 5);
    let cpu = Cpu::new(2).unwrap();
    let w = Weights::of(BlockFormat::Q6K, &noise(1, vocab * d));
    let (hidden, targets) = (noise(2, n * d), [0, 69, 7, 7, 33]);
    let head =
        crate::cross_entropy::Head { weight: w.view(), vocab, d, scale: 1.0, excluded: None };
    let mut nll = [0.0; 5];
    crate::cross_entropy::forward(&cpu, &hidden, &head, &targets, &mut nll).unwrap();
    let logits = product(&hidden, &w, (n, vocab, d));
    for ((row, target), nll) in logits.chunks(vocab).zip(targets).zip(nll) {
        let total: f64 = row.iter().map(|&x| f64::from(x).exp()).sum();
        let expected = total.ln() - f64::from(row[target as usize]);
        assert!((f64::from(nll) - expected).abs() < 1e-5, "{nll} for {expected}");
    }
}

#[test]
fn shares_cover_everything_once() {
    for (len, parts) in [(1, 1), (10, 3), (7, 16), (128, 16)] {
        let ends: Vec<_> = (0..parts).map(|i| share(len, parts, i)).collect();
        assert!(ends[0].start == 0 && ends[parts - 1].end == len);
        assert!(ends.windows(2).all(|pair| pair[0].end == pair[1].start));
    }
    let (height, columns) = grid(500, 2048, 2);
    assert!(height <= HEIGHT && height % WIDEST == 0 && columns * 500usize.div_ceil(height) >= 16);
    assert_eq!(grid(32, STRIP, 2), (32, 1));
}
