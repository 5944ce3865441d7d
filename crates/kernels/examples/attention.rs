//! Times attention, forward and backward, in two shapes: `cargo run --release --example attention`.
//!
//! Arguments: the instruction set (default: the best) and the number of threads (default: 1).

#![allow(clippy::print_stdout)]

use std::time::Instant;

use llada_kernels::{
    Cpu, Isa, Result,
    attention::{self, Mask, Rows, Shape},
};

/// Seconds of the fastest of several calls.
fn seconds(mut job: impl FnMut() -> Result<()>) -> Result<f64> {
    let mut best = f64::INFINITY;
    let begin = Instant::now();
    while begin.elapsed().as_secs_f64() < 1.0 {
        let start = Instant::now();
        job()?;
        best = best.min(start.elapsed().as_secs_f64());
    }
    Ok(best)
}

fn time(cpu: &Cpu, what: &str, rows: usize, len: usize, shape: Shape, mask: Mask) -> Result<()> {
    let starts: Vec<usize> = (0..=rows).map(|row| row * len).collect();
    let tokens = rows * len;
    let noise = |seed: u32, n: usize| -> Vec<f32> {
        (0..n as u32).map(|i| ((i.wrapping_mul(2_654_435_761) ^ seed) as f32).sin()).collect()
    };
    let (queries, keys) = (shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim);
    let q = noise(1, tokens * queries);
    let (k, v) = (noise(2, tokens * keys), noise(3, tokens * keys));
    let dout = noise(4, tokens * queries);
    let (mut out, mut lse) = (vec![0.0; q.len()], vec![0.0; tokens * shape.heads]);
    let (mut dq, mut dk, mut dv) = (q.clone(), k.clone(), v.clone());
    let rows = Rows { starts: &starts, keep: None };

    let forward =
        seconds(|| attention::forward(cpu, shape, mask, rows, &q, &k, &v, &mut out, &mut lse))?;
    let backward = seconds(|| {
        attention::backward(
            cpu, shape, mask, rows, &q, &k, &v, &out, &lse, &dout, &mut dq, &mut dk, &mut dv,
        )
    })?;
    // Two products forward and five backward, of all the scores whatever the mask.
    let product = 2.0 * (tokens * len * shape.heads * shape.head_dim) as f64;
    for (pass, products, time) in [("forward", 2.0, forward), ("backward", 5.0, backward)] {
        let (ms, rate) = (time * 1e3, products * product / time / 1e9);
        println!("{what:40} {pass:8} {ms:9.3} ms {rate:7.1} GFLOP/s");
    }
    Ok(())
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let isa = arguments.next().map_or(Ok(Isa::detect()), |isa| isa.parse())?;
    let cpu = Cpu::with_isa(isa, arguments.next().and_then(|n| n.parse().ok()).unwrap_or(1))?;
    println!("{isa}, {} threads", cpu.threads());
    let small = Shape { heads: 8, kv_heads: 8, head_dim: 32 };
    let large = Shape { heads: 12, kv_heads: 12, head_dim: 64 };
    time(&cpu, "8 rows of 256, 8 heads of 32", 8, 256, small, Mask::Bidirectional)?;
    time(&cpu, "8 rows of 256, 8 heads of 32, causal", 8, 256, small, Mask::Causal)?;
    time(&cpu, "1 row of 128, 12 heads of 64", 1, 128, large, Mask::Bidirectional)?;
    time(&cpu, "1 row of 256, 12 heads of 64", 1, 256, large, Mask::Bidirectional)?;
    time(&cpu, "1 row of 4096, 12 heads of 64", 1, 4096, large, Mask::Bidirectional)
}
