use half::{bf16, f16};

use super::*;
use crate::{Compute, Isa, testing::noise};

/// Every instruction set on 1, 2 and 3 threads, with the model of the unit.
fn cpus() -> Vec<Cpu> {
    crate::testing::cpus().into_iter().map(|cpu| on(cpu, Tiles::Software)).collect()
}

fn on(cpu: Cpu, tiles: Tiles) -> Cpu {
    cpu.with_compute(Compute::Bf16).with_tiles(Some(tiles))
}

fn inner(data: Floats<'_>) -> Operand<'_> {
    Operand { data, layout: Layout::KInner }
}

fn outer(data: Floats<'_>) -> Operand<'_> {
    Operand { data, layout: Layout::KOuter }
}

fn transposed<T: Copy>(data: &[T], rows: usize, columns: usize) -> Vec<T> {
    (0..rows * columns).map(|at| data[at % rows * columns + at / rows]).collect()
}

/// A matrix of `len` vectors of `k` terms, in every storage type and layout.
struct Stored {
    f32: [Vec<f32>; 2],
    bf16: [Vec<bf16>; 2],
    f16: [Vec<f16>; 2],
}

impl Stored {
    /// Numbers that all the types hold exactly.
    fn new(seed: u64, len: usize, k: usize) -> Self {
        let f32: Vec<f32> =
            noise(seed, len * k).into_iter().map(|x| bf16::from_f32(x).to_f32()).collect();
        let f16: Vec<f16> = f32.iter().map(|x| f16::from_f32(*x)).collect();
        // What is too small for an `f16` is left out of all.
        let f32: Vec<f32> = f16.iter().map(|x| x.to_f32()).collect();
        let bf16: Vec<bf16> = f32.iter().map(|x| bf16::from_f32(*x)).collect();
        let f32: Vec<f32> = bf16.iter().map(|x| x.to_f32()).collect();
        let f16: Vec<f16> = f32.iter().map(|x| f16::from_f32(*x)).collect();
        Self {
            f32: [transposed(&f32, len, k), f32],
            bf16: [transposed(&bf16, len, k), bf16],
            f16: [transposed(&f16, len, k), f16],
        }
    }

    fn all(&self) -> [Operand<'_>; 6] {
        [
            outer(Floats::F32(&self.f32[0])),
            inner(Floats::F32(&self.f32[1])),
            outer(Floats::Bf16(&self.bf16[0])),
            inner(Floats::Bf16(&self.bf16[1])),
            outer(Floats::F16(&self.f16[0])),
            inner(Floats::F16(&self.f16[1])),
        ]
    }
}

/// The bits of `c + 2 a b^T`, in two calls.
fn product(cpu: &Cpu, a: Operand<'_>, b: Operand<'_>, shape: Shape) -> Vec<u32> {
    let mut c = vec![f32::NAN; shape.m * shape.n];
    crate::gemm::gemm(cpu, shape, a, b, &mut c, Out::Write);
    crate::gemm::gemm(cpu, shape, a, b, &mut c, Out::Add);
    c.into_iter().map(f32::to_bits).collect()
}

/// Asserts that `c` is `x w^T` within the error that the module promises.
fn assert_product(what: &str, c: &[f32], x: &[f32], w: &[f32], Shape { n, k, .. }: Shape) {
    for (at, c) in c.iter().enumerate() {
        let terms = x[at / n * k..][..k].iter().zip(&w[at % n * k..][..k]);
        let products = terms.map(|(x, w)| f64::from(*x) * f64::from(*w));
        let (sum, size) = products.fold((0.0, 0.0), |(sum, size), p| (sum + p, size + p.abs()));
        let relative = 2f64.powi(-7) + 2f64.powi(-16) + (k as f64 / 32.0 + 18.0) * 2f64.powi(-24);
        let error = (f64::from(*c) - sum).abs();
        assert!(error <= relative * size, "{what}[{at}] is {c} and should be {sum}: {error:e}");
    }
}

/// Sizes at the edges of tiles, panels and parts of the terms.
const SHAPES: [(usize, usize, usize); 16] = [
    (1, 1, 1),
    (1, 33, 31),
    (15, 16, 17),
    (16, 15, 33),
    (17, 31, 16),
    (31, 17, 32),
    (33, 1, 63),
    (63, 65, 2),
    (65, 63, 64),
    (64, 32, 65),
    (2, 383, 15),
    (384, 3, 31),
    (1, 385, 33),
    (3, 5, 383),
    (17, 2, KC),
    (33, 34, KC + 1),
];

#[test]
fn products_are_within_their_error_of_the_exact_ones() {
    let cpu = &on(Cpu::new(2).unwrap(), Tiles::Software);
    for (m, n, k) in SHAPES {
        let (x, w, before) = (noise(1, m * k), noise(2, n * k), noise(3, m * n));
        let shape = Shape { m, n, k };
        let (a, b) = (inner(Floats::F32(&x)), inner(Floats::F32(&w)));
        let mut c = vec![f32::NAN; m * n];
        crate::gemm::gemm(cpu, shape, a, b, &mut c, Out::Write);
        assert_product("c", &c, &x, &w, shape);
        let mut sum = before.clone();
        crate::gemm::gemm(cpu, shape, a, b, &mut sum, Out::Add);
        assert!((0..m * n).all(|at| sum[at] == before[at] + c[at]));
    }
}

#[test]
fn every_layout_and_storage_type_gives_the_same_bits() {
    for (m, n, k) in SHAPES {
        let (x, w) = (Stored::new(1, m, k), Stored::new(2, n, k));
        let shape = Shape { m, n, k };
        let all = crate::testing::cpus().into_iter().filter(|cpu| cpu.threads() == 2);
        let mut first = None;
        for cpu in all.map(|cpu| on(cpu, Tiles::Software)) {
            for (a, b) in x.all().into_iter().flat_map(|a| w.all().map(|b| (a, b))) {
                let c = product(&cpu, a, b, shape);
                let first = first.get_or_insert_with(|| c.clone());
                assert!(c == *first, "{cpu:?} {shape:?} {:?} {:?}", a.layout, b.layout);
            }
        }
    }
}

#[test]
fn a_row_has_the_same_bits_in_any_batch_and_number_of_threads() {
    let (n, k, most) = (75, KC + 37, MC + 44);
    let (x, w) = (noise(1, most * k), noise(2, n * k));
    let w = inner(Floats::F32(&w));
    let rows = |m: usize| &x[..m * k];
    let cpus = cpus();
    let alone: Vec<u32> = x
        .chunks_exact(k)
        .flat_map(|row| product(&cpus[0], inner(Floats::F32(row)), w, Shape { m: 1, n, k }))
        .collect();
    for cpu in &cpus {
        for m in [2, 16, 33, 100] {
            let c = product(cpu, inner(Floats::F32(rows(m))), w, Shape { m, n, k });
            assert!(c == alone[..m * n], "{cpu:?} {m}");
        }
    }
    let c = product(&cpus[1], inner(Floats::F32(&x)), w, Shape { m: most, n, k });
    assert!(c == alone);
}

#[test]
fn either_operand_may_lie_in_the_rows_of_tiles() {
    let cpu = &cpus()[2];
    for (m, n, k) in [(5, 3, 2), (31, 47, 65), (40, 33, KC + 33)] {
        let (x, w) = (Stored::new(5, m, k), Stored::new(6, n, k));
        for (a, b) in x.all().into_iter().flat_map(|a| w.all().map(|b| (a, b))) {
            let [one, other] = [false, true].map(|flip| {
                let (mut c, b, tiles) = (noise(7, m * n), Source::Floats(b), Tiles::Software);
                let output = Output(c.as_mut_ptr());
                let (add, room) = (true, ROOM);
                let product = Product { cpu, tiles, a, b, m, n, k, c: output, add, flip, room };
                simd::run_bf16(cpu.isa(), product);
                c
            });
            assert!(one == other, "{m} {n} {k} {:?} {:?}", a.layout, b.layout);
        }
    }
    // Tokens times a weight turn the sums; many rows turn the weight; a gradient of inputs turns nothing.
    let (inner, outer) = (Layout::KInner, Layout::KOuter);
    assert!(is_flipped(Shape { m: 128, n: 2048, k: 2048 }, inner, inner));
    assert!(!is_flipped(Shape { m: 2048, n: 256, k: 256 }, inner, inner));
    assert!(!is_flipped(Shape { m: 128, n: 2048, k: 768 }, inner, outer));
}

#[test]
fn rows_may_be_more_than_are_packed_at_once() {
    let (m, n, k) = (MC + 70, 3, 33);
    let (x, w) = (noise(1, m * k), noise(2, n * k));
    let (a, b) = (inner(Floats::F32(&x)), Source::Floats(inner(Floats::F32(&w))));
    for cpu in &cpus() {
        let [one, other] = [ROOM, 1].map(|room| {
            let (mut c, tiles, flip) = (noise(3, m * n), Tiles::Software, false);
            let output = Output(c.as_mut_ptr());
            let product = Product { cpu, tiles, a, b, m, n, k, c: output, add: true, flip, room };
            simd::run_bf16(cpu.isa(), product);
            c
        });
        assert!(one == other, "{cpu:?}");
    }
}

#[test]
fn a_unit_that_does_not_multiply_writes_zeros_all_the_same() {
    let (m, n, k) = (70, 33, KC + 5);
    let (x, w, mut c) = (noise(1, m * k), noise(2, n * k), vec![f32::NAN; m * n]);
    let cpu = on(Cpu::new(2).unwrap(), Tiles::Idle);
    let (a, b) = (inner(Floats::F32(&x)), inner(Floats::F32(&w)));
    crate::gemm::gemm(&cpu, Shape { m, n, k }, a, b, &mut c, Out::Write);
    assert!(c.iter().all(|c| *c == 0.0));
}

#[test]
fn what_is_no_number_stays_in_its_row_or_column_and_what_is_denormal_is_zero() {
    let (m, n, k) = (33, 37, 70);
    for cpu in cpus() {
        let (mut x, mut w) = (noise(1, m * k), noise(2, n * k));
        x[3 * k + 7] = f32::NAN;
        w[36 * k + 2] = f32::INFINITY;
        x[32 * k..].fill(f32::from_bits(1));
        let (x, w) = (inner(Floats::F32(&x)), inner(Floats::F32(&w)));
        let mut c = vec![0.0; m * n];
        crate::gemm::gemm(&cpu, Shape { m, n, k }, x, w, &mut c, Out::Write);
        for (at, c) in c.iter().enumerate() {
            match (at / n, at % n) {
                (3, _) | (32, 36) => assert!(c.is_nan()),
                (_, 36) => assert!(c.is_infinite()),
                (32, _) => assert!(*c == 0.0),
                _ => assert!(c.is_finite()),
            }
        }
    }
}

#[test]
fn blocks_are_multiplied_as_the_weights_they_stand_for() {
    for format in BlockFormat::ALL {
        for (m, n, k) in [(1, 3, 256), (33, 35, 768), (16, 70, 1024 + 256)] {
            let (x, w) = (noise(1, m * k), noise(2, n * k));
            let mut bytes = vec![0; format.bytes(n * k).unwrap()];
            format.quantize(&Cpu::new(1).unwrap(), &w, &mut bytes).unwrap();
            let mut wide = vec![0.0; n * k];
            format.widen(Isa::Portable, &bytes, &mut wide);
            let (shape, a) = (Shape { m, n, k }, inner(Floats::F32(&x)));
            for cpu in cpus() {
                let (mut c, mut expected) = (vec![f32::NAN; m * n], vec![f32::NAN; m * n]);
                let b = Source::Blocks(format, &bytes);
                gemm(&cpu, Tiles::Software, shape, a, b, &mut c, Out::Write);
                let b = Source::Floats(inner(Floats::F32(&wide)));
                gemm(&cpu, Tiles::Software, shape, a, b, &mut expected, Out::Write);
                assert!(c == expected, "{cpu:?} {format} {shape:?}");
            }
        }
    }
}

#[test]
fn the_processor_gives_what_the_model_does() {
    for (m, n, k) in SHAPES {
        let (x, w) = (noise(1, m * k), noise(2, n * k));
        let (x, w) = (inner(Floats::F32(&x)), inner(Floats::F32(&w)));
        let [hardware, model] = [Tiles::Hardware, Tiles::Software]
            .map(|tiles| product(&on(Cpu::new(3).unwrap(), tiles), x, w, Shape { m, n, k }));
        let most = 2e-6 * k as f32;
        let near = |(a, b): (&u32, &u32)| (f32::from_bits(*a) - f32::from_bits(*b)).abs() <= most;
        let are_near = hardware.iter().zip(&model).all(near);
        assert!(are_near, "{m} {n} {k}");
    }
}

#[test]
fn blocks_of_c_are_whole_panels_and_no_larger_than_their_sums_allow() {
    for (m, n) in [(1, 1), (8, 768), (128, 2048), (2048, 256), (4096, 126_464), (33, 31)] {
        for threads in [1, 2, 8, 64] {
            let (height, width) = block_size(m, n, threads);
            assert!(height % PANEL == 0 && width % PANEL == 0 && height > 0 && width > 0);
            assert!(height <= MC && width <= NC);
        }
    }
    assert_eq!(block_size(128, 2048, 2), (128, 256));
}
