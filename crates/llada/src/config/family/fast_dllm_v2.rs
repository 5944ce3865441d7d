//! Fast-dLLM v2 (arXiv 2509.26328): Qwen2.5's keys and names, block-causal attention in blocks of 32 tokens, and logits
//! for the next position, as in the model that it was made of.

use serde_json::{Value, json};

use super::{Convention, Family, Parameter, llama};
use crate::config::{AttentionMask, LogitShift, ModelConfig, PublishedSampler, Result, keys::Keys};

pub(super) struct FastDllmV2;

/// Tokens of a block in the released models.
const BLOCK: usize = 32;

impl Convention for FastDllmV2 {
    fn classes(&self) -> &'static [&'static str] {
        &["Fast_dLLM_QwenForCausalLM"]
    }

    fn word(&self) -> &'static str {
        "fast-dllm-v2"
    }

    fn models(&self) -> &'static str {
        "Fast-dLLM v2"
    }

    fn read(&self, keys: &Keys<'_>) -> Result<ModelConfig> {
        keys.size("intermediate_size")?;
        let block_length = keys.optional_size("bd_size")?.unwrap_or(BLOCK);
        Ok(ModelConfig {
            attention: AttentionMask::BlockCausal { block_length },
            shift: LogitShift::Next,
            qkv_bias: true,
            ..llama::read(Family::FastDllmV2, keys)?
        })
    }

    fn judged(&self) -> &'static [&'static str] {
        &["bd_size"]
    }

    fn write(&self, config: &ModelConfig) -> Value {
        let mut json = llama::write(config);
        json["model_type"] = json!("Fast_dLLM_Qwen");
        json["auto_map"] = json!({
            "AutoConfig": "configuration.Fast_dLLM_QwenConfig",
            "AutoModel": "modeling.Fast_dLLM_QwenModel",
            "AutoModelForCausalLM": "modeling.Fast_dLLM_QwenForCausalLM",
        });
        json["attention_dropout"] = json!(0.0);
        json["layer_types"] = json!(vec!["full_attention"; config.n_layers]);
        json["use_sliding_window"] = json!(false);
        if let Some(block_length) = config.attention.block_length() {
            json["bd_size"] = json!(block_length);
        }
        json
    }

    fn sampler(&self) -> PublishedSampler {
        PublishedSampler::FastDllmV2
    }

    fn is_by_blocks(&self) -> bool {
        true
    }

    fn name(&self, parameter: Parameter) -> String {
        llama::name(parameter)
    }
}
