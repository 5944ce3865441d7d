//! The estimate against expectations that can be computed, and its independence of the batch.

use llada_kernels::Cpu;

use super::*;
use crate::{
    config::{AttentionMask, Objective},
    model::{Batch, Layout, Model},
};

pub(super) const MASK: u32 = 19;
const EOS: u32 = 18;

/// A tiny model with random weights, and its special tokens.
pub(super) fn model(objective: Objective, threads: usize) -> (MaskPredictor, SpecialTokens) {
    let config = ModelConfig {
        max_sequence_length: 64,
        rope_theta: 10000.0,
        ..ModelConfig::llada(16, 2, 2, 24, 20)
    };
    let config = config.with_objective(objective);
    let special = SpecialTokens { mask: Some(MASK), eos: Some(EOS), ..Default::default() };
    let mut model = Model::init(config, 3).unwrap();
    let head = Layout::new(&model.config).head_or_tied();
    let arena = model.tensors.flatten();
    for i in 0..arena.len() {
        let weights = &mut arena[i];
        // Fresh weights predict almost uniformly; these have opinions, though none for the mask.
        weights.iter_mut().for_each(|w| *w *= 2.0);
        if i == head {
            weights[MASK as usize * 16..].fill(0.0);
        }
    }
    (MaskPredictor::new(model, Cpu::new(threads).unwrap()).unwrap(), special)
}

fn pair(prompt: &[u32], answer: &[u32]) -> Pair {
    Pair { prompt: prompt.to_vec(), answer: answer.to_vec() }
}

/// Pairs of many lengths, enough for several forward passes.
fn pairs() -> Vec<Pair> {
    let tokens = |n: usize, i: usize| (0..n).map(|j| ((7 * i + 3 * j) % 18) as u32).collect();
    (0..9)
        .map(|i| Pair { prompt: tokens(5 * i, i), answer: tokens(1 + (i * i) % 20, i + 1) })
        .collect()
}

fn go(_: usize, _: &Estimate) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn estimates(
    (predictor, special): &mut (MaskPredictor, SpecialTokens),
    pairs: &[Pair],
    settings: &Settings,
) -> Vec<Estimate> {
    score(predictor, special, pairs, settings, &mut go).unwrap()
}

/// log softmax of `logits` at `token`, in `f64`.
fn log_probability(logits: &[f32], token: u32) -> f64 {
    let sum: f64 = logits.iter().map(|&l| f64::from(l).exp()).sum();
    f64::from(logits[token as usize]) - sum.ln()
}

#[test]
fn models_that_attend_by_blocks_are_refused() {
    let (predictor, special) = model(Objective::Diffusion, 1);
    let attention = AttentionMask::BlockCausal { block_length: 4 };
    let config = ModelConfig { attention, ..predictor.model().config.clone() };
    let error = Scorer::new(&config, &special, 0.0).unwrap_err().to_string();
    assert!(error.contains("attends by blocks"), "{error}");
}

#[test]
fn the_estimate_has_the_mean_over_all_masks() {
    let mut model = model(Objective::Diffusion, 1);
    let pair = pair(&[1, 2, 3], &[4, 5, 6]);
    // E over m ~ U{1..3} and a uniform set of m positions of (3/m) Σ −log p.
    let sets: [&[usize]; 7] = [&[0], &[1], &[2], &[0, 1], &[0, 2], &[1, 2], &[0, 1, 2]];
    let mut expected = 0.0;
    for set in sets {
        let mut tokens = [pair.prompt.as_slice(), &pair.answer].concat();
        let wanted: Vec<usize> = set.iter().map(|i| 3 + i).collect();
        wanted.iter().for_each(|&i| tokens[i] = MASK);
        let mut logits = Vec::new();
        let batch = Batch { tokens: &tokens, starts: &[0, 6], attention_mask: None };
        model.0.logits(batch, &wanted, &mut logits).unwrap();
        let log_p: f64 = set
            .iter()
            .zip(logits.chunks(20))
            .map(|(&i, l)| log_probability(l, pair.answer[i]))
            .sum();
        let subsets = if set.len() == 3 { 1.0 } else { 3.0 };
        expected += log_p * 3.0 / set.len() as f64 / subsets / 3.0;
    }
    let settings = Settings { mc_num: 3000, batch_size: 3, ..Settings::default() };
    let found = estimates(&mut model, &[pair], &settings)[0];
    let error = found.standard_error.unwrap();
    assert!(error > 0.0 && error < 0.05 * expected.abs(), "{found:?}");
    let off = (found.log_likelihood - expected) / error;
    assert!(off.abs() < 3.5, "{found:?} is {off} standard errors from {expected}");
    assert_eq!((found.samples, found.tokens), (3000, 3));
}

#[test]
fn an_autoregressive_score_is_the_chain_rule() {
    let mut model = model(Objective::Autoregressive, 1);
    let pairs = [pair(&[1, 2, 3], &[4, 5, 6, 7]), pair(&[], &[8, 9])];
    let found = estimates(&mut model, &pairs, &Settings::default());
    for (pair, found) in pairs.iter().zip(found) {
        let start = if pair.prompt.is_empty() { vec![EOS] } else { pair.prompt.clone() };
        let mut expected = 0.0;
        for (i, &token) in pair.answer.iter().enumerate() {
            let tokens = [&start[..], &pair.answer[..i]].concat();
            let mut logits = Vec::new();
            let batch = Batch { tokens: &tokens, starts: &[0, tokens.len()], attention_mask: None };
            model.0.logits(batch, &[tokens.len() - 1], &mut logits).unwrap();
            expected += log_probability(&logits, token);
        }
        assert!((found.log_likelihood / expected - 1.0).abs() < 1e-5, "{found:?} {expected}");
        assert_eq!((found.standard_error, found.samples), (Some(0.0), 1));
    }
}

#[test]
fn neither_the_batch_nor_the_threads_change_a_bit() {
    let pairs = pairs();
    for objective in [Objective::Diffusion, Objective::Autoregressive] {
        for cfg_scale in [0.0, 0.5] {
            if cfg_scale > 0.0 && objective == Objective::Autoregressive {
                continue;
            }
            let settings = Settings { mc_num: 32, cfg_scale, seed: 9, ..Settings::default() };
            let mut one = model(objective, 1);
            let together = estimates(&mut one, &pairs, &settings);
            assert_eq!(together, estimates(&mut model(objective, 3), &pairs, &settings));
            // With equal noise for every pair each is what it is alone; the first is so anyway.
            let (predictor, special) = &mut one;
            let mut alike = |pairs: &[Pair]| {
                let (mut draws, go) = (Alike { seed: 9 }, &mut |_| ControlFlow::Continue(()));
                score_with(predictor, special, pairs, &settings, &mut draws, go).unwrap()
            };
            let in_one_batch = alike(&pairs);
            assert_eq!(in_one_batch[0], together[0]);
            for (number, pair) in pairs.iter().enumerate() {
                let alone = alike(std::slice::from_ref(pair));
                assert_eq!(alone, in_one_batch[number..][..1], "{number}");
            }
        }
    }
}

#[test]
fn seeds_differ_and_guidance_counts() {
    let mut model = model(Objective::Diffusion, 1);
    let pairs = pairs();
    let settings = Settings { mc_num: 16, batch_size: 4, ..Settings::default() };
    let base = estimates(&mut model, &pairs, &settings);
    let other = estimates(&mut model, &pairs, &Settings { seed: 1, ..settings });
    let guided = estimates(&mut model, &pairs, &Settings { cfg_scale: 1.0, ..settings });
    assert_ne!(base[4], other[4]);
    assert_ne!(base[4], guided[4]);
    // One token: nothing is random, and without a prompt there is nothing to guide by.
    assert_eq!(base[0], other[0]);
    assert_eq!(base[0].standard_error, Some(0.0));
    assert!((base[0].log_likelihood - guided[0].log_likelihood).abs() < 1e-4);
}

#[test]
fn one_batch_has_no_standard_error() {
    let mut model = model(Objective::Diffusion, 1);
    let settings = Settings { mc_num: 4, batch_size: 4, ..Settings::default() };
    assert_eq!(estimates(&mut model, &[pair(&[1], &[2, 3])], &settings)[0].standard_error, None);
}

#[test]
fn breaking_off_keeps_what_is_done() {
    let (mut predictor, special) = model(Objective::Diffusion, 1);
    let (pairs, settings) = (pairs(), Settings::default());
    let all = score(&mut predictor, &special, &pairs, &settings, &mut go).unwrap();
    let mut stop = |number, _: &Estimate| match number {
        2 => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    };
    let some = score(&mut predictor, &special, &pairs, &settings, &mut stop).unwrap();
    assert_eq!(some, all[..3]);

    let (mut last, mut draws) = (0, Seeded { seed: 0 });
    let all_again =
        score_with(&mut predictor, &special, &pairs, &settings, &mut draws, &mut |event| {
            if let Event::Forward { samples } = event {
                assert!(samples >= last);
                last = samples;
            }
            ControlFlow::Continue(())
        });
    assert_eq!((all_again.unwrap(), last), (all, pairs.len() * 128));
}

#[test]
fn greedy_answers_are_recognised() {
    for objective in [Objective::Diffusion, Objective::Autoregressive] {
        let (mut predictor, special) = model(objective, 1);
        // The answer that greedy decoding gives is found by asking for each next token.
        let prompt = vec![1, 2, 3];
        let answer: Vec<u32> = match objective {
            Objective::Autoregressive => (0..4).fold(Vec::new(), |mut answer, _| {
                let tokens = [&prompt[..], &answer].concat();
                let mut logits = Vec::new();
                let batch =
                    Batch { tokens: &tokens, starts: &[0, tokens.len()], attention_mask: None };
                predictor.logits(batch, &[tokens.len() - 1], &mut logits).unwrap();
                answer.push(llada_kernels::statistics::of(&logits).unwrap().token as u32);
                answer
            }),
            Objective::Diffusion => {
                use crate::diffusion::{Canvas, Sampler, generate};
                let sampler = Sampler { gen_length: 4, steps: 4, ..Sampler::exact() };
                let canvas = Canvas::new(
                    prompt.clone().into(),
                    &sampler,
                    &special,
                    predictor.model().config.attention,
                );
                let mut canvas = [canvas.unwrap()];
                generate::run(&mut predictor, &mut canvas, &mut |_, _| ControlFlow::Continue(()))
                    .unwrap();
                canvas[0].tokens()[3..].to_vec()
            }
        };
        assert!(!answer.contains(&MASK), "{answer:?}");
        let mut greedy =
            |answer: &[u32]| is_greedy(&mut predictor, &special, &pair(&prompt, answer), 0.0);
        assert!(greedy(&answer).unwrap());
        for i in 0..4 {
            let mut wrong = answer.clone();
            wrong[i] = (wrong[i] + 1) % 18;
            assert!(!greedy(&wrong).unwrap(), "{i}");
        }
    }
}

#[test]
fn what_cannot_be_scored_is_refused() {
    let settings = Settings { mc_num: 2, batch_size: 1, ..Settings::default() };
    let refused = |objective, special: Option<SpecialTokens>, pair: Pair, settings: &Settings| {
        let (mut predictor, own) = model(objective, 1);
        let special = special.unwrap_or(own);
        let error = score(&mut predictor, &special, &[pair], settings, &mut go).unwrap_err();
        assert!(error.hint().is_some(), "{error}");
        error.to_string()
    };
    use Objective::{Autoregressive, Diffusion};
    let good = pair(&[1], &[2]);
    let none = Some(SpecialTokens::default());
    let with = |f: fn(&mut Settings)| {
        let mut changed = settings;
        f(&mut changed);
        changed
    };
    for (objective, special, pair, settings, message) in [
        (Diffusion, None, pair(&[1], &[]), settings, "answer is empty"),
        (Diffusion, None, pair(&[1; 60], &[2; 5]), settings, "65 tokens together"),
        (Diffusion, None, pair(&[20], &[2]), settings, "token 20 is outside"),
        (Diffusion, none, good.clone(), settings, "no mask token"),
        (Autoregressive, none, pair(&[], &[2]), settings, "cannot score from nothing"),
        (Autoregressive, None, pair(&[], &[2; 64]), settings, "65 tokens together"),
        (Autoregressive, None, good.clone(), with(|s| s.cfg_scale = 0.5), "cannot be guided"),
        (Diffusion, None, good.clone(), with(|s| s.cfg_scale = -1.0), "cfg_scale is -1"),
        (Diffusion, None, good.clone(), with(|s| s.cfg_scale = f32::NAN), "cfg_scale is NaN"),
        (Diffusion, None, good.clone(), with(|s| s.mc_num = 0), "mc_num is 0"),
        (Diffusion, None, good.clone(), with(|s| s.batch_size = 0), "batch_size is 0"),
        (Diffusion, None, good.clone(), with(|s| s.batch_size = 3), "not a multiple"),
    ] {
        let found = refused(objective, special, pair, &settings);
        assert!(found.contains(message), "{found}");
    }
    let (mut predictor, special) = model(Autoregressive, 1);
    assert!(is_greedy(&mut predictor, &special, &good, 1.0).is_err());
    assert!(check(&predictor.model().config, &special, &good).is_ok());
}

#[test]
fn batches_divide_the_samples() {
    let batch = |mc_num| Settings::with_samples(mc_num).batch_size;
    assert_eq!([1, 7, 16, 100, 127, 128].map(batch), [1, 7, 16, 10, 1, 16]);
}
