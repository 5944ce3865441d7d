//! From flags to a sampler: what was not said is chosen to fit the model and the prompts.

use std::hash::{BuildHasher, RandomState};

use anyhow::Result;
use llada::{
    config::{ModelConfig, Objective},
    diffusion::{
        Blocks, Cache, Keep, Remasking, Sampler, blocks::AdaptiveBlocks, variable::VariableLength,
    },
};

use crate::{
    args::{Preset, SamplerArgs},
    error::Failure,
};

/// Shortest blocks that a preset cuts a response into.
const SHORTEST_BLOCK: usize = 8;

/// The sampler for these prompts, checked. The response has 128 tokens unless asked otherwise, fewer
/// where the model's longest row leaves less room, and a step for each of them.
pub fn sampler(args: &SamplerArgs, config: &ModelConfig, rows: &[Vec<u32>]) -> Result<Sampler> {
    let base = match args.preset.unwrap_or_default() {
        Preset::Exact => Sampler::exact(),
        Preset::Balanced => Sampler::balanced(),
        Preset::Fast => Sampler::fast(),
    };
    let base = yielding(base, args, config.objective);
    let longest = rows.iter().map(Vec::len).max().unwrap_or(0);
    let limit = config.max_sequence_length;
    let room = limit.saturating_sub(longest);
    let asked = args.gen_length.unwrap_or(1);
    if asked > room {
        let message = format!(
            "a prompt of {longest} tokens and a response of {asked} do not fit a row of {limit}"
        );
        let hint = match room {
            0 => "shorten the prompt".to_owned(),
            _ => format!("use --gen-length {room} or less"),
        };
        return Err(Failure::new(message, hint).into());
    }
    let saving = &args.saving;
    let needs_blocks =
        args.block_length.is_some() || args.adaptive_blocks || saving.suffix_window.is_some();
    let chosen = args.blocks.or(needs_blocks.then_some(Blocks::SemiAutoregressive));
    let (blocks, block_length) = match (config.objective, chosen) {
        (Objective::Autoregressive, blocks) => (blocks.unwrap_or(base.blocks), None),
        (_, Some(blocks)) => (blocks, None),
        (_, None) => preset_blocks(&base, args, room),
    };
    let block_length = args.block_length.or(block_length).unwrap_or(base.block_length);
    let gen_length = args.gen_length.unwrap_or_else(|| fitting(&base, blocks, block_length, room));
    let sampler = Sampler {
        steps: args.steps.unwrap_or(gen_length),
        gen_length,
        block_length,
        temperature: args.temperature.unwrap_or(base.temperature),
        cfg_scale: args.cfg_scale.unwrap_or(base.cfg_scale),
        remasking: args.remasking.unwrap_or(base.remasking),
        keep: saving.keep.unwrap_or(base.keep),
        blocks,
        adaptive_blocks: args.adaptive_blocks.then(|| AdaptiveBlocks::new(args.delimiters.clone())),
        revise: saving.revise,
        variable_length: args.variable_length.then(VariableLength::default),
        cache: saving.cache()?.unwrap_or(base.cache),
        suffix_window: saving.suffix(),
        logits_eos_inf: args.logits_eos_inf,
        confidence_eos_eot_inf: args.confidence_eos_eot_inf,
        seed: args.seed.unwrap_or_else(drawn_seed),
        ..base
    };
    unused(args, &sampler)?;
    sampler.check().map_err(|e| {
        let hint = e.hint().unwrap_or_else(|| "see `llada run --help`".into());
        Failure::usage(e.to_string(), hint)
    })?;
    Ok(sampler)
}

/// The preset without what the model, or what was asked for, rules out: a preset is a place to start
/// from, and never the reason of an error.
fn yielding(base: Sampler, args: &SamplerArgs, objective: Objective) -> Sampler {
    let mut base = base;
    if objective == Objective::Autoregressive {
        (base.blocks, base.cache, base.keep) =
            (Blocks::Autoregressive, Cache::None, Keep::Schedule);
    }
    // Luck is no confidence that a rule could compare.
    if args.remasking == Some(Remasking::Random) {
        base.keep = Keep::Schedule;
    }
    base
}

/// The blocks of a preset, as long as it has them or shorter, so that they share a length and steps
/// that were asked for; one block where they would be very short.
fn preset_blocks(base: &Sampler, args: &SamplerArgs, room: usize) -> (Blocks, Option<usize>) {
    let length =
        args.gen_length.unwrap_or_else(|| fitting(base, base.blocks, base.block_length, room));
    let fits = |&block: &usize| {
        let shares = |steps: usize| steps.is_multiple_of(length / block);
        length.is_multiple_of(block) && args.steps.is_none_or(shares)
    };
    match (base.blocks, (SHORTEST_BLOCK..=base.block_length).rev().find(fits)) {
        (Blocks::SemiAutoregressive, Some(block)) if block < length => (base.blocks, Some(block)),
        _ => (Blocks::Pure, None),
    }
}

/// Refuses what was asked for and would have no effect in the layout.
fn unused(args: &SamplerArgs, sampler: &Sampler) -> Result<(), Failure> {
    let blocks = sampler.blocks;
    let refuse = |flag: &str, why: &str| {
        let message = format!("`{flag}` has no meaning in the layout `{blocks}`, {why}");
        let hint = format!("leave out `{flag}`, or choose another layout with `--blocks`");
        Err(Failure::usage(message, hint))
    };
    match blocks {
        Blocks::Pure if args.block_length.is_some_and(|n| n != sampler.gen_length) => {
            refuse("--block-length", "whose one block is the response")
        }
        Blocks::Autoregressive if args.block_length.is_some_and(|n| n != 1) => {
            refuse("--block-length", "whose blocks are single tokens")
        }
        Blocks::Autoregressive if args.steps.is_some_and(|n| n != sampler.gen_length) => {
            refuse("--steps", "which takes one step for each token")
        }
        _ => Ok(()),
    }
}

/// The default length, or the largest that fits into `room` and is a whole number of blocks.
fn fitting(base: &Sampler, blocks: Blocks, block_length: usize, room: usize) -> usize {
    let length = base.gen_length.min(room);
    match blocks {
        Blocks::SemiAutoregressive | Blocks::BlockDiffusion if block_length > 0 => {
            (length - length % block_length).max(block_length)
        }
        _ => length,
    }
}

/// A seed from the randomness that the standard library gives its hash maps; short, to be retyped.
pub fn drawn_seed() -> u64 {
    RandomState::new().hash_one(0) & 0xffff_ffff
}

#[cfg(test)]
mod tests {
    use super::*;
    use llada::config::SpecialTokens;

    fn config() -> ModelConfig {
        llada::train::Recipe::default().model_config(300, SpecialTokens::default()).unwrap()
    }

    fn args() -> SamplerArgs {
        SamplerArgs::default()
    }

    #[test]
    fn unsaid_settings_fit_the_model() {
        let config = config();
        let limit = config.max_sequence_length;
        let s = sampler(&args(), &config, &[vec![1; limit - 10]]).unwrap();
        assert_eq!((s.gen_length, s.steps, s.blocks), (10, 10, Blocks::Pure));
        let block = SamplerArgs { block_length: Some(4), ..args() };
        let s = sampler(&block, &config, &[vec![1; limit - 10]]).unwrap();
        assert_eq!((s.gen_length, s.steps, s.blocks), (8, 8, Blocks::SemiAutoregressive));
        let causal = ModelConfig { objective: Objective::Autoregressive, ..config };
        let s = sampler(&args(), &causal, &[vec![1]]).unwrap();
        assert_eq!(s.blocks, Blocks::Autoregressive);
    }

    #[test]
    fn the_blocks_of_a_preset_fit_what_was_asked_for() {
        let config = ModelConfig { max_sequence_length: 256, ..config() };
        let with = |gen_length, steps| {
            let args = SamplerArgs { gen_length, steps, ..args() };
            let s = sampler(&args, &config, &[vec![1; 20]]).unwrap();
            (s.gen_length, s.block(), s.blocks)
        };
        let semi = Blocks::SemiAutoregressive;
        assert_eq!(with(None, None), (128, 32, semi));
        assert_eq!(with(Some(100), None), (100, 25, semi));
        assert_eq!(with(Some(100), Some(10)), (100, 20, semi));
        assert_eq!(with(Some(100), Some(7)), (100, 100, Blocks::Pure));
        assert_eq!(with(Some(97), None), (97, 97, Blocks::Pure));
        assert_eq!(with(Some(32), None), (32, 32, Blocks::Pure));
        assert_eq!(with(None, Some(6)), (128, 128, Blocks::Pure));
        assert_eq!(with(None, Some(8)), (128, 32, semi));
    }

    #[test]
    fn a_preset_yields_to_what_was_asked_for() {
        let random = SamplerArgs { remasking: Some(Remasking::Random), ..args() };
        assert_eq!(sampler(&random, &config(), &[vec![1]]).unwrap().keep, Keep::Schedule);
        let fast = SamplerArgs { preset: Some(Preset::Fast), ..args() };
        let causal = ModelConfig { objective: Objective::Autoregressive, ..config() };
        let s = sampler(&fast, &causal, &[vec![1]]).unwrap();
        assert_eq!(
            (s.blocks, s.cache, s.keep),
            (Blocks::Autoregressive, Cache::None, Keep::Schedule)
        );
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let config = config();
        let limit = config.max_sequence_length;
        let full = sampler(&args(), &config, &[vec![1; limit]]).unwrap_err();
        assert!(full.to_string().contains("do not fit"), "{full}");
        let long = SamplerArgs { gen_length: Some(limit), ..args() };
        assert!(sampler(&long, &config, &[vec![1]]).is_err());
        let odd = SamplerArgs { gen_length: Some(9), block_length: Some(4), ..args() };
        assert!(sampler(&odd, &config, &[vec![1]]).is_err());
    }

    #[test]
    fn flags_without_effect_are_refused() {
        let config = config();
        for (blocks, block_length, steps) in [
            (Blocks::Pure, Some(4), None),
            (Blocks::Autoregressive, Some(4), None),
            (Blocks::Autoregressive, None, Some(4)),
        ] {
            let given = SamplerArgs {
                blocks: Some(blocks),
                block_length,
                steps,
                gen_length: Some(8),
                ..args()
            };
            let error = sampler(&given, &config, &[vec![1]]).unwrap_err();
            assert!(error.to_string().contains("has no meaning"), "{error}");
        }
        let agreeing = SamplerArgs {
            blocks: Some(Blocks::Autoregressive),
            block_length: Some(1),
            steps: Some(8),
            gen_length: Some(8),
            ..args()
        };
        assert!(sampler(&agreeing, &config, &[vec![1]]).is_ok());
    }

    #[test]
    fn flags_and_presets_are_taken_over() {
        let given = SamplerArgs {
            preset: Some(Preset::Exact),
            temperature: Some(0.5),
            seed: Some(7),
            gen_length: Some(8),
            steps: Some(4),
            logits_eos_inf: true,
            ..args()
        };
        let s = sampler(&given, &config(), &[vec![1]]).unwrap();
        let expected = Sampler {
            temperature: 0.5,
            seed: 7,
            gen_length: 8,
            steps: 4,
            logits_eos_inf: true,
            ..Sampler::exact()
        };
        assert_eq!(s, expected);
    }
}
