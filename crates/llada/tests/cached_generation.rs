//! Generation with the caches of a diffusion model: what they may change and what not.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;
#[path = "common/whole.rs"]
mod whole;

use std::ops::ControlFlow;

use common::golden::own_model;
use llada::{
    config::{AttentionMask, Objective, SpecialTokens},
    diffusion::{
        Blocks, Cache, Canvas, Predictor, Prompt, Sampler, Step, TransferRule,
        cache::{CacheType, Refresh, SuffixWindow},
        generate::{self, Summary},
        infill::{Encoder, Template},
        variable::VariableLength,
    },
    model::{Batch, CachedSequence, Feed, MaskPredictor, Reuse},
    rng::nth_seed,
    tokenizer::{self, Kind},
};
use llada_kernels::attention::Storage;
use whole::Whole;

const MASK: u32 = 301;
const SPECIAL: SpecialTokens =
    SpecialTokens { mask: Some(MASK), eos: Some(300), eot: None, bos: None, pad: None };

fn predictor(threads: usize) -> MaskPredictor {
    common::predictor(&own_model("a_mha_untied"), Objective::Diffusion, threads)
}

fn sampler() -> Sampler {
    Sampler {
        steps: 24,
        gen_length: 24,
        block_length: 8,
        blocks: Blocks::SemiAutoregressive,
        transfer: TransferRule::Threshold(0.4),
        ..Sampler::default()
    }
}

/// Prompts of unequal length, one of them padded from the left, one with masks.
fn prompt(sequence: usize) -> Prompt {
    let (length, padding) = [(1, 0), (17, 0), (9, 4), (12, 0)][sequence];
    let mut tokens: Vec<u32> = (0..length).map(|i| 3 + (i * 7 + sequence as u32) % 200).collect();
    if sequence == 3 {
        tokens[5..8].fill(MASK);
    }
    Prompt { tokens, padding }
}

fn canvas(sampler: &Sampler, sequence: usize) -> Canvas {
    let sampler = Sampler { seed: nth_seed(sampler.seed, sequence as u64), ..sampler.clone() };
    Canvas::new(prompt(sequence), &sampler, &SPECIAL, AttentionMask::Bidirectional).unwrap()
}

fn run(predictor: &mut impl Predictor, canvases: &mut [Canvas]) -> (Summary, Vec<Vec<Step>>) {
    let mut steps = vec![Vec::new(); canvases.len()];
    let summary = generate::run(predictor, canvases, &mut |sequence, step| {
        steps[sequence].push(step.clone());
        ControlFlow::Continue(())
    });
    (summary.unwrap(), steps)
}

fn choices() -> Vec<Sampler> {
    let refresh = Refresh::default();
    let vicinity = Refresh { warm_up: 2, every: 5, before: 3, after: 2, reuse: false };
    let window = |masks, decay| Some(SuffixWindow { masks, decay });
    let variable = VariableLength { initial: 8, window: 4, ..VariableLength::default() };
    let (prefix, dual) = (Cache::Prefix(refresh), Cache::Dual(refresh));
    vec![
        Sampler { cache: prefix, ..sampler() },
        Sampler { cache: dual, cfg_scale: 0.5, ..sampler() },
        Sampler { cache: Cache::Dual(vicinity), temperature: 0.7, seed: 4, ..sampler() },
        Sampler { cache: Cache::Prefix(vicinity), cfg_scale: 0.5, ..sampler() },
        Sampler { cache: Cache::None, suffix_window: window(3, false), ..sampler() },
        Sampler { cache: dual, suffix_window: window(9, true), cfg_scale: 0.5, ..sampler() },
        Sampler { cache: Cache::Dual(vicinity), suffix_window: window(9, true), ..sampler() },
        Sampler { cache: prefix, blocks: Blocks::BlockDiffusion, ..sampler() },
        Sampler { cache: dual, blocks: Blocks::Pure, ..sampler() },
        Sampler { cache: dual, revise: Some(0.5), ..sampler() },
        Sampler { cache: dual, cache_type: CacheType::Bf16, cfg_scale: 0.5, ..sampler() },
        Sampler { cache: prefix, variable_length: Some(variable), ..sampler() },
    ]
}

#[test]
fn sequences_are_the_same_in_any_batch_and_with_any_threads_to_the_last_bit() {
    for sampler in choices() {
        let mut together: Vec<Canvas> = (0..4).map(|sequence| canvas(&sampler, sequence)).collect();
        let (_, steps) = run(&mut predictor(2), &mut together);
        let mut one = predictor(1);
        for sequence in 0..4 {
            let mut alone = [canvas(&sampler, sequence)];
            let (_, own) = run(&mut one, &mut alone);
            assert_eq!(own[0], steps[sequence], "sequence {sequence} of {sampler:?}");
            assert_eq!(alone[0].outcome().masks_left, 0);
        }
    }
}

#[test]
fn a_cache_that_is_always_refreshed_or_feeds_everything_changes_nothing() {
    let always = Refresh { every: 1, ..Refresh::default() };
    let everything = Refresh { before: 999, after: 999, ..Refresh::default() };
    for cfg_scale in [0.0, 0.5] {
        let plain = Sampler { cfg_scale, ..sampler() };
        let mut expected: Vec<Canvas> = (0..4).map(|sequence| canvas(&plain, sequence)).collect();
        let (_, steps) = run(&mut predictor(1), &mut expected);
        for refresh in [always, everything] {
            for cache in [Cache::Prefix(refresh), Cache::Dual(refresh)] {
                let sampler = Sampler { cache, ..plain.clone() };
                let mut found: Vec<Canvas> =
                    (0..4).map(|sequence| canvas(&sampler, sequence)).collect();
                assert_eq!(run(&mut predictor(1), &mut found).1, steps, "{cache:?}");
            }
        }
    }
}

#[test]
fn a_cache_in_bf16_changes_what_is_predicted_a_little() {
    let run_with = |cache_type| {
        let cache = Cache::Dual(Refresh::default());
        let transfer = TransferRule::Schedule;
        let sampler = Sampler { cache, cache_type, transfer, ..sampler() };
        run(&mut predictor(1), &mut [canvas(&sampler, 1)]).1.concat()
    };
    let (wide, rounded) = (run_with(CacheType::F32), run_with(CacheType::Bf16));
    let first = |steps: &[Step]| (steps[0].committed[0].token, steps[0].committed[0].confidence);
    let ((token, a), (same, b)) = (first(&wide), first(&rounded));
    assert!(token == same && a != b && (a - b).abs() < 0.02 * a, "{a} {b}");
}

#[test]
fn caches_feed_less() {
    let fed = |sampler: &Sampler| {
        let (summary, _) = run(&mut predictor(1), &mut [canvas(sampler, 1)]);
        (summary.tokens_fed, summary.nfe)
    };
    let transfer = TransferRule::Schedule;
    let s = Sampler { transfer, ..sampler() };
    let refresh = Refresh::default();
    let (sequence, passes) = (17 + 24, 24);
    assert_eq!(fed(&s), (sequence * passes, passes));
    let prefix = Sampler { cache: Cache::Prefix(refresh), ..s.clone() };
    assert_eq!(fed(&prefix).0, 3 * sequence + 7 * (24 + 16 + 8));
    let dual = Sampler { cache: Cache::Dual(refresh), ..s.clone() };
    assert_eq!(fed(&dual).0, 3 * sequence + 3 * 7 * 8);
    let guided = Sampler { cfg_scale: 1.0, ..dual.clone() };
    assert_eq!(fed(&guided).0, 2 * fed(&dual).0);
    let near = Refresh { before: 2, after: 3, every: 4, warm_up: 1, reuse: false };
    let near = Sampler { cache: Cache::Dual(near), ..s.clone() };
    assert_eq!(fed(&near).0, 6 * sequence + 6 * (13 + 13 + 10));
    let suffix = Sampler { suffix_window: Some(SuffixWindow { masks: 2, decay: false }), ..s };
    assert_eq!(fed(&suffix).0, 8 * (27 + 35 + 41));
}

#[test]
fn leaving_masks_out_is_hiding_them() {
    for decay in [false, true] {
        let suffix_window = Some(SuffixWindow { masks: 9, decay });
        let s = Sampler { suffix_window, cfg_scale: 0.5, ..sampler() };
        let mut left_out: Vec<Canvas> = (0..4).map(|sequence| canvas(&s, sequence)).collect();
        let mut hidden: Vec<Canvas> = (0..4).map(|sequence| canvas(&s, sequence)).collect();
        let (less, _) = run(&mut predictor(1), &mut left_out);
        let (more, _) = run(&mut Whole(predictor(1)), &mut hidden);
        assert!(less.tokens_fed < more.tokens_fed);
        for (a, b) in left_out.iter().zip(&hidden) {
            assert_eq!(a.tokens(), b.tokens());
        }
    }
}

#[test]
fn a_sequence_with_gaps_has_the_logits_of_the_sequence_with_what_is_in_them_hidden() {
    let mut predictor = predictor(1);
    let sequence: Vec<u32> = (0..40).map(|i| 3 + i * 7 % 200).collect();
    let positions: Vec<u32> = (0..40).filter(|i| i % 3 != 1).collect();
    let attention_mask: Vec<bool> = (0..40).map(|i| i % 3 != 1).collect();
    let wanted: Vec<usize> = positions.iter().map(|&p| p as usize).collect();
    let batch =
        Batch { tokens: &sequence, starts: &[0, 40], attention_mask: Some(&attention_mask) };
    let mut expected = Vec::new();
    MaskPredictor::logits(&mut predictor, batch, &wanted, &mut expected).unwrap();

    let id = predictor.open(40, Storage::F32, Reuse::Exact, &[]).unwrap().id;
    let tokens: Vec<u32> = wanted.iter().map(|&p| sequence[p]).collect();
    let n = tokens.len();
    let batch = Batch { tokens: &tokens, starts: &[0, n], attention_mask: None };
    let all: Vec<usize> = (0..n).collect();
    let mut found = Vec::new();
    let mut place = |positions: &[u32], found: &mut Vec<f32>| {
        let cached = [CachedSequence { id: Some(id), first: 0, len: n }];
        predictor.logits(
            Feed { batch, positions: Some(positions), cached: &cached, paired: false },
            &all,
            found,
        )
    };
    place(&positions, &mut found).unwrap();
    for (f, e) in found.iter().zip(&expected) {
        assert!((f - e).abs() <= 1e-4, "{f} and not {e}");
    }
    let short = place(&positions[1..], &mut found).unwrap_err();
    assert!(short.to_string().contains("one position for each token"), "{short}");
    let far: Vec<u32> = positions.iter().map(|p| p + 230).collect();
    assert!(place(&far, &mut found).unwrap_err().to_string().contains("longer than"));
}

#[test]
fn holes_are_filled_with_every_cache() {
    let text = "the cat sat on the mat and the dog sat on the log";
    let tokenizer =
        tokenizer::train(Kind::Character { min_count: 0 }, [Ok(text.to_owned())]).unwrap();
    let special = tokenizer.special_tokens();
    let template: Template = "the {{hole:9}} sat on {{hole:12}} log".parse().unwrap();
    let frame = Encoder::new(&tokenizer).frame(&template).unwrap();
    let infill = |sampler: &Sampler| {
        Canvas::infill(&frame, &[9, 12], sampler, &special, AttentionMask::Bidirectional).unwrap()
    };
    for sampler in choices().into_iter().filter(|s| !s.blocks.grows()) {
        let sampler = Sampler { variable_length: None, ..sampler };
        let mut together = [infill(&sampler), canvas(&sampler, 2)];
        let (summary, steps) = run(&mut predictor(1), &mut together);
        assert_eq!(summary.masks_left, 0);
        let mut alone = [infill(&sampler)];
        let (_, own) = run(&mut predictor(1), &mut alone);
        assert_eq!(own[0], steps[0], "{sampler:?}");
        let given = frame.given() + 21;
        assert_eq!(alone[0].tokens().len(), given);
    }
}
