//! The arithmetic peak of the processor, against which the matrix product is measured.

use std::{
    hint::black_box,
    sync::OnceLock,
    time::{Duration, Instant},
};

use crate::{
    Compute, Cpu,
    simd::{self, Kernel, Simd},
    tiles::{self, TileKernel, TileUnit},
};

/// Accumulators: more than latency times throughput of any processor so far, fewer than registers.
const CHAINS: usize = 12;
/// Steps of every chain between two looks at the clock.
const STEPS: usize = 1 << 14;
/// How long each thread measures.
const TIME: Duration = Duration::from_millis(20);

/// The `f32` multiply-adds that all threads of `cpu` do at once in registers, in FLOP/s, measured in
/// about 20 ms; a multiply-add counts as two.
pub fn f32_flops(cpu: &Cpu) -> f64 {
    all_threads(cpu, |lanes| simd::run(cpu.isa(), Floats(lanes)))
}

/// The same for products of tiles of `bf16`, or where there are none for those of pairs, which some processors
/// do twice as fast and others half as fast.
pub fn bf16_flops(cpu: &Cpu) -> f64 {
    all_threads(cpu, |products| bf16_products(cpu, products))
}

/// Runs chains of the fastest products of `bf16`.
fn bf16_products(cpu: &Cpu, products: &mut usize) {
    match cpu.clone().with_compute(Compute::Bf16).tiles() {
        Some(unit) => tiles::run(unit, TilePairs(products)),
        None => simd::run_bf16(cpu.isa(), Pairs(products)),
    }
}

/// That of what `cpu` multiplies.
pub fn flops(cpu: &Cpu) -> f64 {
    match cpu.compute() {
        Compute::F32 => f32_flops(cpu),
        Compute::Bf16 => bf16_flops(cpu),
    }
}

/// Whether products of `bf16` are worth their rounding on one thread: measured once a process, in about 40 ms.
pub fn is_bf16_faster(cpu: &Cpu) -> bool {
    /// Processors do twice as many products of pairs as of `f32`, as many, or half: what lies between is noise.
    const GAIN: f64 = 1.4;
    static IS_FASTER: OnceLock<bool> = OnceLock::new();
    cpu.has_bf16()
        && *IS_FASTER.get_or_init(|| {
            // In turn, so that both meet the same other work.
            let (mut f32, mut bf16, begin) = (0.0f64, 0.0f64, Instant::now());
            while begin.elapsed() < 2 * TIME {
                f32 = f32.max(stretch(&mut |lanes| simd::run(cpu.isa(), Floats(lanes))));
                bf16 = bf16.max(stretch(&mut |products| bf16_products(cpu, products)));
            }
            bf16 > GAIN * f32
        })
}

/// The same for products of bytes, with the instructions that the quantised linear layer uses: those
/// of VNNI, or without them products of 16 bits.
pub fn int8_ops(cpu: &Cpu) -> f64 {
    all_threads(cpu, |products| simd::run_int8(cpu.isa(), Bytes(products)))
}

/// The sum over all threads of the best stretch of each.
fn all_threads(cpu: &Cpu, run: impl Fn(&mut usize) + Sync) -> f64 {
    let one = || {
        let (mut best, begin) = (0.0f64, Instant::now());
        while begin.elapsed() < TIME {
            best = best.max(stretch(&mut |each| run(each)));
        }
        best
    };
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..cpu.threads()).map(|_| scope.spawn(one)).collect();
        one() + others.into_iter().filter_map(|other| other.join().ok()).sum::<f64>()
    })
}

/// Operations per second of the chains, which `run` runs once and whose multiply-adds in a step of one it says.
fn stretch(run: &mut dyn FnMut(&mut usize)) -> f64 {
    let (start, mut each) = (Instant::now(), 0);
    run(&mut each);
    (2 * each * CHAINS * STEPS) as f64 / start.elapsed().as_secs_f64()
}

/// Chains of multiply-adds; receives those of a step of one chain.
struct Floats<'a>(&'a mut usize);

impl Kernel for Floats<'_> {
    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        let (a, b) = (s.splat(black_box(0.5)), s.splat(black_box(1.0)));
        let mut chains = [s.splat(0.0); CHAINS];
        for _ in 0..STEPS {
            for chain in &mut chains {
                *chain = s.mul_add(*chain, a, b);
            }
        }
        black_box(chains);
        *self.0 = S::LANES;
    }
}

/// Chains of products of pairs; receives those of a step of one chain.
struct Pairs<'a>(&'a mut usize);

impl Kernel for Pairs<'_> {
    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        let (a, b) = (s.splat(black_box(0.5)), s.splat(black_box(1.0)));
        let mut chains = [s.splat(0.0); CHAINS];
        for _ in 0..STEPS {
            for chain in &mut chains {
                *chain = s.dot_pairs(a, b, *chain);
            }
        }
        black_box(chains);
        *self.0 = 2 * S::LANES;
    }
}

/// Chains of products of tiles; receives the multiply-adds for each step of the chains of vectors.
struct TilePairs<'a>(&'a mut usize);

impl TileKernel for TilePairs<'_> {
    #[inline(always)]
    fn call<U: TileUnit>(self, unit: &mut U) {
        /// Products of each of four chains: as long as the other chains take, or shorter.
        const PRODUCTS: usize = CHAINS * STEPS / 256;
        unit.zero::<4>();
        unit.zero::<5>();
        for _ in 0..PRODUCTS {
            unit.multiply::<0, 4, 5>();
            unit.multiply::<1, 4, 5>();
            unit.multiply::<2, 4, 5>();
            unit.multiply::<3, 4, 5>();
        }
        *self.0 = 4 * PRODUCTS * tiles::PLACES * tiles::DEPTH / (CHAINS * STEPS);
    }
}

/// Chains of products of bytes; receives those of a step of one chain.
struct Bytes<'a>(&'a mut usize);

impl Kernel for Bytes<'_> {
    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        let ones = s.splat_int(black_box(0x0101_0101));
        let mut chains = [ones; CHAINS];
        for _ in 0..STEPS {
            for chain in &mut chains {
                // A chain multiplies itself, lest the products be taken out of the loop.
                *chain = s.dot(*chain, *chain, ones, true);
            }
        }
        black_box(chains);
        *self.0 = 4 * S::LANES;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;

    #[test]
    fn every_instruction_set_has_a_peak() {
        for isa in [Isa::Portable, Isa::Avx2, Isa::Avx512] {
            if let Ok(cpu) = Cpu::with_isa(isa, 2) {
                for peak in [f32_flops(&cpu), bf16_flops(&cpu), int8_ops(&cpu)] {
                    assert!(peak.is_finite() && peak > 0.0, "{isa}: {peak}");
                }
            }
        }
    }
}
