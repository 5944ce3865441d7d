//! Likelihoods against the reference's, from the noisy batches that it recorded.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::ops::ControlFlow;

use common::{bytes, golden, golden_u32, ids, json, size};
use llada::{
    checkpoint,
    diffusion::likelihood::{Draws, Pair, Settings, is_greedy, score_with},
    model::MaskPredictor,
};
use llada_kernels::Cpu;
use safetensors::SafeTensors;

/// The recorded noise: masked positions of each copy of each iteration.
struct Recorded {
    iterations: Vec<Vec<Vec<usize>>>,
    /// The iteration that is replayed first.
    first: usize,
}

impl Recorded {
    fn read(file: &SafeTensors<'_>, id: &str, prompt: usize, mask: u32) -> Self {
        let (shape, noisy) = golden_u32(file, &format!("{id}.noisy")).unwrap();
        let masked = |sequence: &[u32]| {
            let answer = sequence[prompt..].iter().enumerate();
            answer.filter(|(_, token)| **token == mask).map(|(i, _)| i).collect()
        };
        let sequences: Vec<Vec<usize>> = noisy.chunks(shape[2]).map(masked).collect();
        Self { iterations: sequences.chunks(shape[1]).map(<[_]>::to_vec).collect(), first: 0 }
    }
}

impl Draws for Recorded {
    fn masked(
        &mut self,
        pair: usize,
        iteration: usize,
        _: usize,
        sequences: usize,
    ) -> Vec<Vec<usize>> {
        assert_eq!(pair, 0);
        let recorded = self.iterations[self.first + iteration].clone();
        assert_eq!(recorded.len(), sequences);
        recorded
    }
}

fn assert_close(found: f64, expected: f64, what: &str) {
    assert!((found / expected - 1.0).abs() < 1e-5, "{what}: {found} and not {expected}");
}

#[test]
fn recorded_noise_gives_the_recorded_losses() {
    let file = bytes("loglik/draws.safetensors");
    let file = SafeTensors::deserialize(&file).unwrap();
    let cases = json("loglik/cases.json");
    let cases = cases.as_array().unwrap();
    assert!(!cases.is_empty());
    for case in cases {
        let id = case["id"].as_str().unwrap();
        let folder = golden::model(case["model"].as_str().unwrap());
        let model = checkpoint::load(&folder).unwrap();
        let mut special = checkpoint::special_tokens(&model.config, None);
        special.mask = Some(size(&case["mask_id"]) as u32);
        let mut predictor = MaskPredictor::new(model, Cpu::new(1).unwrap()).unwrap();
        let pair = Pair { prompt: ids(&case["prompt"]), answer: ids(&case["answer"]) };
        let all = Settings {
            mc_num: size(&case["mc_num"]),
            batch_size: size(&case["batch_size"]),
            cfg_scale: case["cfg_scale"].as_f64().unwrap() as f32,
            seed: 0,
        };
        let pairs = [pair];
        let mut recorded = Recorded::read(&file, id, pairs[0].prompt.len(), special.mask.unwrap());
        let mut replay = |recorded: &mut Recorded, settings: &Settings| {
            let go = &mut |_| ControlFlow::Continue(());
            score_with(&mut predictor, &special, &pairs, settings, recorded, go).unwrap()[0]
        };
        let found = replay(&mut recorded, &all);
        assert_close(found.log_likelihood, case["result"].as_f64().unwrap(), id);
        let losses = case["per_iter_loss"].as_array().unwrap();
        assert_eq!(losses.len(), recorded.iterations.len());
        for (iteration, loss) in losses.iter().enumerate() {
            recorded.first = iteration;
            let one = Settings { mc_num: all.batch_size, ..all };
            let found = -replay(&mut recorded, &one).log_likelihood;
            assert_close(found, loss.as_f64().unwrap(), &format!("{id} iteration {iteration}"));
        }
        if let Some(expected) = case["suffix_is_greedy"].as_bool() {
            let greedy = is_greedy(&mut predictor, &special, &pairs[0], all.cfg_scale).unwrap();
            assert_eq!(greedy, expected, "{id}");
        }
    }
}
