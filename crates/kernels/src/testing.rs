//! What the tests of the operations share.

use crate::{Cpu, Isa};

/// Every instruction set that this machine has, on 1, 2 and 3 threads.
pub(crate) fn cpus() -> Vec<Cpu> {
    [Isa::Portable, Isa::Avx2, Isa::Avx512]
        .into_iter()
        .filter(|&isa| isa <= Isa::detect())
        .flat_map(|isa| (1..=3).map(move |threads| Cpu::with_isa(isa, threads).unwrap()))
        .collect()
}

/// Runs `job` on every [`cpus`] and returns its result, which must have the same bits on all.
pub(crate) fn on_every_cpu(job: impl Fn(&Cpu) -> Vec<f32>) -> Vec<f32> {
    let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    let mut results = cpus().into_iter().map(|cpu| (job(&cpu), cpu));
    let (first, _) = results.next().unwrap();
    for (other, cpu) in results {
        assert!(bits(&first) == bits(&other), "{cpu:?} gives other bits");
    }
    first
}

/// `n` numbers spread evenly over -1..1, the same ones for the same `seed`.
pub(crate) fn noise(seed: u64, n: usize) -> Vec<f32> {
    let mut state = seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

/// `n` numbers below `limit`.
pub(crate) fn indices(seed: u64, n: usize, limit: usize) -> Vec<u32> {
    noise(seed, n).iter().map(|x| ((x + 1.0) / 2.0 * limit as f32) as u32 % limit as u32).collect()
}

/// The same numbers in double precision.
pub(crate) fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| f64::from(x)).collect()
}

/// Asserts that each of `found` is within `bound` of `expected`, relative to the greatest of them.
pub(crate) fn assert_close(what: &str, found: &[f32], expected: &[f64], bound: f64) {
    assert_eq!(found.len(), expected.len(), "{what}: length");
    let scale = expected.iter().fold(1e-30, |a: f64, b| a.max(b.abs()));
    for (i, (&f, &e)) in found.iter().zip(expected).enumerate() {
        let error = (f64::from(f) - e).abs() / scale;
        assert!(error <= bound, "{what}[{i}] is {f}, expected {e}: off by {error:e}");
    }
}

/// Asserts that `gradient` is that of `loss` at `x`, by central differences.
pub(crate) fn assert_gradient(
    what: &str,
    x: &[f64],
    gradient: &[f64],
    loss: impl Fn(&[f64]) -> f64,
) {
    const STEP: f64 = 1e-5;
    assert_eq!(x.len(), gradient.len(), "{what}: length");
    let mut probe = x.to_vec();
    for i in 0..x.len() {
        probe[i] = x[i] + STEP;
        let above = loss(&probe);
        probe[i] = x[i] - STEP;
        let below = loss(&probe);
        probe[i] = x[i];
        let expected = (above - below) / (2.0 * STEP);
        let error = (gradient[i] - expected).abs();
        assert!(error < 1e-7, "{what}[{i}] is {}, differences say {expected}", gradient[i]);
    }
}

/// The dot product, as a loss whose gradient is `weights`.
pub(crate) fn dot(x: &[f64], weights: &[f64]) -> f64 {
    x.iter().zip(weights).map(|(x, w)| x * w).sum()
}
