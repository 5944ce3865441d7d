//! The recipe of a run: a TOML file of seven sections, every key of which has a default.

use std::path::PathBuf;

use super::{TrainError, keys, schedule::Schedule};
use crate::{
    Result,
    config::{ConfigError, Family, ModelConfig, Objective, SpecialTokens},
};

/// All that decides a run. Two runs of the same recipe on the same data give the same weights.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Recipe {
    /// Sizes of the model, or the checkpoint to start from.
    pub model: ModelSizes,
    /// Where rows come from.
    pub data: Data,
    /// The forward process.
    pub diffusion: Diffusion,
    /// The optimiser.
    pub optim: Optim,
    /// The loop.
    pub train: Loop,
    /// Validation.
    pub eval: Eval,
    /// What is written besides checkpoints.
    pub log: Log,
}

/// `[model]`: the vocabulary and the special ids come from the tokenizer of the data.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelSizes {
    /// Checkpoint folder to continue from; its `config.json` then gives the sizes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init_from: Option<PathBuf>,
    /// Width of the residual stream.
    pub d_model: usize,
    /// Number of transformer blocks.
    pub n_layers: usize,
    /// Query heads.
    pub n_heads: usize,
    /// Key and value heads; by default as many as query heads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub n_kv_heads: Option<usize>,
    /// Width of the feed-forward network; by default 8/3 of `d_model`, up to a multiple of 16.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mlp_hidden_size: Option<usize>,
    /// Longest row of the finished model; by default `data.sequence_length`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_sequence_length: Option<usize>,
    /// Whether the LM head is the embedding.
    pub weight_tying: bool,
    /// Base of the rotary angles.
    pub rope_theta: f64,
    /// ε of the norms.
    pub rms_norm_eps: f32,
    /// Whether q, k and v have a bias.
    pub qkv_bias: bool,
    /// Whether q and k are normalised.
    pub qk_norm: bool,
    /// Whether logits are divided by √d_model.
    pub scale_logits: bool,
    /// Whether embeddings are multiplied by √d_model.
    pub input_emb_norm: bool,
}

impl Default for ModelSizes {
    fn default() -> Self {
        Self {
            init_from: None,
            d_model: 256,
            n_layers: 6,
            n_heads: 4,
            n_kv_heads: None,
            mlp_hidden_size: None,
            max_sequence_length: None,
            weight_tying: false,
            rope_theta: 10_000.0,
            rms_norm_eps: 1e-5,
            qkv_bias: false,
            qk_norm: false,
            scale_logits: false,
            input_emb_norm: false,
        }
    }
}

/// `[data]`.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Data {
    /// The folder that `prepare` wrote.
    pub path: PathBuf,
    /// Tokens of a row.
    pub sequence_length: usize,
    /// Probability that a batch is cut to a length drawn from 1 to `sequence_length` (paper: 1 %).
    pub random_length: f64,
    /// Train on the first so many tokens only, to study repeated data; 0 takes all.
    pub unique_tokens: u64,
}

impl Default for Data {
    fn default() -> Self {
        let path = PathBuf::new();
        Self { path, sequence_length: 256, random_length: 0.01, unique_tokens: 0 }
    }
}

/// `[diffusion]`.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Diffusion {
    /// ε of the masking probability p = (1 − ε)t + ε.
    pub eps: f64,
    /// Whether the rows of a batch share out t evenly instead of each drawing its own: the same
    /// loss in expectation, with less noise.
    pub low_discrepancy: bool,
}

impl Default for Diffusion {
    fn default() -> Self {
        Self { eps: 1e-3, low_discrepancy: false }
    }
}

/// `[optim]`: AdamW with decoupled decay on all parameters, as the reference trains.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Optim {
    /// Peak learning rate.
    pub lr: f64,
    /// Learning rate at the end of the decay.
    pub min_lr: f64,
    /// `wsd` or `constant`.
    pub schedule: Schedule,
    /// Steps of linear warm-up.
    pub warmup_steps: u64,
    /// Fraction of all steps, at the end, over which `wsd` decays.
    pub decay_fraction: f64,
    /// Decay of the mean of the gradient.
    pub beta1: f64,
    /// Decay of the mean of its square.
    pub beta2: f64,
    /// Added to the denominator.
    pub eps: f64,
    /// Weight decay, times the learning rate.
    pub weight_decay: f64,
    /// Largest norm of the whole gradient; 0 does not clip.
    pub clip_norm: f64,
}

impl Default for Optim {
    fn default() -> Self {
        Self {
            lr: 1e-3,
            min_lr: 1e-5,
            schedule: Schedule::Wsd,
            warmup_steps: 100,
            decay_fraction: 0.2,
            beta1: 0.9,
            beta2: 0.95,
            eps: 1e-8,
            weight_decay: 0.1,
            clip_norm: 1.0,
        }
    }
}

/// `[train]`.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Loop {
    /// `diffusion` (Eq. 3) or `autoregressive` (Eq. 2, causal attention): the baseline's one key.
    pub objective: Objective,
    /// Updates.
    pub steps: u64,
    /// Rows of an update.
    pub batch_size: usize,
    /// Rows that are in memory together; gradients add up over them. 0 takes the whole batch.
    pub micro_batch_size: usize,
    /// Seed of the weights, the order, the lengths and the noise.
    pub seed: u64,
    /// Whether activations are computed again in the backward pass instead of kept.
    pub recompute: bool,
    /// Steps between checkpoints; 0 writes only the last.
    pub checkpoint_every: u64,
    /// Checkpoints kept; 0 keeps all.
    pub keep: usize,
    /// Stop after so many steps in a row whose loss or gradient was not finite.
    pub max_skipped: u32,
    /// Skip updates whose gradient norm is above this multiple of the median of the last 64; 0
    /// never does. A skipped norm counts in the median, so that a lasting change is accepted.
    pub spike_factor: f64,
}

impl Default for Loop {
    fn default() -> Self {
        Self {
            objective: Objective::Diffusion,
            steps: 1000,
            batch_size: 16,
            micro_batch_size: 0,
            seed: 0,
            recompute: false,
            checkpoint_every: 500,
            keep: 3,
            max_skipped: 3,
            spike_factor: 0.0,
        }
    }
}

/// `[eval]`.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Eval {
    /// Steps between validations; 0 never validates.
    pub every: u64,
    /// Rows of the validation split, spread evenly over it.
    pub rows: usize,
    /// Masked versions of each row.
    pub draws: usize,
}

impl Default for Eval {
    fn default() -> Self {
        Self { every: 250, rows: 64, draws: 4 }
    }
}

/// `[log]`.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// Steps between lines of `metrics.jsonl`.
    pub every: u64,
    /// Steps between sample texts; 0 writes none.
    pub sample_every: u64,
    /// Whether a TensorBoard events file is written.
    pub tensorboard: bool,
}

impl Default for Log {
    fn default() -> Self {
        Self { every: 10, sample_every: 500, tensorboard: true }
    }
}

impl Recipe {
    /// Reads the text of a recipe and applies `key=value` overrides such as `optim.lr=3e-4`, in
    /// order. Errors name the key, and for an unknown one the nearest known.
    pub fn parse(text: &str, overrides: &[impl AsRef<str>]) -> Result<Self> {
        let mut table: toml::Table =
            text.parse().map_err(|e: toml::de::Error| TrainError::Recipe(e.to_string()))?;
        let known = keys::known(&Self::every_key());
        keys::check(&table, &known, "")?;
        for assignment in overrides {
            keys::assign(&mut table, &known, assignment.as_ref())?;
        }
        let recipe: Self = table
            .try_into()
            .map_err(|e: toml::de::Error| TrainError::Recipe(e.to_string().trim().into()))?;
        recipe.check()?;
        Ok(recipe)
    }

    /// The resolved recipe, every key spelled out, as TOML.
    pub fn to_toml(&self) -> String {
        toml::to_string_pretty(self).unwrap_or_default()
    }

    /// The configuration of a fresh model for a tokenizer of `vocab_size` entries.
    pub fn model_config(&self, vocab_size: usize, tokens: SpecialTokens) -> Result<ModelConfig> {
        let sizes = &self.model;
        let config = ModelConfig {
            family: Family::Llada,
            d_model: sizes.d_model,
            n_layers: sizes.n_layers,
            n_heads: sizes.n_heads,
            n_kv_heads: sizes.n_kv_heads.unwrap_or(sizes.n_heads),
            mlp_hidden_size: sizes
                .mlp_hidden_size
                .unwrap_or((sizes.d_model * 8).div_ceil(3).next_multiple_of(16)),
            vocab_size,
            embedding_size: vocab_size,
            max_sequence_length: sizes.max_sequence_length.unwrap_or(self.data.sequence_length),
            rope_theta: sizes.rope_theta,
            rms_norm_eps: sizes.rms_norm_eps,
            weight_tying: sizes.weight_tying,
            qkv_bias: sizes.qkv_bias,
            qk_norm: sizes.qk_norm,
            scale_logits: sizes.scale_logits,
            input_emb_norm: sizes.input_emb_norm,
            objective: self.train.objective,
            tokens,
        };
        match config.check() {
            Err(ConfigError::Value { key, found, expected }) => {
                Err(TrainError::Value { key: format!("model.{key}"), found, expected }.into())
            }
            checked => Ok(checked.map(|()| config)?),
        }
    }

    /// Rows of one micro-batch.
    pub(super) fn micro_batch(&self) -> usize {
        match self.train.micro_batch_size {
            0 => self.train.batch_size,
            rows => rows.min(self.train.batch_size),
        }
    }

    fn check(&self) -> Result<()> {
        let fraction = |x: f64| (0.0..=1.0).contains(&x);
        let positive = |x: f64| x > 0.0 && x.is_finite();
        let not_negative = |x: f64| x >= 0.0 && x.is_finite();
        let (optim, train) = (&self.optim, &self.train);
        let rules: &[(bool, &'static str, String, &'static str)] = &[
            (
                self.data.sequence_length > 0,
                "data.sequence_length",
                self.data.sequence_length.to_string(),
                "at least 1",
            ),
            (
                self.data.sequence_length > 1 || train.objective == Objective::Diffusion,
                "data.sequence_length",
                self.data.sequence_length.to_string(),
                "at least 2 to predict a next token",
            ),
            (
                fraction(self.data.random_length),
                "data.random_length",
                self.data.random_length.to_string(),
                "from 0 to 1",
            ),
            (
                positive(self.diffusion.eps) && self.diffusion.eps < 1.0,
                "diffusion.eps",
                self.diffusion.eps.to_string(),
                "above 0 and below 1",
            ),
            (positive(optim.lr), "optim.lr", optim.lr.to_string(), "above 0"),
            (
                not_negative(optim.min_lr) && optim.min_lr <= optim.lr,
                "optim.min_lr",
                optim.min_lr.to_string(),
                "from 0 to `optim.lr`",
            ),
            (
                fraction(optim.decay_fraction),
                "optim.decay_fraction",
                optim.decay_fraction.to_string(),
                "from 0 to 1",
            ),
            (
                (0.0..1.0).contains(&optim.beta1),
                "optim.beta1",
                optim.beta1.to_string(),
                "from 0 to below 1",
            ),
            (
                (0.0..1.0).contains(&optim.beta2),
                "optim.beta2",
                optim.beta2.to_string(),
                "from 0 to below 1",
            ),
            (positive(optim.eps), "optim.eps", optim.eps.to_string(), "above 0"),
            (
                not_negative(optim.weight_decay),
                "optim.weight_decay",
                optim.weight_decay.to_string(),
                "at least 0",
            ),
            (
                not_negative(optim.clip_norm),
                "optim.clip_norm",
                optim.clip_norm.to_string(),
                "at least 0",
            ),
            (train.steps > 0, "train.steps", train.steps.to_string(), "at least 1"),
            (train.batch_size > 0, "train.batch_size", train.batch_size.to_string(), "at least 1"),
            (
                train.max_skipped > 0,
                "train.max_skipped",
                train.max_skipped.to_string(),
                "at least 1",
            ),
            (
                train.spike_factor == 0.0 || train.spike_factor > 1.0,
                "train.spike_factor",
                train.spike_factor.to_string(),
                "0, or above 1",
            ),
            (
                self.eval.every == 0 || self.eval.rows > 0,
                "eval.rows",
                self.eval.rows.to_string(),
                "at least 1",
            ),
            (
                self.eval.every == 0 || self.eval.draws > 0,
                "eval.draws",
                self.eval.draws.to_string(),
                "at least 1",
            ),
            (self.log.every > 0, "log.every", self.log.every.to_string(), "at least 1"),
        ];
        for (holds, key, found, expected) in rules {
            if !holds {
                let (key, found, expected) = ((*key).into(), found.clone(), (*expected).into());
                return Err(TrainError::Value { key, found, expected }.into());
            }
        }
        Ok(())
    }

    /// A recipe in which every optional key is present, to know all keys and their types.
    fn every_key() -> Self {
        let mut recipe = Self::default();
        recipe.model.init_from = Some(PathBuf::new());
        recipe.model.n_kv_heads = Some(0);
        recipe.model.mlp_hidden_size = Some(0);
        recipe.model.max_sequence_length = Some(0);
        recipe
    }
}
