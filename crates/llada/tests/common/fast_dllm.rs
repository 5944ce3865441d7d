//! Replays the trajectories of Fast-dLLM: every state of every sequence, decision by decision.
#![allow(unreachable_pub)]

use std::ops::ControlFlow;

use llada::{
    config::{AttentionMask, SpecialTokens},
    diffusion::{
        Blocks, Cache, Canvas, FastDllm, Precision, Predictor, Sampler, TransferRule,
        cache::Refresh, generate,
    },
};
use serde_json::Value;

use crate::common::{cases, sequences, size};

/// Replays all cases, with the predictor that `load` gives for the name of a model.
pub fn replay_all<P: Predictor>(load: impl Fn(&str) -> P) {
    for case in cases("generate/fast_dllm.json", 54) {
        replay(&case, &mut load(case["model"].as_str().unwrap()));
    }
}

fn sampler(case: &Value) -> Sampler {
    let params = &case["params"];
    let (version, cache) = case["algorithm"].as_str().unwrap().split_once('.').unwrap();
    let (gen_length, block_length) = (size(&params["gen_length"]), size(&params["block_length"]));
    Sampler {
        steps: size(&params["steps"]),
        gen_length,
        block_length,
        temperature: params["temperature"].as_f64().unwrap_or(0.0),
        blocks: match gen_length == block_length {
            true => Blocks::Pure,
            false => Blocks::SemiAutoregressive,
        },
        transfer: match (params["threshold"].as_f64(), params["factor"].as_f64()) {
            (Some(threshold), None) => TransferRule::Threshold(threshold),
            (None, Some(factor)) => TransferRule::Factor(factor),
            _ => TransferRule::Schedule,
        },
        cache: match cache {
            "prefix_cache" => Cache::Prefix(Refresh::default()),
            "dual_cache" => Cache::Dual(Refresh::default()),
            _ => Cache::None,
        },
        fast_dllm: Some(if version == "fast_v0" { FastDllm::V0 } else { FastDllm::V1 }),
        confidence: Precision::F64,
        ..Sampler::default()
    }
}

fn replay(case: &Value, predictor: &mut impl Predictor) {
    let (id, sampler) = (case["id"].as_str().unwrap(), sampler(case));
    let mask = Some(size(&case["mask_id"]) as u32);
    let special = SpecialTokens { mask, ..SpecialTokens::default() };
    let canvas = |tokens: Vec<u32>| {
        Canvas::new(tokens.into(), &sampler, &special, AttentionMask::Bidirectional).unwrap()
    };
    let mut canvases: Vec<Canvas> = sequences(&case["prompt"]).into_iter().map(canvas).collect();

    let states: Vec<Vec<Vec<u32>>> =
        case["states"].as_array().unwrap().iter().map(sequences).collect();
    let mut current: Vec<Vec<u32>> = canvases.iter().map(|c| c.tokens().to_vec()).collect();
    assert_eq!(current, states[0], "{id}: start");
    // The states of each sequence by block. There a batch is as slow as its slowest sequence: a
    // sequence that is done with a block waits, its state staying as it is.
    let mut told: Vec<Vec<Vec<Vec<u32>>>> = vec![Vec::new(); canvases.len()];
    let summary = generate::run(predictor, &mut canvases, &mut |sequence, step| {
        for commit in &step.committed {
            current[sequence][commit.position] = commit.token;
        }
        told[sequence].resize(step.block + 1, Vec::new());
        told[sequence][step.block].push(current[sequence].clone());
        ControlFlow::Continue(())
    })
    .unwrap();
    let slowest = |block: usize| told.iter().map(|sequence| sequence[block].len()).max().unwrap();
    let passes: usize = (0..sampler.block_count()).map(slowest).sum();
    assert_eq!(passes, size(&case["nfe_returned"]), "{id}: forward passes");
    for (sequence, blocks) in told.iter().enumerate() {
        let mut states = states[1..].iter().map(|state| &state[sequence]);
        for (block, own) in blocks.iter().enumerate() {
            for pass in 0..slowest(block) {
                let expected = own.get(pass).or(own.last()).unwrap();
                assert_eq!(
                    states.next(),
                    Some(expected),
                    "{id}: sequence {sequence} block {block} {pass}"
                );
            }
        }
        assert_eq!(states.next(), None, "{id}: sequence {sequence}");
    }
    let output: Vec<&[u32]> = canvases.iter().map(Canvas::tokens).collect();
    assert_eq!(output, sequences(&case["output"]), "{id}: output");
    assert_eq!(summary.masks_left, size(&case["masks_left"]), "{id}: masks left");
    // What a cache is for: of the passes after a block's first, the part of the sequence that it says.
    let length = canvases[0].length();
    let (first, rest) = (sampler.block_count(), summary.sequence_forwards);
    let fed = |after: &dyn Fn(usize) -> usize| -> usize {
        told.iter()
            .flat_map(|sequence| sequence.iter().enumerate())
            .map(|(block, passes)| length + (passes.len() - 1) * after(block))
            .sum()
    };
    let block = sampler.block();
    let expected = match sampler.cache {
        Cache::None => rest * length,
        Cache::Dual(_) => fed(&|_| block),
        Cache::Prefix(_) => fed(&|i| (first - i) * block),
    };
    assert_eq!(summary.tokens_fed, expected, "{id}: tokens fed");
}
