//! How answers are sampled: the flags, changed by `/set`, and what a chat fills in.

use anyhow::Result;
use llada::{
    config::{ModelConfig, Objective},
    diffusion::{Blocks, Sampler, SamplerError},
};

use crate::{args::SamplerArgs, commands::run::settings, error::Failure};

/// Blocks of an answer are this long, or shorter in a small model.
const BLOCK_LENGTH: usize = 32;
/// An answer has at most so many blocks unless asked for more.
const BLOCKS: usize = 8;

/// The sampler of a chat: blocks from left to right, and no further than the end of the answer.
/// Unless asked otherwise a block is an eighth of the model's row, but not more than 32 tokens, and
/// an answer has at most eight of them, and three eighths of the row: the rest is for the
/// conversation.
pub fn sampler(args: &SamplerArgs, config: &ModelConfig) -> Result<Sampler> {
    let mut args = args.clone();
    let limit = config.max_sequence_length;
    let block = (limit / 8).clamp(1, BLOCK_LENGTH);
    let length = block * (limit * 3 / 8 / block).clamp(1, BLOCKS);
    if config.objective == Objective::Diffusion {
        args.blocks.get_or_insert(Blocks::SemiAutoregressive);
    }
    if matches!(args.blocks, Some(Blocks::SemiAutoregressive | Blocks::BlockDiffusion)) {
        match (args.gen_length, args.block_length) {
            (None, None) => {
                (args.gen_length, args.block_length) = (Some(length), Some(block));
            }
            (None, Some(block)) if block > 0 => {
                args.gen_length = Some((length / block).max(1) * block);
            }
            (Some(length), None) => {
                let divides = |&block: &usize| length.is_multiple_of(block);
                args.block_length = (1..=block).rev().find(divides);
            }
            _ => {}
        }
    }
    args.gen_length.get_or_insert(length);
    Ok(Sampler { stop_at_eos: true, ..settings::sampler(&args, config, &[])? })
}

/// Changes one setting; the value `default` takes it back.
pub fn set(args: &mut SamplerArgs, key: &str, value: &str) -> Result<(), Failure> {
    match key.replace('-', "_").as_str() {
        "gen_length" => put(&mut args.gen_length, value),
        "steps" => put(&mut args.steps, value),
        "blocks" => choose(&mut args.blocks, value),
        "block_length" => put(&mut args.block_length, value),
        "remasking" => choose(&mut args.remasking, value),
        "temperature" => put(&mut args.temperature, value),
        "cfg_scale" => put(&mut args.cfg_scale, value),
        "seed" => put(&mut args.seed, value),
        "keep" => choose(&mut args.saving.keep, value),
        "cache" => choose(&mut args.saving.cache, value),
        "cache_type" => choose(&mut args.saving.cache_type, value),
        "cache_refresh" => put(&mut args.saving.cache_refresh, value),
        "cache_warm_up" => put(&mut args.saving.cache_warm_up, value),
        "cache_window" => put(&mut args.saving.cache_window, value),
        "suffix_window" => put(&mut args.saving.suffix_window, value),
        "suffix_decay" => switch(&mut args.saving.suffix_decay, value),
        "revise" => put(&mut args.saving.revise, value),
        "adaptive_blocks" => switch(&mut args.adaptive_blocks, value),
        "variable_length" => switch(&mut args.variable_length, value),
        "logits_eos_inf" => switch(&mut args.logits_eos_inf, value),
        "confidence_eos_eot_inf" => switch(&mut args.confidence_eos_eot_inf, value),
        _ => Err(Failure::new(format!("there is no setting `{key}`"), "`/show` lists them")),
    }
}

fn put<T: std::str::FromStr>(slot: &mut Option<T>, value: &str) -> Result<(), Failure> {
    *slot = match value {
        "default" => None,
        _ => Some(value.parse().map_err(|_| unfit(value))?),
    };
    Ok(())
}

/// As [`put`] for one of the library's choices, whose error names them.
fn choose<T>(slot: &mut Option<T>, value: &str) -> Result<(), Failure>
where
    T: std::str::FromStr<Err = SamplerError>,
{
    *slot = match value {
        "default" => None,
        _ => Some(value.parse().map_err(|e: SamplerError| {
            Failure::new(e.to_string(), e.hint().unwrap_or_default())
        })?),
    };
    Ok(())
}

fn switch(slot: &mut bool, value: &str) -> Result<(), Failure> {
    *slot = match value {
        "true" | "on" => true,
        "false" | "off" | "default" => false,
        _ => return Err(unfit(value)),
    };
    Ok(())
}

fn unfit(value: &str) -> Failure {
    let hint = "`/show` lists the settings with values that they take";
    Failure::new(format!("`{value}` is no value for this setting"), hint)
}

/// The settings and their values, one on each line, as `/set` takes them.
pub fn list(sampler: &Sampler) -> Vec<String> {
    let mut cache = sampler.cache;
    let refresh = cache.refresh_mut().map_or((0, 0, 0), |r| (r.every, r.warm_up, r.before));
    let or_default = |value: Option<String>| value.unwrap_or_else(|| "default".into());
    let rows = [
        ("gen_length", sampler.gen_length.to_string()),
        ("steps", sampler.total_steps().to_string()),
        ("blocks", sampler.blocks.to_string()),
        ("block_length", sampler.block().to_string()),
        ("remasking", sampler.remasking.to_string()),
        ("keep", sampler.keep.to_string()),
        ("cache", sampler.cache.to_string()),
        ("cache_type", sampler.cache_type.to_string()),
        ("cache_refresh", refresh.0.to_string()),
        ("cache_warm_up", refresh.1.to_string()),
        ("cache_window", refresh.2.to_string()),
        ("suffix_window", or_default(sampler.suffix_window.map(|w| w.masks.to_string()))),
        ("suffix_decay", sampler.suffix_window.is_some_and(|w| w.decay).to_string()),
        ("revise", or_default(sampler.revise.map(|p| p.to_string()))),
        ("adaptive_blocks", sampler.adaptive_blocks.is_some().to_string()),
        ("variable_length", sampler.variable_length.is_some().to_string()),
        ("temperature", sampler.temperature.to_string()),
        ("cfg_scale", sampler.cfg_scale.to_string()),
        ("logits_eos_inf", sampler.logits_eos_inf.to_string()),
        ("confidence_eos_eot_inf", sampler.confidence_eos_eot_inf.to_string()),
        ("seed", sampler.seed.to_string()),
    ];
    rows.map(|(key, value)| format!("{key:24}{value}")).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use llada::config::SpecialTokens;

    fn config(limit: usize) -> ModelConfig {
        let recipe = llada::train::Recipe::default();
        let config = recipe.model_config(300, SpecialTokens::default()).unwrap();
        ModelConfig { max_sequence_length: limit, ..config }
    }

    #[test]
    fn answers_leave_room_for_the_conversation() {
        for (limit, expected) in [(128, (48, 16)), (4096, (256, 32)), (32, (12, 4)), (3, (1, 1))] {
            let s = sampler(&SamplerArgs::default(), &config(limit)).unwrap();
            assert_eq!((s.gen_length, s.block_length), expected, "{limit}");
            assert_eq!((s.blocks, s.stop_at_eos), (Blocks::SemiAutoregressive, true));
            assert_eq!(s.steps, s.gen_length);
        }
        let causal = ModelConfig { objective: Objective::Autoregressive, ..config(128) };
        let s = sampler(&SamplerArgs::default(), &causal).unwrap();
        assert_eq!((s.gen_length, s.blocks), (48, Blocks::Autoregressive));
    }

    #[test]
    fn lengths_that_are_given_are_kept_and_the_other_fits() {
        let with = |gen_length, block_length| {
            let args = SamplerArgs { gen_length, block_length, ..SamplerArgs::default() };
            sampler(&args, &config(128)).map(|s| (s.gen_length, s.block_length))
        };
        assert_eq!(with(Some(60), None).unwrap(), (60, 15));
        assert_eq!(with(None, Some(10)).unwrap(), (40, 10));
        assert_eq!(with(Some(64), Some(32)).unwrap(), (64, 32));
        assert!(with(Some(60), Some(32)).is_err() && with(Some(500), None).is_err());
        assert!(with(None, Some(0)).is_err() && with(Some(0), None).is_err());
    }

    #[test]
    fn settings_are_set_and_taken_back() {
        let mut args = SamplerArgs::default();
        for line in list(&sampler(&args, &config(128)).unwrap()) {
            let (key, value) = line.split_once(' ').unwrap();
            set(&mut args, key, value.trim()).unwrap();
        }
        assert_eq!((args.gen_length, args.temperature), (Some(48), Some(0.0)));
        set(&mut args, "gen-length", "default").unwrap();
        set(&mut args, "logits_eos_inf", "on").unwrap();
        assert!(args.gen_length.is_none() && args.logits_eos_inf);
        for (key, value) in [("steps", "many"), ("fly", "1"), ("logits_eos_inf", "2")] {
            assert!(set(&mut args, key, value).is_err(), "{key}");
        }
    }
}
