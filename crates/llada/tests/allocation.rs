//! The sampling loop allocates nothing: after its first steps, all memory that a step needs is there.
//!
//! All threads are counted, those of the test harness too, and on two threads one may come to a
//! task that is larger than its tasks before. Neither happens in every run: one run of a few must
//! allocate nothing. Not counted are rules whose sequences or memories grow as they go: a suffix
//! window, a length that is found, KLASS and credits.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::ops::ControlFlow;

use common::golden::own;
use llada::{
    checkpoint,
    config::{AttentionMask, SpecialTokens},
    diffusion::{
        Blocks, Cache, Canvas, Remasking, Sampler, TransferRule, cache::Refresh, generate,
    },
    model::MaskPredictor,
};
use llada_kernels::{
    Cpu,
    counting::{Counting, allocations},
};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Passes of a generation that may allocate.
const WARM_UP: usize = 4;

/// Allocations of a generation of two sequences after its first passes.
fn after_warm_up(predictor: &mut MaskPredictor, sampler: &Sampler) -> usize {
    let mask = Some(predictor.model().config.vocab_size as u32 - 1);
    let special = SpecialTokens { mask, ..SpecialTokens::default() };
    let canvas = |(seed, length): (u64, u32)| {
        let sampler = Sampler { seed, ..sampler.clone() };
        let prompt: Vec<u32> = (0..length).map(|i| 3 + i * 7 % 200).collect();
        Canvas::new(prompt.into(), &sampler, &special, AttentionMask::Bidirectional).unwrap()
    };
    let mut canvases: Vec<Canvas> = [(0, 9), (1, 4)].into_iter().map(canvas).collect();
    let (mut passes, mut warm) = (0, 0);
    generate::run(predictor, &mut canvases, &mut |_, step| {
        if step.nfe > passes {
            passes = step.nfe;
            if passes <= WARM_UP {
                warm = allocations();
            }
        }
        ControlFlow::Continue(())
    })
    .unwrap();
    assert!(passes > WARM_UP + 3, "{passes} passes");
    allocations() - warm
}

#[test]
fn steps_allocate_nothing() {
    let plain = Sampler {
        steps: 24,
        gen_length: 24,
        block_length: 8,
        blocks: Blocks::SemiAutoregressive,
        ..Sampler::default()
    };
    let every = Refresh { every: 3, ..Refresh::default() };
    let (prefix, dual) = (Cache::Prefix(Refresh::default()), Cache::Dual(Refresh::default()));
    let threshold = TransferRule::Threshold(0.9);
    let choices = [
        plain.clone(),
        Sampler { blocks: Blocks::Pure, ..plain.clone() },
        Sampler { transfer: threshold, ..plain.clone() },
        Sampler { cache: prefix, ..plain.clone() },
        Sampler { cache: dual, ..plain.clone() },
        Sampler { cache: Cache::Dual(every), transfer: threshold, ..plain.clone() },
        Sampler { cfg_scale: 1.0, ..plain.clone() },
        Sampler { cfg_scale: 1.0, cache: dual, transfer: threshold, ..plain.clone() },
        Sampler { temperature: 0.8, remasking: Remasking::Entropy, cache: dual, ..plain.clone() },
        Sampler { steps: 24, gen_length: 24, ..Sampler::exact() },
    ];
    let models = ["models/a_mha_untied", "models/b_gqa_tied", "gguf/mixed.gguf"];
    for (name, threads) in models.into_iter().flat_map(|name| [(name, 1), (name, 2)]) {
        let model = checkpoint::load(&own(name)).unwrap();
        let mut predictor = MaskPredictor::new(model, Cpu::new(threads).unwrap()).unwrap();
        for sampler in &choices {
            let mut counts = Vec::new();
            while counts.len() < 50 && !counts.contains(&0) {
                counts.push(after_warm_up(&mut predictor, sampler));
            }
            assert!(counts.contains(&0), "{name}, {threads} threads: {counts:?} of {sampler:?}");
        }
    }
}
