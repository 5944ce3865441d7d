//! Keys and values cached between passes: against the golden logits, and bit for bit against passes
//! over whole sequences.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;
#[path = "common/whole.rs"]
mod whole;

use std::{
    ops::{ControlFlow, Range},
    path::PathBuf,
};

use common::{
    golden::{self, Golden, fixture, own},
    golden_f32, golden_u32,
};
use llada::{
    config::{AttentionMask, Objective, SpecialTokens},
    diffusion::{
        Blocks, Canvas, Predictor, Prompt, Sampler, Step,
        generate::{self, Summary},
    },
    model::{Batch, CachedSequence, Feed, KvCache, MaskPredictor, Reuse, SequenceId},
    rng::nth_seed,
};
use llada_kernels::attention::Storage;
use safetensors::SafeTensors;
use whole::Whole;

/// Where a file of a set is.
type Set = fn(&str) -> PathBuf;

fn predictor(name: &str, objective: Objective, threads: usize) -> MaskPredictor {
    common::predictor(&golden::own_model(name), objective, threads)
}

/// The sequences of a golden file, and its causal logits [sequences · length, vocabulary] where it
/// has them.
fn logits_of(set: Set, name: &str) -> (Vec<Vec<u32>>, Option<Vec<f32>>) {
    let bytes = std::fs::read(set(&format!("logits/{name}.safetensors"))).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let (shape, tokens) = golden_u32(&file, "input_ids").unwrap();
    let logits = golden_f32(&file, "logits_causal").map(|(_, logits)| logits);
    (tokens.chunks(shape[1]).map(<[u32]>::to_vec).collect(), logits)
}

/// The logits of all tokens of one sequence without a cache.
fn whole(
    predictor: &mut MaskPredictor,
    sequence: &[u32],
    attention_mask: Option<&[bool]>,
) -> Vec<f32> {
    let batch = Batch { tokens: sequence, starts: &[0, sequence.len()], attention_mask };
    let (all, mut logits) = ((0..sequence.len()).collect::<Vec<_>>(), Vec::new());
    MaskPredictor::logits(predictor, batch, &all, &mut logits).unwrap();
    logits
}

/// The logits of the positions `range` of a sequence whose other keys and values are cached.
fn feed(
    predictor: &mut MaskPredictor,
    id: SequenceId,
    sequence: &[u32],
    range: Range<usize>,
    attention_mask: Option<&[bool]>,
) -> Vec<f32> {
    let attention_mask = attention_mask.map(|mask| &mask[range.clone()]);
    let batch =
        Batch { tokens: &sequence[range.clone()], starts: &[0, range.len()], attention_mask };
    let (all, mut logits) = ((0..range.len()).collect::<Vec<_>>(), Vec::new());
    let cached = [CachedSequence { id: Some(id), first: range.start, len: sequence.len() }];
    let feed = Feed { batch, positions: None, cached: &cached, paired: false };
    predictor.logits(feed, &all, &mut logits).unwrap();
    logits
}

#[test]
fn a_prompt_and_then_single_tokens_give_the_causal_golden_logits() {
    for model in golden::of_llada() {
        let name = model.name;
        let (sequences, expected) = logits_of(fixture, name);
        let mut predictor = common::predictor(&model.folder(), Objective::Autoregressive, 1);
        let length = sequences[0].len();
        for (number, sequence) in sequences.iter().enumerate() {
            let id = predictor.open(length, Storage::F32, Reuse::Exact, &[]).unwrap().id;
            let prompt = length / 3;
            let mut found = feed(&mut predictor, id, sequence, 0..prompt, None);
            for i in prompt..length {
                found.extend(feed(&mut predictor, id, sequence, i..i + 1, None));
                assert_eq!(predictor.cache(id).unwrap().len(), i + 1);
            }
            assert_eq!(found, whole(&mut predictor, sequence, None), "{name}");
            let expected = expected.iter().flat_map(|e| &e[number * found.len()..]);
            for (f, e) in found.iter().zip(expected) {
                assert!((f - e).abs() <= 1e-4, "{name}: {f} and not {e}");
            }
        }
    }
}

#[test]
fn feeding_a_range_of_an_unchanged_sequence_gives_the_logits_of_the_whole() {
    for Golden { name, .. } in golden::of_llada() {
        for objective in [Objective::Diffusion, Objective::Autoregressive] {
            let mut predictor = predictor(name, objective, 2);
            let vocabulary = predictor.vocabulary();
            let sequence: Vec<u32> = logits_of(own, name).0.concat();
            let sequence = &sequence[..sequence.len().min(90)];
            let padded: Vec<bool> = (0..sequence.len()).map(|i| i >= 5).collect();
            for attention_mask in [None, Some(padded.as_slice())] {
                let expected = whole(&mut predictor, sequence, attention_mask);
                let id =
                    predictor.open(sequence.len() + 3, Storage::F32, Reuse::Exact, &[]).unwrap().id;
                let all = feed(&mut predictor, id, sequence, 0..sequence.len(), attention_mask);
                assert_eq!(all, expected, "{name}");
                // From a block on (prefix cache), one block (dual cache), one token.
                for range in [20..sequence.len(), 20..24, 7..8, 0..2] {
                    let found = feed(&mut predictor, id, sequence, range.clone(), attention_mask);
                    let part = range.start * vocabulary..range.end * vocabulary;
                    assert_eq!(found, expected[part], "{name} {objective:?} {range:?}");
                }
                // Forgotten positions are fed again.
                predictor.cache_mut(id).unwrap().truncate(11);
                let found = feed(&mut predictor, id, sequence, 11..sequence.len(), attention_mask);
                assert_eq!(found, expected[11 * vocabulary..], "{name} {objective:?}");
            }
        }
    }
}

#[test]
fn sequences_of_unequal_length_share_a_pass() {
    let mut predictor = predictor("b_gqa_tied", Objective::Autoregressive, 2);
    let sequences = logits_of(own, "b_gqa_tied").0;
    let vocabulary = predictor.vocabulary();
    let expected = [&sequences[0][..], &sequences[1][..9]]
        .map(|sequence| whole(&mut predictor, sequence, None));
    let at = |sequence: usize, position: usize| {
        &expected[sequence][position * vocabulary..][..vocabulary]
    };
    // The second is cached too, or not.
    for second in
        [predictor.open(9, Storage::F32, Reuse::Exact, &[]).ok().map(|it| it.id), None, None]
    {
        let first = predictor.open(30, Storage::F32, Reuse::Exact, &[]).unwrap().id;
        feed(&mut predictor, first, &sequences[0], 0..13, None);
        let tokens = [&sequences[0][13..16], &sequences[1][..9]].concat();
        let batch = Batch { tokens: &tokens, starts: &[0, 3, 12], attention_mask: None };
        let cached = [
            CachedSequence { id: Some(first), first: 13, len: 16 },
            CachedSequence { id: second, first: 0, len: 9 },
        ];
        let mut found = Vec::new();
        let feed = Feed { batch, positions: None, cached: &cached, paired: false };
        predictor.logits(feed, &[2, 3, 11], &mut found).unwrap();
        assert_eq!(found, [at(0, 15), at(1, 0), at(1, 8)].concat(), "{second:?}");
        assert_eq!(predictor.cache(first).unwrap().len(), 16);
    }
}

/// Canvases of unequal prompts, one of them padded.
fn canvases(sequences: Range<usize>, temperature: f64) -> Vec<Canvas> {
    let sampler = Sampler {
        gen_length: 20,
        temperature,
        seed: 5,
        blocks: Blocks::Autoregressive,
        ..Sampler::default()
    };
    let prompts = [(1, 0), (17, 0), (9, 4)];
    let canvas = |sequence: usize| {
        let (length, padding) = prompts[sequence];
        let tokens = (0..length).map(|i| 3 + (i * 7 + sequence as u32) % 200).collect();
        let (special, prompt) = (SpecialTokens::default(), Prompt { tokens, padding });
        let attention = AttentionMask::Causal;
        let sampler = Sampler { seed: nth_seed(sampler.seed, sequence as u64), ..sampler.clone() };
        Canvas::new(prompt, &sampler, &special, attention).unwrap()
    };
    sequences.map(canvas).collect()
}

/// Runs the canvases and returns all their steps; breaks off after `passes` passes.
fn run(
    predictor: &mut impl Predictor,
    canvases: &mut [Canvas],
    passes: usize,
) -> (Summary, Vec<Vec<Step>>) {
    let mut steps = vec![Vec::new(); canvases.len()];
    let summary = generate::run(predictor, canvases, &mut |sequence, step| {
        steps[sequence].push(step.clone());
        if steps[sequence].len() == passes {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    });
    (summary.unwrap(), steps)
}

#[test]
fn generation_with_caches_is_the_same_to_the_last_bit() {
    for (name, temperature) in [("a_mha_untied", 0.0), ("b_gqa_tied", 0.0), ("b_gqa_tied", 0.8)] {
        let mut without = Whole(predictor(name, Objective::Autoregressive, 1));
        let mut expected = canvases(0..3, temperature);
        let (all, steps) = run(&mut without, &mut expected, 0);
        // Each sequence is fed whole, 20 times.
        assert_eq!(all.tokens_fed, 20 * (1 + 17 + 9) + 3 * (0..20).sum::<usize>());
        for threads in [1, 2] {
            let mut predictor = predictor(name, Objective::Autoregressive, threads);
            for sequences in [0..3, 0..1, 1..2, 2..3] {
                let mut found = canvases(sequences.clone(), temperature);
                let (summary, found_steps) = run(&mut predictor, &mut found, 0);
                assert_eq!(found_steps, steps[sequences.clone()], "{name} {sequences:?}");
                for (found, expected) in found.iter().zip(&expected[sequences.clone()]) {
                    assert_eq!(found.tokens(), expected.tokens());
                }
                // The prompts, and then one token a pass.
                let prompts: usize = found.iter().map(|c| c.prompt().tokens.len()).sum();
                assert_eq!(summary.tokens_fed, prompts + 19 * sequences.len());
                assert_eq!(summary.nfe, 20);
            }
        }
    }
}

#[test]
fn a_run_that_was_broken_off_goes_on_with_new_caches() {
    let mut predictor = predictor("a_mha_untied", Objective::Autoregressive, 1);
    let (mut at_once, mut in_parts) = (canvases(0..3, 0.5), canvases(0..3, 0.5));
    run(&mut predictor, &mut at_once, 0);
    let (summary, _) = run(&mut predictor, &mut in_parts, 7);
    assert!(summary.interrupted);
    run(&mut predictor, &mut in_parts, 0);
    for (a, b) in at_once.iter().zip(&in_parts) {
        assert_eq!((a.tokens(), b.is_done()), (b.tokens(), true));
    }
}

#[test]
fn a_sequence_that_outgrows_the_model_is_refused_with_and_without_caches() {
    let special = SpecialTokens::default();
    let sampler = Sampler { gen_length: 8, blocks: Blocks::Autoregressive, ..Sampler::default() };
    let canvas = || {
        let prompt = Prompt::from(vec![5; 250]);
        [Canvas::new(prompt, &sampler, &special, AttentionMask::Causal).unwrap()]
    };
    let model = || predictor("a_mha_untied", Objective::Autoregressive, 1);
    let go_on = &mut |_: usize, _: &Step| ControlFlow::Continue(());
    let cached = generate::run(&mut model(), &mut canvas(), go_on).unwrap_err();
    let uncached = generate::run(&mut Whole(model()), &mut canvas(), go_on).unwrap_err();
    assert_eq!(cached.to_string(), uncached.to_string());
    assert!(cached.to_string().contains("257 tokens is longer than the model's 256"), "{cached}");
}

#[test]
fn tokens_that_do_not_fit_their_cache_are_refused_and_change_nothing() {
    let mut predictor = predictor("a_mha_untied", Objective::Autoregressive, 1);
    let sequence = logits_of(own, "a_mha_untied").0.remove(0);
    let sequence = &sequence[..10];
    let expected = whole(&mut predictor, sequence, None);
    let vocabulary = predictor.vocabulary();
    let id = predictor.open(10, Storage::F32, Reuse::Exact, &[]).unwrap().id;
    feed(&mut predictor, id, sequence, 0..6, None);

    let mut error = |cached: &[CachedSequence], tokens: &[u32], starts: &[usize]| {
        let batch = Batch { tokens, starts, attention_mask: None };
        let feed = Feed { batch, positions: None, cached, paired: false };
        let error = predictor.logits(feed, &[0], &mut Vec::new()).unwrap_err();
        format!("{error} ({})", error.hint().unwrap_or_default())
    };
    let mut at = |first: usize, tokens: &[u32]| {
        error(&[CachedSequence { id: Some(id), first, len: 10 }], tokens, &[0, tokens.len()])
    };
    let gap = at(7, &[1]);
    assert!(gap.contains("from position 7 on") && gap.contains("from position 6 on"), "{gap}");
    let full = at(6, &[1; 5]);
    assert!(full.contains("11 tokens does not fit a cache of 10"), "{full}");
    assert!(at(usize::MAX, &[1]).contains("position"));
    assert!(at(2, &[9999]).contains("9999"));
    let open = CachedSequence { id: Some(id), first: 6, len: 10 };
    assert!(error(&[open, open], &[1, 1], &[0, 1, 2]).contains("twice"));
    assert!(error(&[open], &[1, 1], &[0, 1, 2]).contains("one entry for each sequence"));
    let loose = CachedSequence { id: None, ..open };
    assert!(error(&[open, loose], &[1, 1], &[0, 1, 2]).contains("position"));
    assert!(
        predictor
            .open(257, Storage::F32, Reuse::Exact, &[])
            .unwrap_err()
            .to_string()
            .contains("longer")
    );

    assert_eq!(predictor.cache(id).unwrap().len(), 6);
    let found = feed(&mut predictor, id, sequence, 6..10, None);
    assert_eq!(found, expected[6 * vocabulary..]);
    predictor.close(id);
    assert!(predictor.cache(id).is_none());
    let batch = Batch { tokens: &[1], starts: &[0, 1], attention_mask: None };
    let closed = Feed {
        batch,
        positions: None,
        cached: &[CachedSequence { id: Some(id), first: 0, len: 1 }],
        paired: false,
    };
    let closed = predictor.logits(closed, &[0], &mut Vec::new()).unwrap_err();
    assert!(closed.hint().unwrap().contains("open the sequence"), "{closed}");
}

#[test]
fn a_cache_knows_its_memory() {
    let config = predictor("b_gqa_tied", Objective::Autoregressive, 1).model().config.clone();
    let mut cache = KvCache::new(&config, 128).unwrap();
    assert_eq!((cache.len(), cache.capacity(), cache.is_empty()), (0, 128, true));
    let width = config.head_dim.next_multiple_of(16) * config.n_kv_heads;
    assert_eq!(cache.bytes(), config.n_layers * (2 * 128 * width * 4 + 64));
    cache.clear();
    assert!(cache.is_empty());
}
