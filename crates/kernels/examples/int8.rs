//! Prints the speed of the quantised linear layer beside the measured arithmetic peaks.
//!
//! `cargo run --release --example int8 -- [isa] [threads] [rows]`

#![allow(clippy::print_stdout)]

use std::time::Instant;

use llada_kernels::{
    BlockFormat, Cpu, Isa, Result, WeightView,
    linear::{self, Out},
    peak,
};

/// Rounds, in each of which every kind of weight has its turn.
const ROUNDS: usize = 9;
/// What a turn should take, in multiply-adds.
const TURN: usize = 1 << 30;

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let isa: Isa = arguments.first().map_or(Ok(Isa::detect()), |isa| isa.parse())?;
    let threads = arguments.get(1).map_or(Ok(0), |n| n.parse())?;
    let rows: Vec<usize> = match arguments.get(2) {
        Some(rows) => vec![rows.parse()?],
        None => vec![32, 128, 512],
    };
    let cpu = Cpu::with_isa(isa, threads)?;
    println!(
        "{isa}, {} threads; best GOP/s, best and median in per cent of the int8 peak",
        cpu.threads()
    );
    println!(
        "{:20} {:>5} {:>5}   {:20}   {:20}   {:20}   {:20}   f32",
        "m x n x k", "f32", "int8", "Q8_0", "Q4_0", "Q4_K", "Q6_K"
    );
    for (n, k, only) in [(2048, 2048, 0), (5632, 2048, 0), (2048, 5632, 0), (126464, 2048, 32)] {
        for &m in rows.iter().filter(|&&m| only == 0 || m <= only) {
            shape(&cpu, m, n, k)?;
        }
    }
    Ok(())
}

fn shape(cpu: &Cpu, m: usize, n: usize, k: usize) -> Result<()> {
    let noise = |i: usize| ((i.wrapping_mul(2_654_435_761) >> 7) % 4099) as f32 / 4099.0 - 0.5;
    let x: Vec<f32> = (0..m * k).map(noise).collect();
    // Rows repeat, so that the slowest quantiser takes no longer than the measurement.
    let few: Vec<f32> = (0..n.min(64) * k).map(|i| noise(i) / 16.0).collect();
    let repeat =
        |bytes: &[u8]| bytes.iter().copied().cycle().take(bytes.len() * n / n.min(64)).collect();
    let wide: Vec<f32> = few.iter().copied().cycle().take(n * k).collect();
    let mut weights: Vec<(BlockFormat, Vec<u8>)> = Vec::new();
    for format in [BlockFormat::Q8_0, BlockFormat::Q4_0, BlockFormat::Q4K, BlockFormat::Q6K] {
        let mut bytes = vec![0; few.len() / format.block_len() * format.block_bytes()];
        format.quantize(cpu, &few, &mut bytes)?;
        weights.push((format, repeat(&bytes)));
    }
    let mut views: Vec<WeightView<'_>> = weights
        .iter()
        .map(|(format, bytes)| WeightView::Blocks { format: *format, bytes })
        .collect();
    views.push(WeightView::F32(&wide));

    let mut y = vec![0.0; m * n];
    let repeats = (TURN / (m * n * k)).clamp(1, 100);
    let mut seconds = vec![Vec::new(); views.len()];
    let (mut f32_peak, mut int8_peak) = (0.0f64, 0.0f64);
    for _ in 0..ROUNDS {
        f32_peak = f32_peak.max(peak::f32_flops(cpu));
        int8_peak = int8_peak.max(peak::int8_ops(cpu));
        for (view, seconds) in views.iter().zip(&mut seconds) {
            for _ in 0..repeats {
                let start = Instant::now();
                linear::forward(
                    cpu,
                    linear::Shape { m, n, k },
                    &x,
                    *view,
                    None,
                    &mut y,
                    Out::Write,
                )?;
                seconds.push(start.elapsed().as_secs_f64());
            }
        }
    }
    print!("{:20} {:5.0} {:5.0}", format!("{m} x {n} x {k}"), f32_peak / 1e9, int8_peak / 1e9);
    for seconds in &mut seconds {
        seconds.sort_by(f64::total_cmp);
        let speed = |seconds: f64| (2 * m * n * k) as f64 / seconds;
        let (best, median) = (speed(seconds[0]), speed(seconds[seconds.len() / 2]));
        print!(
            " | {:4.0} {:5.1} % {:5.1} %",
            best / 1e9,
            100.0 * best / int8_peak,
            100.0 * median / int8_peak
        );
    }
    println!();
    Ok(())
}
