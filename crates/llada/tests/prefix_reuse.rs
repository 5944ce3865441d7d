//! What one canvas was fed is not fed again to another that begins with it, and every token stays what
//! it would be.
#![allow(clippy::unwrap_used)]

mod common;

use llada::{
    checkpoint,
    config::{AttentionMask, Objective, SpecialTokens},
    diffusion::{
        Blocks, Cache, Canvas, Preset, Prompt, Sampler, TransferRule,
        cache::{CacheType, Refresh},
    },
    engine::{Engine, Event},
    model::MaskPredictor,
};
use proptest::prelude::*;

const SPECIAL: SpecialTokens =
    SpecialTokens { mask: Some(301), eos: Some(300), eot: None, bos: None, pad: None };

/// The models: one that attends to what is before, one that attends by blocks, one to all, and one
/// whose blocks get their first token from the block before.
const MODELS: [(&str, Objective); 4] = [
    ("a_mha_untied", Objective::Autoregressive),
    ("i_sdar", Objective::Diffusion),
    ("a_mha_untied", Objective::Diffusion),
    ("j_fast_dllm_v2", Objective::Diffusion),
];

fn predictor((name, objective): (&str, Objective)) -> MaskPredictor {
    common::predictor(&common::golden::model(name), objective, 2)
}

fn canvas(predictor: &MaskPredictor, prompt: impl Into<Prompt>, cache_type: CacheType) -> Canvas {
    let attention = predictor.model().config.attention;
    let sampler = match attention {
        AttentionMask::Causal => Sampler { blocks: Blocks::Autoregressive, ..Sampler::default() },
        AttentionMask::BlockCausal { .. } => Sampler {
            transfer: TransferRule::Threshold(0.3),
            ..Preset::Balanced.sampler_for(&predictor.model().config)
        },
        AttentionMask::Bidirectional => Sampler::balanced(),
    };
    let block_length =
        if attention == AttentionMask::Bidirectional { 4 } else { sampler.block_length };
    let sampler = Sampler { gen_length: 8, steps: 8, block_length, cache_type, ..sampler };
    Canvas::new(prompt.into(), &sampler, &special(predictor), attention).unwrap()
}

fn special(predictor: &MaskPredictor) -> SpecialTokens {
    let stated = checkpoint::special_tokens(&predictor.model().config, None);
    SpecialTokens { mask: stated.mask.or(SPECIAL.mask), eos: None, eot: None, ..stated }
}

/// The tokens of a canvas when it is done, and how many were fed and reused for it.
fn run(
    predictor: &mut MaskPredictor,
    prompt: &[u32],
    cache_type: CacheType,
) -> (Vec<u32>, usize, usize) {
    let canvas = canvas(predictor, prompt.to_vec(), cache_type);
    run_canvas(predictor, canvas)
}

fn run_canvas(predictor: &mut MaskPredictor, canvas: Canvas) -> (Vec<u32>, usize, usize) {
    let mut engine = Engine::new(predictor);
    engine.admit(canvas);
    let (mut tokens, mut fed, mut reused) = (Vec::new(), 0, 0);
    while !engine.is_empty() {
        let on = &mut |_, event: Event<'_, Canvas>| match event {
            Event::Done(canvas) => tokens = canvas.tokens().to_vec(),
            Event::Failed(_, error) => panic!("{error}"),
            Event::Begun(_) | Event::Step(_) => {}
        };
        let pass = engine.step(usize::MAX, on).unwrap();
        fed += pass.tokens_fed;
        reused += pass.tokens_reused;
    }
    (tokens, fed, reused)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn what_is_reused_changes_no_token(
        model in 0usize..4,
        retained in 1usize..4,
        is_small in any::<bool>(),
        // How much of the last answer the next prompt begins with, and what it adds.
        turns in prop::collection::vec((0usize..40, prop::collection::vec(3u32..170, 1..12)), 1..6),
    ) {
        let cache_type = if is_small { CacheType::Bf16 } else { CacheType::F32 };
        let (mut fresh, mut reusing) = (predictor(MODELS[model]), predictor(MODELS[model]));
        reusing.retain(retained);
        let (mut text, mut all) = (Vec::new(), (0, 0));
        for (kept, added) in turns {
            text.truncate(kept);
            text.extend(added);
            let first = run(&mut fresh, &text, cache_type);
            let second = run(&mut reusing, &text, cache_type);
            prop_assert_eq!(&first.0, &second.0);
            prop_assert_eq!(first.2, 0);
            prop_assert_eq!(first.1, second.1 + second.2);
            all = (all.0 + first.1, all.1 + second.1);
            text = second.0;
        }
        if MODELS[model] == MODELS[2] {
            prop_assert_eq!(all.0, all.1);
        }
    }
}

#[test]
fn the_next_turn_feeds_what_is_new() {
    for (model, step) in [(MODELS[0], 1), (MODELS[1], 4)] {
        let mut predictor = predictor(model);
        predictor.retain(1);
        let prompt: Vec<u32> = (3..43).collect();
        let (mut next, _, reused) = run(&mut predictor, &prompt, CacheType::F32);
        assert_eq!(reused, 0);
        next.extend([7, 8, 9, 10, 11]);
        let (_, _, reused) = run(&mut predictor, &next, CacheType::F32);
        // Of the last tokens of the answer the keys were never asked for.
        assert!(reused >= prompt.len() + 8 - 2 * step, "{reused}");
        // With another type nothing is shared.
        assert_eq!(run(&mut predictor, &next, CacheType::Bf16).2, 0);
    }
}

/// Where the row of a block's first token is the last of the block before, that block is fed for it.
#[test]
fn the_row_of_a_first_token_is_fed_again() {
    let mut predictor = predictor(MODELS[3]);
    let AttentionMask::BlockCausal { block_length } = predictor.model().config.attention else {
        panic!("it attends by blocks");
    };
    let prompt: Vec<u32> = (3..).take(2 * block_length).collect();
    let (expected, fed, _) = run(&mut predictor, &prompt, CacheType::F32);
    predictor.retain(1);
    for expected_reused in [0, block_length] {
        let (tokens, fed_now, reused) = run(&mut predictor, &prompt, CacheType::F32);
        assert_eq!((tokens, reused, fed_now + reused), (expected.clone(), expected_reused, fed));
    }
}

#[test]
fn sequences_that_run_share_with_those_that_come() {
    let mut predictor = predictor(MODELS[0]);
    let prompt: Vec<u32> = (3..43).collect();
    let (expected, ..) = run(&mut predictor, &prompt, CacheType::F32);
    let canvases = [(); 2].map(|()| canvas(&predictor, prompt.clone(), CacheType::F32));
    let mut engine = Engine::new(&mut predictor);
    let (mut reused, mut ended) = (0, 0);
    let mut step = |engine: &mut Engine<'_, MaskPredictor, Canvas>| {
        let on = &mut |_, event: Event<'_, Canvas>| {
            if let Event::Done(canvas) = event {
                assert_eq!(canvas.tokens(), expected);
                ended += 1;
            }
        };
        reused += engine.step(usize::MAX, on).unwrap().tokens_reused;
    };
    for canvas in canvases {
        engine.admit(canvas);
        step(&mut engine);
    }
    while !engine.is_empty() {
        step(&mut engine);
    }
    assert_eq!((reused, ended), (39, 2), "all but the token whose logits are wanted");
}

/// Behind padding equal tokens have other positions, and so other keys.
#[test]
fn a_padded_sequence_takes_nothing_over() {
    let tokens: Vec<u32> = (3..43).collect();
    for model in [MODELS[0], MODELS[1]] {
        let mut reusing = predictor(model);
        reusing.retain(1);
        for padding in [0, 4, 0, 4] {
            let of = |predictor: &mut MaskPredictor| {
                let prompt = Prompt { tokens: tokens.clone(), padding };
                let canvas = canvas(predictor, prompt, CacheType::F32);
                run_canvas(predictor, canvas)
            };
            let (expected, fed, _) = of(&mut predictor(model));
            let (found, fed_now, reused) = of(&mut reusing);
            assert_eq!((found, fed_now + reused), (expected, fed), "{model:?} {padding}");
            assert!(padding == 0 || reused == 0, "{model:?} {reused}");
        }
    }
}

/// A cache holds what the model's own attention gives.
#[test]
fn what_attends_otherwise_is_fed_whole() {
    let mut predictor = predictor(MODELS[0]);
    let mut run = |cache| {
        let sampler =
            Sampler { gen_length: 8, steps: 8, block_length: 4, cache, ..Sampler::balanced() };
        let (prompt, all) = ((3..43).collect::<Vec<_>>(), AttentionMask::Bidirectional);
        let canvas = Canvas::new(prompt.into(), &sampler, &SPECIAL, all).unwrap();
        run_canvas(&mut predictor, canvas)
    };
    let whole = run(Cache::None);
    for cache in [Cache::Prefix, Cache::Dual] {
        assert_eq!(run(cache(Refresh::default())), whole);
    }
}

#[test]
fn a_changed_model_reuses_nothing() {
    let mut predictor = predictor(MODELS[0]);
    let reused = |predictor: &mut MaskPredictor| run(predictor, &[5; 30], CacheType::F32).2;
    predictor.retain(2);
    reused(&mut predictor);
    assert_eq!(reused(&mut predictor), 29);
    let _ = predictor.model_mut();
    assert_eq!(reused(&mut predictor), 0);
    predictor.retain(0);
    assert_eq!(reused(&mut predictor), 0);
}

#[test]
fn an_approximation_is_reused_only_where_the_cache_allows_it() {
    let canvas = |predictor: &MaskPredictor, prompt: &[u32], cache: fn(Refresh) -> Cache, reuse| {
        let refresh = Refresh { reuse, ..Refresh::default() };
        let sampler = Sampler {
            gen_length: 8,
            steps: 8,
            block_length: 4,
            cache: cache(refresh),
            ..Sampler::balanced()
        };
        let attention = AttentionMask::Bidirectional;
        Canvas::new(prompt.to_vec().into(), &sampler, &special(predictor), attention).unwrap()
    };
    for cache in [Cache::Prefix, Cache::Dual] {
        let conversation = |reuse| {
            let mut predictor = predictor(MODELS[2]);
            predictor.retain(1);
            let prompt: Vec<u32> = (3..43).collect();
            let first = canvas(&predictor, &prompt, cache, reuse);
            let first = run_canvas(&mut predictor, first);
            let next: Vec<u32> = first.0.iter().copied().chain([7, 8, 9, 10, 11]).collect();
            let second = canvas(&predictor, &next, cache, reuse);
            (prompt.len(), first, run_canvas(&mut predictor, second), predictor, next)
        };
        let (_, first, second, ..) = conversation(false);
        assert_eq!((first.2, second.2), (0, 0));
        let (prompt, first_again, next, mut predictor, tokens) = conversation(true);
        assert_eq!(first_again, first, "nothing was before it");
        assert!(next.2 >= prompt && next.1 < second.1, "{next:?} {second:?}");
        assert_eq!(
            conversation(true).2,
            next,
            "it depends on what was before, and on nothing else"
        );

        // Whoever does not allow it computes all, and leaves nothing to others.
        let exact = canvas(&predictor, &tokens, cache, false);
        assert_eq!(run_canvas(&mut predictor, exact), second);
        // What an open sequence has is not taken over: how far it has come is a matter of the batch.
        predictor.retain(0);
        let together = [(); 2].map(|()| canvas(&predictor, &tokens, cache, true));
        let mut engine = Engine::new(&mut predictor);
        for canvas in together {
            engine.admit(canvas);
            assert_eq!(engine.step(usize::MAX, &mut |_, _| {}).unwrap().tokens_reused, 0);
        }
    }
}
