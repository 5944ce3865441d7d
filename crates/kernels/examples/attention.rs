//! Times attention: `cargo run --release --example attention`.
//!
//! Forward and backward in the shapes of training; forward in the shapes of models of 1 and 8 billion
//! parameters, as a share of the `f32` peak measured in turn with it.
//!
//! Arguments: the instruction set (default: the best) and the number of threads (default: 1).

#![allow(clippy::print_stdout)]

use std::time::Instant;

use llada_kernels::{
    BlockFormat, Cpu, Isa, Result, WeightView,
    attention::{self, Mask, Sequences, Shape},
    linear::{self, Out},
    peak,
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

fn time(
    cpu: &Cpu,
    what: &str,
    sequences: usize,
    len: usize,
    shape: Shape,
    mask: Mask,
) -> Result<()> {
    let starts: Vec<usize> = (0..=sequences).map(|sequence| sequence * len).collect();
    let tokens = sequences * len;
    let noise = |seed: u32, n: usize| -> Vec<f32> {
        (0..n as u32).map(|i| ((i.wrapping_mul(2_654_435_761) ^ seed) as f32).sin()).collect()
    };
    let (queries, keys) = (shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim);
    let q = noise(1, tokens * queries);
    let (k, v) = (noise(2, tokens * keys), noise(3, tokens * keys));
    let dout = noise(4, tokens * queries);
    let (mut out, mut lse) = (vec![0.0; q.len()], vec![0.0; tokens * shape.heads]);
    let (mut dq, mut dk, mut dv) = (q.clone(), k.clone(), v.clone());
    let sequences = Sequences { starts: &starts, attention_mask: None };

    let forward = seconds(|| {
        attention::forward(
            cpu,
            attention::Inputs { shape, mask, q: &q, k: &k, v: &v },
            sequences,
            &mut out,
            &mut lse,
        )
    })?;
    let backward = seconds(|| {
        attention::backward(
            cpu,
            attention::Inputs { shape, mask, q: &q, k: &k, v: &v },
            sequences,
            attention::Saved { out: &out, lse: &lse },
            &dout,
            attention::Gradients { dq: &mut dq, dk: &mut dk, dv: &mut dv },
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

/// The forward pass of a sequence of `len` in a model of `heads` heads and a feed-forward width of `ffn`, in
/// turn with the peak and with its widest linear layer in Q8_0: the best of some rounds.
fn share(cpu: &Cpu, heads: usize, ffn: usize, len: usize) -> Result<()> {
    let shape = Shape { heads, kv_heads: heads, head_dim: 128 };
    let d = heads * shape.head_dim;
    let noise = |i: u32| (i.wrapping_mul(2_654_435_761) as f32).sin();
    let x: Vec<f32> = (0..(len * d) as u32).map(noise).collect();
    let (mut out, mut lse) = (vec![0.0; len * d], vec![0.0; len * heads]);
    let sequences = Sequences { starts: &[0, len], attention_mask: None };
    let weight = vec![0; BlockFormat::Q8_0.bytes(ffn * d).unwrap_or(0)];
    let weight = WeightView::Blocks { format: BlockFormat::Q8_0, bytes: &weight };
    let mut y = vec![0.0; len * ffn];
    let (mut peak, mut attention, mut linear) = (0.0f64, f64::INFINITY, f64::INFINITY);
    for _ in 0..9 {
        peak = peak.max(peak::f32_flops(cpu));
        let start = Instant::now();
        attention::forward(
            cpu,
            attention::Inputs { shape, mask: Mask::Bidirectional, q: &x, k: &x, v: &x },
            sequences,
            &mut out,
            &mut lse,
        )?;
        attention = attention.min(start.elapsed().as_secs_f64());
        let start = Instant::now();
        linear::forward(
            cpu,
            linear::Shape { m: len, n: ffn, k: d },
            &x,
            weight,
            None,
            &mut y,
            Out::Write,
        )?;
        linear = linear.min(start.elapsed().as_secs_f64());
    }
    // Four matrices of d x d and three of d x ffn, at the speed of the one that was timed.
    linear *= (4 * d * d + 3 * d * ffn) as f64 / (d * ffn) as f64;
    let rate = 4.0 * (len * len * d) as f64 / attention;
    println!(
        "{heads:2} heads of 128, L {len:4}  {:9.2} ms {:7.1} GFLOP/s {:5.1} % of peak, {:5.2} times the \
         linear layers in Q8_0",
        attention * 1e3,
        rate / 1e9,
        rate / peak * 100.0,
        attention / linear
    );
    Ok(())
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let isa = arguments.next().map_or(Ok(Isa::detect()), |isa| isa.parse())?;
    let cpu = Cpu::with_isa(isa, arguments.next().and_then(|n| n.parse().ok()).unwrap_or(1))?;
    println!("{isa}, {} threads", cpu.threads());
    let small = Shape { heads: 8, kv_heads: 8, head_dim: 32 };
    let large = Shape { heads: 12, kv_heads: 12, head_dim: 64 };
    time(&cpu, "8 sequences of 256, 8 heads of 32", 8, 256, small, Mask::Bidirectional)?;
    time(&cpu, "8 sequences of 256, 8 heads of 32, causal", 8, 256, small, Mask::Causal)?;
    time(&cpu, "1 sequence of 128, 12 heads of 64", 1, 128, large, Mask::Bidirectional)?;
    time(&cpu, "1 sequence of 256, 12 heads of 64", 1, 256, large, Mask::Bidirectional)?;
    time(&cpu, "1 sequence of 4096, 12 heads of 64", 1, 4096, large, Mask::Bidirectional)?;
    for (heads, ffn) in [(16, 5632), (32, 12288)] {
        for len in [512, 1024, 2048, 4096] {
            share(&cpu, heads, ffn, len)?;
        }
    }
    Ok(())
}
