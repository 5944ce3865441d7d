//! The forward process and the weights of the losses against the reference's training batches.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{bytes, golden::is_own_set, json, tensor};
use llada::diffusion::{
    forward::{Noised, noise, noise_response},
    loss,
};
use safetensors::SafeTensors;

/// One recorded batch.
struct Case {
    noised: Noised,
    tokens: usize,
    answer_lengths: Vec<usize>,
}

/// Noises the batch of a case with the recorded draws and compares x_t.
fn replay(id: &str, mask: u32) -> Case {
    let file = bytes(&format!("train/{id}.safetensors"));
    let file = SafeTensors::deserialize(&file).unwrap();
    let numbers = |name: &str| tensor(&file, name).unwrap();
    let ids = |name: &str| numbers(name).1.into_iter().map(|id| id as u32).collect::<Vec<_>>();
    let lengths = |name: &str| -> Vec<usize> {
        let lengths = tensor(&file, name).map(|(_, values)| values).unwrap_or_default();
        lengths.into_iter().map(|length| length as usize).collect()
    };
    let (shape, u) = numbers("u");
    let starts: Vec<usize> = (0..=shape[0]).map(|sequence| sequence * shape[1]).collect();
    let (tokens, t) = (ids("input_ids"), numbers("t").1);
    let (prompts, mut draws) = (lengths("prompt_lengths"), u.into_iter());
    let mut draw = |_| draws.next().unwrap();
    let noised = match prompts.is_empty() {
        true => noise(&tokens, &starts, &t, 1e-3, mask, &mut draw),
        false => noise_response(&tokens, &starts, &prompts, &t, 1e-3, mask, &mut draw),
    };
    assert_eq!(noised.tokens, ids("noisy"), "{id}");
    let masked = numbers("masked").1;
    let masked: Vec<usize> = (0..tokens.len()).filter(|&i| masked[i] != 0.0).collect();
    assert_eq!(noised.positions, masked, "{id}");
    Case { noised, tokens: tokens.len(), answer_lengths: lengths("answer_lengths") }
}

#[test]
fn noise_and_losses() {
    let cases = json("train/cases.json");
    let kinds = ["pretrain", "sft"];
    let cases: Vec<_> = cases
        .as_array()
        .unwrap()
        .iter()
        .filter(|case| kinds.contains(&case["kind"].as_str().unwrap()))
        .collect();
    assert!(cases.len() == 6 || !is_own_set() && !cases.is_empty(), "{} cases", cases.len());
    for case in cases {
        let id = case["id"].as_str().unwrap();
        let config = json(&format!("models/{}/config.json", case["model"].as_str().unwrap()));
        let replayed = replay(id, config["mask_token_id"].as_u64().unwrap() as u32);
        let Case { noised, tokens, answer_lengths } = &replayed;
        let file = bytes(&format!("train/{id}.safetensors"));
        let file = SafeTensors::deserialize(&file).unwrap();
        let Some((_, over_p)) = tensor(&file, "token_loss_over_p") else { continue };
        let nll: Vec<f32> =
            over_p.iter().zip(&noised.weights).map(|(&l, &w)| l as f32 / w).collect();
        let weights = match answer_lengths.is_empty() {
            true => loss::pretrain_weights(noised, *tokens),
            false => loss::sft_weights(noised, answer_lengths),
        };
        let expected = case["loss"].as_f64().unwrap();
        let found = loss::value(&weights, &nll);
        assert!((found / expected - 1.0).abs() < 1e-6, "{id}: {found} and not {expected}");
    }
}
