//! Prints the speed of the linear layer's three products beside the measured arithmetic peak.
//!
//! `cargo run --release --example gemm -- [isa] [threads] [f32|bf16] [idle]`
//!
//! `idle` replaces the matrix unit, whether there is one or not, by one that does not multiply: what remains is
//! packing and writing, and the speed is the most that these leave.

#![allow(clippy::print_stdout)]

use std::time::{Duration, Instant};

use half::bf16;
use llada_kernels::{
    BlockFormat, Compute, Cpu, Isa, Result, Tiles, WeightView,
    linear::{self, Out},
    peak,
};

/// Every shape is repeated for this long, and for three times at least.
const TIME: Duration = Duration::from_millis(300);

/// The best and the median time of a run of `job`, in seconds.
fn times(mut job: impl FnMut() -> Result<()>) -> Result<(f64, f64)> {
    job()?;
    let (begin, mut times) = (Instant::now(), Vec::new());
    while times.len() < 3 || begin.elapsed() < TIME {
        let start = Instant::now();
        job()?;
        times.push(start.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    Ok((times[0], times[times.len() / 2]))
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let isa: Isa = arguments.first().map_or(Ok(Isa::detect()), |isa| isa.parse())?;
    let threads = arguments.get(1).map_or(Ok(0), |n| n.parse())?;
    let compute = arguments.get(2).map_or(Ok(Compute::F32), |name| name.parse())?;
    let real = Cpu::with_isa(isa, threads)?.with_compute(compute);
    let is_idle = arguments.get(3).is_some_and(|unit| unit == "idle");
    let cpu = if is_idle { real.clone().with_tiles(Some(Tiles::Idle)) } else { real.clone() };
    let peak = peak::flops(&real) / 1e9;
    let unit = match (real.has_tiles(), compute) {
        _ if is_idle => "idle tiles",
        (true, Compute::Bf16) => "tiles",
        _ => "vectors",
    };
    println!("{isa}, {} threads, {compute}, {unit}, peak {peak:.0} GFLOP/s", cpu.threads());
    let products = [
        ("y", 2048, 256, 256),
        ("y", 2048, 1024, 256),
        ("y", 2048, 256, 1024),
        ("y", 128, 2048, 768),
        ("y", 128, 768, 2048),
        ("y", 128, 32768, 768),
        ("y bf16", 128, 2048, 768),
        ("y bf16", 128, 32768, 768),
        ("y", 32, 2048, 768),
        ("y", 8, 2048, 768),
        ("y", 8, 32768, 768),
        ("y bf16", 8, 32768, 768),
        ("y", 1, 2048, 768),
        ("y", 1, 32768, 768),
        ("y bf16", 1, 32768, 768),
        ("y Q8_0", 128, 2048, 2048),
        ("y Q4_0", 128, 2048, 2048),
        ("y Q6_K", 128, 2048, 2048),
        ("y Q4_K", 128, 2048, 2048),
        ("y bf16", 128, 2048, 2048),
        ("dx", 2048, 256, 256),
        ("dx", 2048, 1024, 256),
        ("dx", 128, 2048, 768),
        ("dx", 128, 32768, 768),
        ("dw", 2048, 256, 256),
        ("dw", 2048, 256, 1024),
        ("dw", 2048, 1024, 256),
        ("dw", 128, 2048, 768),
        ("dw", 128, 32768, 768),
    ];
    for (what, m, n, k) in products {
        let fill = |len: usize| (0..len).map(|i| (i % 97) as f32 / 97.0 - 0.5).collect();
        let (mut x, w): (Vec<f32>, Vec<f32>) = (fill(m * k), fill(n * k));
        let half: Vec<bf16> = w.iter().map(|w| bf16::from_f32(*w)).collect();
        let (mut y, mut dw) = (fill(m * n), w.clone());
        let format = BlockFormat::ALL.into_iter().find(|format| what.ends_with(format.name()));
        let mut bytes = vec![0; format.and_then(|format| format.bytes(n * k)).unwrap_or(0)];
        if let Some(format) = format {
            format.quantize(&cpu, &w, &mut bytes)?;
        }
        let view = WeightView::F32(&w);
        let stored = match format {
            Some(format) => WeightView::Blocks { format, bytes: &bytes },
            None if what == "y bf16" => WeightView::Bf16(&half),
            None => view,
        };
        let run = || match what {
            _ if what.starts_with('y') => {
                let shape = linear::Shape { m, n, k };
                linear::forward(&cpu, shape, &x, stored, None, &mut y, Out::Write)
            }
            "dx" => linear::backward_input(
                &cpu,
                linear::Shape { m, n, k },
                &y,
                view,
                &mut x,
                Out::Write,
            ),
            _ => linear::backward_weight(
                &cpu,
                linear::Shape { m, n, k },
                &y,
                &x,
                &mut dw,
                Out::Write,
            ),
        };
        let before = peak::flops(&real);
        let (best, median) = times(run)?;
        let peak = before.max(peak::flops(&real)) / 1e9;
        let flops = |seconds: f64| (2 * m * n * k) as f64 / seconds / 1e9;
        let share = |seconds: f64| 100.0 * flops(seconds) / peak;
        let shape = format!("m {m} n {n} k {k}");
        println!(
            "{what:7} {shape:24} best {:8.0} us {:6.1} GFLOP/s {:5.1} %, median {:6.1} GFLOP/s {:5.1} %",
            best * 1e6,
            flops(best),
            share(best),
            flops(median),
            share(median)
        );
    }
    Ok(())
}
