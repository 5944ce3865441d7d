//! Losses, gradients and optimiser steps against those of the official code.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{
    bytes, cases,
    golden::{self, is_own_set},
    golden_f32, golden_u32,
    gradients::{assert_close, assert_gradients},
    json, size,
};
use llada::{
    checkpoint,
    config::Objective,
    diffusion::{forward, forward::Noised, loss},
    model::{Batch, Gradients, Layout, MaskPredictor, Model, Targets, balance_loss},
};
use llada_kernels::{
    Cpu,
    adamw::{AdamW, Parameter, Step},
    grad_norm,
};
use safetensors::SafeTensors;
use serde_json::Value;

fn load(name: &str) -> Model {
    checkpoint::load(&golden::model(name)).unwrap().into_trainable()
}

fn starts(shape: &[usize]) -> Vec<usize> {
    (0..=shape[0]).map(|sequence| sequence * shape[1]).collect()
}

/// Loss and gradients of `noised` under `weights`.
fn step(
    predictor: &mut MaskPredictor,
    noised: &Noised,
    weights: &[f32],
    starts: &[usize],
    recompute: bool,
) -> (f64, Gradients) {
    step_balanced(predictor, noised, weights, starts, recompute, 0.0)
}

/// The same, where the load-balancing loss of the experts counts by `balance`.
fn step_balanced(
    predictor: &mut MaskPredictor,
    noised: &Noised,
    weights: &[f32],
    starts: &[usize],
    recompute: bool,
    balance: f64,
) -> (f64, Gradients) {
    let mut gradients = Gradients::zeros(predictor.model());
    let mut nll = Vec::new();
    let batch = Batch { tokens: &noised.tokens, starts, attention_mask: None };
    let (positions, tokens) = (&noised.positions, &noised.targets);
    let targets = Targets { positions, tokens, weights, balance, ..Targets::default() };
    predictor.nll_and_gradient(batch, &targets, recompute, &mut nll, &mut gradients).unwrap();
    let mut again = Vec::new();
    predictor.nll(batch, &targets, &mut again).unwrap();
    assert_eq!(nll, again, "the loss without gradients is the same");
    let balanced = balance * balance_loss(predictor.loads());
    (loss::value(weights, &nll) + balanced, gradients)
}

/// The noisy batch of a recorded case, made by the library from the recorded draws.
fn noised(file: &SafeTensors<'_>, mask: u32) -> (Noised, Vec<usize>) {
    let (shape, tokens) = golden_u32(file, "input_ids").unwrap();
    let (_, t) = golden_f32(file, "t").unwrap();
    let (_, u) = golden_f32(file, "u").unwrap();
    let t: Vec<f64> = t.iter().map(|&t| f64::from(t)).collect();
    let prompts: Vec<usize> = golden_u32(file, "prompt_lengths")
        .map_or(Vec::new(), |(_, lengths)| lengths.iter().map(|&n| n as usize).collect());
    let mut draws = u.iter().map(|&u| f64::from(u));
    let mut draw = |_| draws.next().unwrap();
    let starts = starts(&shape);
    let noised = forward::noise_response(&tokens, &starts, &prompts, &t, 1e-3, mask, &mut draw);
    assert_eq!(noised.tokens, golden_u32(file, "noisy").unwrap().1);
    (noised, starts)
}

#[test]
fn losses_and_gradients() {
    let cases = json("train/cases.json");
    for case in cases.as_array().unwrap() {
        let (id, kind) = (case["id"].as_str().unwrap(), case["kind"].as_str().unwrap());
        if kind == "adamw" {
            continue; // `adamw_steps` is that case.
        }
        let bytes = bytes(&format!("train/{id}.safetensors"));
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let mut model = load(case["model"].as_str().unwrap());
        let mask = model.config.tokens.mask.unwrap();
        let (noised, starts, weights) = if kind == "ar_next_token" {
            model.config = model.config.with_objective(Objective::Autoregressive);
            let (shape, tokens) = golden_u32(&file, "input_ids").unwrap();
            let starts = starts(&shape);
            let next = loss::autoregressive(&tokens, &starts);
            let weights = next.weights.clone();
            (next, starts, weights)
        } else {
            let (noised, starts) = noised(&file, mask);
            let weights = match golden_u32(&file, "answer_lengths") {
                Some((_, lengths)) => {
                    let lengths: Vec<usize> = lengths.iter().map(|&n| n as usize).collect();
                    loss::sft_weights(&noised, &lengths)
                }
                None => loss::pretrain_weights(&noised, noised.tokens.len()),
            };
            (noised, starts, weights)
        };
        let mut predictor = MaskPredictor::new(model, Cpu::new(2).unwrap()).unwrap();
        let (value, gradients) = step(&mut predictor, &noised, &weights, &starts, false);
        assert_close(id, value, case["loss"].as_f64().unwrap(), 1e-5);
        assert_gradients(id, &file, "", predictor.model(), &gradients);
        let all: Vec<&[f32]> = gradients.0.iter().collect();
        let golden = case["grad_norm"].as_f64();
        if let Some(golden) = golden.filter(|_| kind == "pretrain" || kind == "sft") {
            let norm = grad_norm::forward(predictor.cpu(), &all).unwrap();
            assert_close(id, norm, golden, 1e-4);
        }
        let (again, recomputed) = step(&mut predictor, &noised, &weights, &starts, true);
        assert_eq!(value, again);
        assert_eq!(gradients.0, recomputed.0, "{id}: recomputing activations changes no bit");
    }
}

/// Experts with and without the load-balancing loss; those that no token chose get no gradient.
#[test]
fn losses_and_gradients_of_experts() {
    for case in cases("train/moe.json", 2) {
        let id = case["id"].as_str().unwrap();
        let bytes = bytes(&format!("train/{id}.safetensors"));
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let model = load(case["model"].as_str().unwrap());
        let (noised, starts) = noised(&file, size(&case["mask_id"]) as u32);
        let weights = loss::pretrain_weights(&noised, noised.tokens.len());
        let mut predictor = MaskPredictor::new(model, Cpu::new(2).unwrap()).unwrap();
        let balance = case["router_aux_loss_coef"].as_f64().unwrap();
        let mut step = |recompute| {
            step_balanced(&mut predictor, &noised, &weights, &starts, recompute, balance)
        };
        let (value, gradients) = step(false);
        let (again, recomputed) = step(true);
        assert_eq!(value, again);
        assert_eq!(gradients.0, recomputed.0, "{id}: recomputing activations changes no bit");
        assert_close(id, value, case["loss"].as_f64().unwrap(), 1e-5);
        if let Some(golden) = case["aux_loss"].as_f64() {
            assert_close(id, balance_loss(predictor.loads()), golden, 1e-5);
        }
        assert_gradients(id, &file, "", predictor.model(), &gradients);
        let all: Vec<&[f32]> = gradients.0.iter().collect();
        let norm = grad_norm::forward(predictor.cpu(), &all).unwrap();
        assert_close(id, norm, case["grad_norm"].as_f64().unwrap(), 1e-4);
    }
}

#[test]
fn adamw_steps() {
    let cases = json("train/cases.json");
    let runs: Vec<_> =
        cases.as_array().unwrap().iter().filter(|case| case["kind"] == "adamw").collect();
    assert!(runs.len() == 1 || !is_own_set(), "{} runs", runs.len());
    runs.into_iter().for_each(replay_adamw);
}

fn replay_adamw(case: &Value) {
    let bytes = bytes(&format!("train/{}.safetensors", case["id"].as_str().unwrap()));
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let model = load(case["model"].as_str().unwrap());
    let mask = model.config.tokens.mask.unwrap();
    let layout = Layout::new(&model.config);
    let mut moments = [Gradients::zeros(&model), Gradients::zeros(&model)];
    let mut predictor = MaskPredictor::new(model, Cpu::new(2).unwrap()).unwrap();
    let constant = |name: &str, usual: f64| case[name].as_f64().unwrap_or(usual);
    let adamw = AdamW {
        beta1: case["betas"][0].as_f64().unwrap_or(0.9),
        beta2: case["betas"][1].as_f64().unwrap_or(0.95),
        eps: constant("eps", 1e-8),
        weight_decay: constant("weight_decay", 0.1),
    };
    for (n, recorded) in case["curve"].as_array().unwrap().iter().enumerate() {
        let (shape, tokens) = golden_u32(&file, &format!("s{n}.input_ids")).unwrap();
        let (_, noisy) = golden_u32(&file, &format!("s{n}.noisy")).unwrap();
        let (_, p) = golden_f32(&file, &format!("s{n}.p_mask")).unwrap();
        let positions: Vec<usize> = (0..noisy.len()).filter(|&i| noisy[i] == mask).collect();
        let noised = Noised {
            targets: positions.iter().map(|&i| tokens[i]).collect(),
            weights: positions.iter().map(|&i| 1.0 / p[i]).collect(),
            sequences: positions.iter().map(|&i| i / shape[1]).collect(),
            positions,
            tokens: noisy,
        };
        let weights = loss::pretrain_weights(&noised, tokens.len());
        let (value, gradients) = step(&mut predictor, &noised, &weights, &starts(&shape), false);
        let all: Vec<&[f32]> = gradients.0.iter().collect();
        let norm = grad_norm::forward(predictor.cpu(), &all).unwrap();
        assert_close("loss", value, recorded["loss"].as_f64().unwrap(), 1e-4);
        let golden = recorded["grad_norm_before_clip"].as_f64().unwrap();
        assert_close("gradient norm", norm, golden, 1e-3);
        let clip = (constant("clip", 1.0) / (norm + 1e-6)).min(1.0) as f32;
        let lr = recorded["lr"].as_f64().unwrap();
        let cpu = predictor.cpu().clone();
        let [m, v] = &mut moments;
        let parameter = Parameter {
            value: predictor.model_mut().tensors.flatten().values_mut(),
            grad: gradients.0.values(),
            mean: m.0.values_mut(),
            square: v.0.values_mut(),
        };
        let step = Step { number: n as u64 + 1, lr, grad_scale: clip };
        adamw.step(&cpu, step, parameter).unwrap();
    }
    let mut compared = 0;
    for (spec, tensor) in layout.specs().iter().zip(predictor.model().tensors.iter()) {
        let Some((_, expected)) = golden_f32(&file, &format!("final.{}", spec.name)) else {
            continue;
        };
        compared += 1;
        let found = tensor.to_f32();
        for (a, b) in found.iter().zip(&expected) {
            assert!((a - b).abs() <= 1e-5, "{}: {a} {b}", spec.name);
        }
    }
    let recorded = file.names().iter().filter(|name| name.starts_with("final.")).count();
    assert_eq!(compared, recorded, "every recorded weight is compared");
}

#[test]
fn the_gradient_is_the_slope_of_the_loss() {
    let models = golden::MODELS.into_iter().filter(|golden| golden.shards == 1);
    let pairs = models.map(|golden| (golden.name, Objective::Diffusion));
    for (name, objective) in pairs.chain([("d_qkvbias_qknorm", Objective::Autoregressive)]) {
        let mut model = checkpoint::load(&golden::own_model(name)).unwrap().into_trainable();
        model.config = model.config.with_objective(objective);
        model.config.scale_logits = true;
        model.config.input_emb_norm = name == "b_gqa_tied";
        let tokens: Vec<u32> = (0..11).map(|i| (i * 37 + 3) % 150).collect();
        let starts = [0, 4, 11];
        let next = loss::autoregressive(&tokens, &starts);
        let mut predictor = MaskPredictor::new(model, Cpu::new(2).unwrap()).unwrap();
        let (_, gradients) = step(&mut predictor, &next, &next.weights, &starts, false);
        for (id, gradient) in gradients.0.iter().enumerate() {
            // Along the gradient itself the slope is its squared norm.
            let norm2: f64 = gradient.iter().map(|&g| f64::from(g).powi(2)).sum();
            if norm2 < 1e-8 {
                continue;
            }
            let h = 1e-3 / norm2.sqrt();
            let mut at = |sign: f64| {
                let values = &mut predictor.model_mut().tensors.flatten()[id];
                let before = values.to_vec();
                for (v, &g) in values.iter_mut().zip(gradient) {
                    *v += (sign * h * f64::from(g)) as f32;
                }
                let (value, _) = step(&mut predictor, &next, &next.weights, &starts, false);
                predictor.model_mut().tensors.set(id, before);
                value
            };
            let slope = (at(1.0) - at(-1.0)) / (2.0 * h);
            let off = (slope - norm2).abs() / norm2;
            assert!(off < 0.03, "{name} tensor {id}: slope {slope}, gradient {norm2}");
        }
    }
}
