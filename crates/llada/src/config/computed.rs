//! Keys that change what a model computes, in ways that are not computed here.
//!
//! The files of derived models have keys that the official code never had. One that is not read
//! here and speaks of the computation must be off, so that no model gives other numbers silently.

use serde_json::{Map, Value};

use super::{
    AttentionMask, ConfigError, ModelConfig, Result,
    keys::is_nothing,
    rope::{self, is_longest_sequence},
};

/// Keys that are read elsewhere at the top of the file.
const READ: [&str; 4] = ["rope", "rope_theta", "rope_parameters", "rope_scaling"];

/// Keys that change no result, and objects whose keys are names of other things.
const INERT: [&str; 14] = [
    "rope_full_precision",
    "rms_norm_eps",
    "layer_norm_eps",
    "layer_norm_epsilon",
    "norm_eps",
    "scale_attn_weights",
    "chunk_size_feed_forward",
    "max_window_layers",
    "sliding_window_pattern",
    "alibi_bias_max",
    "auto_map",
    "id2label",
    "label2id",
    "task_specific_params",
];

/// Beginnings of words in the names of keys that change the computation, unless they are 1.
const FACTORS: [&str; 19] = [
    "rope",
    "rotary",
    "partial_rot",
    "scal",
    "multiplier",
    "mup",
    "dim_model_base",
    "deepnorm",
    "attention_factor",
    "attn_factor",
    "interpolation_factor",
    "position_interpolation_factor",
    "long_factor",
    "short_factor",
    "mscale",
    "ntk_alpha",
    "ntk_factor",
    "yarn_factor",
    "yarn_scal",
];

/// The same of keys that do so unless they are 0.
const SWITCHES: [&str; 50] = [
    "abs_pos",
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
    "group_attention",
    "interpolat",
    "k_eq_v",
    "layernorm",
    "learned_pos",
    "load_in_",
    "local_att",
    "logn",
    "long_rope",
    "longrope",
    "lora_rank",
    "mamba",
    "moe",
    "mrope",
    "nope",
    "norm",
    "ntk",
    "parallel_att",
    "parallel_residual",
    "pos_interp",
    "position_interp",
    "prun",
    "qkv_clip",
    "quant",
    "rel_pos",
    "relative_att",
    "relative_pos",
    "self_extend",
    "shared_layers",
    "sink",
    "sliding",
    "soft_cap",
    "softcap",
    "sparse",
    "window",
    "xpos",
    "yarn",
];

/// Beginnings of the names of switches, which a 1 turns on whatever they are about.
const FLAGS: [&str; 5] = ["use_", "is_", "has_", "enable", "apply_"];

/// Names of the kind of positions.
const POSITIONS: [&str; 6] = [
    "position_embedding_type",
    "positional_embedding_type",
    "position_encoding_type",
    "position_embedding",
    "positional_encoding",
    "pos_emb_type",
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

/// Refuses the first key that changes the computation of `model`.
pub(super) fn check(config: &Map<String, Value>, model: &ModelConfig) -> Result<()> {
    Judge { config, model }.top()
}

/// Judges the keys of a file, and those of the objects in it: what other code reads there speaks of
/// the same model.
struct Judge<'a> {
    config: &'a Map<String, Value>,
    model: &'a ModelConfig,
}

impl Judge<'_> {
    fn top(&self) -> Result<()> {
        let is_read = |key: &str| self.model.family.judges(key) || READ.contains(&key);
        self.keys(self.config.iter().filter(|(key, _)| !is_read(key)), self.config, "")
    }

    /// Judges `keys` of an `object`, which lies under `path`.
    fn keys<'k>(
        &self,
        keys: impl Iterator<Item = (&'k String, &'k Value)>,
        object: &Map<String, Value>,
        path: &str,
    ) -> Result<()> {
        for (key, value) in keys.filter(|(key, _)| !is_inert(key)) {
            let path = format!("{path}{key}");
            if !self.is_computed(object, key, value) {
                return Err(ConfigError::not_computed(path, value));
            }
            self.inside(&path, value)?;
        }
        Ok(())
    }

    /// Judges the objects in a value.
    fn inside(&self, path: &str, value: &Value) -> Result<()> {
        match value {
            Value::Object(object) => self.nested(path, object),
            Value::Array(list) => {
                let mut deep =
                    list.iter().enumerate().filter(|(_, v)| v.is_object() || v.is_array());
                deep.try_for_each(|(i, value)| self.inside(&format!("{path}[{i}]"), value))
            }
            _ => Ok(()),
        }
    }

    fn nested(&self, path: &str, object: &Map<String, Value>) -> Result<()> {
        for key in ["rope_theta", "rope_parameters", "rope_scaling"] {
            if let Some(value) = object.get(key) {
                let theta = self.model.rope_theta;
                rope::agrees(self.config, theta, &format!("{path}.{key}"), value)?;
            }
        }
        // A key that says again what stands at the top was judged there.
        let others = object.iter().filter(|(key, value)| {
            let is_angle = READ.contains(&key.as_str()) && *key != "rope";
            !is_angle && self.config.get(*key) != Some(*value)
        });
        self.keys(others, object, &format!("{path}."))
    }

    /// Whether a key of `object` asks for nothing but what is computed.
    fn is_computed(&self, object: &Map<String, Value>, key: &str, value: &Value) -> bool {
        let length = self.model.max_sequence_length as u64;
        let is = |names: &[&str]| each(value, |v| v.as_str().is_some_and(|v| names.contains(&v)));
        match key {
            _ if value.is_null() => true,
            key if ACTIVATIONS.contains(&key) => is(&["silu", "swish"]),
            key if LAYERS.contains(&key) => is(&FULL),
            "block_type" => is(&["llama"]),
            key if POSITIONS.contains(&key) => is(&["rope", "rotary"]),
            "rope" | "use_rope" | "use_rotary" | "use_rotary_emb" => value == true,
            "head_dim" | "rotary_dim" | "v_head_dim" => {
                value.as_u64() == Some(self.model.head_dim as u64)
            }
            // One flag for each layer: whether it has rotary positions.
            "no_rope_layers" => each(value, |v| v == 1 || v == true),
            "is_causal" | "causal" | "use_causal_mask" => {
                value == false || self.model.attention == AttentionMask::Causal
            }
            // A window as long as the longest sequence hides nothing.
            "sliding_window" | "use_sliding_window" => {
                let window = object.get("sliding_window").filter(|window| !window.is_null());
                object.get("use_sliding_window").is_some_and(|used| used == false)
                    || window.is_none_or(|window| window.as_u64().is_some_and(|n| n >= length))
            }
            key if key.starts_with("original_max") => is_longest_sequence(self.config, value),
            key => is_off(key, value),
        }
    }
}

fn is_inert(key: &str) -> bool {
    INERT.contains(&key) || key.starts_with('_')
}

/// Whether a key that no code here knows leaves the computation as it is.
fn is_off(key: &str, value: &Value) -> bool {
    let key = snake_case(key);
    // How weights start and what is dropped while training says nothing of the trained model.
    if is_nothing(value) || ["init", "dropout"].iter().any(|word| key.contains(word)) {
        return true;
    }
    let says = |word: &&str| format!("_{key}").contains(&format!("_{word}"));
    let is_flag = FLAGS.iter().any(|flag| key.starts_with(flag));
    match (FACTORS.iter().any(says), SWITCHES.iter().any(says)) {
        (false, false) => true,
        (true, _) if !is_flag => each(value, |value| value.as_f64() == Some(1.0)),
        _ => each(value, |value| value.as_f64() == Some(0.0) || value == false),
    }
}

/// `useYarn` and `use-yarn` as `use_yarn`.
fn snake_case(key: &str) -> String {
    let mut out = String::with_capacity(key.len() + 4);
    let mut after_small = false;
    for c in key.chars() {
        if c.is_ascii_uppercase() && after_small {
            out.push('_');
        }
        after_small = c.is_ascii_lowercase() || c.is_ascii_digit();
        out.push(if c == '-' { '_' } else { c.to_ascii_lowercase() });
    }
    out
}

/// Whether a value, or every one of a list, is as `check` wants.
fn each(value: &Value, check: impl Fn(&Value) -> bool) -> bool {
    match value {
        Value::Array(list) => list.iter().all(check),
        value => check(value),
    }
}
