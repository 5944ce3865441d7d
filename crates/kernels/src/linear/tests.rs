use half::{bf16, f16};
use proptest::prelude::*;

use super::*;
use crate::{BlockFormat, Compute, Isa, KernelError, Tiles, reference::linear as reference};

/// Numbers in `-1..1`, the same ones for the same seed.
fn numbers(len: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(12345);
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..len).map(next).collect()
}

fn cpus() -> Vec<Cpu> {
    let isas = [Isa::Portable, Isa::Avx2, Isa::Avx512];
    isas.iter().filter_map(|isa| Cpu::with_isa(*isa, 2).ok()).collect()
}

/// Sums of `terms` products of numbers in `-1..1` are within `1e-6 sqrt(terms)`.
fn close(found: &[f32], expected: &[f64], terms: usize) {
    let bound = 1e-6 * (terms.max(1) as f64).sqrt();
    for (i, (a, b)) in found.iter().zip(expected).enumerate() {
        assert!((f64::from(*a) - b).abs() <= bound, "element {i}: {a} for {b}, {terms} terms");
    }
}

fn added(to: &[f32], sums: &[f64]) -> Vec<f64> {
    to.iter().zip(sums).map(|(a, b)| f64::from(*a) + b).collect()
}

fn agrees_with_the_reference(m: usize, n: usize, k: usize) {
    let (x, w, b) = (numbers(m * k, 1), numbers(n * k, 2), numbers(n, 3));
    let dy = numbers(m * n, 4);
    let wv = WeightView::F32(&w);
    for cpu in &cpus() {
        let mut y = vec![f32::NAN; m * n];
        forward(cpu, Shape { m, n, k }, &x, wv, Some(&b), &mut y, Out::Write).unwrap();
        close(&y, &reference::forward(&x, &w, Some(&b), m, n, k), k + 1);
        let before = numbers(m * n, 5);
        y.clone_from(&before);
        forward(cpu, Shape { m, n, k }, &x, wv, None, &mut y, Out::Add).unwrap();
        close(&y, &added(&before, &reference::forward(&x, &w, None, m, n, k)), k + 1);

        let expected = reference::backward_input(&dy, &w, m, n, k);
        let mut dx = vec![f32::NAN; m * k];
        backward_input(cpu, Shape { m, n, k }, &dy, wv, &mut dx, Out::Write).unwrap();
        close(&dx, &expected, n);
        let before = numbers(m * k, 6);
        dx.clone_from(&before);
        backward_input(cpu, Shape { m, n, k }, &dy, wv, &mut dx, Out::Add).unwrap();
        close(&dx, &added(&before, &expected), n + 1);

        let expected = reference::backward_weight(&dy, &x, m, n, k);
        let mut dw = vec![f32::NAN; n * k];
        backward_weight(cpu, Shape { m, n, k }, &dy, &x, &mut dw, Out::Write).unwrap();
        close(&dw, &expected, m);
        let before = numbers(n * k, 7);
        dw.clone_from(&before);
        backward_weight(cpu, Shape { m, n, k }, &dy, &x, &mut dw, Out::Add).unwrap();
        close(&dw, &added(&before, &expected), m + 1);

        let before = numbers(n, 8);
        let mut db = before.clone();
        backward_bias(cpu, &dy, m, n, &mut db).unwrap();
        close(&db, &added(&before, &reference::backward_bias(&dy, m, n)), m + 1);
    }
}

#[test]
fn a_few_shapes_agree_with_the_reference() {
    for (m, n, k) in
        [(1, 1, 1), (14, 32, 256), (15, 33, 257), (128, 96, 64), (3, 200, 700), (65, 130, 31)]
    {
        agrees_with_the_reference(m, n, k);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_shape_agrees_with_the_reference(m in 0usize..70, n in 0usize..90, k in 0usize..90) {
        agrees_with_the_reference(m, n, k);
    }
}

#[test]
fn the_gradients_are_those_of_the_forward_pass() {
    let (m, n, k) = (3, 5, 4);
    let (x, w, dy) = (numbers(m * k, 1), numbers(n * k, 2), numbers(m * n, 3));
    let loss = |x: &[f32], w: &[f32]| -> f64 {
        let y = reference::forward(x, w, None, m, n, k);
        y.iter().zip(&dy).map(|(y, d)| y * f64::from(*d)).sum()
    };
    let slope = |of: &[f32], i: usize, loss: &dyn Fn(&[f32]) -> f64| {
        let (mut up, mut down) = (of.to_vec(), of.to_vec());
        up[i] += 0.25;
        down[i] -= 0.25;
        (loss(&up) - loss(&down)) / f64::from(up[i] - down[i])
    };
    let by_x: Vec<f64> = (0..m * k).map(|i| slope(&x, i, &|x| loss(x, &w))).collect();
    let by_w: Vec<f64> = (0..n * k).map(|i| slope(&w, i, &|w| loss(&x, w))).collect();
    for cpu in cpus() {
        let (mut dx, mut dw) = (vec![0.0; m * k], vec![0.0; n * k]);
        backward_input(&cpu, Shape { m, n, k }, &dy, WeightView::F32(&w), &mut dx, Out::Write)
            .unwrap();
        backward_weight(&cpu, Shape { m, n, k }, &dy, &x, &mut dw, Out::Write).unwrap();
        close(&dx, &by_x, n);
        close(&dw, &by_w, m);
    }
}

#[test]
fn half_weights_give_the_bits_of_their_f32_values() {
    let (n, k) = (75, 301);
    let w = numbers(n * k, 2);
    let b: Vec<bf16> = w.iter().map(|x| bf16::from_f32(*x)).collect();
    let h: Vec<f16> = w.iter().map(|x| f16::from_f32(*x)).collect();
    for view in [WeightView::Bf16(&b), WeightView::F16(&h)] {
        let mut wide = vec![0.0; n * k];
        view.widen(&mut wide);
        for (cpu, m) in cpus().iter().flat_map(|cpu| [1, 5, 29].map(|m| (cpu, m))) {
            let (x, dy) = (numbers(m * k, 3), numbers(m * n, 4));
            let bits = |w: WeightView<'_>| -> Vec<u32> {
                let (mut y, mut dx) = (vec![0.0; m * n], vec![0.0; m * k]);
                forward(cpu, Shape { m, n, k }, &x, w, None, &mut y, Out::Write).unwrap();
                backward_input(cpu, Shape { m, n, k }, &dy, w, &mut dx, Out::Write).unwrap();
                y.into_iter().chain(dx).map(f32::to_bits).collect()
            };
            assert!(bits(view) == bits(WeightView::F32(&wide)), "{cpu:?} {m}");
        }
    }
}

#[test]
fn what_is_not_a_number_stays_in_its_row_or_column() {
    let (m, n, k) = (16, 37, 20);
    let (mut x, mut w) = (numbers(m * k, 1), numbers(n * k, 2));
    x[3 * k + 7] = f32::NAN;
    w[36 * k + 2] = f32::INFINITY;
    for cpu in cpus() {
        let mut y = vec![0.0; m * n];
        forward(&cpu, Shape { m, n, k }, &x, WeightView::F32(&w), None, &mut y, Out::Write)
            .unwrap();
        for (at, y) in y.iter().enumerate() {
            match (at / n, at % n) {
                (3, _) => assert!(y.is_nan()),
                (_, 36) => assert!(y.is_infinite()),
                _ => assert!(y.is_finite()),
            }
        }
    }
}

#[test]
fn nothing_to_sum_gives_zero_or_leaves_what_was_there() {
    let cpu = Cpu::new(1).unwrap();
    let w = WeightView::F32(&[]);
    let mut y = [f32::NAN; 6];
    forward(&cpu, Shape { m: 2, n: 3, k: 0 }, &[], w, None, &mut y, Out::Write).unwrap();
    assert_eq!(y, [0.0; 6]);
    forward(&cpu, Shape { m: 2, n: 3, k: 0 }, &[], w, Some(&[1.0, 2.0, 3.0]), &mut y, Out::Add)
        .unwrap();
    assert_eq!(y, [1.0, 2.0, 3.0, 1.0, 2.0, 3.0]);
}

#[test]
fn a_wrong_length_is_named() {
    let cpu = Cpu::new(1).unwrap();
    let w = WeightView::F32(&[0.0; 6]);
    let mut y = [0.0; 4];
    let error = forward(&cpu, Shape { m: 2, n: 2, k: 3 }, &[0.0; 5], w, None, &mut y, Out::Write)
        .unwrap_err();
    assert!(matches!(error, KernelError::Length { what: "x", expected: 6, found: 5, .. }));
    let error =
        forward(&cpu, Shape { m: 2, n: 2, k: 3 }, &[0.0; 6], w, Some(&[0.0]), &mut y, Out::Write)
            .unwrap_err();
    assert!(matches!(error, KernelError::Length { what: "bias", .. }));
    let error = backward_input(&cpu, Shape { m: 2, n: 2, k: 3 }, &y, w, &mut [0.0; 5], Out::Add)
        .unwrap_err();
    assert!(matches!(error, KernelError::Length { what: "dx", .. }));
    let error = backward_bias(&cpu, &[0.0; 4], 2, 2, &mut [0.0; 3]).unwrap_err();
    assert!(matches!(error, KernelError::Length { what: "db", .. }));
}

/// A processor whose matrix unit is the model of one.
fn with_tiles(threads: usize) -> Cpu {
    Cpu::new(threads).unwrap().with_compute(Compute::Bf16).with_tiles(Some(Tiles::Software))
}

/// Sums of products of factors that are rounded to `bf16` are within `2^-6` of the sum of all sizes.
fn close_in_bf16(found: &[f32], expected: &[f64], sizes: &[f64]) {
    for (i, ((a, b), size)) in found.iter().zip(expected).zip(sizes).enumerate() {
        assert!((f64::from(*a) - b).abs() <= size / 64.0, "element {i}: {a} for {b}");
    }
}

#[test]
fn layers_and_gradients_on_a_matrix_unit_agree_with_the_reference() {
    for (m, n, k) in [(1, 1, 1), (15, 33, 257), (31, 65, 64), (65, 130, 31)] {
        let (x, w, b) = (numbers(m * k, 1), numbers(n * k, 2), numbers(n, 3));
        let (dy, shape) = (numbers(m * n, 4), Shape { m, n, k });
        let size = |x: &[f32]| x.iter().map(|x| x.abs()).collect::<Vec<_>>();
        let (x_size, w_size, dy_size) = (size(&x), size(&w), size(&dy));
        let cpu = with_tiles(2);
        let view = WeightView::F32(&w);

        let mut y = vec![f32::NAN; m * n];
        forward(&cpu, shape, &x, view, Some(&b), &mut y, Out::Write).unwrap();
        let sizes = reference::forward(&x_size, &w_size, Some(&size(&b)), m, n, k);
        close_in_bf16(&y, &reference::forward(&x, &w, Some(&b), m, n, k), &sizes);

        let mut dx = vec![f32::NAN; m * k];
        backward_input(&cpu, shape, &dy, view, &mut dx, Out::Write).unwrap();
        let sizes = reference::backward_input(&dy_size, &w_size, m, n, k);
        close_in_bf16(&dx, &reference::backward_input(&dy, &w, m, n, k), &sizes);

        let mut dw = vec![f32::NAN; n * k];
        backward_weight(&cpu, shape, &dy, &x, &mut dw, Out::Write).unwrap();
        let sizes = reference::backward_weight(&dy_size, &x_size, m, n, k);
        close_in_bf16(&dw, &reference::backward_weight(&dy, &x, m, n, k), &sizes);
    }
}

#[test]
fn weights_of_blocks_go_through_a_matrix_unit_under_bf16_alone() {
    let (n, k, most) = (35, 512, 40);
    let (x, b) = (numbers(most * k, 1), numbers(n, 2));
    for format in BlockFormat::ALL {
        let mut bytes = vec![0; format.bytes(n * k).unwrap()];
        format.quantize(&Cpu::new(1).unwrap(), &numbers(n * k, 3), &mut bytes).unwrap();
        let w = WeightView::Blocks { format, bytes: &bytes };
        let wide = w.to_f32();
        let run = |cpu: &Cpu, m: usize| {
            let mut y = vec![f32::NAN; m * n];
            let shape = Shape { m, n, k };
            forward(cpu, shape, &x[..m * k], w, Some(&b), &mut y, Out::Write).unwrap();
            y
        };
        let size = |x: &[f32]| x.iter().map(|x| x.abs()).collect::<Vec<_>>();
        let expected = reference::forward(&x, &wide, Some(&b), most, n, k);
        let sizes = reference::forward(&size(&x), &size(&wide), Some(&size(&b)), most, n, k);
        let all = run(&with_tiles(1), most);
        close_in_bf16(&all, &expected, &sizes);
        for (threads, m) in [(1, 1), (2, 17), (3, most)] {
            assert!(run(&with_tiles(threads), m) == all[..m * n], "{format} {threads} {m}");
        }
        // Without such a unit, and with other factors, the product is the same integer one.
        let without = Cpu::new(2).unwrap().with_tiles(None);
        let integers = run(&without, 3);
        assert!(run(&without.clone().with_compute(Compute::Bf16), 3) == integers);
        assert!(run(&with_tiles(2).with_compute(Compute::F32), 3) == integers);
    }
}
