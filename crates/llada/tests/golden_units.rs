//! The small functions of the sampler against the tables of the reference.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{bytes, ids, json, size, tensor};
use llada::diffusion::{likelihood, sample, transfer::Schedule};
use safetensors::SafeTensors;

#[test]
fn transfer_schedules() {
    let units = json("units.json");
    for case in units["num_transfer_tokens"].as_array().unwrap() {
        let schedule = Schedule { masks: size(&case["masks"]), steps: size(&case["steps"]) };
        let shares: Vec<u32> = (0..schedule.steps).map(|i| schedule.tokens(i) as u32).collect();
        assert_eq!(shares, ids(&case["out"]), "{schedule:?}");
    }
}

#[test]
fn likelihood_mask_counts() {
    let units = json("units.json");
    for case in units["loglik_mask_counts"].as_array().unwrap() {
        let length = size(&case["target_len"]);
        let counts = likelihood::mask_counts(length, size(&case["batch"]), size(&case["k"]));
        let expected: Vec<usize> =
            ids(&case["mask_counts"]).into_iter().map(|m| m as usize).collect();
        assert_eq!(counts, expected, "{case}");
        for (&count, p) in counts.iter().zip(case["p_mask"].as_array().unwrap()) {
            assert_eq!(count as f32 / length as f32, p.as_f64().unwrap() as f32);
        }
    }
}

#[test]
fn gumbel_max_choices() {
    let file = bytes("units.safetensors");
    let file = SafeTensors::deserialize(&file).unwrap();
    let (shape, logits) = tensor(&file, "gumbel.logits").unwrap();
    let logits: Vec<f32> = logits.iter().map(|&l| l as f32).collect();
    let uniforms = tensor(&file, "gumbel.uniform").unwrap().1;
    let vocabulary = shape[2];
    let names = file.names();
    let temperatures: Vec<(&str, f64)> = names
        .iter()
        .filter_map(|name| Some((*name, name.strip_prefix("gumbel.argmax_T")?)))
        .map(|(name, temperature)| (name, temperature.parse().unwrap()))
        .collect();
    assert!(!temperatures.is_empty());
    for (name, temperature) in temperatures {
        let expected = tensor(&file, name).unwrap().1;
        for (i, expected) in expected.into_iter().enumerate() {
            let row = i * vocabulary..(i + 1) * vocabulary;
            let token = sample::gumbel_max(&logits[row.clone()], temperature, &uniforms[row]);
            assert_eq!(token as f64, expected, "temperature {temperature}, row {i}");
        }
    }
}
