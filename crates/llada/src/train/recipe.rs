//! The recipe of a run: a TOML file of a few sections, every key of which has a default.

mod alignment;
mod block;
mod check;
mod reference;
mod sections;

use std::path::PathBuf;

use toml::{Table, Value};

pub use alignment::{Algorithm, Preference, Reward};
pub use block::{Block, BlockPreset, NoiseLevel, Weighting};
pub use reference::Key;
pub use sections::{
    Data, Diffusion, Eval, Log, Loop, Lora, ModelSizes, OneOrMany, Optim, Padding, Schedule, Sft,
    SftTemplate,
};

use super::{TrainError, keys};
use crate::{
    Result,
    config::{AttentionMask, ConfigError, Experts, Family, ModelConfig, QkNorm, SpecialTokens},
};

/// All that decides a run. Two runs of the same recipe on the same data give the same weights.
#[derive(
    Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(default, deny_unknown_fields)]
pub struct Recipe {
    /// Sizes of the model, or the checkpoint to start from.
    pub model: ModelSizes,
    /// Where sequences come from.
    pub data: Data,
    /// Supervised fine-tuning on conversations; without it the run is pre-training on shards.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sft: Option<Sft>,
    /// Preference optimisation on pairs of responses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preference: Option<Preference>,
    /// Reinforcement learning on completions that a task judges.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reward: Option<Reward>,
    /// The forward process.
    pub diffusion: Diffusion,
    /// Block diffusion: the model attends by blocks, and the loss is one over pairs [x_t ; x_0] of a noisy
    /// and a clean copy of each sequence, in which a noisy block sees itself and the clean blocks before it. Its
    /// presence makes a run one; `noise_range` then stands for `diffusion.eps`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub block: Option<Block>,
    /// The optimiser.
    pub optim: Optim,
    /// Low-rank adapters.
    pub lora: Lora,
    /// The loop.
    pub train: Loop,
    /// Validation.
    pub eval: Eval,
    /// What is written besides checkpoints.
    pub log: Log,
}

impl Recipe {
    /// Reads the text of a recipe and applies `key=value` overrides such as `optim.lr=3e-4`, in
    /// order. Errors name the key, and for an unknown one the nearest known.
    pub fn parse(text: &str, overrides: &[impl AsRef<str>]) -> Result<Self> {
        Self::read(text, overrides, false)
    }

    /// As [`Recipe::parse`] for fine-tuning: a recipe without `[sft]` gets one of defaults.
    pub fn parse_sft(text: &str, overrides: &[impl AsRef<str>]) -> Result<Self> {
        Self::read(text, overrides, true)
    }

    fn read(text: &str, overrides: &[impl AsRef<str>], is_sft: bool) -> Result<Self> {
        let mut table: Table =
            text.parse().map_err(|e: toml::de::Error| TrainError::Recipe(e.to_string()))?;
        let known = keys::known(&Self::every_key());
        keys::check(&table, &known, "")?;
        for assignment in overrides {
            keys::assign(&mut table, &known, assignment.as_ref())?;
        }
        for section in ["sft", "preference", "reward"] {
            if table.contains_key(section) || is_sft && section == "sft" {
                complete(&mut table, section)?;
            }
        }
        block::complete(&mut table)?;
        let recipe: Self = table
            .try_into()
            .map_err(|e: toml::de::Error| TrainError::Recipe(e.to_string().trim().into()))?;
        recipe.check()?;
        Ok(recipe)
    }

    /// The resolved recipe, every key spelled out, as TOML.
    pub fn to_toml(&self) -> String {
        let text = toml::to_string_pretty(self).unwrap_or_default();
        // Where the epochs decide the steps, a number of steps would contradict them.
        let decided = self.epochs().is_some_and(|(_, epochs)| epochs > 0.0);
        let kept = |line: &&str| !(decided && line.starts_with("steps = "));
        text.lines().filter(kept).flat_map(|line| [line, "\n"]).collect()
    }

    /// What the run trains on.
    pub fn stage(&self) -> Stage {
        match self {
            Self { sft: Some(_), .. } => Stage::FineTuning,
            Self { preference: Some(_), .. } => Stage::Preference,
            Self { reward: Some(_), .. } => Stage::Reward,
            _ => Stage::Pretraining,
        }
    }

    /// How a conversation becomes text, where the run is of some.
    pub fn template(&self) -> Option<SftTemplate> {
        let sft = self.sft.as_ref().map(|sft| sft.template);
        let preference = self.preference.as_ref().map(|preference| preference.template);
        sft.or(preference).or(self.reward.as_ref().map(|reward| reward.template))
    }

    /// The key of the passes over the data, and how many are asked for.
    pub(super) fn epochs(&self) -> Option<(&'static str, f64)> {
        let sft = self.sft.as_ref().map(|sft| ("sft.epochs", sft.epochs));
        let preference = self.preference.as_ref().map(|p| ("preference.epochs", p.epochs));
        sft.or(preference).or(self.reward.as_ref().map(|reward| ("reward.epochs", reward.epochs)))
    }

    /// Leaves the number of steps to `train.steps`.
    pub(super) fn forget_epochs(&mut self) {
        self.sft.iter_mut().for_each(|sft| sft.epochs = 0.0);
        self.preference.iter_mut().for_each(|preference| preference.epochs = 0.0);
        self.reward.iter_mut().for_each(|reward| reward.epochs = 0.0);
    }

    /// The configuration of a fresh model for a tokenizer of `vocab_size` entries.
    pub fn model_config(&self, vocab_size: usize, tokens: SpecialTokens) -> Result<ModelConfig> {
        let (n_kv_heads, mlp_hidden_size, max_sequence_length) = self.derived();
        let sizes = &self.model;
        let (d_model, n_heads) = (sizes.d_model, sizes.n_heads);
        let plain =
            ModelConfig::llada(d_model, sizes.n_layers, n_heads, mlp_hidden_size, vocab_size);
        let config = ModelConfig {
            n_kv_heads,
            max_sequence_length,
            rope_theta: sizes.rope_theta,
            rms_norm_eps: sizes.rms_norm_eps,
            weight_tying: sizes.weight_tying,
            qkv_bias: sizes.qkv_bias,
            qk_norm: if sizes.qk_norm { QkNorm::Whole } else { QkNorm::None },
            scale_logits: sizes.scale_logits,
            input_emb_norm: sizes.input_emb_norm,
            tokens,
            ..plain
        };
        let config = self.with_experts(config).with_objective(self.train.objective);
        let config = self.with_blocks(config, 0);
        match config.check() {
            Err(ConfigError::Value { key, found, expected }) => {
                let (key, found, expected) = match key.as_str() {
                    // Derived: it is not in the recipe.
                    "mlp_hidden_size" if sizes.mlp_hidden_size.is_none() => {
                        let width = format!("less: 8/3 of it must be {expected}");
                        ("d_model".to_owned(), sizes.d_model.to_string(), width)
                    }
                    "num_experts" => ("experts".to_owned(), found, expected),
                    "num_experts_per_tok" => ("experts_per_token".to_owned(), found, expected),
                    "expert_intermediate_size" => {
                        ("expert_hidden_size".to_owned(), found, expected)
                    }
                    _ => (key, found, expected),
                };
                Err(TrainError::Value { key: format!("model.{key}"), found, expected }.into())
            }
            checked => Ok(checked.map(|()| config)?),
        }
    }

    /// The configuration with the blocks of `step`, from 0, where the recipe wants some.
    pub(super) fn with_blocks(&self, config: ModelConfig, step: u64) -> ModelConfig {
        let Some(block) = &self.block else { return config };
        // A longer block is that of a whole sequence.
        let block_length = block.length_at(step).min(config.max_sequence_length);
        ModelConfig { attention: AttentionMask::BlockCausal { block_length }, ..config }
    }

    /// The configuration with the experts that the recipe asks for, as LLaDA-MoE has them.
    fn with_experts(&self, config: ModelConfig) -> ModelConfig {
        let ModelSizes { experts: count, experts_per_token: per_token, .. } = self.model;
        if count == 0 {
            return config;
        }
        let hidden_size = self
            .model
            .expert_hidden_size
            .unwrap_or_else(|| (config.mlp_hidden_size / per_token.max(1)).next_multiple_of(16));
        let experts = Experts::llada_moe(count, per_token, hidden_size, config.n_layers);
        ModelConfig {
            family: Family::LladaMoe,
            qk_norm: if self.model.qk_norm { QkNorm::PerHead } else { QkNorm::None },
            mlp_hidden_size: 0,
            experts: Some(experts),
            ..config
        }
    }

    /// The width of an expert: where it is left out, those of a token are as wide as the dense network.
    fn expert_hidden_size(&self, mlp_hidden_size: usize) -> usize {
        let equal = mlp_hidden_size / self.model.experts_per_token.max(1);
        let wide = || equal.checked_next_multiple_of(16).unwrap_or(usize::MAX);
        self.model.expert_hidden_size.unwrap_or_else(wide)
    }

    /// Heads of keys, width of the feed-forward network and longest sequence, where they are left out
    /// too.
    fn derived(&self) -> (usize, usize, usize) {
        let sizes = &self.model;
        let at_least = sizes.d_model.saturating_mul(8).div_ceil(3);
        let wide = || at_least.checked_next_multiple_of(16).unwrap_or(usize::MAX);
        (
            sizes.n_kv_heads.unwrap_or(sizes.n_heads),
            sizes.mlp_hidden_size.unwrap_or_else(wide),
            sizes.max_sequence_length.unwrap_or(self.data.sequence_length),
        )
    }

    /// The same recipe with everything spelled out that may be left out.
    pub(super) fn settled(&self) -> Self {
        let (n_kv_heads, mlp_hidden_size, max_sequence_length) = self.derived();
        let padding = self.padding();
        let mut recipe = self.clone();
        recipe.model.n_kv_heads = Some(n_kv_heads);
        recipe.model.mlp_hidden_size = Some(mlp_hidden_size);
        if recipe.model.experts > 0 {
            recipe.model.expert_hidden_size = Some(self.expert_hidden_size(mlp_hidden_size));
        }
        recipe.model.max_sequence_length = Some(max_sequence_length);
        if let Some(sft) = &mut recipe.sft {
            sft.padding = Some(padding);
        }
        recipe
    }

    /// Sequences of one micro-batch.
    pub(super) fn micro_batch(&self) -> usize {
        match self.train.micro_batch_size {
            0 => self.train.batch_size,
            sequences => sequences.min(self.train.batch_size),
        }
    }

    /// A recipe in which every optional key is present, to know all keys and their types.
    pub(super) fn every_key() -> Self {
        let mut recipe = Self::default();
        let list = OneOrMany::Many(Vec::new());
        recipe.model.init_from = Some(PathBuf::new());
        recipe.model.n_kv_heads = Some(0);
        recipe.model.expert_hidden_size = Some(0);
        recipe.model.mlp_hidden_size = Some(0);
        recipe.model.max_sequence_length = Some(0);
        (recipe.data.path, recipe.data.validation) = (list.clone(), Some(list));
        recipe.data.weights = Some(OneOrMany::Many(vec![0.0]));
        recipe.sft = Some(Sft { padding: Some(Padding::Batch), ..Sft::default() });
        let length = OneOrMany::Many(vec![0]);
        recipe.block = Some(Block { length, ..Block::default() });
        recipe.preference = Some(Preference::default());
        recipe.reward = Some(Reward::default());
        recipe
    }
}

/// What a run trains on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Shards of text.
    Pretraining,
    /// Conversations.
    FineTuning,
    /// Pairs of responses of which one is preferred.
    Preference,
    /// Completions of its own that a task judges.
    Reward,
}

impl Stage {
    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pretraining => "pre-training",
            Self::FineTuning => "fine-tuning",
            Self::Preference => "preference optimisation",
            Self::Reward => "reinforcement learning",
        }
    }
}

/// Settles in the text of a recipe with this section what depends on which keys it has.
fn complete(table: &mut Table, stage: &str) -> Result<()> {
    let number = |value: &Value| value.as_float().or(value.as_integer().map(|n| n as f64));
    let of = |table: &Table, section: &str, key: &str| table.get(section)?.get(key).cloned();
    let epochs = of(table, stage, "epochs").as_ref().and_then(number).unwrap_or(0.0);
    if epochs > 0.0
        && let Some(steps) = of(table, "train", "steps")
    {
        let (key, found) = ("train.steps".into(), steps.to_string());
        let expected =
            format!("no value beside `{stage}.epochs={epochs}`; leave out one of the two");
        return Err(TrainError::Value { key, found, expected }.into());
    }
    for name in [stage, "data"] {
        let section = table.entry(name).or_insert_with(|| Value::Table(Table::new()));
        if let ("data", Value::Table(data)) = (name, section) {
            // Windows of shards are cut now and then by default; conversations are whole.
            data.entry("random_length").or_insert(Value::Float(0.0));
        }
    }
    Ok(())
}
