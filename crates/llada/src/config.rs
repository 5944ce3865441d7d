//! What a model is, read from a Hugging Face `config.json` and from nothing else.

mod computed;
mod keys;
mod rope;

use serde_json::{Value, json};

use crate::json;
use keys::Keys;

/// Whose names and conventions a checkpoint follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// LLaDA-8B, LLaDA-1.5: OLMo-style keys and names (`model.transformer.blocks.N.…`).
    Llada,
    /// iLLaDA: Llama's keys and names (`model.layers.N.…`), the same mathematics.
    Illada,
}

/// What the model was trained to predict.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Objective {
    /// The masked tokens of x_t, with no causal mask (Eq. 3). Logits at i are for token i.
    Diffusion,
    /// The next token, with a causal mask (Eq. 2). Logits at i are for token i + 1.
    Autoregressive,
}

/// Token ids with a meaning. They come from the checkpoint, never from the code.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SpecialTokens {
    /// `[MASK]`.
    pub mask: Option<u32>,
    /// End of sequence.
    pub eos: Option<u32>,
    /// End of a chat turn.
    pub eot: Option<u32>,
    /// Beginning of sequence.
    pub bos: Option<u32>,
    /// Padding.
    pub pad: Option<u32>,
}

/// Sizes and options of a mask predictor.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// Names and conventions of the files.
    pub family: Family,
    /// Width of the residual stream.
    pub d_model: usize,
    /// Number of transformer blocks.
    pub n_layers: usize,
    /// Query heads.
    pub n_heads: usize,
    /// Key and value heads; divides `n_heads`.
    pub n_kv_heads: usize,
    /// Width of the SwiGLU feed-forward network.
    pub mlp_hidden_size: usize,
    /// Entries of the vocabulary.
    pub vocab_size: usize,
    /// Rows of the embedding, and so columns of the logits; at least `vocab_size`.
    pub embedding_size: usize,
    /// Longest row.
    pub max_sequence_length: usize,
    /// Base of the rotary angles.
    pub rope_theta: f64,
    /// ε of every RMSNorm.
    pub rms_norm_eps: f32,
    /// Whether the LM head is the embedding.
    pub weight_tying: bool,
    /// Whether q, k and v have a bias.
    pub qkv_bias: bool,
    /// Whether q and k are normalised before the split into heads.
    pub qk_norm: bool,
    /// Whether logits are divided by √d_model.
    pub scale_logits: bool,
    /// Whether embeddings are multiplied by √d_model.
    pub input_emb_norm: bool,
    /// What the model predicts.
    pub objective: Objective,
    /// Ids found in `config.json`.
    pub tokens: SpecialTokens,
}

/// What is wrong with a `config.json`.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Not JSON, or not an object.
    #[error("`config.json` is not a JSON object: {0}")]
    Json(String),
    /// The architecture is not of this family.
    #[error("unknown architecture `{0}`")]
    Architecture(String),
    /// A key is missing.
    #[error("`config.json` has no `{0}`")]
    Missing(&'static str),
    /// A key asks for a computation that is not done here.
    #[error("`config.json`: `{key}` is `{found}`, which is not computed here")]
    NotComputed {
        /// The key, after those that it lies under.
        key: String,
        /// Its value.
        found: String,
    },
    /// A key has a value of the wrong type or out of range.
    #[error("`config.json`: `{key}` is `{found}`, expected {expected}")]
    Value {
        /// The key.
        key: String,
        /// Its value.
        found: String,
        /// What it should be.
        expected: String,
    },
}

impl ConfigError {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Architecture(_) => Some(
                "supported: `LLaDAModelLM` (LLaDA, LLaDA-1.5) and `ILLaDAForCausalLM` (iLLaDA)"
                    .into(),
            ),
            Self::NotComputed { .. } => Some(
                "a model with it would give other numbers without a word: use one without it, or \
                 remove the key where the model's code does not read it"
                    .into(),
            ),
            Self::Json(_) => Some("give the folder of a Hugging Face checkpoint".into()),
            Self::Missing(_) | Self::Value { .. } => {
                Some("compare with the `config.json` of the original checkpoint".into())
            }
        }
    }
}

type Result<T> = std::result::Result<T, ConfigError>;

/// No dimension of a real model comes near; larger values in a file are damage or malice.
const MAX_DIMENSION: u64 = 1 << 24;

impl ModelConfig {
    /// Reads the text of a `config.json`. Nothing is taken from the defaults of the reference's
    /// Python dataclass, several of which (tied weights, dropout 0.1) no released model uses.
    pub fn from_json(text: &str) -> Result<Self> {
        let value = json::parse_settings(text.as_bytes());
        let value = value.map_err(|e| ConfigError::Json(e.to_string()))?;
        let object = value.as_object().ok_or_else(|| ConfigError::Json("not an object".into()))?;
        let config = Keys(object).model()?;
        config.check()?;
        computed::check(object, &config)?;
        Ok(config)
    }

    /// The `config.json` that the official Python code loads; always with LLaDA's keys, or
    /// iLLaDA's for that family.
    pub fn to_json(&self) -> Value {
        let mut json = match self.family {
            Family::Llada => self.llada_json(),
            Family::Illada => self.illada_json(),
        };
        // Keys that the Python code does not know stay out of the files of models like its own.
        if self.objective == Objective::Autoregressive {
            json["objective"] = json!(self.objective);
        }
        if let Some(eot) = self.tokens.eot {
            json["eot_token_id"] = json!(eot);
        }
        json
    }

    /// Width of one head.
    pub fn head_dim(&self) -> usize {
        self.d_model / self.n_heads
    }

    /// Width of the keys and of the values.
    pub fn kv_dim(&self) -> usize {
        self.n_kv_heads * self.head_dim()
    }

    /// Factor on the logits.
    pub fn logit_scale(&self) -> f32 {
        if self.scale_logits { 1.0 / (self.d_model as f32).sqrt() } else { 1.0 }
    }

    /// Parameters of the matrices and norms, embedding and head included.
    pub fn parameters(&self) -> usize {
        crate::model::Layout::new(self).specs().iter().map(|s| s.len()).sum()
    }

    /// Checks that the sizes fit each other.
    pub fn check(&self) -> Result<()> {
        let positive = [
            ("d_model", self.d_model),
            ("n_layers", self.n_layers),
            ("n_heads", self.n_heads),
            ("n_kv_heads", self.n_kv_heads),
            ("mlp_hidden_size", self.mlp_hidden_size),
            ("vocab_size", self.vocab_size),
            ("max_sequence_length", self.max_sequence_length),
        ];
        for (key, n) in positive {
            if n == 0 || n as u64 > MAX_DIMENSION {
                return Err(wrong(key, n, format!("1 to {MAX_DIMENSION}")));
            }
        }
        if self.n_layers > 4096 {
            return Err(wrong("n_layers", self.n_layers, "at most 4096"));
        }
        if !self.d_model.is_multiple_of(self.n_heads) || !self.head_dim().is_multiple_of(2) {
            let expected = format!("a multiple of {} with even heads", self.n_heads);
            return Err(wrong("d_model", self.d_model, expected));
        }
        if !self.n_heads.is_multiple_of(self.n_kv_heads) {
            return Err(wrong(
                "n_kv_heads",
                self.n_kv_heads,
                format!("a divisor of {} heads", self.n_heads),
            ));
        }
        if self.embedding_size < self.vocab_size || self.embedding_size as u64 > MAX_DIMENSION {
            let expected = format!("at least the vocabulary's {}", self.vocab_size);
            return Err(wrong("embedding_size", self.embedding_size, expected));
        }
        if !(self.rms_norm_eps.is_finite() && self.rms_norm_eps > 0.0) {
            return Err(wrong("rms_norm_eps", self.rms_norm_eps, "a small positive number"));
        }
        if !(self.rope_theta.is_finite() && self.rope_theta > 0.0) {
            return Err(wrong("rope_theta", self.rope_theta, "a positive number"));
        }
        let ids = [
            ("mask_token_id", self.tokens.mask),
            ("eos_token_id", self.tokens.eos),
            ("eot_token_id", self.tokens.eot),
            ("bos_token_id", self.tokens.bos),
            ("pad_token_id", self.tokens.pad),
        ];
        for (key, id) in ids {
            if let Some(id) = id
                && id as usize >= self.embedding_size
            {
                return Err(wrong(key, id, format!("below {}", self.embedding_size)));
            }
        }
        Ok(())
    }

    fn llada_json(&self) -> Value {
        json!({
            "architectures": ["LLaDAModelLM"],
            "auto_map": {
                "AutoConfig": "configuration_llada.LLaDAConfig",
                "AutoModelForCausalLM": "modeling_llada.LLaDAModelLM",
                "AutoModel": "modeling_llada.LLaDAModelLM",
            },
            "model_type": "llada",
            "d_model": self.d_model,
            "n_layers": self.n_layers,
            "n_heads": self.n_heads,
            "n_kv_heads": self.n_kv_heads,
            "mlp_hidden_size": self.mlp_hidden_size,
            "mlp_ratio": 4,
            "vocab_size": self.vocab_size,
            "embedding_size": self.embedding_size,
            "max_sequence_length": self.max_sequence_length,
            "rope": true,
            "rope_full_precision": true,
            "rope_theta": self.rope_theta,
            "rms_norm_eps": widen(self.rms_norm_eps),
            "weight_tying": self.weight_tying,
            "include_bias": false,
            "include_qkv_bias": self.qkv_bias,
            "bias_for_layer_norm": false,
            "attention_layer_norm": self.qk_norm,
            "attention_layer_norm_with_affine": true,
            "layer_norm_type": "rms",
            "layer_norm_with_affine": true,
            "activation_type": "silu",
            "block_type": "llama",
            "block_group_size": 1,
            "alibi": false,
            "alibi_bias_max": 8.0,
            "attention_dropout": 0.0,
            "embedding_dropout": 0.0,
            "residual_dropout": 0.0,
            "flash_attention": false,
            "init_device": "meta",
            "init_fn": "mitchell",
            "init_std": 0.02,
            "init_cutoff_factor": null,
            "input_emb_norm": self.input_emb_norm,
            "multi_query_attention": null,
            "precision": "amp_bf16",
            "scale_logits": self.scale_logits,
            "use_cache": false,
            "mask_token_id": self.tokens.mask,
            "eos_token_id": self.tokens.eos,
            "bos_token_id": self.tokens.bos,
            "pad_token_id": self.tokens.pad.or(self.tokens.eos),
        })
    }

    fn illada_json(&self) -> Value {
        json!({
            "architectures": ["ILLaDAForCausalLM"],
            "model_type": "illada",
            "hidden_size": self.d_model,
            "intermediate_size": self.mlp_hidden_size,
            "num_hidden_layers": self.n_layers,
            "num_attention_heads": self.n_heads,
            "num_key_value_heads": self.n_kv_heads,
            "vocab_size": self.vocab_size,
            "rms_norm_eps": widen(self.rms_norm_eps),
            "rope_theta": self.rope_theta,
            "rope_scaling": null,
            "tie_word_embeddings": self.weight_tying,
            "attention_bias": false,
            "mlp_bias": false,
            "hidden_act": "silu",
            "max_position_embeddings": self.max_sequence_length,
            "mask_token_id": self.tokens.mask,
            "eos_token_id": self.tokens.eos,
            "bos_token_id": self.tokens.bos,
            "pad_token_id": self.tokens.pad,
        })
    }
}

/// The shortest decimal of an `f32`, so that 1e-5 is written as 1e-5.
fn widen(x: f32) -> f64 {
    x.to_string().parse().unwrap_or(f64::from(x))
}

fn wrong(
    key: impl Into<String>,
    found: impl std::fmt::Display,
    expected: impl Into<String>,
) -> ConfigError {
    ConfigError::Value { key: key.into(), found: found.to_string(), expected: expected.into() }
}

#[cfg(test)]
mod tests;
