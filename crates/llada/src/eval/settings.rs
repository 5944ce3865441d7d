//! What a task file proposes and a run may change: how likelihoods are estimated, and how the
//! settings of the sampler go together.

use serde::{Deserialize, Serialize};

use crate::{
    config::{AttentionMask, ModelConfig},
    diffusion::{Blocks, Sampler, SamplerError, Settings},
};

/// By what the best of several answers is found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scoring {
    /// The estimate of log p(answer | prompt) of Eq. 6.
    #[default]
    Likelihood,
    /// The confidence with which the answer is unmasked: [`super::confidence`].
    Confidence,
}

/// `[likelihood]`: how log-likelihoods are estimated.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Likelihood {
    /// Monte Carlo samples.
    pub mc_num: usize,
    /// Samples that share a forward pass, and out the mask counts evenly among them.
    pub batch_size: usize,
    /// Guidance w of Eq. 16; 0 is none.
    pub cfg_scale: f32,
}

impl Default for Likelihood {
    fn default() -> Self {
        Self { mc_num: 128, batch_size: 8, cfg_scale: 0.0 }
    }
}

/// What was `asked` for over what a `task` proposes. A length that is changed without its steps or
/// blocks does not take over those of the other length.
pub(super) fn over(asked: &Settings, task: &Settings) -> Settings {
    let has_length = asked.gen_length.is_some();
    let has_blocks = has_length || asked.blocks.is_some() || asked.block_length.is_some();
    let proposed = task.only(|key| match key.name {
        "steps" => !has_length,
        "blocks" | "block_length" => !has_blocks,
        _ => true,
    });
    asked.over(&proposed)
}

/// The sampler of a task. A causal model writes from left to right and one that attends by blocks
/// fills these, whatever the task proposes.
///
/// # Errors
/// If a setting needs another that is not made.
pub(super) fn sampler(
    settings: &Settings,
    config: &ModelConfig,
    seed: u64,
) -> Result<Sampler, SamplerError> {
    let base = settings.preset.map_or_else(Sampler::default, |preset| preset.sampler_for(config));
    let gen_length = settings.gen_length.unwrap_or(base.gen_length);
    let mut settings = settings.clone();
    match config.attention {
        AttentionMask::Causal => {
            settings.blocks = Some(Blocks::Autoregressive);
            settings.cfg_scale = Some(0.0);
        }
        AttentionMask::BlockCausal { block_length } => {
            settings = settings.only(|key| !CACHED.contains(&key.name));
            settings.blocks = Some(Blocks::BlockDiffusion);
            settings.block_length = Some(block_length);
        }
        AttentionMask::Bidirectional => {
            let cuts = settings.block_length.is_some_and(|n| n != gen_length)
                || settings.adaptive_blocks == Some(true)
                || settings.suffix_window.is_some();
            let blocks = if cuts { Blocks::SemiAutoregressive } else { base.blocks };
            settings.blocks.get_or_insert(blocks);
        }
    }
    settings.apply(Sampler { steps: gen_length, seed, ..base })
}

/// The settings of caches that are an approximation, which a model by blocks does not need.
const CACHED: [&str; 4] = ["cache", "cache_refresh", "cache_warm_up", "cache_window"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::Objective,
        diffusion::settings::tests::{config, example},
    };

    #[test]
    fn a_changed_length_does_not_take_over_the_steps_of_the_other() {
        let task = Settings {
            gen_length: Some(1024),
            steps: Some(512),
            block_length: Some(32),
            temperature: Some(0.5),
            ..Settings::default()
        };
        let flags = Settings { gen_length: Some(64), ..Settings::default() };
        let found = sampler(&over(&flags, &task), &config(), 7).unwrap();
        let expected =
            Sampler { gen_length: 64, steps: 64, temperature: 0.5, seed: 7, ..Sampler::default() };
        assert_eq!(found, expected);
        let found = sampler(&over(&Settings::default(), &task), &config(), 7).unwrap();
        assert_eq!((found.steps, found.blocks), (512, Blocks::SemiAutoregressive));
        found.check().unwrap();
    }

    #[test]
    fn a_causal_model_writes_from_left_to_right() {
        let task = Settings {
            gen_length: Some(8),
            block_length: Some(4),
            cfg_scale: Some(1.0),
            ..Settings::default()
        };
        let causal = config().with_objective(Objective::Autoregressive);
        let found = sampler(&task, &causal, 0).unwrap();
        assert_eq!((found.blocks, found.cfg_scale), (Blocks::Autoregressive, 0.0));
    }

    #[test]
    fn every_setting_of_a_task_reaches_the_sampler() {
        for key in Settings::KEYS {
            let mut task = Settings {
                cache: Some("prefix".parse().unwrap()),
                suffix_window: Some(9),
                edit: Some(0.75),
                blocks: Some(Blocks::SemiAutoregressive),
                ..Settings::default()
            };
            let without = sampler(&task, &config(), 7).unwrap();
            task.set(key.name, &example(key)).unwrap();
            let found = sampler(&over(&Settings::NONE, &task), &config(), 7).unwrap();
            assert_ne!(found, without, "{}", key.name);
            assert_eq!(sampler(&over(&task, &Settings::NONE), &config(), 7).unwrap(), found);
        }
    }

    #[test]
    fn a_model_by_blocks_has_its_own_cache() {
        let attention = AttentionMask::BlockCausal { block_length: 4 };
        let config = ModelConfig { attention, ..config() };
        let mut task = Settings::default();
        CACHED.iter().for_each(|name| task.set(name, "1").or(task.set(name, "dual")).unwrap());
        let found = sampler(&task, &config, 0).unwrap();
        assert_eq!((found.cache, found.block()), (crate::diffusion::Cache::None, 4));
    }
}
