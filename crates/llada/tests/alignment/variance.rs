//! The variance of the preference score is what the paper says: it falls with the number of noise
//! levels, and with masks that policy and reference share; further with antithetic ones.

use llada::{
    checkpoint,
    config::LogitShift,
    diffusion::policy::{
        Versions,
        masks::{self, Response},
    },
    model::{MaskPredictor, Targets},
    rng::{Purpose, Stream},
};
use llada_kernels::Cpu;

use super::Bench;

/// Tokens of the prompt.
const PROMPT: usize = 2;

/// A policy near its reference.
fn models(bench: &Bench) -> [MaskPredictor; 2] {
    let load = || checkpoint::load(&bench.path("base")).unwrap().into_trainable();
    let mut policy = load();
    let mut stream = Stream::new(1, Purpose::Init, 99);
    for value in policy.tensors.flatten().values_mut() {
        *value += 0.02 * stream.normal() as f32;
    }
    [policy, load()].map(|model| MaskPredictor::new(model, Cpu::new(1).unwrap()).unwrap())
}

fn bound(predictor: &mut MaskPredictor, versions: &Versions) -> f64 {
    let weights = vec![0.0; versions.predicted()];
    let (part, noised) = versions.part(0..versions.count(), &weights, LogitShift::Same);
    let (positions, tokens) = (&noised.positions, &noised.targets);
    let targets = Targets { positions, tokens, weights: &weights, balance: 0.0 };
    let mut nll = Vec::new();
    predictor.nll(&part.as_batch(), &targets, &mut nll).unwrap();
    versions.log_probabilities(&nll)[0]
}

/// Estimates of a bound: so many versions, in antithetic pairs or not.
fn versions(count: usize, antithetic: bool, mask: u32, tokens: &[u32], seed: u64) -> Versions {
    let response = Response { tokens, prompt: PROMPT };
    let mut stream = Stream::new(seed, Purpose::Masking, 0);
    let mut versions = Versions::new(1);
    let levels = if antithetic { count / 2 } else { count };
    for _ in 0..levels {
        let (t, term) = (stream.uniform(), (0, 1.0 / levels as f64));
        match antithetic {
            true => masks::draw_antithetic(&mut versions, response, mask, t, &mut stream, term),
            false => masks::draw_bound(&mut versions, response, mask, t, &mut stream, term),
        }
    }
    versions
}

#[test]
fn the_variance_of_the_score_falls_as_the_paper_says() {
    let bench = Bench::new();
    let [mut policy, mut reference] = models(&bench);
    let mask = policy.model().config.tokens.mask.unwrap();
    let tokens: Vec<u32> = (0..14).map(|i| 4 + i * 5 % 30).collect();
    // B_policy − B_reference: mean and variance over the draws.
    let mut score = |count: usize, antithetic: bool, shared: bool| {
        let scores: Vec<f64> = (0..400)
            .map(|run| {
                let other = if shared { run } else { run + 1_000_000 };
                bound(&mut policy, &versions(count, antithetic, mask, &tokens, run))
                    - bound(&mut reference, &versions(count, antithetic, mask, &tokens, other))
            })
            .collect();
        let mean = scores.iter().sum::<f64>() / scores.len() as f64;
        let squares = scores.iter().map(|s| (s - mean).powi(2));
        (mean, squares.sum::<f64>() / (scores.len() - 1) as f64)
    };
    let (mean, single) = score(1, false, true);
    let (mean_of_eight, eight) = score(8, false, true);
    let (_, apart) = score(8, false, false);
    let (mean_of_pairs, pairs) = score(8, true, true);
    // All of them estimate the same.
    let error = (single / 400.0).sqrt();
    assert!((mean - mean_of_eight).abs() < 4.0 * error, "{mean} {mean_of_eight} {error}");
    assert!((mean - mean_of_pairs).abs() < 4.0 * error, "{mean} {mean_of_pairs} {error}");
    // With n noise levels it is an n-th.
    assert!((0.6..1.6).contains(&(single / eight / 8.0)), "{single} {eight}");
    // Draws that are not shared are worse, and eight versions in antithetic pairs better.
    assert!(apart > 3.0 * eight, "{apart} {eight}");
    assert!(pairs < 0.8 * eight, "{pairs} {eight}");
}

/// A budget says most with one mask at each noise level: where the nll goes by how much is masked, masks
/// of one level repeat each other.
#[test]
fn noise_levels_say_more_than_masks_of_one() {
    let tokens: Vec<u32> = (0..14).collect();
    let response = Response { tokens: &tokens, prompt: PROMPT };
    let variance = |levels: usize, of_each: usize| {
        let mut stream = Stream::new(5, Purpose::Masking, 1);
        let bounds: Vec<f64> = (0..2000)
            .map(|_| {
                let mut versions = Versions::new(1);
                for _ in 0..levels {
                    let (t, term) = (stream.uniform(), (0, 1.0 / (levels * of_each) as f64));
                    for _ in 0..of_each {
                        masks::draw_bound(&mut versions, response, 99, t, &mut stream, term);
                    }
                }
                let counts = (0..versions.count()).map(|i| versions.span(i..i + 1).len());
                // More context is a better guess, and tokens are not all as hard.
                let nll: Vec<f32> = counts
                    .flat_map(|n| (0..n).map(move |i| 0.3 * n as f32 + 0.02 * i as f32))
                    .collect();
                versions.log_probabilities(&nll)[0]
            })
            .collect();
        let mean = bounds.iter().sum::<f64>() / bounds.len() as f64;
        bounds.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / bounds.len() as f64
    };
    let (eight, two, one) = (variance(8, 1), variance(2, 4), variance(1, 8));
    assert!((0.7..1.4).contains(&(two / eight / 4.0)), "{two} {eight}");
    assert!((0.7..1.4).contains(&(one / eight / 8.0)), "{one} {eight}");
}
