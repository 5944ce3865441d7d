//! Generation of the causal baseline with cached keys and values, against feeding every sequence whole
//! at each step: 128 tokens after a prompt of 64, 512 wide, 8 blocks deep.
//!
//! `cargo bench --bench generate`

#[path = "duel/mod.rs"]
mod duel;
#[path = "../crates/llada/tests/common/whole.rs"]
mod whole;

use std::{ops::ControlFlow, time::Instant};

use duel::Result;
use llada::{
    config::{AttentionMask, ModelConfig, Objective, SpecialTokens},
    diffusion::{Blocks, Canvas, Predictor, Prompt, Sampler, generate},
    model::{KvCache, MaskPredictor, Model},
};
use llada_kernels::Cpu;
use whole::Whole;

const PROMPT: usize = 64;
const TOKENS: usize = 128;
const THREADS: usize = 2;
const ROUNDS: usize = 3;

/// Seconds of a run of `sequences` sequences, and their tokens.
fn generate(predictor: &mut dyn Predictor, sequences: usize) -> Result<(f64, Vec<Vec<u32>>)> {
    let sampler =
        Sampler { gen_length: TOKENS, blocks: Blocks::Autoregressive, ..Sampler::default() };
    let special = SpecialTokens::default();
    let mut canvases = Vec::new();
    for sequence in 0..sequences {
        let prompt = (0..PROMPT as u32).map(|i| (i * 37 + sequence as u32 * 11) % 1000).collect();
        let prompt = Prompt { tokens: prompt, padding: 0 };
        let attention = AttentionMask::Causal;
        canvases.push(Canvas::new(prompt, &sampler, &special, attention)?);
    }
    let start = Instant::now();
    generate::run(predictor, &mut canvases, &mut |_, _| ControlFlow::Continue(()))?;
    let seconds = start.elapsed().as_secs_f64();
    Ok((seconds, canvases.iter().map(|canvas| canvas.tokens().to_vec()).collect()))
}

fn median(mut seconds: Vec<f64>) -> f64 {
    seconds.sort_by(f64::total_cmp);
    seconds[seconds.len() / 2]
}

#[allow(clippy::print_stdout)]
fn main() -> Result<()> {
    let config = ModelConfig {
        max_sequence_length: PROMPT + TOKENS,
        rope_theta: 10_000.0,
        ..ModelConfig::llada(512, 8, 8, 1408, 8192)
    };
    let config = config.with_objective(Objective::Autoregressive);
    let cache = KvCache::new(&config, PROMPT + TOKENS)?;
    println!("a cache of {} positions: {:.1} MB", PROMPT + TOKENS, cache.bytes() as f64 / 1e6);
    let model = Model::init(config, 0)?;
    let weights = model.tensors.iter().map(|tensor| tensor.len() * 4).sum::<usize>() as f64;
    let mut cached = MaskPredictor::new(model.clone(), Cpu::new(THREADS)?)?;
    let mut whole = Whole(MaskPredictor::new(model, Cpu::new(THREADS)?)?);
    for sequences in [1, 4] {
        let mut seconds = [Vec::new(), Vec::new()];
        for _ in 0..ROUNDS {
            let (with, cached_tokens) = generate(&mut cached, sequences)?;
            let (without, fed) = generate(&mut whole, sequences)?;
            assert!(cached_tokens == fed, "both sides generate the same tokens");
            seconds[0].push(with);
            seconds[1].push(without);
        }
        let [with, without] = seconds.map(median);
        let rate = |seconds: f64| (sequences * TOKENS) as f64 / seconds;
        println!(
            "{sequences} sequences of {PROMPT} + {TOKENS}, {THREADS} threads: with caches {:.0} tokens/s \
             ({:.1} GB/s of weights), without {:.0}; {:.1} times as fast",
            rate(with),
            weights * TOKENS as f64 / with / 1e9,
            rate(without),
            without / with
        );
    }
    Ok(())
}
