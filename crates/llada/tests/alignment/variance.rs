//! The variance of the preference score is what the paper says: it falls with the number of noise
//! levels, more than with the number of masks, with masks that policy and reference share, and further with
//! complementary ones.

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

const MASK_PROMPT: usize = 2;

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

/// How a bound is estimated: noise levels, masks of each, and whether they are complementary.
#[derive(Clone, Copy)]
struct Estimate {
    levels: usize,
    masks: usize,
    complementary: bool,
}

fn versions(of: Estimate, mask: u32, tokens: &[u32], seed: u64) -> Versions {
    let response = Response { tokens, prompt: MASK_PROMPT };
    let mut stream = Stream::new(seed, Purpose::Masking, 0);
    let mut versions = Versions::new(1);
    let term = (0, 1.0 / (of.levels * of.masks) as f64);
    for _ in 0..of.levels {
        let t = stream.uniform();
        for _ in 0..of.masks {
            let stream = &mut stream;
            match of.complementary {
                true => masks::draw_coupled(
                    &mut versions,
                    response,
                    mask,
                    t,
                    stream,
                    term,
                    &masks::bound,
                ),
                false => masks::draw_bound(&mut versions, response, mask, t, stream, term),
            }
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
    let mut score = |of: Estimate, shared: bool| {
        let runs = 400;
        let scores: Vec<f64> = (0..runs)
            .map(|run| {
                let other = if shared { run } else { run + 1_000_000 };
                bound(&mut policy, &versions(of, mask, &tokens, run))
                    - bound(&mut reference, &versions(of, mask, &tokens, other))
            })
            .collect();
        let mean = scores.iter().sum::<f64>() / scores.len() as f64;
        let squares = scores.iter().map(|s| (s - mean).powi(2));
        (mean, squares.sum::<f64>() / (scores.len() - 1) as f64)
    };
    let of = |levels, masks, complementary| Estimate { levels, masks, complementary };
    let (mean, single) = score(of(1, 1, false), true);
    let (mean_of_eight, eight) = score(of(8, 1, false), true);
    let (_, two_of_four) = score(of(2, 4, false), true);
    let (_, apart) = score(of(8, 1, false), false);
    let (mean_of_pairs, pairs) = score(of(4, 1, true), true);
    println!("{single:.5} {eight:.5} {two_of_four:.5} {apart:.5} {pairs:.5}");
    // All of them estimate the same.
    let error = (single / 400.0).sqrt();
    assert!((mean - mean_of_eight).abs() < 4.0 * error, "{mean} {mean_of_eight} {error}");
    assert!((mean - mean_of_pairs).abs() < 4.0 * error, "{mean} {mean_of_pairs} {error}");
    // With n noise levels it is an n-th.
    assert!((0.6..1.6).contains(&(single / eight / 8.0)), "{single} {eight}");
    // The same budget spent on masks of fewer levels is worse, and so are draws that are not shared.
    assert!(two_of_four > 1.1 * eight, "{two_of_four} {eight}");
    assert!(apart > 3.0 * eight, "{apart} {eight}");
    // Eight versions in complementary pairs say more than eight by themselves.
    assert!(pairs < 0.8 * eight, "{pairs} {eight}");
}
