use super::*;
use crate::{
    diffusion::likelihood::tests::{MASK, model},
    model::{Batch, Targets},
};

fn text(window: Window, out: &mut Vec<u32>) -> Result<()> {
    out.extend((0..window.length as u64).map(|i| ((window.number * 5 + i * 7) % 18) as u32));
    Ok(())
}

fn measure(objective: Objective, threads: usize, lengths: &[usize], forward: usize) -> Bound {
    measure_with(model(objective, threads).0, lengths, forward)
}

/// The same where the model attends by blocks.
fn by_blocks(block_length: usize, threads: usize) -> MaskPredictor {
    let (mut predictor, _) = model(Objective::Diffusion, threads);
    predictor.model_mut().config.attention = AttentionMask::BlockCausal { block_length };
    predictor
}

fn measure_with(mut predictor: MaskPredictor, lengths: &[usize], forward: usize) -> Bound {
    let windows =
        lengths.iter().zip(3..).map(|(&length, number)| Window { number, length, given: 0 });
    let settings = EvidenceSettings { draws: 3, seed: 2, tokens_per_forward: forward };
    let config = &predictor.model().config;
    let mut evidence = Evidence::new(config, Some(MASK), windows.collect(), settings).unwrap();
    while evidence.advance(&mut predictor, &mut text).unwrap() {}
    assert_eq!(evidence.done(), evidence.versions());
    evidence.bound()
}

#[test]
fn levels_share_out_the_length() {
    let of = levels(640, 0);
    let mut counts = [0; 64];
    of.iter().for_each(|level| counts[(level * 64.0) as usize] += 1);
    assert!(counts.iter().all(|n| (9..=11).contains(n)), "{counts:?}");
    assert_eq!(of, levels(640, 0));
    assert_ne!(of, levels(640, 1));
}

#[test]
fn neither_the_forward_passes_nor_the_threads_matter() {
    let lengths = [10, 20, 1, 30, 7, 2, 10, 20];
    let all = measure(Objective::Diffusion, 1, &lengths, 4096);
    assert_eq!((all.sequences, all.tokens), (8, 100));
    assert!(all.nll > 0.0 && all.standard_error.unwrap() > 0.0);
    for (threads, forward) in [(1, 1), (1, 25), (3, 50)] {
        assert_eq!(measure(Objective::Diffusion, threads, &lengths, forward), all);
    }
    let masked: u64 = all.buckets.iter().map(|b| b.tokens).sum();
    assert!((100..=300).contains(&masked), "{masked}");
}

#[test]
fn the_passes_do_not_matter_to_blocks_either() {
    let lengths = [10, 20, 1, 30, 7, 2, 10, 20];
    for block in [1, 4, 7, 64] {
        let all = measure_with(by_blocks(block, 1), &lengths, 4096);
        assert_eq!((all.sequences, all.tokens), (8, 100));
        for (threads, forward) in [(1, 1), (1, 50), (3, 100)] {
            assert_eq!(measure_with(by_blocks(block, threads), &lengths, forward), all);
        }
    }
}

#[test]
fn blocks_of_one_token_are_scored_exactly() {
    let lengths = [9, 5];
    let found = measure_with(by_blocks(1, 1), &lengths, 64);
    let mut predictor = by_blocks(1, 1);
    let mut sum = 0.0;
    for (number, length) in [(3, 9), (4, 5)] {
        let mut tokens = Vec::new();
        text(Window { number, length, given: 0 }, &mut tokens).unwrap();
        for i in 0..length {
            // Each token after those before it, which the mask in its place sees without masks.
            let noisy = [&tokens[..i], &[MASK]].concat();
            let batch = Batch { tokens: &noisy, starts: &[0, i + 1], attention_mask: None };
            let (positions, tokens) = (&[i], &tokens[i..=i]);
            let excluded = Some(MASK);
            let targets = Targets { positions, tokens, excluded, ..Targets::default() };
            let mut nll = Vec::new();
            predictor.nll(batch, &targets, &mut nll).unwrap();
            sum += f64::from(nll[0]);
        }
    }
    assert!((found.nll - sum / 14.0).abs() < 1e-5, "{} {}", found.nll, sum / 14.0);
    let masked: u64 = found.buckets.iter().map(|b| b.tokens).sum();
    assert_eq!((masked, found.buckets[9].tokens), (3 * 14, 3 * 14));
}

#[test]
fn a_causal_model_is_scored_exactly() {
    let found = measure(Objective::Autoregressive, 1, &[9, 5], 64);
    assert_eq!((found.tokens, found.buckets.len()), (12, 0));
    let (mut predictor, _) = model(Objective::Autoregressive, 1);
    let mut sum = 0.0;
    for (number, length) in [(3, 9), (4, 5)] {
        let mut tokens = Vec::new();
        text(Window { number, length, given: 0 }, &mut tokens).unwrap();
        let positions: Vec<usize> = (0..length - 1).collect();
        let weights = vec![1.0; length - 1];
        let next = &tokens[1..];
        let targets = Targets {
            positions: &positions,
            tokens: next,
            weights: &weights,
            ..Targets::default()
        };
        let batch = Batch { tokens: &tokens, starts: &[0, length], attention_mask: None };
        let mut nll = Vec::new();
        predictor.nll(batch, &targets, &mut nll).unwrap();
        sum += nll.iter().map(|&n| f64::from(n)).sum::<f64>();
    }
    assert!((found.nll - sum / 12.0).abs() < 1e-9, "{} {}", found.nll, sum / 12.0);
    assert!((found.perplexity() - found.nll.exp()).abs() < 1e-12);
    assert!((found.bits_per_byte(2.0) - found.nll / 2f64.ln() / 2.0).abs() < 1e-12);
}

#[test]
fn every_token_but_the_first_is_predicted_once() {
    for length in 2..6 {
        for tokens in 0..23 {
            let diffusion = windows(tokens, length, Objective::Diffusion);
            let seen: Vec<usize> = diffusion.into_iter().flatten().collect();
            assert_eq!(seen, (1..tokens).collect::<Vec<_>>());
            let causal = windows(tokens, length, Objective::Autoregressive);
            assert!(causal.iter().all(|sequence| sequence.len() <= length));
            let seen: Vec<usize> = causal.into_iter().flat_map(|r| r.start + 1..r.end).collect();
            assert_eq!(seen, (1..tokens).collect::<Vec<_>>());
        }
    }
    assert!(windows(9, 1, Objective::Autoregressive).is_empty());
    assert!(windows(9, 0, Objective::Diffusion).is_empty());
}

#[test]
fn some_windows_stand_for_all() {
    let of = |count, sequences| spread_evenly(count, sequences).collect::<Vec<_>>();
    assert_eq!(of(10, 4), [0, 2, 5, 7]);
    assert_eq!(of(3, 7), [0, 1, 2]);
    assert!(of(0, 7).is_empty() && of(7, 0).is_empty());
}

#[test]
fn what_cannot_be_measured_is_refused() {
    let (predictor, _) = model(Objective::Diffusion, 1);
    let config = &predictor.model().config;
    let sequence = |length| vec![Window { number: 0, length, given: 0 }];
    let settings = EvidenceSettings::default();
    for (mask, windows, draws, message) in [
        (None, sequence(4), 1, "no mask token"),
        (Some(MASK), sequence(65), 1, "sequences of 65 tokens"),
        (Some(MASK), sequence(0), 1, "sequences of 0 tokens"),
        (Some(MASK), vec![], 1, "no token that the model could predict"),
        (Some(MASK), sequence(4), 0, "draws is 0"),
    ] {
        let settings = EvidenceSettings { draws, ..settings };
        let error = Evidence::new(config, mask, windows, settings).unwrap_err();
        assert!(error.to_string().contains(message), "{error}");
    }
    let mut evidence = Evidence::new(config, Some(MASK), sequence(4), settings).unwrap();
    let (mut predictor, _) = model(Objective::Diffusion, 1);
    assert!(evidence.advance(&mut predictor, &mut |_, _| Ok(())).is_err());
}
