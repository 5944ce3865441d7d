//! What the families share whose keys and names are Llama's.

use serde_json::{Value, json};

use super::{Family, Parameter, Part};
use crate::config::{ModelConfig, Result, keys::Keys, rope, widen};

/// The sizes that Llama's keys give; no bias, no norms of q and k, no experts.
pub(super) fn read(family: Family, keys: &Keys<'_>) -> Result<ModelConfig> {
    keys.expect_or_absent("rope", &json!(true))?;
    let d_model = keys.size("hidden_size")?;
    let n_heads = keys.size("num_attention_heads")?;
    let vocab_size = keys.size("vocab_size")?;
    let head_dim = match keys.optional_size("head_dim")? {
        Some(head_dim) => head_dim,
        None => keys.head_dim("hidden_size", "num_attention_heads")?,
    };
    let n_layers = keys.size("num_hidden_layers")?;
    let n_kv_heads = keys.optional_size("num_key_value_heads")?.unwrap_or(n_heads);
    let mlp_hidden_size = keys.optional_size("intermediate_size")?.unwrap_or(0);
    Ok(ModelConfig {
        family,
        n_kv_heads,
        head_dim,
        max_sequence_length: keys.size("max_position_embeddings")?,
        rope_theta: rope::theta(keys.0)?,
        rotary_dim: head_dim,
        rms_norm_eps: keys.number("rms_norm_eps")? as f32,
        weight_tying: keys.required_flag("tie_word_embeddings")?,
        tokens: keys.tokens()?,
        ..ModelConfig::llada(d_model, n_layers, n_heads, mlp_hidden_size, vocab_size)
    })
}

/// The keys of [`read`].
pub(super) fn write(config: &ModelConfig) -> Value {
    json!({
        "hidden_size": config.d_model,
        "intermediate_size": config.mlp_hidden_size,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": config.n_heads,
        "num_key_value_heads": config.n_kv_heads,
        "vocab_size": config.vocab_size,
        "rms_norm_eps": widen(config.rms_norm_eps),
        "rope_theta": config.rope_theta,
        "rope_scaling": null,
        "tie_word_embeddings": config.weight_tying,
        "hidden_act": "silu",
        "max_position_embeddings": config.max_sequence_length,
        "mask_token_id": config.tokens.mask,
        "eos_token_id": config.tokens.eos,
        "bos_token_id": config.tokens.bos,
        "pad_token_id": config.tokens.pad,
    })
}

/// The names of Llama, Qwen and OLMoE.
pub(super) fn name(parameter: Parameter) -> String {
    let (block, part) = match parameter {
        Parameter::Embedding => return "model.embed_tokens.weight".into(),
        Parameter::FinalNorm => return "model.norm.weight".into(),
        Parameter::Head => return "lm_head.weight".into(),
        Parameter::Block(block, part) => (block, part),
    };
    let part = match part {
        Part::AttnNorm => "input_layernorm.weight".into(),
        Part::FfNorm => "post_attention_layernorm.weight".into(),
        Part::Weight(p) => format!("self_attn.{}_proj.weight", p.letter()),
        Part::Bias(p) => format!("self_attn.{}_proj.bias", p.letter()),
        Part::Norm(p) => format!("self_attn.{}_norm.weight", p.letter()),
        Part::AttnOut => "self_attn.o_proj.weight".into(),
        Part::Dense(m) => format!("mlp.{}_proj.weight", m.word()),
        Part::Expert(e, m) => format!("mlp.experts.{e}.{}_proj.weight", m.word()),
        Part::Shared(m) => format!("mlp.shared_experts.{}_proj.weight", m.word()),
        Part::Router => "mlp.gate.weight".into(),
        Part::RouterBias => "mlp.gate.expert_bias".into(),
    };
    format!("model.layers.{block}.{part}")
}
