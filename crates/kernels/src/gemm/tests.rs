use super::*;
use crate::Isa;

/// Numbers in `-1..1`, the same ones for the same seed.
fn numbers(len: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(12345);
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..len).map(next).collect()
}

fn cpus(isa: Isa) -> Vec<Cpu> {
    let cpus = [1, 2, 3].iter().filter_map(|threads| Cpu::with_isa(isa, *threads).ok());
    // The matrix unit has tests of its own.
    cpus.map(|cpu| cpu.with_tiles(None)).collect()
}

/// Every instruction set with every kind of factors.
fn kinds() -> impl Iterator<Item = Vec<Cpu>> {
    let isas = [Isa::Portable, Isa::Avx2, Isa::Avx512].into_iter();
    let kinds = isas.flat_map(|isa| [Compute::F32, Compute::Bf16].map(|compute| (isa, compute)));
    // Without an instruction of its own the product of pairs is the portable one.
    kinds
        .filter(|&(isa, compute)| {
            compute == Compute::F32 || isa == Isa::Portable || simd::has_bf16(isa)
        })
        .map(|(isa, compute)| cpus(isa).into_iter().map(|cpu| cpu.with_compute(compute)).collect())
}

fn product(
    cpu: &Cpu,
    a: Operand<'_>,
    b: Operand<'_>,
    (m, n, k): (usize, usize, usize),
) -> Vec<u32> {
    let (shape, mut c) = (Shape { m, n, k }, numbers(m * n, 9));
    gemm(cpu, shape, a, b, &mut c, Out::Write);
    gemm(cpu, shape, a, b, &mut c, Out::Add);
    c.into_iter().map(f32::to_bits).collect()
}

fn operand(data: &[f32], layout: Layout) -> Operand<'_> {
    Operand { data: Floats::F32(data), layout }
}

fn transposed(data: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    (0..rows * columns).map(|at| data[at % rows * columns + at / rows]).collect()
}

#[test]
fn a_row_has_the_same_bits_in_any_batch_layout_and_number_of_threads() {
    let (n, k, most) = (75, 2 * KC + 37, 200);
    let (x, w) = (numbers(most * k, 1), numbers(n * k, 2));
    let w_outer = transposed(&w, n, k);
    for cpus in kinds() {
        let Some(first) = cpus.first() else { continue };
        let alone: Vec<u32> = x
            .chunks_exact(k)
            .flat_map(|row| {
                let row = operand(row, Layout::KInner);
                product(first, row, operand(&w, Layout::KInner), (1, n, k))
            })
            .collect();
        for cpu in &cpus {
            for m in [1, 2, 3, 4, 5, 7, 13, 14, 15, 64, most] {
                let x_outer = transposed(&x[..m * k], m, k);
                for a in [operand(&x[..m * k], Layout::KInner), operand(&x_outer, Layout::KOuter)] {
                    for b in [operand(&w, Layout::KInner), operand(&w_outer, Layout::KOuter)] {
                        let c = product(cpu, a, b, (m, n, k));
                        assert!(c == alone[..m * n], "{cpu:?} {m} {:?} {:?}", a.layout, b.layout);
                    }
                }
            }
        }
    }
}

#[test]
fn a_few_rows_have_the_same_bits_in_every_storage_type() {
    use half::{bf16, f16};
    for k in [1, 15, 16, 100, KC, KC + 17] {
        let (n, most) = (37, FEW + 1);
        let (x, w) = (numbers(most * k, 5), numbers(n * k, 6));
        let bf: Vec<bf16> = w.iter().map(|&w| bf16::from_f32(w)).collect();
        let half: Vec<f16> = w.iter().map(|&w| f16::from_f32(w)).collect();
        for data in [Floats::F32(&w), Floats::Bf16(&bf), Floats::F16(&half)] {
            let w = Operand { data, layout: Layout::KInner };
            for isa in [Isa::Portable, Isa::Avx2, Isa::Avx512] {
                for cpu in cpus(isa) {
                    let packed = product(&cpu, operand(&x, Layout::KInner), w, (most, n, k));
                    for m in 1..=FEW {
                        let x = operand(&x[..m * k], Layout::KInner);
                        let few = product(&cpu, x, w, (m, n, k));
                        assert!(few == packed[..m * n], "{cpu:?} m {m} k {k}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_column_has_the_same_bits_in_any_width() {
    let (m, k) = (15, KC + 1);
    let (x, w) = (numbers(m * k, 3), numbers(101 * k, 4));
    for cpus in kinds() {
        for cpu in cpus {
            let x = operand(&x, Layout::KInner);
            let whole = product(&cpu, x, operand(&w, Layout::KInner), (m, 101, k));
            for n in [1, 7, 16, 31, 32, 33, 64, 100] {
                let part = product(&cpu, x, operand(&w[..n * k], Layout::KInner), (m, n, k));
                for (part, whole) in part.chunks_exact(n).zip(whole.chunks_exact(101)) {
                    assert!(part == &whole[..n], "{cpu:?} {n}");
                }
            }
        }
    }
}

#[test]
fn long_sums_pass_through_every_block_of_terms() {
    let k = 4 * KC + 3;
    let ones = vec![1.0; 17 * k];
    for cpus in kinds() {
        for cpu in cpus {
            for (a, b) in [(Layout::KInner, Layout::KOuter), (Layout::KOuter, Layout::KInner)] {
                let mut c = vec![0.5; 15 * 17];
                let a = operand(&ones[..15 * k], a);
                gemm(&cpu, Shape { m: 15, n: 17, k }, a, operand(&ones, b), &mut c, Out::Add);
                assert!(c.iter().all(|c| *c == 0.5 + k as f32), "{cpu:?}");
            }
        }
    }
}

#[test]
fn shares_cover_everything_once() {
    for (len, parts) in [(0, 1), (1, 3), (10, 3), (200, 15), (14, 14)] {
        let mut at = 0;
        for i in 0..parts {
            let part = share(len, parts, i);
            assert_eq!(part.start, at);
            at = part.end;
        }
        assert_eq!(at, len);
    }
}

#[test]
fn the_grid_gives_every_thread_work() {
    assert_eq!(grid(2048, 8, 32, 1), (1, 1));
    assert_eq!(grid(1, 64, 32, 2), (1, 4));
    assert_eq!(grid(2048, 8, 32, 2), (4, 1));
    for (m, panels) in [(2048, 8), (128, 1024), (256, 32), (1, 2000), (2000, 1)] {
        let (rows, columns) = grid(m, panels, 32, 2);
        assert!(rows * columns >= 4 && rows <= m && columns <= panels);
    }
}

#[test]
fn products_of_pairs_are_those_of_rounded_factors() {
    let round =
        |x: &[f32]| -> Vec<f32> { x.iter().map(|&x| half::bf16::from_f32(x).to_f32()).collect() };
    for (m, n, k) in [(1, 1, 1), (3, 5, 2), (14, 32, 64), (15, 33, 65), (40, 70, 2 * KC + 5)] {
        let (x, w) = (numbers(m * k, 7), numbers(n * k, 8));
        let (rounded_x, rounded_w) = (round(&x), round(&w));
        let bf: Vec<half::bf16> = w.iter().map(|&w| half::bf16::from_f32(w)).collect();
        let (x_outer, w_outer) = (transposed(&x, m, k), transposed(&w, n, k));
        let mut all: Vec<Vec<f32>> = Vec::new();
        for cpus in kinds().filter(|cpus| cpus.iter().any(|cpu| cpu.compute() == Compute::Bf16)) {
            let cpu = &cpus[0];
            let in_bf = Operand { data: Floats::Bf16(&bf), layout: Layout::KInner };
            let a = [operand(&x, Layout::KInner), operand(&x_outer, Layout::KOuter)];
            let b = [operand(&w, Layout::KInner), operand(&w_outer, Layout::KOuter), in_bf];
            for (a, b) in a.iter().flat_map(|a| b.iter().map(move |b| (*a, *b))) {
                let mut c = vec![f32::NAN; m * n];
                gemm(cpu, Shape { m, n, k }, a, b, &mut c, Out::Write);
                for (i, row) in c.chunks_exact(n).enumerate() {
                    for (j, c) in row.iter().enumerate() {
                        let terms = rounded_x[i * k..][..k].iter().zip(&rounded_w[j * k..][..k]);
                        let products = terms.map(|(x, w)| f64::from(*x) * f64::from(*w));
                        let (sum, size) =
                            products.fold((0.0, 0.0), |(sum, size), p| (sum + p, size + p.abs()));
                        assert!(
                            (f64::from(*c) - sum).abs() <= size * 1e-6,
                            "{cpu:?} {m} {n} {k}: {c} {sum}"
                        );
                    }
                }
                all.push(c);
            }
        }
        // The instruction adds in the order of the plain code, and rounds as it does.
        assert!(all.iter().all(|c| *c == all[0]), "{m} {n} {k}");
    }
}

#[test]
fn what_is_no_number_stays_none() {
    let (m, n, k) = (3, 17, 33);
    for cpus in kinds() {
        for bad in [f32::NAN, f32::INFINITY] {
            let (mut x, w) = (vec![1.0; m * k], vec![1.0; n * k]);
            x[k + 32] = bad;
            let mut c = vec![0.0; m * n];
            let (x, w) = (operand(&x, Layout::KInner), operand(&w, Layout::KInner));
            gemm(&cpus[0], Shape { m, n, k }, x, w, &mut c, Out::Write);
            for (i, row) in c.chunks_exact(n).enumerate() {
                let is_bad = |c: &f32| c.is_nan() && bad.is_nan() || *c == bad;
                assert!(row.iter().all(|c| if i == 1 { is_bad(c) } else { *c == k as f32 }));
            }
        }
    }
}
