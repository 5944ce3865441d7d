//! The trajectories of the other families' official samplers, replayed with the real models: every
//! state of every sequence, with the caches of the models and without.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;
#[path = "common/whole.rs"]
mod whole;

use std::ops::ControlFlow;

use common::{bytes, golden, ids, sequences, size, tensor};
use llada::{
    checkpoint,
    config::{AttentionMask, SpecialTokens},
    diffusion::{
        Blocks, Cache, Canvas, Edit, Predictor, Prompt, Reference, Remasking, Sampler, Step,
        TransferRule, cache::Refresh, diffusers as batch, generate, sample::Draws,
    },
    model::MaskPredictor,
};
use llada_kernels::Cpu;
use safetensors::SafeTensors;
use serde_json::Value;
use whole::Whole;

/// The cases of a file, of which there are `count` in the set that is here.
fn cases(file: &str, count: usize) -> Vec<Value> {
    common::cases(&format!("generate/{file}.json"), count)
}

fn load(case: &Value) -> MaskPredictor {
    let name = case["model"].as_str().unwrap();
    let mut model = checkpoint::load(&golden::model(name)).unwrap();
    if let Some(block_length) = case["attention_block"].as_u64() {
        model.config.attention = AttentionMask::BlockCausal { block_length: block_length as usize };
    }
    MaskPredictor::new(model, Cpu::new(1).unwrap()).unwrap()
}

/// What the reference drew.
#[derive(Default)]
struct Recorded {
    /// One uniform for each step and position.
    uniforms: Vec<Vec<f64>>,
    /// The tokens of each step, from the first position of the block on.
    tokens: Vec<Vec<u32>>,
    block_length: usize,
}

impl Draws for Recorded {
    fn token_uniforms(&self, _: usize, _: usize, _: &mut [f64]) {
        panic!("tokens are recorded");
    }

    fn token(&self, step: usize, position: usize) -> Option<u32> {
        let tokens = self.tokens.get(step)?;
        tokens.get(position % self.block_length).copied()
    }

    fn confidence(&self, step: usize, position: usize) -> f32 {
        self.uniforms[step][position] as f32
    }
}

/// Runs the canvases and compares the sequence of each with the states that it goes through.
fn replay<P: Predictor>(
    id: &str,
    predictor: &mut P,
    canvases: &mut [Canvas],
    states: &[Vec<Vec<u32>>],
) -> usize {
    replay_with(id, canvases, states, |canvases, on_step| {
        generate::run(predictor, canvases, on_step).unwrap().nfe
    })
}

/// What is told of the steps of each sequence.
type OnStep<'a> = &'a mut dyn FnMut(usize, &Step) -> ControlFlow<()>;

/// As [`replay`], in whatever way `run` takes the steps. Gives the number of passes.
fn replay_with(
    id: &str,
    canvases: &mut [Canvas],
    states: &[Vec<Vec<u32>>],
    run: impl FnOnce(&mut [Canvas], OnStep<'_>) -> usize,
) -> usize {
    let mut current = states[0].clone();
    let mut seen = vec![0; canvases.len()];
    let nfe = run(canvases, &mut |sequence, step| {
        assert_eq!(
            current[sequence],
            states[step.nfe - 1][sequence],
            "{id}: sequence {sequence} before {}",
            step.nfe
        );
        let mask = canvas_mask(states);
        step.remasked.iter().for_each(|&position| current[sequence][position] = mask[sequence]);
        for commit in &step.committed {
            current[sequence][commit.position] = commit.token;
        }
        seen[sequence] = step.nfe;
        ControlFlow::Continue(())
    });
    for (sequence, canvas) in canvases.iter().enumerate() {
        // Steps after a sequence is full change nothing.
        for state in &states[seen[sequence]..] {
            assert_eq!(current[sequence], state[sequence], "{id}: sequence {sequence} at the end");
        }
        let tokens = canvas.tokens();
        assert_eq!(
            tokens,
            &current[sequence][..tokens.len()],
            "{id}: sequence {sequence} as told by its steps"
        );
    }
    nfe
}

/// The mask of each sequence: what its last token is before the first step.
fn canvas_mask(states: &[Vec<Vec<u32>>]) -> Vec<u32> {
    states[0].iter().map(|sequence| *sequence.last().unwrap()).collect()
}

fn states(case: &Value) -> Vec<Vec<Vec<u32>>> {
    case["states"].as_array().unwrap().iter().map(sequences).collect()
}

fn special(case: &Value) -> SpecialTokens {
    let token = |name: &str| case[name].as_u64().map(|id| id as u32);
    let stop = case["stop_ids"][0].as_u64().map(|id| id as u32);
    let eos = token("eos_id").or(stop);
    SpecialTokens { mask: token("mask_id"), eos, ..SpecialTokens::default() }
}

#[test]
fn dream() {
    let cases = cases("dream", 22);
    if cases.is_empty() {
        return;
    }
    let draws = bytes("generate/dream_draws.safetensors");
    let draws = SafeTensors::deserialize(&draws).unwrap();
    for case in cases {
        let (id, params) = (case["id"].as_str().unwrap(), &case["params"]);
        let (special, states) = (special(&case), states(&case));
        let alg = params["alg"].as_str().unwrap();
        let gen_length = size(&params["max_new_tokens"]);
        let sampler = Sampler {
            steps: size(&params["steps"]),
            gen_length,
            temperature: params["temperature"].as_f64().unwrap(),
            top_k: params["top_k"].as_u64().map(|k| k as usize),
            top_p: params["top_p"].as_f64(),
            alg_temp: params["alg_temp"].as_f64().unwrap_or(0.0),
            remasking: match alg {
                "maskgit_plus" => Remasking::LowConfidence,
                "topk_margin" => Remasking::Margin,
                "entropy" => Remasking::Entropy,
                _ => Remasking::Random,
            },
            reference: Reference::Dream {
                eps: params["eps"].as_f64().unwrap(),
                origin: alg == "origin",
            },
            ..Sampler::exact()
        };
        let canvas = |(sequence, tokens): (usize, Vec<u32>)| {
            let padding = match &case["attention_mask"] {
                Value::Null => 0,
                masks => {
                    ids(&masks[sequence]).iter().take_while(|attended| **attended == 0).count()
                }
            };
            // One uniform for each mask of all sequences, sequence by sequence.
            let mut uniforms = Vec::new();
            for (step, state) in states[..states.len() - 1].iter().enumerate() {
                let Some((_, drawn)) = tensor(&draws, &format!("{id}.rand_{step:02}")) else {
                    continue;
                };
                let is_mask = |token: &&u32| Some(**token) == special.mask;
                let before = state[..sequence].iter().flatten().filter(is_mask).count();
                let mut drawn = drawn[before..].iter();
                let of = |&token: &u32| match Some(token) == special.mask {
                    true => *drawn.next().unwrap(),
                    false => f64::NAN,
                };
                uniforms.push(state[sequence].iter().map(of).collect());
            }
            let recorded = Box::new(Recorded { uniforms, ..Recorded::default() });
            let (prompt, attention) = (Prompt { tokens, padding }, AttentionMask::Bidirectional);
            Canvas::with_draws(prompt, &sampler, &special, attention, recorded).unwrap()
        };
        let mut canvases: Vec<Canvas> =
            sequences(&case["prompt"]).into_iter().enumerate().map(canvas).collect();
        replay(id, &mut load(&case), &mut canvases, &states);
        let outputs: Vec<&[u32]> = canvases.iter().map(Canvas::tokens).collect();
        assert_eq!(outputs, sequences(&case["output"]), "{id}");
    }
}

/// The canvas of a case in which blocks follow on each other.
fn by_blocks(case: &Value, sampler: &Sampler, recorded: Recorded) -> Canvas {
    sequence_by_blocks(case, 0, sampler, recorded)
}

fn sequence_by_blocks(
    case: &Value,
    sequence: usize,
    sampler: &Sampler,
    recorded: Recorded,
) -> Canvas {
    let prompt = Prompt::from(sequences(&case["prompt"]).remove(sequence));
    let block_length = sampler.block_length;
    let attention = AttentionMask::BlockCausal { block_length };
    let (special, draws) = (special(case), Box::new(recorded));
    Canvas::with_draws(prompt, sampler, &special, attention, draws).unwrap()
}

/// Replays a case with the model's exact cache, and without one.
fn replay_both(
    case: &Value,
    sampler: &Sampler,
    recorded: &dyn Fn() -> Recorded,
    states: &[Vec<Vec<u32>>],
) {
    let id = case["id"].as_str().unwrap();
    let mut cached = [by_blocks(case, sampler, recorded())];
    replay(id, &mut load(case), &mut cached, states);
    let mut plain = [by_blocks(case, sampler, recorded())];
    replay(id, &mut Whole(load(case)), &mut plain, states);
    assert_eq!(cached[0].tokens(), plain[0].tokens(), "{id}: the cache changes nothing");
}

#[test]
fn llada2() {
    for case in cases("llada2", 34) {
        let (algorithm, params) = (case["algorithm"].as_str().unwrap(), &case["params"]);
        if algorithm.starts_with("diffusers") {
            diffusers(&case);
            continue;
        }
        let (gen_length, block_length) =
            (size(&params["gen_length"]), size(&params["block_length"]));
        let edits = params.get("editing_threshold").is_some();
        let steps = match params["num_to_transfer"].as_u64() {
            Some(share) => block_length / share as usize,
            None => size(&params["steps"]).min(gen_length / size(&params["minimal_topk"])),
        };
        let reference = if edits { Reference::Llada21 } else { Reference::Llada2 };
        let sampler = llada2_sampler(params, steps, reference);
        let states = states(&case);
        replay_both(&case, &sampler, &Recorded::default, &states);
        let mut canvases = [by_blocks(&case, &sampler, Recorded::default())];
        let summary =
            generate::run(&mut load(&case), &mut canvases, &mut |_, _| ControlFlow::Continue(()));
        let id = case["id"].as_str().unwrap();
        assert_eq!(summary.unwrap().nfe, size(&case["num_forwards"]), "{id}: forward passes");
        // What is returned ends with the end of the text.
        let returned = sequences(&case["returned"]).remove(0);
        let response = canvases[0].response();
        let end = response.iter().position(|&t| Some(t) == special(&case).eos);
        assert_eq!(response[..end.map_or(response.len(), |end| end + 1)], returned, "{id}");
    }
}

/// The sampler of a case of LLaDA2, with so many steps in each block.
fn llada2_sampler(params: &Value, steps: usize, reference: Reference) -> Sampler {
    let (gen_length, block_length) = (size(&params["gen_length"]), size(&params["block_length"]));
    Sampler {
        steps: steps * gen_length.div_ceil(block_length),
        gen_length,
        block_length,
        blocks: Blocks::BlockDiffusion,
        transfer: TransferRule::Threshold(params["threshold"].as_f64().unwrap()),
        stop_at_eos: params["eos_early_stop"].as_bool().unwrap(),
        reference,
        edit: params["editing_threshold"]
            .as_f64()
            .map(|threshold| Edit { threshold, rounds: size(&params["max_post_steps"]) }),
        ..Sampler::exact()
    }
}

/// A case of `LLaDA2Pipeline`: sequences of a batch wait for each other.
fn diffusers(case: &Value) {
    let (id, params) = (case["id"].as_str().unwrap(), &case["params"]);
    let gen_length = size(&params["gen_length"]);
    let steps =
        size(&params["num_inference_steps"]).min(gen_length / size(&params["minimal_topk"]));
    let sampler = llada2_sampler(params, steps, Reference::Diffusers);
    let states = states(case);
    let canvases = || -> Vec<Canvas> {
        let canvas = |sequence| sequence_by_blocks(case, sequence, &sampler, Recorded::default());
        (0..size(&case["batch"])).map(canvas).collect()
    };
    let passes = size(&case["num_forwards"]);
    let (mut batch, mut model) = (canvases(), load(case));
    let nfe = replay_with(id, &mut batch, &states, |canvases, on_step| {
        batch::run(&mut model, canvases, on_step).unwrap()
    });
    assert_eq!(nfe, passes, "{id}: forward passes");
    if let [_] = &batch[..] {
        // A sequence alone waits for nobody, and is the same with the model's cache and without one.
        assert_eq!(replay(id, &mut model, &mut canvases(), &states), passes, "{id}");
        assert_eq!(replay(id, &mut Whole(model), &mut canvases(), &states), passes, "{id}");
    }
    // What is returned goes on after the end of the text, where it is left masked.
    let mask = special(case).mask.unwrap();
    for (canvas, returned) in batch.iter().zip(sequences(&case["returned"])) {
        let mut response = canvas.response().to_vec();
        response.resize(gen_length, mask);
        assert_eq!(response, returned, "{id}: returned");
    }
}

#[test]
fn fast_dllm_v2() {
    for case in cases("fast_dllm_v2", 15) {
        let (id, params) = (case["id"].as_str().unwrap(), &case["params"]);
        let block_length = size(&params["block_size"]);
        let prompt = sequences(&case["prompt"])[0].len();
        // After a prompt of whole blocks it gives one token more than it was asked for.
        let more = usize::from(prompt.is_multiple_of(block_length));
        let gen_length = size(&params["max_new_tokens"]) + more;
        let is_cached = params["use_block_cache"].as_bool().unwrap();
        let temperature = params["temperature"].as_f64().unwrap();
        let sampler = Sampler {
            gen_length,
            block_length,
            sub_block_length: Some(size(&params["small_block_size"])),
            temperature,
            top_p: params["top_p"].as_f64().filter(|_| temperature > 0.0),
            blocks: Blocks::BlockDiffusion,
            transfer: TransferRule::Threshold(params["threshold"].as_f64().unwrap()),
            cache: if is_cached { Cache::Dual(Refresh::default()) } else { Cache::None },
            stop_at_eos: true,
            reference: Reference::FastDllmV2,
            ..Sampler::exact()
        };
        // A pass over the prompt that gives no token is none of ours.
        let all = states(&case);
        let kinds = case["forward_kind"].as_array().unwrap().iter();
        let changes = |&(i, kind): &(usize, &Value)| *kind == "denoise" || all[i] != all[i + 1];
        let steps: Vec<(usize, &Value)> = kinds.enumerate().filter(changes).collect();
        let last = [all.last().unwrap().clone()];
        let states: Vec<_> = steps.iter().map(|(i, _)| all[*i].clone()).chain(last).collect();
        let recorded = || {
            let mut drawn = case["sampled_tokens"].as_array().into_iter().flatten();
            let token = |token: &Value| token.as_u64().map_or(0, |token| token as u32);
            let mut tokens = |kind: &Value| match kind == "denoise" {
                true => drawn
                    .next()
                    .map(|sequence| sequence.as_array().unwrap().iter().map(token).collect()),
                false => None,
            };
            let tokens: Vec<Vec<u32>> =
                steps.iter().map(|(_, kind)| tokens(kind).unwrap_or_default()).collect();
            Recorded { tokens, block_length: usize::MAX, ..Recorded::default() }
        };
        let (cached, plain) =
            (by_blocks(&case, &sampler, recorded()), by_blocks(&case, &sampler, recorded()));
        let mut cached = [cached];
        assert_eq!(replay(id, &mut load(&case), &mut cached, &states), steps.len(), "{id}: passes");
        assert_eq!(cached[0].tokens(), sequences(&case["output"])[0], "{id}: output");
        if !is_cached {
            replay(id, &mut Whole(load(&case)), &mut [plain], &states);
        }
    }
}

#[test]
fn sdar() {
    for case in cases("sdar", 13) {
        let params = &case["params"];
        let (gen_length, block_length) =
            (size(&params["gen_length"]), size(&params["block_length"]));
        let strategy = params["remasking_strategy"].as_str().unwrap();
        let temperature = match case["sampling"].as_str().unwrap() {
            "argmax" => 0.0,
            _ => params["temperature"].as_f64().unwrap(),
        };
        let sampler = Sampler {
            steps: size(&params["denoising_steps"]) * gen_length.div_ceil(block_length),
            gen_length,
            block_length,
            temperature,
            top_k: params["top_k"].as_u64().filter(|&k| k > 0).map(|k| k as usize),
            top_p: params["top_p"].as_f64().filter(|&p| p < 1.0),
            blocks: Blocks::BlockDiffusion,
            remasking: match strategy {
                "sequential" => Remasking::Sequential,
                _ => Remasking::LowConfidence,
            },
            transfer: match params["confidence_threshold"].as_f64() {
                Some(threshold) => TransferRule::Threshold(threshold),
                None => TransferRule::Schedule,
            },
            reference: Reference::Sdar,
            ..Sampler::exact()
        };
        // The passes that only fill the cache change no state.
        let kinds = case["forward_kind"].as_array().unwrap();
        let all = states(&case);
        let mut denoised: Vec<_> = all
            .iter()
            .zip(kinds)
            .filter(|(_, kind)| *kind == "denoise")
            .map(|(state, _)| state.clone())
            .collect();
        denoised.push(all.last().unwrap().clone());
        let tokens = case["sampled_tokens"].as_array();
        // The draws are addressed by the step of the whole schedule.
        let steps = sampler.steps_per_block();
        let recorded = || {
            let mut recorded = Recorded { block_length, ..Recorded::default() };
            let ranges = case["forward_range"].as_array().unwrap().iter().zip(kinds);
            let blocks: Vec<usize> = ranges
                .filter(|(_, kind)| *kind == "denoise")
                .map(|(range, _)| size(&range[0]) / block_length)
                .collect();
            for (k, tokens) in tokens.into_iter().flatten().enumerate() {
                let in_block = blocks[..k].iter().filter(|&&b| b == blocks[k]).count();
                let step = (blocks[k] - blocks[0]) * steps + in_block;
                recorded.tokens.resize(step + 1, Vec::new());
                recorded.tokens[step] = ids(tokens);
            }
            recorded
        };
        match tokens {
            None if temperature > 0.0 => {
                // Of one token that is left any draw gives that.
                let id = case["id"].as_str().unwrap();
                let attention = AttentionMask::BlockCausal { block_length };
                let prompt = Prompt::from(sequences(&case["prompt"]).remove(0));
                let canvas = Canvas::new(prompt, &sampler, &special(&case), attention).unwrap();
                replay(id, &mut load(&case), &mut [canvas], &denoised);
            }
            _ => replay_both(&case, &sampler, &recorded, &denoised),
        }
    }
}
