//! Losses, bounds and gradients of reinforcement learning against those of the official code.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{
    bytes, cases, golden, golden_u32,
    gradients::{assert_close, assert_gradients},
    size, tensor,
};
use llada::{
    checkpoint,
    config::LogitShift,
    diffusion::policy::{
        Clip, LogProbabilities, Loss, Versions, diffu_grpo, espo, gdsd,
        masks::{self, Response},
    },
    model::{Batch, Gradients, MaskPredictor, Targets},
};
use llada_kernels::{Cpu, grad_norm};
use safetensors::SafeTensors;
use serde_json::Value;

fn predictor(name: &Value) -> MaskPredictor {
    // A remark may follow the name.
    let name = name.as_str().unwrap().split(' ').next().unwrap();
    let model = checkpoint::load(&golden::model(name)).unwrap().into_trainable();
    MaskPredictor::new(model, Cpu::new(2).unwrap()).unwrap()
}

/// A recorded case.
struct Case<'a> {
    id: &'a str,
    json: &'a Value,
    file: SafeTensors<'a>,
    mask: u32,
    /// The sequences, prompt and completion.
    rows: Vec<Vec<u32>>,
    prompt: usize,
    completion: usize,
}

impl<'a> Case<'a> {
    fn new(json: &'a Value, bytes: &'a [u8]) -> Self {
        let id = json["id"].as_str().unwrap();
        let file = SafeTensors::deserialize(bytes).unwrap();
        let rows = |name: &str| {
            let (shape, ids) = golden_u32(&file, &format!("{id}.{name}")).unwrap();
            (shape[1], ids.chunks(shape[1]).map(<[u32]>::to_vec).collect::<Vec<_>>())
        };
        let ((prompt, prompts), (completion, completions)) =
            (rows("prompt_ids"), rows("completion_ids"));
        let both = prompts.into_iter().zip(completions);
        let rows = both.map(|(prompt, completion)| [prompt, completion].concat()).collect();
        let mask = size(&json["mask_id"]) as u32;
        Self { id, json, file, mask, rows, prompt, completion }
    }

    fn response(&self, row: usize) -> Response<'_> {
        Response { tokens: &self.rows[row], prompt: self.prompt }
    }

    fn numbers(&self, name: &str) -> Vec<f64> {
        tensor(&self.file, &format!("{}.{name}", self.id)).unwrap().1
    }

    fn number(&self, name: &str) -> f64 {
        self.json[name].as_f64().unwrap()
    }

    /// The recorded noisy sequences, as [draw][row].
    fn noisy(&self) -> Vec<Vec<Vec<u32>>> {
        let (shape, ids) = golden_u32(&self.file, &format!("{}.noisy", self.id)).unwrap();
        let (length, rows) = (shape[shape.len() - 1], self.rows.len());
        let sequences: Vec<_> = ids.chunks(length).map(<[u32]>::to_vec).collect();
        sequences.chunks(rows).map(<[Vec<u32>]>::to_vec).collect()
    }

    /// The recorded masks, each with its complement: all draws of a row count as one term, or each by
    /// itself.
    fn coupled(&self, each: bool, weight: &masks::Weight) -> Versions {
        let draws = self.noisy();
        let (rows, count) = (self.rows.len(), draws.len());
        let mut versions = Versions::new(if each { rows * count } else { rows });
        for row in 0..rows {
            for (draw, noisy) in draws.iter().enumerate() {
                let completion = &noisy[row][self.prompt..];
                let masked: Vec<usize> =
                    (0..self.completion).filter(|&i| completion[i] == self.mask).collect();
                let of = if each { (row * count + draw, 1.0) } else { (row, 1.0 / count as f64) };
                let response = self.response(row);
                masks::push_coupled(&mut versions, response, self.mask, &masked, of, weight);
            }
        }
        versions
    }

    fn clip(&self) -> Clip {
        match self.json.get("epsilon") {
            Some(epsilon) => {
                Clip { low: epsilon.as_f64().unwrap(), high: epsilon.as_f64().unwrap() }
            }
            None => Clip { low: self.number("epsilon_low"), high: self.number("epsilon_high") },
        }
    }

    fn lengths(&self) -> Vec<usize> {
        vec![self.completion; self.rows.len()]
    }

    /// Compares what the models say with what is recorded, and the loss and its gradient.
    fn check(
        &self,
        versions: &Versions,
        names: [&str; 2],
        reference: Vec<f64>,
        old: &str,
        loss: &dyn Fn(LogProbabilities<'_>) -> Loss,
    ) {
        let model = self.json.get("model").unwrap_or(&self.json["policy_model"]);
        let mut predictor = predictor(model);
        let policy = log_probabilities(&mut predictor, versions);
        assert_near(self.id, &policy, &self.numbers(names[0]));
        assert_near(self.id, &reference, &self.numbers(names[1]));
        let old = self.numbers(old);
        // Where it does not count, there is none.
        let counted = if self.number("beta") == 0.0 { Vec::new() } else { reference };
        let of = LogProbabilities { policy: &policy, old: &old, reference: &counted };
        let found = loss(of);
        let golden = self.number("loss");
        let off = (found.value - golden).abs() / golden.abs().max(1.0);
        assert!(off <= 1e-5, "{}: loss {}, golden {golden}", self.id, found.value);
        let gradients = gradients(&mut predictor, versions, &versions.weights(&found.slopes), 3);
        let prefix = format!("{}.", self.id);
        assert_gradients(self.id, &self.file, &prefix, predictor.model(), &gradients);
        let all: Vec<&[f32]> = gradients.0.iter().collect();
        let norm = grad_norm::forward(predictor.cpu(), &all).unwrap();
        assert_close(self.id, norm, self.number("grad_norm"), 1e-4);
    }
}

fn log_probabilities(predictor: &mut MaskPredictor, versions: &Versions) -> Vec<f64> {
    let weights = vec![0.0; versions.predicted()];
    let (part, noised) = versions.part(0..versions.count(), &weights, LogitShift::Same);
    let targets = Targets {
        positions: &noised.positions,
        tokens: &noised.targets,
        weights: &weights,
        ..Targets::default()
    };
    let mut nll = Vec::new();
    predictor.nll(part.as_batch(), &targets, &mut nll).unwrap();
    versions.log_probabilities(&nll)
}

/// The gradient, so many versions at a time.
fn gradients(
    predictor: &mut MaskPredictor,
    versions: &Versions,
    weights: &[f32],
    micro: usize,
) -> Gradients {
    let mut gradients = Gradients::zeros(predictor.model());
    for start in (0..versions.count()).step_by(micro) {
        let range = start..versions.count().min(start + micro);
        let (part, noised) = versions.part(range, weights, LogitShift::Same);
        let batch = Batch { tokens: &noised.tokens, ..part.as_batch() };
        let targets = Targets {
            positions: &noised.positions,
            tokens: &noised.targets,
            weights: &noised.weights,
            ..Targets::default()
        };
        let mut nll = Vec::new();
        predictor.nll_and_gradient(batch, &targets, false, &mut nll, &mut gradients).unwrap();
    }
    gradients
}

fn assert_near(id: &str, found: &[f64], golden: &[f64]) {
    assert_eq!(found.len(), golden.len(), "{id}");
    for (found, golden) in found.iter().zip(golden) {
        assert!((found - golden).abs() <= 1e-4, "{id}: {found}, golden {golden}");
    }
}

#[test]
fn espo_is_that_of_the_official_code() {
    for json in cases("train/rl.json", 4).iter().filter(|case| case["kind"] == "espo") {
        let bytes = bytes("train/espo.safetensors");
        let case = Case::new(json, &bytes);
        let versions = case.coupled(false, &masks::bound);
        let mut reference = predictor(&json["reference_model"]);
        let reference = log_probabilities(&mut reference, &versions);
        let (advantages, lengths) = (case.numbers("advantages"), case.lengths());
        let names = ["policy_elbo", "reference_elbo"];
        case.check(&versions, names, reference, "old_elbo", &|of| {
            espo::loss(of, &advantages, &lengths, case.clip(), case.number("beta"))
        });
    }
}

#[test]
fn diffu_grpo_is_that_of_the_official_code() {
    for json in cases("train/rl.json", 4).iter().filter(|case| case["kind"] == "diffu_grpo") {
        let bytes = bytes("train/diffu_grpo.safetensors");
        let case = Case::new(json, &bytes);
        let noisy = &case.noisy()[0];
        let rows = case.rows.len();
        // Log-probabilities are recorded of all tokens, and the loss is over those that count.
        let counted = case.numbers("completion_mask");
        let versions = |counted: &dyn Fn(usize) -> usize| {
            let lengths: Vec<usize> = (0..rows).map(counted).collect();
            let mut versions = Versions::new(lengths.iter().sum());
            let mut first = 0;
            for (row, &length) in lengths.iter().enumerate() {
                let mut place = 0..case.prompt;
                let mut hides = || noisy[row][place.next().unwrap()] == case.mask;
                let (response, mask) = (case.response(row), case.mask);
                masks::push_masked_prompt(&mut versions, response, mask, length, first, &mut hides);
                first += length;
            }
            versions
        };
        let all = versions(&|_| case.completion);
        let mut policy = predictor(&json["model"]);
        assert_near(case.id, &log_probabilities(&mut policy, &all), &case.numbers("policy_logps"));
        let length = |row: usize| {
            let row = &counted[row * case.completion..][..case.completion];
            let length = row.iter().sum::<f64>() as usize;
            assert!(row[..length].iter().all(|counts| *counts == 1.0));
            length
        };
        let is_counted: Vec<bool> = counted.iter().map(|counts| *counts == 1.0).collect();
        let of_counted = |name: &str| -> Vec<f64> {
            let all = case.numbers(name).into_iter().zip(&is_counted);
            all.filter(|(_, counts)| **counts).map(|(x, _)| x).collect()
        };
        let versions = versions(&length);
        let mut predictor = predictor(&json["model"]);
        let policy = log_probabilities(&mut predictor, &versions);
        let (old, reference) = (of_counted("old_logps"), of_counted("reference_logps"));
        let advantages = case.numbers("advantages").into_iter().enumerate();
        let advantages: Vec<f64> =
            advantages.flat_map(|(row, a)| std::iter::repeat_n(a, length(row))).collect();
        let of = LogProbabilities { policy: &policy, old: &old, reference: &reference };
        let found = diffu_grpo::loss(of, &advantages, case.clip(), case.number("beta"));
        let golden = case.number("loss");
        assert!((found.value - golden).abs() <= 1e-5, "{}: {} {golden}", case.id, found.value);
        let gradients = gradients(&mut predictor, &versions, &versions.weights(&found.slopes), 2);
        let prefix = format!("{}.", case.id);
        assert_gradients(case.id, &case.file, &prefix, predictor.model(), &gradients);
        let all: Vec<&[f32]> = gradients.0.iter().collect();
        let norm = grad_norm::forward(predictor.cpu(), &all).unwrap();
        assert_close(case.id, norm, case.number("grad_norm"), 1e-4);
    }
}

#[test]
fn gdsd_is_that_of_the_official_code() {
    for json in &cases("train/gdsd.json", 2) {
        let bytes = bytes("train/gdsd.safetensors");
        let case = Case::new(json, &bytes);
        let versions = case.coupled(true, &masks::even);
        let mut reference = predictor(&json["reference_model"]);
        let reference = log_probabilities(&mut reference, &versions);
        let (advantages, lengths) = (case.numbers("advantages"), case.lengths());
        let settings = gdsd::Settings {
            clip: case.clip(),
            psi: case.number("psi"),
            beta: case.number("beta"),
        };
        let kl = json["metrics"]["kl"].as_f64().unwrap_or(0.0);
        case.check(&versions, ["policy_elbo", "ref_elbo"], reference, "old_elbo", &|of| {
            let found = gdsd::loss(of, &advantages, &lengths, settings);
            assert!((found.kl - kl).abs() < 1e-6, "{} {kl}", found.kl);
            found
        });
    }
}
