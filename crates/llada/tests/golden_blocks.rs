//! Losses and gradients of block diffusion against those of the official code of LLaDA2, SDAR and BD3LM.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{bytes, cases, golden, golden_f32, golden_u32, size, tensor};
use llada::{
    checkpoint,
    config::{AttentionMask, LogitShift},
    diffusion::{
        forward::{self, Noised},
        loss::{self, Normalisation},
    },
    model::{Batch, Feed, Gradients, Layout, MaskPredictor, Model, Targets},
};
use llada_kernels::{Cpu, grad_norm};
use safetensors::SafeTensors;
use serde_json::Value;

/// A case: noisy sequences, not yet paired, and how their loss is made.
struct Case {
    id: String,
    clean: Vec<u32>,
    starts: Vec<usize>,
    noised: Noised,
    /// What is predicted is shifted by one.
    shift: LogitShift,
    by: Normalisation,
    /// Tokens of each sequence that can be masked.
    answers: Vec<usize>,
    excluded: Option<u32>,
    cap: f64,
}

impl Case {
    fn model(&self, golden: &Value) -> Model {
        let folder = golden::model(golden["model"].as_str().unwrap());
        let mut model = checkpoint::load(&folder).unwrap().into_trainable();
        let block_length = size(&golden["block_size"]);
        model.config.attention = AttentionMask::BlockCausal { block_length };
        model
    }

    /// Compares loss and gradients with those of `file`, whose names begin with `prefix`.
    fn compare(mut self, golden: &Value, file: &SafeTensors<'_>, prefix: &str) {
        let model = self.model(golden);
        self.noised.shift(self.shift, &self.starts);
        let masked = self.noised.positions.len();
        let weights = loss::normalised(&self.noised, self.by, &self.answers, masked);
        let starts = self.noised.pair(&self.clean, &self.starts);
        let mut predictor = MaskPredictor::new(model, Cpu::new(2).unwrap()).unwrap();
        let mut step = |recompute| {
            let mut gradients = Gradients::zeros(predictor.model());
            let batch =
                Batch { tokens: &self.noised.tokens, starts: &starts, attention_mask: None };
            let (positions, tokens) = (&self.noised.positions, &self.noised.targets);
            let (excluded, cap) = (self.excluded, self.cap);
            let weights = &weights;
            let targets = Targets { positions, tokens, weights, balance: 0.0, excluded, cap };
            let (mut nll, mut again) = (Vec::new(), Vec::new());
            let feed = Feed::pairs(batch);
            predictor
                .nll_and_gradient(feed, &targets, recompute, &mut nll, &mut gradients)
                .unwrap();
            let entropy = predictor.mean_entropy();
            predictor.nll(feed, &targets, &mut again).unwrap();
            assert_eq!(nll, again, "the loss without gradients is the same");
            (loss::value(weights, &nll) + cap * entropy, entropy, gradients)
        };
        let (value, entropy, gradients) = step(false);
        let (again, _, recomputed) = step(true);
        assert_eq!(value, again);
        assert_eq!(gradients.0, recomputed.0, "{}: recomputing changes no bit", self.id);
        assert_close(&self.id, value, golden["loss"].as_f64().unwrap(), 1e-5);
        if let Some(golden) = golden["confidence_loss"].as_f64() {
            assert_close(&self.id, entropy, golden, 1e-5);
        }
        self.compare_gradients(predictor.model(), &gradients, file, prefix);
        let all: Vec<&[f32]> = gradients.0.iter().collect();
        let norm = grad_norm::forward(predictor.cpu(), &all).unwrap();
        assert_close(&self.id, norm, golden["grad_norm"].as_f64().unwrap(), 1e-4);
    }

    /// Every gradient that the file records, within 1e-4 of the tensor's largest.
    fn compare_gradients(
        &self,
        model: &Model,
        gradients: &Gradients,
        file: &SafeTensors<'_>,
        prefix: &str,
    ) {
        let (id, mut compared) = (&self.id, 0);
        let prefix = format!("{prefix}grad.");
        for (spec, gradient) in Layout::new(&model.config).specs().iter().zip(&gradients.0) {
            let Some((_, mut expected)) = golden_f32(file, &format!("{prefix}{}", spec.name))
            else {
                continue;
            };
            if let Some(fused) = spec.fused {
                let first = fused.first * spec.shape[1];
                expected = expected[first..first + spec.len()].to_vec();
            }
            let largest = expected.iter().fold(0.0f32, |a, x| a.max(x.abs()));
            for (i, (found, expected)) in gradient.iter().zip(&expected).enumerate() {
                let off = (found - expected).abs();
                assert!(off <= 1e-4 * largest, "{id} {} [{i}]: {found} {expected}", spec.name);
            }
            compared += usize::from(spec.begins_tensor());
        }
        let recorded = file.names().iter().filter(|name| name.starts_with(&prefix)).count();
        assert!(compared == recorded && compared > 0, "{id}: {compared} of {recorded} gradients");
    }
}

fn assert_close(what: &str, found: f64, expected: f64, relative: f64) {
    let off = (found - expected).abs() / expected.abs();
    assert!(off <= relative, "{what}: {found}, golden {expected}, off by {off:e}");
}

fn numbers(file: &SafeTensors<'_>, name: &str) -> Vec<f64> {
    tensor(file, name).unwrap_or_else(|| panic!("no {name}")).1
}

fn lengths(file: &SafeTensors<'_>, name: &str) -> Vec<usize> {
    numbers(file, name).iter().map(|&n| n as usize).collect()
}

/// Masks as recorded uniform draws say, each below a level `p(index in the batch)`, and weighs by
/// `weight(p)`.
fn mask(
    clean: &[u32],
    starts: &[usize],
    prompts: &[usize],
    mask: u32,
    u: &[f64],
    p: impl Fn(usize) -> f64,
    weight: impl Fn(f64) -> f64,
) -> Noised {
    let mut place = 0;
    forward::choose(clean, starts, prompts, mask, &mut |_, _| {
        let (u, p) = (u[place], p(place));
        place += 1;
        (u < p).then(|| weight(p))
    })
}

#[test]
fn llada2_sdar_and_bd3lm() {
    for case in cases("train/block_diffusion.json", 6) {
        let id = case["id"].as_str().unwrap().to_owned();
        let bytes = bytes(&format!("train/{id}.safetensors"));
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let (shape, clean) = golden_u32(&file, "input_ids").unwrap();
        let mask_id = size(&case["mask_id"]) as u32;
        let mut starts: Vec<usize> = (0..=shape[0]).map(|row| row * shape[1]).collect();
        let (shift, cap) = (LogitShift::Same, 0.0);
        let case_of = match case["source"].as_str().unwrap() {
            source if source.starts_with("dFactory") => {
                let prompts = lengths(&file, "prompt_lengths");
                let (t, u) = (numbers(&file, "t"), numbers(&file, "u"));
                let t = |i: usize| t[i / shape[1]];
                let mut noised = mask(&clean, &starts, &prompts, mask_id, &u, t, |_| 1.0);
                assert_eq!(noised.tokens, golden_u32(&file, "noisy").unwrap().1);
                let shifted = case["same_token_labels"] == false;
                let shift = if shifted { LogitShift::Next } else { shift };
                if shifted {
                    // Nothing predicts the first token of a sequence.
                    let keep: Vec<bool> =
                        noised.positions.iter().map(|i| !starts.contains(i)).collect();
                    keep_where(&mut noised, &keep);
                }
                let cap = case["confidence_beta"].as_f64().unwrap();
                let by = Normalisation::Masked;
                Case { id, clean, starts, noised, shift, by, answers: vec![], excluded: None, cap }
            }
            source if source.starts_with("SDAR") => {
                let packed = case["packed"].as_array().unwrap();
                let documents = packed.iter().flat_map(|row| row.as_array().unwrap().iter());
                let documents: Vec<usize> = documents.map(size).collect();
                starts = documents.iter().fold(vec![0], |mut starts, n| {
                    starts.push(starts[starts.len() - 1] + n);
                    starts
                });
                let draws = |name: &str| -> Vec<f64> {
                    (0..shape[0]).flat_map(|row| numbers(&file, &format!("{name}_{row}"))).collect()
                };
                let (t, u) = (draws("t"), draws("u"));
                let prompt_mask = numbers(&file, "prompt_mask");
                let prompts: Vec<usize> = starts
                    .windows(2)
                    .map(|b| prompt_mask[b[0]..b[1]].iter().filter(|&&p| p == 1.0).count())
                    .collect();
                let answers: Vec<usize> =
                    documents.iter().zip(&prompts).map(|(n, prompt)| n - prompt).collect();
                let document = |i: usize| starts.partition_point(|&start| start <= i) - 1;
                let p = |i: usize| forward::masking_probability(t[document(i)], 1e-3);
                let noised = mask(&clean, &starts, &prompts, mask_id, &u, p, |p| 1.0 / p);
                // Packed documents are as many sequences, in the order of the official layout.
                let mut concatenated = noised.clone();
                concatenated.pair(&clean, &starts);
                assert_eq!(concatenated.tokens, golden_u32(&file, "concat_input_ids").unwrap().1);
                let by = Normalisation::Tokens;
                Case { id, clean, starts, noised, shift, by, answers, excluded: None, cap }
            }
            _ => {
                let (t, u) = (numbers(&file, "t"), numbers(&file, "u"));
                let noised = mask(&clean, &starts, &[], mask_id, &u, |i| t[i], |p| 1.0 / p);
                assert_eq!(noised.tokens, golden_u32(&file, "noisy").unwrap().1);
                let answers = vec![shape[1]; shape[0]];
                let (by, excluded) = (Normalisation::Tokens, Some(mask_id));
                Case { id, clean, starts, noised, shift, by, answers, excluded, cap }
            }
        };
        case_of.compare(&case, &file, "");
    }
}

#[test]
fn dense_models() {
    let all = cases("train/block_diffusion_dense.json", 3);
    if all.is_empty() {
        return;
    }
    let bytes = bytes("train/block_diffusion_dense.safetensors");
    let file = SafeTensors::deserialize(&bytes).unwrap();
    for case in all {
        let id = case["id"].as_str().unwrap().to_owned();
        let name = |what: &str| format!("{id}.{what}");
        let (shape, clean) = golden_u32(&file, &name("input_ids")).unwrap();
        let starts: Vec<usize> = (0..=shape[0]).map(|row| row * shape[1]).collect();
        let prompts: Vec<usize> =
            case["prompt_lengths"].as_array().unwrap().iter().map(size).collect();
        let (t, u) = (numbers(&file, &name("t")), numbers(&file, &name("u")));
        let is_weighted = case["weight"] != "none";
        let weight = |p: f64| if is_weighted { 1.0 / (p + 1e-6) } else { 1.0 };
        let folder = golden::model(case["model"].as_str().unwrap());
        let mask_id = checkpoint::load_config(&folder).unwrap().tokens.mask.unwrap();
        let t = |i: usize| t[i / shape[1]];
        let noised = mask(&clean, &starts, &prompts, mask_id, &u, t, weight);
        assert_eq!(noised.tokens, golden_u32(&file, &name("noisy_input_ids")).unwrap().1);
        let by = match case["normalisation"].as_str().unwrap() {
            "token" => Normalisation::Tokens,
            "sequence" => Normalisation::Sequence,
            _ => Normalisation::Batch,
        };
        let answers = prompts.iter().map(|prompt| shape[1] - prompt).collect();
        let (shift, excluded, prefix) = (LogitShift::Same, None, name(""));
        let case_of = Case { id, clean, starts, noised, shift, by, answers, excluded, cap: 0.0 };
        case_of.compare(&case, &file, &prefix);
    }
}

fn keep_where(noised: &mut Noised, keep: &[bool]) {
    fn kept<T: Copy>(all: &mut Vec<T>, keep: &[bool]) {
        let mut flags = keep.iter();
        all.retain(|_| *flags.next().unwrap());
    }
    kept(&mut noised.positions, keep);
    kept(&mut noised.targets, keep);
    kept(&mut noised.weights, keep);
    kept(&mut noised.sequences, keep);
}
