//! Dream (arXiv 2508.15487) and the models made of it: Qwen2's keys and names. Row i of the logits
//! predicts token i + 1, as in the model that it was initialised from.

use serde_json::{Value, json};

use super::{Convention, Family, Parameter, llama};
use crate::config::{AttentionMask, LogitShift, ModelConfig, PublishedSampler, Result, keys::Keys};

pub(super) struct Dream;

impl Convention for Dream {
    fn classes(&self) -> &'static [&'static str] {
        &["DreamModel"]
    }

    fn word(&self) -> &'static str {
        "dream"
    }

    fn models(&self) -> &'static str {
        "Dream, Dream-Coder, DiffuCoder"
    }

    fn read(&self, keys: &Keys<'_>) -> Result<ModelConfig> {
        keys.size("intermediate_size")?;
        let config = llama::read(Family::Dream, keys)?;
        Ok(ModelConfig { shift: LogitShift::Next, qkv_bias: true, ..config })
    }

    fn judged(&self) -> &'static [&'static str] {
        &[]
    }

    fn write(&self, config: &ModelConfig) -> Value {
        let mut json = llama::write(config);
        json["model_type"] = json!("Dream");
        json["auto_map"] = json!({
            "AutoConfig": "configuration_dream.DreamConfig",
            "AutoModel": "modeling_dream.DreamModel",
        });
        json["attention_dropout"] = json!(0.0);
        json["use_sliding_window"] = json!(false);
        json
    }

    fn gguf(&self, config: &ModelConfig) -> Option<&'static str> {
        (config.attention == AttentionMask::Bidirectional).then_some("dream")
    }

    fn sampler(&self) -> PublishedSampler {
        PublishedSampler::Dream
    }

    fn name(&self, parameter: Parameter) -> String {
        llama::name(parameter)
    }
}
