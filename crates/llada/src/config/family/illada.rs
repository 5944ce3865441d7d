//! iLLaDA: LLaDA's mathematics under Llama's names.

use serde_json::{Value, json};

use super::{Convention, Family, Parameter, llama};
use crate::config::{ConfigError, ModelConfig, Result, keys::Keys, wrong};

pub(super) struct Illada;

impl Convention for Illada {
    fn classes(&self) -> &'static [&'static str] {
        &["ILLaDAForCausalLM"]
    }

    fn word(&self) -> &'static str {
        "illada"
    }

    fn models(&self) -> &'static str {
        "iLLaDA"
    }

    fn read(&self, keys: &Keys<'_>) -> Result<ModelConfig> {
        if !keys.has("hidden_act") {
            return Err(ConfigError::Missing("hidden_act"));
        }
        keys.size("intermediate_size")?;
        let config = llama::read(Family::Illada, keys)?;
        match config.q_dim() == config.d_model {
            true => Ok(config),
            false => {
                let expected =
                    format!("{}, the width over the heads", config.d_model / config.n_heads);
                Err(wrong("head_dim", config.head_dim, expected))
            }
        }
    }

    fn judged(&self) -> &'static [&'static str] {
        &[]
    }

    fn write(&self, config: &ModelConfig) -> Value {
        let mut json = llama::write(config);
        json["model_type"] = json!("illada");
        json["attention_bias"] = json!(false);
        json["mlp_bias"] = json!(false);
        json
    }

    fn gguf(&self, config: &ModelConfig) -> Option<&'static str> {
        super::plain_gguf(config)
    }

    fn gguf_interleaves(&self) -> bool {
        true
    }

    fn name(&self, parameter: Parameter) -> String {
        llama::name(parameter)
    }
}
