//! Times the statistics of a row of 126464 logits, fast and as the reference computes them:
//! `cargo run --release --example statistics`.

#![allow(clippy::print_stdout)]

use std::time::Instant;

use llada_kernels::{reference, statistics};

/// Median microseconds of a call, over `rows`.
fn microseconds<R>(rows: &[R], mut job: impl FnMut(&R) -> f64) -> f64 {
    let mut times: Vec<f64> = rows
        .iter()
        .map(|row| {
            let start = Instant::now();
            std::hint::black_box(job(row));
            start.elapsed().as_secs_f64() * 1e6
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn main() {
    const VOCABULARY: u32 = 126_464;
    let row = |seed: u32| -> Vec<f32> {
        let logit = |i: u32| ((i.wrapping_mul(2_654_435_761) ^ seed) as f32).sin() * 8.0;
        (0..VOCABULARY).map(logit).collect()
    };
    let rows: Vec<Vec<f32>> = (0..32).map(row).collect();
    let wide: Vec<Vec<f64>> =
        rows.iter().map(|row| row.iter().map(|&x| f64::from(x)).collect()).collect();
    for _ in 0..5 {
        let fast = microseconds(&rows, |row| statistics::of(row).map_or(0.0, |s| s.others));
        let reference = microseconds(&wide, |row| reference::statistics::of(row).others);
        let ratio = reference / fast;
        println!("{fast:8.1} µs a row, reference {reference:8.1} µs: {ratio:.1} times as fast");
    }
}
