//! What a model is, read from a Hugging Face `config.json` and from nothing else.

mod computed;
pub mod family;
mod keys;
mod rope;
mod spec;

use serde_json::{Value, json};

use crate::json;
pub use family::Family;
use keys::Keys;
pub use spec::{
    AttentionMask, Experts, LogitShift, PublishedSampler, QkNorm, Router, RouterBias, Score,
};

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
    /// Elements of a head.
    pub head_dim: usize,
    /// Width of the SwiGLU feed-forward network of layers without experts; 0 where there are none.
    pub mlp_hidden_size: usize,
    /// Entries of the vocabulary.
    pub vocab_size: usize,
    /// Rows of the embedding, and so columns of the logits; at least `vocab_size`.
    pub embedding_size: usize,
    /// Longest sequence.
    pub max_sequence_length: usize,
    /// Base of the rotary angles.
    pub rope_theta: f64,
    /// Elements of a head, from the first, that are rotated.
    pub rotary_dim: usize,
    /// ε of every RMSNorm.
    pub rms_norm_eps: f32,
    /// Whether the LM head is the embedding.
    pub weight_tying: bool,
    /// Which tokens a token attends to.
    pub attention: AttentionMask,
    /// Which position a row of the logits predicts.
    pub shift: LogitShift,
    /// Whether q, k and v have a bias.
    pub qkv_bias: bool,
    /// What of the queries and keys is normalised.
    pub qk_norm: QkNorm,
    /// The mixture of experts, in models that have one.
    pub experts: Option<Experts>,
    /// Whether logits are divided by √d_model.
    pub scale_logits: bool,
    /// Whether embeddings are multiplied by √d_model.
    pub input_emb_norm: bool,
    /// What the model was trained with.
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
    /// Of a key whose value asks for what is not computed.
    fn not_computed(key: impl Into<String>, value: &Value) -> Self {
        let mut found = value.to_string();
        if let Some((cut, _)) = found.char_indices().nth(80) {
            found.truncate(cut);
            found.push('…');
        }
        Self::NotComputed { key: key.into(), found }
    }

    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Architecture(_) => Some(Family::supported()),
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

/// No real model has as many blocks.
pub(crate) const MOST_LAYERS: usize = 1 << 12;

impl ModelConfig {
    /// A plain LLaDA: as many heads of keys as of queries, sequences of 4096 tokens, no token with a
    /// meaning.
    pub fn llada(
        d_model: usize,
        n_layers: usize,
        n_heads: usize,
        mlp_hidden_size: usize,
        vocab_size: usize,
    ) -> Self {
        let head_dim = d_model / n_heads.max(1);
        Self {
            family: Family::Llada,
            d_model,
            n_layers,
            n_heads,
            n_kv_heads: n_heads,
            head_dim,
            mlp_hidden_size,
            vocab_size,
            embedding_size: vocab_size,
            max_sequence_length: 4096,
            rope_theta: 500_000.0,
            rotary_dim: head_dim,
            rms_norm_eps: 1e-5,
            weight_tying: false,
            attention: AttentionMask::Bidirectional,
            shift: LogitShift::Same,
            qkv_bias: false,
            qk_norm: QkNorm::None,
            experts: None,
            scale_logits: false,
            input_emb_norm: false,
            objective: Objective::Diffusion,
            tokens: SpecialTokens::default(),
        }
    }

    /// Reads the text of a `config.json`.
    pub fn from_json(text: &str) -> Result<Self> {
        let value = json::parse_settings(text.as_bytes());
        let value = value.map_err(|e| ConfigError::Json(e.to_string()))?;
        let object = value.as_object().ok_or_else(|| ConfigError::Json("not an object".into()))?;
        let keys = Keys(object);
        let class = keys.class()?;
        let family =
            Family::of_class(class).ok_or_else(|| ConfigError::Architecture(class.into()))?;
        let config = family.read(&keys)?.with_objective(keys.objective()?);
        let config = match keys.optional_size("block_size")? {
            // Of a family whose own code attends to all tokens.
            Some(block_length) if config.attention == AttentionMask::Bidirectional => {
                Self { attention: AttentionMask::BlockCausal { block_length }, ..config }
            }
            _ => config,
        };
        config.check()?;
        computed::check(object, &config)?;
        Ok(config)
    }

    /// The same sizes under another objective: the causal baseline of Eq. 2 attends to what came
    /// before and predicts the next token.
    pub fn with_objective(self, objective: Objective) -> Self {
        let (attention, shift) = match objective {
            Objective::Autoregressive => (AttentionMask::Causal, LogitShift::Next),
            Objective::Diffusion if self.attention == AttentionMask::Causal => {
                (AttentionMask::Bidirectional, LogitShift::Same)
            }
            Objective::Diffusion => (self.attention, self.shift),
        };
        Self { objective, attention, shift, ..self }
    }

    /// The `config.json` that the official Python code of its family loads.
    pub fn to_json(&self) -> Value {
        let mut json = self.family.write(self);
        // Keys that the Python code does not know stay out of the files of models like its own.
        if self.objective == Objective::Autoregressive {
            json["objective"] = json!(self.objective);
        }
        if let Some(block_length) = self.attention.block_length()
            && !self.family.is_by_blocks()
        {
            json["block_size"] = json!(block_length);
        }
        if let Some(eot) = self.tokens.eot {
            json["eot_token_id"] = json!(eot);
        }
        json
    }

    /// Whose published sampler fits the model: that of its family, or where only the model attends by
    /// blocks, that of a family which does.
    pub fn published_sampler(&self) -> PublishedSampler {
        match (self.attention.block_length(), self.shift) {
            (Some(_), LogitShift::Same) if !self.family.is_by_blocks() => PublishedSampler::Llada2,
            (Some(_), LogitShift::Next) if !self.family.is_by_blocks() => {
                PublishedSampler::FastDllmV2
            }
            _ => self.family.sampler(),
        }
    }

    /// Width of the queries.
    pub fn q_dim(&self) -> usize {
        self.n_heads * self.head_dim
    }

    /// Width of the keys and of the values.
    pub fn kv_dim(&self) -> usize {
        self.n_kv_heads * self.head_dim
    }

    /// Whether layer `layer` has experts.
    pub fn has_experts(&self, layer: usize) -> bool {
        let flag = |experts: &Experts| experts.layers.get(layer).copied();
        self.experts.as_ref().and_then(flag).unwrap_or(false)
    }

    /// Factor on the logits.
    pub fn logit_scale(&self) -> f32 {
        if self.scale_logits { 1.0 / (self.d_model as f32).sqrt() } else { 1.0 }
    }

    /// Checks that the sizes fit each other.
    pub fn check(&self) -> Result<()> {
        let positive = [
            ("d_model", self.d_model),
            ("n_layers", self.n_layers),
            ("n_heads", self.n_heads),
            ("n_kv_heads", self.n_kv_heads),
            ("head_dim", self.head_dim),
            ("vocab_size", self.vocab_size),
            ("max_sequence_length", self.max_sequence_length),
        ];
        for (key, n) in positive {
            if n == 0 || n as u64 > MAX_DIMENSION {
                return Err(wrong(key, n, format!("1 to {MAX_DIMENSION}")));
            }
        }
        if self.n_layers > MOST_LAYERS {
            return Err(wrong("n_layers", self.n_layers, format!("at most {MOST_LAYERS}")));
        }
        let is_dense = (0..self.n_layers).any(|layer| !self.has_experts(layer));
        if self.mlp_hidden_size < usize::from(is_dense)
            || self.mlp_hidden_size as u64 > MAX_DIMENSION
        {
            let expected = format!("1 to {MAX_DIMENSION}");
            return Err(wrong("mlp_hidden_size", self.mlp_hidden_size, expected));
        }
        if let Some(experts) = &self.experts {
            experts.check(self.n_layers)?;
        }
        self.family.check(self)?;
        if !self.head_dim.is_multiple_of(2) {
            return Err(wrong("head_dim", self.head_dim, "an even number"));
        }
        if !self.rotary_dim.is_multiple_of(2) || !(2..=self.head_dim).contains(&self.rotary_dim) {
            let expected = format!("even, and 2 to {}", self.head_dim);
            return Err(wrong("rotary_dim", self.rotary_dim, expected));
        }
        if self.q_dim() as u64 > MAX_DIMENSION {
            let expected = format!("heads of {MAX_DIMENSION} elements together at most");
            return Err(wrong("head_dim", self.head_dim, expected));
        }
        if self.attention == (AttentionMask::BlockCausal { block_length: 0 }) {
            return Err(wrong("block_size", 0, "1 or more"));
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
