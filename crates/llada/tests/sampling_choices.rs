//! What must hold for every combination of who, how many, where and what is forwarded, with
//! predictors that are no models.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "common/mock.rs"]
mod mock;

use llada::{
    config::AttentionMask,
    diffusion::{
        Blocks, Cache, Canvas, Prompt, Remasking, Sampler, SamplerError, TransferRule,
        blocks::AdaptiveBlocks,
        cache::{Refresh, SuffixWindow},
        transfer::{Credit, Klass, Leap},
        variable::VariableLength,
    },
};
use mock::{EOS, EOT, MASK, Mock, SPECIAL, Script, canvas, prompts, run};
use proptest::prelude::*;

/// Numbers that JSON writes and reads without loss.
fn numbers(most: u32) -> impl Strategy<Value = f64> + Clone {
    (0..most * 64).prop_map(|n| f64::from(n) / 64.0)
}

fn transfer_rules() -> impl Strategy<Value = TransferRule> {
    let number = numbers(1);
    prop_oneof![
        Just(TransferRule::Schedule),
        number.clone().prop_map(TransferRule::Threshold),
        numbers(3).prop_map(|factor| TransferRule::Factor(factor + 1.0 / 64.0)),
        numbers(5).prop_map(TransferRule::Entropy),
        (number.clone(), 1usize..4).prop_map(|(confidence, steps)| {
            TransferRule::Klass(Klass { confidence, divergence: 0.5, steps })
        }),
        number.clone().prop_map(|anchor| {
            TransferRule::Leap(Leap { anchor, neighbour: anchor / 2.0, reach: 2 })
        }),
        number.prop_map(|confidence| TransferRule::Credit(Credit {
            confidence,
            ..Credit::default()
        })),
    ]
}

fn caches() -> impl Strategy<Value = Cache> {
    (0u8..3, 0usize..3, 0usize..3, 0usize..3, 0usize..3).prop_map(
        |(kind, warm_up, every, before, after)| {
            let refresh = Refresh { warm_up, every, before, after, reuse: false };
            [Cache::None, Cache::Prefix(refresh), Cache::Dual(refresh)][usize::from(kind)]
        },
    )
}

/// All settings that are no contradiction.
fn samplers() -> impl Strategy<Value = Sampler> {
    let layout = (0usize..4, 1usize..5, 1usize..5, 1usize..7);
    let choice = (0usize..4, 0u8..3, 0u8..2, any::<bool>(), any::<u64>());
    let window = prop::option::of((0usize..6, any::<bool>()));
    let found = (any::<bool>(), prop::option::of(numbers(1)), any::<bool>(), 1usize..6);
    let parts = prop::option::of(1usize..4);
    (layout, choice, transfer_rules(), caches(), (window, parts), found)
        .prop_map(
            |(
                (blocks, count, block_length, per_block),
                choice,
                transfer,
                cache,
                (window, parts),
                found,
            )| {
                let (remasking, temperature, cfg, confidence_eos_eot_inf, seed) = choice;
                let (adaptive, revise, variable, initial) = found;
                let blocks = Blocks::ALL[blocks];
                Sampler {
                    steps: if blocks == Blocks::Pure { per_block } else { count * per_block },
                    gen_length: count * block_length,
                    block_length,
                    temperature: f64::from(temperature) / 2.0,
                    cfg_scale: f32::from(cfg),
                    remasking: Remasking::ALL[remasking],
                    transfer,
                    blocks,
                    sub_block_length: parts,
                    adaptive_blocks: adaptive.then(|| AdaptiveBlocks::new(vec![3, 4, 5, 6])),
                    revise,
                    variable_length: variable.then_some(VariableLength {
                        initial,
                        window: 2,
                        enough: 0.2,
                        unsure: 0.3,
                        sure_of_end: 0.6,
                        grow_by: 2,
                    }),
                    cache,
                    suffix_window: window.map(|(masks, decay)| SuffixWindow { masks, decay }),
                    confidence_eos_eot_inf,
                    seed,
                    ..Sampler::default()
                }
            },
        )
        .prop_map(possible)
}

/// Takes back what does not go with the rest, one error after the other.
fn possible(mut sampler: Sampler) -> Sampler {
    while let Err(error) = sampler.check() {
        assert!(error.hint().is_some(), "{error}");
        if let SamplerError::SubBlock { .. } = error {
            sampler.sub_block_length = None;
            continue;
        }
        let SamplerError::Combination { setting, .. } = error else { panic!("{error}") };
        match setting {
            "suffix_window" => sampler.suffix_window = None,
            "revise" => sampler.revise = None,
            "adaptive_blocks" => sampler.adaptive_blocks = None,
            "variable_length" => sampler.variable_length = None,
            "remasking" => sampler.remasking = Remasking::LowConfidence,
            other => panic!("{other}"),
        }
    }
    sampler
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn every_choice_fills_the_response_and_tells_what_it_does(
        sampler in samplers(), prompt in prompts()
    ) {
        let mut canvases = [canvas(&prompt, &sampler, 0)];
        let mut sequence = canvases[0].tokens().to_vec();
        let start = prompt.tokens.len();
        let mut revised = std::collections::HashMap::new();
        let (mut stable, mut firm) = (0, Vec::new());
        let (summary, steps) = run(&mut Mock::default(), &mut canvases);
        let all = &steps[0];
        for (i, step) in all.iter().enumerate() {
            if sampler.blocks.grows() {
                let end = step.committed.last().map_or(0, |commit| commit.position + 1);
                sequence.resize(sequence.len().max(end), MASK);
            }
            for &position in &step.remasked {
                prop_assert_ne!(sequence[position], MASK);
                prop_assert!(sampler.revise.is_some() && position >= stable);
                sequence[position] = MASK;
                *revised.entry(position).or_insert(0) += 1;
            }
            for commit in &step.committed {
                prop_assert_eq!(sequence[commit.position], MASK, "committed twice");
                prop_assert!(commit.token != MASK && (0.0..=1.0).contains(&commit.confidence));
                prop_assert!(!step.remasked.contains(&commit.position));
                sequence[commit.position] = commit.token;
            }
            prop_assert!(step.inserted.is_empty() || sampler.variable_length.is_some());
            for &position in &step.inserted {
                sequence.insert(position, MASK);
            }
            prop_assert!(sequence.len() <= canvases[0].length(), "beyond the cap");
            let lengthens = sampler.variable_length.is_some() && i < 20;
            prop_assert!(!step.committed.is_empty() || lengthens, "a step without effect");
            prop_assert_eq!(step.nfe, i + 1);
            prop_assert!(step.stable >= stable && sequence[..stable] == firm[..], "not stable");
            stable = step.stable;
            firm = sequence[..stable].to_vec();
        }
        if sampler.variable_length.is_none() {
            prop_assert!(revised.values().all(|&times| times == 1), "revised for ever");
        }
        prop_assert_eq!(&sequence[..canvases[0].tokens().len()], canvases[0].tokens());
        let outcome = canvases[0].outcome();
        prop_assert_eq!((outcome.masks_left, summary.masks_left), (0, 0));
        prop_assert_eq!(outcome.committed, canvases[0].tokens().len() - start);
        let is_regular = sampler.revise.is_none() && sampler.variable_length.is_none();
        if is_regular && sampler.adaptive_blocks.is_none() {
            prop_assert!(outcome.nfe <= sampler.forwards());
            let is_whole = !outcome.stopped_at_eos
                && sampler.transfer == TransferRule::Schedule
                && sampler.sub_block_length.is_none();
            prop_assert!(!is_whole || outcome.nfe == sampler.forwards());
        }
    }

    #[test]
    fn a_sequence_is_the_same_alone_and_in_any_batch(
        sequences in prop::collection::vec((samplers(), prompts()), 1..4)
    ) {
        let fresh = |i: usize| canvas(&sequences[i].1, &sequences[i].0, 0);
        let mut together: Vec<Canvas> = (0..sequences.len()).rev().map(fresh).collect();
        let (_, steps) = run(&mut Mock::default(), &mut together);
        for sequence in 0..sequences.len() {
            let mut alone = [fresh(sequence)];
            let (_, own) = run(&mut Mock::default(), &mut alone);
            let place = sequences.len() - 1 - sequence;
            prop_assert_eq!(alone[0].tokens(), together[place].tokens());
            prop_assert_eq!(&own[0], &steps[place]);
        }
    }

    #[test]
    fn stopping_at_the_end_of_the_text_changes_nothing_that_is_read(
        sampler in samplers(), prompt in prompts(), favourite in prop::option::of(
            prop::sample::select(vec![EOS, EOT])
        )
    ) {
        let mut mock = Mock { favourite, ..Mock::default() };
        let stopping = Sampler { stop_at_eos: true, ..sampler.clone() };
        let mut both = [canvas(&prompt, &sampler, 3), canvas(&prompt, &stopping, 3)];
        let (_, steps) = run(&mut mock, &mut both);
        let shared = steps[1].len().saturating_sub(1);
        prop_assert_eq!(&steps[0][..shared], &steps[1][..shared]);
        prop_assert_eq!(both[0].useful(), both[1].useful());
    }

    #[test]
    fn a_threshold_that_nothing_reaches_is_the_schedule(
        sampler in samplers(), prompt in prompts()
    ) {
        let plain = possible(Sampler {
            transfer: TransferRule::Threshold(1.0),
            adaptive_blocks: None,
            ..sampler
        });
        let schedule = Sampler { transfer: TransferRule::Schedule, ..plain.clone() };
        let mut both = [canvas(&prompt, &plain, 0), canvas(&prompt, &schedule, 0)];
        let (_, steps) = run(&mut Mock::default(), &mut both);
        prop_assert_eq!(&steps[0], &steps[1]);
        // And one that all reach takes a block at a time.
        let all = Sampler { transfer: TransferRule::Threshold(0.0), ..plain };
        if all.revise.is_none() && all.variable_length.is_none()
            && all.remasking != Remasking::Margin && !all.blocks.grows()
        {
            let mut canvases = [canvas(&prompt, &all, 0)];
            let (summary, _) = run(&mut Mock::default(), &mut canvases);
            let parts = all.sub_block_length.map_or(1, |part| all.block() / part);
            prop_assert_eq!(summary.nfe, all.block_count() * parts);
        }
    }

    #[test]
    fn a_model_that_predicts_masks_cannot_hold_the_loop(
        sampler in samplers(), prompt in prompts()
    ) {
        let mut canvases = [canvas(&prompt, &sampler, 0)];
        run(&mut Mock { favourite: Some(MASK), forwards: 0 }, &mut canvases);
        prop_assert_eq!(canvases[0].outcome().masks_left, 0);
    }

    #[test]
    fn settings_survive_json_and_old_ones_are_read(sampler in samplers()) {
        let json = serde_json::to_string(&sampler).unwrap();
        prop_assert_eq!(serde_json::from_str::<Sampler>(&json).unwrap(), sampler);
        let old = r#"{"steps": 9, "remasking": "low_confidence", "blocks": "pure", "exact": true}"#;
        let old: Sampler = serde_json::from_str(old).unwrap();
        prop_assert_eq!(old, Sampler { steps: 9, exact: true, ..Sampler::default() });
    }
}

#[test]
fn blocks_end_at_the_surest_delimiter_within_reach() {
    // Token 3 is a delimiter; position 2 is surer of it than position 5, position 11 is out of reach.
    let sure = |_: &[u32], position: usize| match position {
        2 => vec![(3, 6.0)],
        5 => vec![(3, 5.0)],
        11 => vec![(3, 9.0)],
        _ => vec![(7, 4.0)],
    };
    let sampler = Sampler {
        steps: 16,
        gen_length: 16,
        block_length: 4,
        blocks: Blocks::SemiAutoregressive,
        adaptive_blocks: Some(AdaptiveBlocks::new(vec![3])),
        transfer: TransferRule::Threshold(0.0),
        ..Sampler::default()
    };
    let mut canvases = [canvas(&Prompt::default(), &sampler, 0)];
    let (summary, steps) = run(&mut Script(sure), &mut canvases);
    // 0..3 by position 2; 3..6 by position 5; 6..12 by position 11; then the length, 12..16.
    let ends: Vec<usize> =
        steps[0].iter().map(|step| step.committed.last().unwrap().position + 1).collect();
    assert_eq!((summary.nfe, ends), (4, vec![3, 6, 12, 16]));
    // Not sure enough: 4, 8, 12, 16.
    let strict = AdaptiveBlocks { confidence: 0.999, ..AdaptiveBlocks::new(vec![3]) };
    let strict = Sampler { adaptive_blocks: Some(strict), ..sampler };
    let mut canvases = [canvas(&Prompt::default(), &strict, 0)];
    let (_, steps) = run(&mut Script(sure), &mut canvases);
    let first = steps[0][0].committed.last().unwrap().position;
    assert_eq!((steps[0].len(), first), (4, 3));
}

#[test]
fn what_the_model_comes_to_contradict_is_masked_again_once() {
    // Position 0 is first 7; once position 1 is known it should be 8, then 9, and so on.
    let script = |sequence: &[u32], position: usize| match (position, sequence[0], sequence[1]) {
        (0, _, MASK) => vec![(7, 9.0)],
        (0, ..) => vec![(8, 9.0)],
        (1, ..) => vec![(5, 4.0)],
        _ => vec![(6, 2.0)],
    };
    let sampler = Sampler { steps: 3, gen_length: 3, revise: Some(0.9), ..Sampler::default() };
    let mut canvases = [canvas(&Prompt::default(), &sampler, 0)];
    let (summary, steps) = run(&mut Script(script), &mut canvases);
    let told: Vec<_> = steps[0]
        .iter()
        .map(|s| (s.committed[0].position, s.committed[0].token, s.remasked.clone(), s.stable))
        .collect();
    assert_eq!(told, [(0, 7, vec![], 0), (1, 5, vec![], 0), (2, 6, vec![0], 0), (0, 8, vec![], 3)]);
    assert_eq!(canvases[0].tokens(), [8, 5, 6]);
    assert_eq!((summary.nfe, summary.committed), (4, 3));
    let same = Sampler { revise: Some(1.0), ..sampler };
    let mut canvases = [canvas(&Prompt::default(), &same, 0)];
    run(&mut Script(script), &mut canvases);
    assert_eq!(canvases[0].tokens(), [7, 5, 6]);
}

#[test]
fn a_canvas_grows_until_the_end_is_in_sight_and_never_beyond_its_cap() {
    let variable = VariableLength {
        initial: 8,
        window: 2,
        enough: 0.5,
        unsure: 0.1,
        sure_of_end: 0.9,
        grow_by: 3,
    };
    let sampler = Sampler {
        steps: 40,
        gen_length: 40,
        variable_length: Some(variable),
        transfer: TransferRule::Threshold(0.5),
        ..Sampler::default()
    };
    // The text has 12 tokens.
    let text = |_: &[u32], position: usize| match position {
        0..12 => vec![(7, 9.0)],
        _ => vec![(EOS, 9.0)],
    };
    let mut canvases = [canvas(&Prompt::default(), &sampler, 0)];
    assert_eq!((canvases[0].tokens().len(), canvases[0].length()), (8, 40));
    let (summary, steps) = run(&mut Script(text), &mut canvases);
    let grown: Vec<usize> = steps[0].iter().map(|step| step.inserted.len()).collect();
    assert_eq!(grown, [3, 3, 0, 0]);
    assert_eq!((canvases[0].tokens().len(), canvases[0].useful().len()), (14, 12));
    assert_eq!((summary.nfe, summary.canvas_tokens, summary.masks_left), (4, 14, 0));

    // A text that never ends fills the cap, and no more; so does one of which nothing is sure.
    for logit in [9.0, 0.5] {
        let endless = |_: &[u32], _: usize| vec![(7, logit)];
        let mut canvases = [canvas(&Prompt::default(), &sampler, 0)];
        run(&mut Script(endless), &mut canvases);
        assert_eq!(canvases[0].response(), [7; 40]);
    }

    // Where it is unsure in the middle, there is more room.
    let unsure = |sequence: &[u32], position: usize| match position {
        2 if sequence.len() < 11 => vec![],
        _ if position + 2 >= sequence.len() => vec![(EOS, 4.0)],
        _ => vec![(7, 9.0)],
    };
    let mut canvases = [canvas(&Prompt::default(), &sampler, 0)];
    let (_, steps) = run(&mut Script(unsure), &mut canvases);
    assert_eq!(steps[0][1].inserted, [3, 4, 5]);
    assert_eq!(canvases[0].response().len(), 11);
}

#[test]
fn what_does_not_go_together_is_refused_with_a_reason() {
    let s = Sampler::default;
    let semi = Blocks::SemiAutoregressive;
    let window = Some(SuffixWindow { masks: 8, decay: false });
    let dual = Cache::Dual(Refresh::default());
    let variable_length = Some(VariableLength::default());
    for (sampler, expected) in [
        (Sampler { suffix_window: window, ..s() }, "suffix_window cannot be combined with the lay"),
        (Sampler { adaptive_blocks: Some(AdaptiveBlocks::new(vec![])), ..s() }, "adaptive_blocks"),
        (Sampler { cache: dual, ..Sampler::exact() }, "cache cannot be combined with the exact"),
        (
            Sampler { transfer: TransferRule::Factor(1.0), ..Sampler::exact() },
            "transfer cannot be combined",
        ),
        (Sampler { revise: Some(0.9), ..Sampler::exact() }, "revise cannot be combined"),
        (
            Sampler { transfer: TransferRule::Threshold(0.9), remasking: Remasking::Random, ..s() },
            "remasking cannot be combined with transfer threshold",
        ),
        (
            Sampler { variable_length, blocks: Blocks::BlockDiffusion, ..s() },
            "variable_length cannot be combined with the layout block-diffusion",
        ),
        (
            Sampler { variable_length, suffix_window: window, blocks: semi, ..s() },
            "suffix_window cannot be combined with a variable length",
        ),
    ] {
        let error = sampler.check().unwrap_err();
        assert!(error.to_string().starts_with(expected), "{error}");
        assert!(error.hint().unwrap().contains("--"), "{error}");
    }
    let causal = Sampler { blocks: Blocks::Autoregressive, cache: dual, ..s() };
    let error = causal.check_model(&SPECIAL, AttentionMask::Causal).unwrap_err();
    assert!(error.to_string().contains("an autoregressive model"), "{error}");
    assert!(Sampler { transfer: TransferRule::Threshold(f64::NAN), ..s() }.check().is_err());
    assert!(Sampler { revise: Some(-1.0), ..s() }.check().is_err());
}
