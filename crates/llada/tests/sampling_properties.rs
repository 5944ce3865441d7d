//! What must hold for every setting of the sampler, with a predictor that is only a hash.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "common/mock.rs"]
mod mock;

use std::ops::ControlFlow;

use llada::{
    config::{AttentionMask, SpecialTokens},
    diffusion::{Blocks, Canvas, Prompt, Remasking, Sampler, generate},
};
use mock::{EOS, EOT, MASK, Mock, canvas, prompts, run};
use proptest::prelude::*;

fn samplers() -> impl Strategy<Value = Sampler> {
    let layout = (0usize..4, 1usize..5, 1usize..5, 1usize..7);
    let choice = (0u8..3, 0u8..2, any::<bool>(), any::<[bool; 3]>(), any::<u64>());
    (layout, choice).prop_map(|((blocks, count, block_length, per_block), choice)| {
        let (temperature, cfg, random, [exact, eos_inf, eos_last], seed) = choice;
        let blocks = Blocks::ALL[blocks];
        let gen_length = count * block_length;
        let steps = if blocks == Blocks::Pure { per_block } else { count * per_block };
        Sampler {
            steps,
            gen_length,
            block_length,
            temperature: f64::from(temperature) / 2.0,
            cfg_scale: f32::from(cfg),
            remasking: if random { Remasking::Random } else { Remasking::LowConfidence },
            blocks,
            logits_eos_inf: eos_inf,
            confidence_eos_eot_inf: eos_last,
            exact,
            seed,
            ..Sampler::default()
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn stopping_at_the_end_of_the_text_changes_nothing_that_is_read(
        prompt in prompts(),
        sampler in samplers(),
        favourite in prop::option::of(prop::sample::select(vec![EOS, EOT])),
    ) {
        let mut mock = Mock { favourite, ..Mock::default() };
        let stopping = Sampler { stop_at_eos: true, ..sampler.clone() };
        let mut both = [canvas(&prompt, &sampler, 3), canvas(&prompt, &stopping, 3)];
        let (_, steps) = run(&mut mock, &mut both);
        let [all, some] = &both;
        prop_assert!(steps[0].starts_with(&steps[1]));
        if some.outcome().stopped_at_eos && steps[1].len() < steps[0].len() {
            prop_assert!(matches!(some.response().last(), Some(&(EOS | EOT))));
            prop_assert_eq!(some.outcome().masks_left, 0);
        }
        let is_whole = all.useful().len() < all.response().len();
        if is_whole && !all.useful().contains(&MASK) && !all.prompt().tokens.contains(&MASK) {
            prop_assert!(some.outcome().stopped_at_eos);
        }
        prop_assert_eq!(all.useful(), some.useful());
    }

    #[test]
    fn steps_fill_masks_of_the_open_block_and_touch_nothing_else(
        sampler in samplers(), prompt in prompts()
    ) {
        let mut canvases = [canvas(&prompt, &sampler, 0)];
        let mut sequence = prompt.tokens.clone();
        sequence.resize(canvases[0].length(), MASK);
        let (summary, steps) = run(&mut Mock::default(), &mut canvases);
        let outcome = canvases[0].outcome();
        let mut stable = 0;
        for step in &steps[0] {
            let end = prompt.tokens.len() + (step.block + 1) * sampler.block();
            for commit in &step.committed {
                prop_assert_eq!(sequence[commit.position], MASK);
                prop_assert!(commit.position < end && commit.token != MASK);
                prop_assert!((0.0..=1.0).contains(&commit.confidence));
                prop_assert!(!(sampler.logits_eos_inf && commit.token == EOS));
                sequence[commit.position] = commit.token;
            }
            prop_assert!(step.remasked.is_empty() && step.stable >= stable);
            prop_assert!(sequence[..step.stable].iter().all(|&token| token != MASK));
            stable = step.stable;
        }
        prop_assert_eq!(&sequence[..canvases[0].tokens().len()], canvases[0].tokens());
        prop_assert_eq!(steps[0].len(), summary.nfe);
        prop_assert_eq!(steps[0].last().unwrap().nfe, outcome.nfe);
        if outcome.stopped_at_eos {
            prop_assert!(sampler.blocks.grows() && summary.nfe <= sampler.forwards());
            prop_assert!(outcome.useful_tokens < outcome.canvas_tokens);
        } else {
            prop_assert_eq!(summary.nfe, sampler.forwards());
            prop_assert_eq!(outcome.canvas_tokens, sampler.gen_length);
        }
        if !sampler.exact {
            prop_assert_eq!(outcome.masks_left, 0);
            prop_assert_eq!(outcome.committed, outcome.canvas_tokens);
        }
        prop_assert_eq!(outcome.committed + outcome.masks_left, outcome.canvas_tokens);
    }

    #[test]
    fn a_sequence_is_the_same_alone_and_in_any_batch(
        sequences in prop::collection::vec((samplers(), prompts()), 1..5), rotation in 0usize..5
    ) {
        let fresh = |i: usize| canvas(&sequences[i].1, &sequences[i].0, 0);
        let alone: Vec<_> = (0..sequences.len())
            .map(|sequence| {
                let mut canvases = [fresh(sequence)];
                let (_, mut steps) = run(&mut Mock::default(), &mut canvases);
                (canvases[0].tokens().to_vec(), steps.remove(0))
            })
            .collect();
        let order: Vec<usize> =
            (0..sequences.len()).map(|i| (i + rotation) % sequences.len()).rev().collect();
        let mut canvases: Vec<Canvas> = order.iter().map(|&sequence| fresh(sequence)).collect();
        let mut mock = Mock::default();
        let (summary, steps) = run(&mut mock, &mut canvases);
        for (i, &sequence) in order.iter().enumerate() {
            prop_assert_eq!(canvases[i].tokens(), &alone[sequence].0[..]);
            prop_assert_eq!(&steps[i], &alone[sequence].1);
        }
        prop_assert_eq!(summary.nfe, mock.forwards);
        prop_assert_eq!(summary.nfe, steps.iter().map(Vec::len).max().unwrap());
        prop_assert_eq!(summary.sequence_forwards, steps.iter().map(Vec::len).sum::<usize>());
    }

    #[test]
    fn a_model_that_predicts_masks_cannot_hold_the_loop(
        sampler in samplers(), prompt in prompts()
    ) {
        let sampler = Sampler { temperature: 0.0, ..sampler };
        let mut canvases = [canvas(&prompt, &sampler, 0)];
        let mut mock = Mock { favourite: Some(MASK), forwards: 0 };
        let (summary, _) = run(&mut mock, &mut canvases);
        let outcome = canvases[0].outcome();
        // With guidance the favourite's logit is the same on both sides, and may lose.
        if sampler.exact && sampler.cfg_scale == 0.0 {
            prop_assert_eq!(outcome.masks_left, sampler.gen_length);
            prop_assert_eq!((summary.nfe, summary.committed), (sampler.forwards(), 0));
        }
        if !sampler.exact {
            prop_assert_eq!(outcome.masks_left, 0);
        }
    }

    #[test]
    fn masks_in_the_prompt_are_filled_with_the_first_block(
        sampler in samplers(), tokens in prop::collection::vec(17u32..21, 1..8)
    ) {
        let sampler = Sampler { exact: false, ..sampler };
        let prompt = Prompt::from(tokens.clone());
        let mut canvases = [canvas(&prompt, &sampler, 0)];
        run(&mut Mock::default(), &mut canvases);
        prop_assert_eq!(canvases[0].outcome().masks_left, 0);
        for (given, now) in tokens.iter().zip(canvases[0].tokens()) {
            prop_assert!(*given == MASK || given == now);
        }
    }
}

#[test]
fn as_in_the_reference_masks_in_the_prompt_cost_masks_in_the_response() {
    let sampler = Sampler { steps: 4, gen_length: 4, ..Sampler::exact() };
    let mut canvases = [canvas(&Prompt::from(vec![1, MASK, MASK]), &sampler, 0)];
    let (summary, _) = run(&mut Mock::default(), &mut canvases);
    assert_eq!((summary.committed, summary.masks_left), (4, 2));
}

#[test]
fn layouts_that_grow_stop_at_the_end_of_the_text() {
    for (blocks, nfe, length) in
        [(Blocks::BlockDiffusion, 2, 4), (Blocks::Autoregressive, 1, 1), (Blocks::Pure, 6, 12)]
    {
        let sampler =
            Sampler { steps: 6, gen_length: 12, block_length: 4, blocks, ..Sampler::default() };
        for end in [EOS, EOT] {
            let mut canvases = [canvas(&Prompt::from(vec![3]), &sampler, 0)];
            let mut mock = Mock { favourite: Some(end), forwards: 0 };
            let (summary, _) = run(&mut mock, &mut canvases);
            assert_eq!((summary.nfe, summary.canvas_tokens), (nfe, length), "{blocks}");
            assert_eq!((summary.useful_tokens, summary.masks_left), (0, 0));
            assert_eq!(canvases[0].outcome().stopped_at_eos, blocks.grows());
        }
    }
}

#[test]
fn a_causal_model_is_asked_for_the_next_token_and_needs_no_mask() {
    let sampler = Sampler { gen_length: 3, blocks: Blocks::Autoregressive, ..Sampler::default() };
    let none = SpecialTokens::default();
    let start = |tokens: &[u32]| {
        Canvas::new(tokens.to_vec().into(), &sampler, &none, AttentionMask::Causal)
    };
    assert!(start(&[]).is_err());
    let mut canvases = [start(&[5, 6]).unwrap()];
    let query = canvases[0].plan().unwrap();
    assert_eq!((query.tokens, query.wanted), (&[5, 6][..], &[1][..]));
    let mut mock = Mock { favourite: Some(7), forwards: 0 };
    let (summary, steps) = run(&mut mock, &mut canvases);
    assert_eq!(canvases[0].tokens(), [5, 6, 7, 7, 7]);
    assert_eq!((summary.nfe, summary.masks_left), (3, 0));
    let positions: Vec<usize> = steps[0].iter().map(|step| step.committed[0].position).collect();
    assert_eq!(positions, [2, 3, 4]);
    assert_eq!(steps[0].iter().map(|step| step.stable).collect::<Vec<_>>(), [3, 4, 5]);
}

#[test]
fn breaking_off_ends_after_the_forward_pass() {
    let sampler = Sampler { steps: 4, gen_length: 8, ..Sampler::default() };
    let mut canvases: Vec<Canvas> =
        (0..2).map(|sequence| canvas(&Prompt::default(), &sampler, sequence)).collect();
    let mut told = Vec::new();
    let summary = generate::run(&mut Mock::default(), &mut canvases, &mut |sequence, step| {
        told.push((sequence, step.nfe));
        if sequence == 0 && step.nfe == 2 {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    })
    .unwrap();
    assert_eq!(told, [(0, 1), (1, 1), (0, 2), (1, 2)]);
    assert!(summary.interrupted && !canvases[0].is_done());
    assert_eq!((summary.nfe, summary.committed, summary.masks_left), (2, 8, 8));
    assert_eq!(summary.tokens_per_forward(), 2.0);
}
