//! Settings that a task file proposes and a run may change.

use serde::{Deserialize, Serialize};

use crate::{
    config::AttentionMask,
    diffusion::{
        Blocks, Cache, Edit, Keep, Remasking, Sampler,
        blocks::AdaptiveBlocks,
        cache::{CacheType, SuffixWindow},
        variable::VariableLength,
    },
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

/// Settings of the sampler, each of which may be left to another layer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sampling {
    /// Length of the response.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gen_length: Option<usize>,
    /// Sampling steps; without them, one for each token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<usize>,
    /// Length of a block; alone, it asks for semi-autoregressive blocks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub block_length: Option<usize>,
    /// Where tokens may be committed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blocks: Option<Blocks>,
    /// Who is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remasking: Option<Remasking>,
    /// Factor on the Gumbel noise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// Guidance w of Eq. 16.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cfg_scale: Option<f32>,
    /// Never choose EOS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logits_eos_inf: Option<bool>,
    /// Choose EOS and EoT last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confidence_eos_eot_inf: Option<bool>,
    /// How many are kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep: Option<Keep>,
    /// What a pass forwards.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<Cache>,
    /// The type of what is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_type: Option<CacheType>,
    /// Which masks after the block take part.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suffix_window: Option<SuffixWindow>,
    /// Blocks that end where the text has a joint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adaptive_blocks: Option<AdaptiveBlocks>,
    /// Mask tokens again that the model comes to contradict.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revise: Option<f64>,
    /// Let tokens of the open block give way to others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub edit: Option<Edit>,
    /// Find the length of the response.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variable_length: Option<VariableLength>,
}

impl Sampling {
    /// These settings, and `other`'s where they say nothing. A length that is changed without its
    /// steps or blocks does not keep those of the other length.
    pub fn over(&self, other: &Self) -> Self {
        let keeps_steps = self.gen_length.is_none();
        let keeps_blocks = keeps_steps && self.blocks.is_none() && self.block_length.is_none();
        Self {
            gen_length: self.gen_length.or(other.gen_length),
            steps: self.steps.or(other.steps.filter(|_| keeps_steps)),
            block_length: self.block_length.or(other.block_length.filter(|_| keeps_blocks)),
            blocks: self.blocks.or(other.blocks.filter(|_| keeps_blocks)),
            remasking: self.remasking.or(other.remasking),
            temperature: self.temperature.or(other.temperature),
            cfg_scale: self.cfg_scale.or(other.cfg_scale),
            logits_eos_inf: self.logits_eos_inf.or(other.logits_eos_inf),
            confidence_eos_eot_inf: self.confidence_eos_eot_inf.or(other.confidence_eos_eot_inf),
            keep: self.keep.or(other.keep),
            cache: self.cache.or(other.cache),
            cache_type: self.cache_type.or(other.cache_type),
            suffix_window: self.suffix_window.or(other.suffix_window),
            adaptive_blocks: self.adaptive_blocks.clone().or(other.adaptive_blocks.clone()),
            revise: self.revise.or(other.revise),
            edit: self.edit.or(other.edit),
            variable_length: self.variable_length.or(other.variable_length),
        }
    }

    /// The sampler. A causal model writes from left to right and one that attends by blocks fills
    /// these, whatever a task proposes.
    pub fn sampler(&self, attention: AttentionMask, seed: u64) -> Sampler {
        let base = Sampler::default();
        let gen_length = self.gen_length.unwrap_or(base.gen_length);
        let is_causal = attention == AttentionMask::Causal;
        let by_blocks = attention.block_length();
        let needs_blocks = self.adaptive_blocks.is_some() || self.suffix_window.is_some();
        let blocks = match (is_causal, self.blocks, self.block_length) {
            (true, ..) => Blocks::Autoregressive,
            _ if by_blocks.is_some() => Blocks::BlockDiffusion,
            (_, Some(blocks), _) => blocks,
            (_, None, Some(n)) if n != gen_length => Blocks::SemiAutoregressive,
            _ if needs_blocks => Blocks::SemiAutoregressive,
            _ => Blocks::Pure,
        };
        Sampler {
            gen_length,
            steps: self.steps.unwrap_or(gen_length),
            block_length: by_blocks.or(self.block_length).unwrap_or(base.block_length),
            blocks,
            remasking: self.remasking.unwrap_or(base.remasking),
            temperature: self.temperature.unwrap_or(base.temperature),
            cfg_scale: if is_causal { 0.0 } else { self.cfg_scale.unwrap_or(base.cfg_scale) },
            logits_eos_inf: self.logits_eos_inf.unwrap_or(base.logits_eos_inf),
            confidence_eos_eot_inf: self
                .confidence_eos_eot_inf
                .unwrap_or(base.confidence_eos_eot_inf),
            keep: self.keep.unwrap_or(base.keep),
            cache: self.cache.filter(|_| by_blocks.is_none()).unwrap_or(base.cache),
            cache_type: self.cache_type.unwrap_or(base.cache_type),
            suffix_window: self.suffix_window,
            adaptive_blocks: self.adaptive_blocks.clone(),
            revise: self.revise,
            edit: self.edit,
            variable_length: self.variable_length,
            seed,
            ..base
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_length_does_not_keep_the_steps_of_the_other() {
        let task = Sampling {
            gen_length: Some(1024),
            steps: Some(512),
            block_length: Some(32),
            temperature: Some(0.5),
            ..Sampling::default()
        };
        let flags = Sampling { gen_length: Some(64), ..Sampling::default() };
        let sampler = flags.over(&task).sampler(AttentionMask::Bidirectional, 7);
        let expected =
            Sampler { gen_length: 64, steps: 64, temperature: 0.5, seed: 7, ..Sampler::default() };
        assert_eq!(sampler, expected);
        let sampler = Sampling::default().over(&task).sampler(AttentionMask::Bidirectional, 7);
        assert_eq!((sampler.steps, sampler.blocks), (512, Blocks::SemiAutoregressive));
        sampler.check().unwrap();
    }

    #[test]
    fn a_causal_model_writes_from_left_to_right() {
        let task = Sampling {
            gen_length: Some(8),
            block_length: Some(4),
            cfg_scale: Some(1.0),
            ..Sampling::default()
        };
        let sampler = task.sampler(AttentionMask::Causal, 0);
        assert_eq!((sampler.blocks, sampler.cfg_scale), (Blocks::Autoregressive, 0.0));
    }
}
