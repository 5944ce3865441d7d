//! The arithmetic peak of the processor, against which the matrix product is measured.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use crate::{Cpu, Isa, int8::Kernel};

/// Accumulators: more than latency times throughput of any processor so far, fewer than registers.
const CHAINS: usize = 12;
/// Steps of every chain between two looks at the clock.
const STEPS: usize = 1 << 14;
/// How long each thread measures.
const TIME: Duration = Duration::from_millis(20);

/// The `f32` multiply-adds that all threads of `cpu` do at once in registers, in FLOP/s, measured in
/// about 20 ms; a multiply-add counts as two.
pub fn f32_flops(cpu: &Cpu) -> f64 {
    let isa = cpu.isa();
    all_threads(cpu, || match isa {
        // SAFETY: `Cpu` has checked the instruction set.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => unsafe { avx512() },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => unsafe { avx2() },
        _ => portable(),
    })
}

/// The same for products of bytes, with the instructions that the quantised linear layer uses: those
/// of VNNI, or without them products of 16 bits.
pub fn int8_ops(cpu: &Cpu) -> f64 {
    let kernel = Kernel::of(cpu.isa());
    all_threads(cpu, || match kernel {
        // SAFETY: `Kernel::of` has checked the instruction set.
        #[cfg(target_arch = "x86_64")]
        Kernel::Vnni => unsafe { vnni() },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Kernel::AvxVnni => unsafe { avx_vnni() },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Kernel::Avx2 => unsafe { avx2_int8() },
        Kernel::Portable => portable_int8(),
    })
}

/// The sum over all threads of the best stretch of each; `run` runs the chains once and returns the
/// multiply-adds of a step of one chain.
fn all_threads(cpu: &Cpu, run: impl Fn() -> usize + Sync) -> f64 {
    let one = || {
        let begin = Instant::now();
        let mut best = 0.0f64;
        while begin.elapsed() < TIME {
            let start = Instant::now();
            let operations = 2 * run() * CHAINS * STEPS;
            best = best.max(operations as f64 / start.elapsed().as_secs_f64());
        }
        best
    };
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..cpu.threads()).map(|_| scope.spawn(one)).collect();
        one() + others.into_iter().filter_map(|other| other.join().ok()).sum::<f64>()
    })
}

/// Runs the chains and returns the lanes of each.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn avx512() -> usize {
    use std::arch::x86_64::*;
    let (a, b) = (_mm512_set1_ps(black_box(0.5)), _mm512_set1_ps(black_box(1.0)));
    let mut chains = [_mm512_setzero_ps(); CHAINS];
    for _ in 0..STEPS {
        for chain in &mut chains {
            *chain = _mm512_fmadd_ps(*chain, a, b);
        }
    }
    black_box(chains);
    16
}

/// Runs the chains and returns the lanes of each.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn avx2() -> usize {
    use std::arch::x86_64::*;
    let (a, b) = (_mm256_set1_ps(black_box(0.5)), _mm256_set1_ps(black_box(1.0)));
    let mut chains = [_mm256_setzero_ps(); CHAINS];
    for _ in 0..STEPS {
        for chain in &mut chains {
            *chain = _mm256_fmadd_ps(*chain, a, b);
        }
    }
    black_box(chains);
    8
}

/// Runs the chains and returns the multiply-adds of each step.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vnni")]
fn vnni() -> usize {
    use std::arch::x86_64::*;
    let (a, b) = (_mm512_set1_epi8(black_box(1)), _mm512_set1_epi8(black_box(2)));
    let mut chains = [_mm512_setzero_si512(); CHAINS];
    for _ in 0..STEPS {
        for chain in &mut chains {
            *chain = _mm512_dpbusd_epi32(*chain, a, b);
        }
    }
    black_box(chains);
    64
}

/// Runs the chains and returns the multiply-adds of each step.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,avxvnni")]
fn avx_vnni() -> usize {
    use std::arch::x86_64::*;
    let (a, b) = (_mm256_set1_epi8(black_box(1)), _mm256_set1_epi8(black_box(2)));
    let mut chains = [_mm256_setzero_si256(); CHAINS];
    for _ in 0..STEPS {
        for chain in &mut chains {
            *chain = _mm256_dpbusd_avx_epi32(*chain, a, b);
        }
    }
    black_box(chains);
    32
}

/// Runs the chains and returns the multiply-adds of each step.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn avx2_int8() -> usize {
    use std::arch::x86_64::*;
    let a = _mm256_set1_epi16(black_box(1));
    let mut chains = [_mm256_setzero_si256(); CHAINS];
    for _ in 0..STEPS {
        for chain in &mut chains {
            *chain = _mm256_add_epi32(*chain, _mm256_madd_epi16(*chain, a));
        }
    }
    black_box(chains);
    16
}

/// Runs the chains and returns the multiply-adds of each step.
fn portable_int8() -> usize {
    const LANES: usize = 4;
    let (a, b) = (black_box(3i16), black_box([1i16; LANES]));
    let mut chains = [[0i32; LANES]; CHAINS];
    for _ in 0..STEPS {
        for chain in &mut chains {
            for (x, b) in chain.iter_mut().zip(b) {
                *x = x.wrapping_add((i32::from(a) * i32::from(b)) ^ *x);
            }
        }
    }
    black_box(chains);
    LANES
}

/// Runs the chains and returns the lanes of each.
fn portable() -> usize {
    const LANES: usize = 4;
    let (a, b) = (black_box(0.5f32), black_box(1.0f32));
    let mut chains = [[0.0f32; LANES]; CHAINS];
    for _ in 0..STEPS {
        for chain in &mut chains {
            for x in chain {
                *x = *x * a + b;
            }
        }
    }
    black_box(chains);
    LANES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_instruction_set_has_a_peak() {
        for isa in [Isa::Portable, Isa::Avx2, Isa::Avx512] {
            if let Ok(cpu) = Cpu::with_isa(isa, 2) {
                for peak in [f32_flops(&cpu), int8_ops(&cpu)] {
                    assert!(peak.is_finite() && peak > 0.0, "{isa}: {peak}");
                }
            }
        }
    }
}
