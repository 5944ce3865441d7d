//! SDAR (arXiv 2510.06303): Qwen3's keys and names, and block-causal attention, in blocks of 4 tokens where the
//! configuration does not say.

use serde_json::{Value, json};

use super::{Convention, Family, Parameter, llama};
use crate::config::{AttentionMask, ModelConfig, PublishedSampler, QkNorm, Result, keys::Keys};

pub(super) struct Sdar;

/// Tokens of a block in the released models.
const BLOCK: usize = 4;

impl Convention for Sdar {
    fn classes(&self) -> &'static [&'static str] {
        &["SDARForCausalLM"]
    }

    fn word(&self) -> &'static str {
        "sdar"
    }

    fn models(&self) -> &'static str {
        "SDAR"
    }

    fn read(&self, keys: &Keys<'_>) -> Result<ModelConfig> {
        keys.size("intermediate_size")?;
        let block_length = keys.optional_size("block_size")?.unwrap_or(BLOCK);
        Ok(ModelConfig {
            attention: AttentionMask::BlockCausal { block_length },
            qk_norm: QkNorm::PerHead,
            ..llama::read(Family::Sdar, keys)?
        })
    }

    fn judged(&self) -> &'static [&'static str] {
        &["block_size"]
    }

    fn write(&self, config: &ModelConfig) -> Value {
        let mut json = llama::write(config);
        json["model_type"] = json!("sdar");
        json["head_dim"] = json!(config.head_dim);
        json["attention_bias"] = json!(false);
        if let Some(block_length) = config.attention.block_length() {
            json["block_size"] = json!(block_length);
        }
        json
    }

    fn sampler(&self) -> PublishedSampler {
        PublishedSampler::Sdar
    }

    fn is_by_blocks(&self) -> bool {
        true
    }

    fn name(&self, parameter: Parameter) -> String {
        llama::name(parameter)
    }
}
