//! Keys that change what a model computes, in ways that are not computed here.
//!
//! The files of derived models have keys that the official code never had. One that is not read
//! here and speaks of the computation must be off, so that no model gives other numbers silently.

use serde_json::{Map, Value};

use super::{AttentionMask, ConfigError, ModelConfig, Result};
use crate::json;

/// Keys that are read elsewhere, or change no result.
const JUDGED: [&str; 13] = [
    "rope",
    "rope_theta",
    "rope_parameters",
    "rope_scaling",
    "rope_full_precision",
    "rms_norm_eps",
    "layer_norm_eps",
    "layer_norm_epsilon",
    "norm_eps",
    "scale_attn_weights",
    "chunk_size_feed_forward",
    "max_window_layers",
    "sliding_window_pattern",
];

/// Beginnings of words in the names of keys that change the computation, unless they are 1.
const FACTORS: [&str; 8] =
    ["rope", "rotary", "partial_rot", "scal", "multiplier", "mup", "dim_model_base", "deepnorm"];

/// The same of keys that do so unless they are 0.
const SWITCHES: [&str; 32] = [
    "alibi",
    "altup",
    "attn_temperature",
    "bias",
    "causal",
    "chunk",
    "clamp",
    "clip_att",
    "clip_qkv",
    "compress",
    "cross_att",
    "expert",
    "k_eq_v",
    "layernorm",
    "load_in_",
    "local_att",
    "lora_rank",
    "mamba",
    "moe",
    "norm",
    "parallel_att",
    "parallel_residual",
    "prun",
    "qkv_clip",
    "quant",
    "shared_layers",
    "sink",
    "sliding",
    "soft_cap",
    "softcap",
    "sparse",
    "window",
];

/// Names of the activation.
const ACTIVATIONS: [&str; 6] = [
    "hidden_act",
    "hidden_activation",
    "activation_type",
    "activation_function",
    "activation",
    "mlp_activation",
];

/// Names of the kinds of layers.
const LAYERS: [&str; 5] =
    ["layer_types", "layers_block_type", "block_types", "attention_type", "attn_type"];

/// What such a kind may be.
const FULL: [&str; 5] = ["full_attention", "full", "attention", "bidirectional", "softmax"];

/// A key whose value asks for what is not computed.
pub(super) fn refused(key: impl Into<String>, value: &Value) -> ConfigError {
    let mut found = value.to_string();
    if let Some((cut, _)) = found.char_indices().nth(80) {
        found.truncate(cut);
        found.push('…');
    }
    ConfigError::NotComputed { key: key.into(), found }
}

/// Refuses the first key that changes the computation of `model`.
pub(super) fn check(config: &Map<String, Value>, model: &ModelConfig) -> Result<()> {
    let judged =
        |key: &str| model.family.judges(key) || JUDGED.contains(&key) || key.starts_with('_');
    let mut keys = config.iter().filter(|(key, _)| !judged(key));
    match keys.find(|(key, value)| !is_computed(config, model, key, value)) {
        Some((key, value)) => Err(refused(key.as_str(), value)),
        None => Ok(()),
    }
}

fn is_computed(config: &Map<String, Value>, model: &ModelConfig, key: &str, value: &Value) -> bool {
    let length = model.max_sequence_length as u64;
    let is = |names: &[&str]| each(value, |v| v.as_str().is_some_and(|v| names.contains(&v)));
    match key {
        _ if value.is_null() => true,
        key if ACTIVATIONS.contains(&key) => is(&["silu", "swish"]),
        key if LAYERS.contains(&key) => is(&FULL),
        "block_type" => is(&["llama"]),
        "position_embedding_type" => is(&["rope", "rotary"]),
        "use_rope" | "use_rotary" | "use_rotary_emb" => value == true,
        "head_dim" | "rotary_dim" | "v_head_dim" => value.as_u64() == Some(model.head_dim as u64),
        // One flag for each layer: whether it has rotary positions.
        "no_rope_layers" => each(value, |v| v == 1 || v == true),
        "is_causal" | "causal" | "use_causal_mask" => {
            value == false || model.attention == AttentionMask::Causal
        }
        // A window as long as the longest row hides nothing.
        "sliding_window" | "use_sliding_window" => {
            let window = config.get("sliding_window").filter(|window| !window.is_null());
            config.get("use_sliding_window").is_some_and(|used| used == false)
                || window.is_none_or(|window| window.as_u64().is_some_and(|n| n >= length))
        }
        key if key.starts_with("original_max") => is_longest_row(config, value),
        key => is_off(key, value),
    }
}

/// Whether a key that no code here knows leaves the computation as it is.
fn is_off(key: &str, value: &Value) -> bool {
    let key = key.to_lowercase();
    // How weights start and what is dropped while training says nothing of the trained model.
    if is_nothing(value) || ["init", "dropout"].iter().any(|word| key.contains(word)) {
        return true;
    }
    let says = |word: &&str| format!("_{key}").contains(&format!("_{word}"));
    match FACTORS.iter().any(says) {
        true => value.as_f64() == Some(1.0),
        false => value.as_f64() == Some(0.0) || !SWITCHES.iter().any(says),
    }
}

/// Whether a value says that there is nothing of what its key is about.
pub(super) fn is_nothing(value: &Value) -> bool {
    json::is_nothing(value) || value == "default"
}

/// Whether a length before any scaling is the length itself.
pub(super) fn is_longest_row(config: &Map<String, Value>, value: &Value) -> bool {
    let lengths = ["max_position_embeddings", "max_sequence_length"].map(|key| config.get(key));
    lengths.contains(&Some(value))
}

/// Whether a value, or every one of a list, is as `check` wants.
fn each(value: &Value, check: impl Fn(&Value) -> bool) -> bool {
    match value {
        Value::Array(list) => list.iter().all(check),
        value => check(value),
    }
}
