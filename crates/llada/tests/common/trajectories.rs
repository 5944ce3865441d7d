//! Replays the official trajectories: every state of every sequence, decision by decision.
#![allow(unreachable_pub)]

use std::ops::ControlFlow;

use llada::{
    config::{AttentionMask, SpecialTokens},
    diffusion::{Blocks, Canvas, Predictor, Prompt, Sampler, generate, sample::Draws},
};
use safetensors::SafeTensors;
use serde_json::Value;

use crate::common::{bytes, cases, golden::fixture, ids, json, sequences, size, tensor};

/// The reference's random numbers for one sequence.
struct Recorded {
    sequence: usize,
    /// [steps, sequences, positions]
    confidence: Option<(Vec<usize>, Vec<f64>)>,
    /// [steps, sequences, positions, vocabulary]
    uniforms: Option<(Vec<usize>, Vec<f64>)>,
}

impl Draws for Recorded {
    fn token_uniforms(&self, step: usize, position: usize, out: &mut [f64]) {
        let (shape, values) = self.uniforms.as_ref().expect("recorded noise");
        assert_eq!(shape[3], out.len());
        let start = ((step * shape[1] + self.sequence) * shape[2] + position) * shape[3];
        out.copy_from_slice(&values[start..start + out.len()]);
    }

    fn confidence(&self, step: usize, position: usize) -> f32 {
        let (shape, values) = self.confidence.as_ref().expect("recorded confidences");
        values[(step * shape[1] + self.sequence) * shape[2] + position] as f32
    }
}

/// Replays all cases, with the predictor that `load` gives for the name of a model.
pub fn replay_all<P: Predictor>(load: impl Fn(&str) -> P) {
    // A set in which nothing is random has no draws.
    let draws = std::fs::read(fixture("generate/random_draws.safetensors")).ok();
    let draws = draws.as_ref().map(|draws| SafeTensors::deserialize(draws).unwrap());
    for case in cases("generate/official.json", 29) {
        replay(&case, draws.as_ref(), &mut load(case["model"].as_str().unwrap()));
    }
}

/// Replays the cases of LLaDA-MoE, which has LLaDA's sampler.
pub fn replay_moe<P: Predictor>(load: impl Fn(&str) -> P) {
    for case in cases("generate/llada_moe.json", 11) {
        replay(&case, None, &mut load(case["model"].as_str().unwrap()));
    }
}

/// Replays the greedy continuations of the autoregressive baseline that there are, and counts them.
pub fn replay_greedy<P: Predictor>(load: impl Fn(&str) -> P) -> usize {
    let cases = json("train/cases.json");
    let cases = cases.as_array().unwrap().iter().filter(|case| case["kind"] == "ar_next_token");
    let mut replayed = 0;
    for case in cases {
        let (id, model) = (case["id"].as_str().unwrap(), case["model"].as_str().unwrap());
        let file = bytes(&format!("train/{id}.safetensors"));
        let file = SafeTensors::deserialize(&file).unwrap();
        if let Some((_, sequence)) = tensor(&file, "greedy_from_first6_of_row0") {
            replay_continuation(&mut load(model), id, sequence);
            replayed += 1;
        }
    }
    replayed
}

/// The continuation of the first 6 tokens of `sequence`.
fn replay_continuation(predictor: &mut impl Predictor, case: &str, sequence: Vec<f64>) {
    let expected: Vec<u32> = sequence.into_iter().map(|id| id as u32).collect();
    let sampler = Sampler {
        gen_length: expected.len() - 6,
        blocks: Blocks::Autoregressive,
        ..Sampler::exact()
    };
    let prompt = Prompt::from(expected[..6].to_vec());
    let special = SpecialTokens::default();
    let canvas = Canvas::new(prompt, &sampler, &special, AttentionMask::Causal).unwrap();
    let mut canvases = [canvas];
    generate::run(predictor, &mut canvases, &mut |_, _| ControlFlow::Continue(())).unwrap();
    assert_eq!(canvases[0].tokens(), expected, "{case}");
}

fn sampler(params: &Value) -> Sampler {
    let flag = |name: &str| params[name].as_bool().unwrap_or(false);
    let (gen_length, block_length) = (size(&params["gen_length"]), size(&params["block_length"]));
    Sampler {
        steps: size(&params["steps"]),
        gen_length,
        block_length,
        temperature: params["temperature"].as_f64().unwrap(),
        cfg_scale: params["cfg_scale"].as_f64().unwrap() as f32,
        remasking: params["remasking"].as_str().unwrap().parse().unwrap(),
        blocks: match gen_length == block_length {
            true => Blocks::Pure,
            false => Blocks::SemiAutoregressive,
        },
        logits_eos_inf: flag("logits_eos_inf"),
        confidence_eos_eot_inf: flag("confidence_eos_eot_inf"),
        ..Sampler::exact()
    }
}

fn replay(case: &Value, draws: Option<&SafeTensors<'_>>, predictor: &mut impl Predictor) {
    let id = case["id"].as_str().unwrap();
    let sampler = sampler(&case["params"]);
    let token = |name: &str| case[name].as_u64().map(|id| id as u32);
    let special = SpecialTokens {
        mask: token("mask_id"),
        eos: token("eos_id"),
        eot: token("eot_id"),
        ..SpecialTokens::default()
    };
    let mut canvases: Vec<Canvas> = sequences(&case["prompt"])
        .into_iter()
        .enumerate()
        .map(|(sequence, tokens)| {
            let padding = match &case["attention_mask"] {
                Value::Null => 0,
                masks => {
                    ids(&masks[sequence]).iter().take_while(|attended| **attended == 0).count()
                }
            };
            let draws_of = |kind: &str| tensor(draws?, &format!("{id}.{kind}"));
            let (confidence, uniforms) = (draws_of("rand"), draws_of("uniform_noise_f64"));
            let recorded = Recorded { sequence, confidence, uniforms };
            let prompt = Prompt { tokens, padding };
            let attention = AttentionMask::Bidirectional;
            Canvas::with_draws(prompt, &sampler, &special, attention, Box::new(recorded)).unwrap()
        })
        .collect();

    let states: Vec<Vec<Vec<u32>>> =
        case["states"].as_array().unwrap().iter().map(sequences).collect();
    let mut current: Vec<Vec<u32>> = canvases.iter().map(|c| c.tokens().to_vec()).collect();
    assert_eq!(current, states[0], "{id}: start");
    // Steps that commit nothing are passed over: the state stays until a later step changes it.
    let mut replayed = vec![0; canvases.len()];
    let summary = generate::run(predictor, &mut canvases, &mut |sequence, step| {
        for (passed, state) in
            states.iter().enumerate().take(step.step + 1).skip(replayed[sequence])
        {
            assert_eq!(
                current[sequence], state[sequence],
                "{id}: sequence {sequence} before step {passed}"
            );
        }
        for commit in &step.committed {
            current[sequence][commit.position] = commit.token;
        }
        replayed[sequence] = step.step + 1;
        ControlFlow::Continue(())
    })
    .unwrap();

    for (sequence, canvas) in canvases.iter().enumerate() {
        for state in &states[replayed[sequence]..] {
            assert_eq!(canvas.tokens(), state[sequence], "{id}: sequence {sequence} at the end");
        }
        assert_eq!(
            canvas.tokens(),
            current[sequence],
            "{id}: sequence {sequence} as told by its steps"
        );
    }
    let output: Vec<&[u32]> = canvases.iter().map(Canvas::tokens).collect();
    assert_eq!(output, sequences(&case["output"]), "{id}: output");
    assert_eq!(summary.masks_left, size(&case["masks_left"]), "{id}: masks left");
    // Of the reference's forward passes only those are spared that commit nothing by schedule.
    assert_eq!(size(&case["num_forwards"]), sampler.steps, "{id}: forward passes");
    assert_eq!(summary.nfe, sampler.forwards(), "{id}: forward passes");
}
