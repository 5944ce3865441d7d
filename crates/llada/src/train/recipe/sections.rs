//! The sections of a recipe with their defaults.

use std::path::{Path, PathBuf};

use crate::{Compute, config::Objective};

/// One value or a list of them.
#[derive(
    Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(untagged)]
pub enum OneOrMany<T> {
    /// One value.
    One(T),
    /// A list.
    Many(Vec<T>),
}

impl<T> OneOrMany<T> {
    /// The values in order.
    pub fn as_slice(&self) -> &[T] {
        match self {
            Self::One(value) => std::slice::from_ref(value),
            Self::Many(values) => values,
        }
    }
}

impl<T> From<T> for OneOrMany<T> {
    fn from(value: T) -> Self {
        Self::One(value)
    }
}

/// `[model]`: the vocabulary and the special ids come from the tokenizer of the data.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
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
    /// Experts of every layer, as in LLaDA-MoE; 0 is one dense network.
    pub experts: usize,
    /// Experts that a token goes through.
    pub experts_per_token: usize,
    /// Width of each expert; by default so wide that those of a token are as wide as the dense network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expert_hidden_size: Option<usize>,
    /// Longest sequence of the finished model; by default `data.sequence_length`.
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
            experts: 0,
            experts_per_token: 2,
            expert_hidden_size: None,
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
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Data {
    /// The folder that `prepare` wrote, or several to mix; for fine-tuning files of conversations
    /// (JSONL, Parquet, or a list in JSON), or a folder of the first two.
    pub path: OneOrMany<PathBuf>,
    /// What share of the sequences each folder of a mixture has, in any unit; by default as many as its
    /// tokens make.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weights: Option<OneOrMany<f64>>,
    /// Conversations to validate on; without it some of those in `path` are held out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub validation: Option<OneOrMany<PathBuf>>,
    /// Tokens of a sequence; for fine-tuning, the most that a sequence may have.
    pub sequence_length: usize,
    /// Probability that a batch is cut to a length drawn from 1 to `sequence_length` (paper: 1 %).
    pub random_length: f64,
    /// Train on the first so many tokens only, to study repeated data; 0 takes all.
    pub unique_tokens: u64,
    /// Whether each document of a sequence of shards is one of its own: with its noise level, positions
    /// from 0, and no attention to others.
    pub split_documents: bool,
}

impl Default for Data {
    fn default() -> Self {
        Self {
            path: PathBuf::new().into(),
            weights: None,
            validation: None,
            sequence_length: 256,
            random_length: 0.01,
            unique_tokens: 0,
            split_documents: false,
        }
    }
}

impl Data {
    /// The first folder or file that is read.
    pub(in crate::train) fn first(&self) -> Option<&Path> {
        self.path.as_slice().first().map(PathBuf::as_path)
    }
}

/// `[diffusion]`.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Diffusion {
    /// ε of the masking probability p = (1 − ε)t + ε.
    pub eps: f64,
    /// Whether the sequences of a batch share out t evenly instead of each drawing its own: the same
    /// loss in expectation, with less noise.
    pub low_discrepancy: bool,
}

impl Default for Diffusion {
    fn default() -> Self {
        Self { eps: 1e-3, low_discrepancy: false }
    }
}

/// Shape of the schedule after the warm-up.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Schedule {
    /// Stable at the peak, then linear to `min_lr` over the last `decay_fraction` of the steps.
    Wsd,
    /// Stable at the peak to the end.
    Constant,
}

/// `[optim]`: AdamW with decoupled decay on all parameters, as the reference trains.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
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
    /// Decay of a running average of the weights, such as 0.999. It is what is validated, sampled from
    /// and loaded from checkpoints, whatever the last steps did; 0 keeps none.
    pub ema: f64,
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
            ema: 0.0,
        }
    }
}

/// `[train]`.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Loop {
    /// `diffusion` (Eq. 3) or `autoregressive` (Eq. 2, causal attention): the baseline's one key.
    pub objective: Objective,
    /// Updates.
    pub steps: u64,
    /// Sequences of an update.
    pub batch_size: usize,
    /// Sequences that are in memory together; gradients add up over them. 0 takes the whole batch.
    pub micro_batch_size: usize,
    /// Whether the gradients of micro-batches are summed by a fixed tree: the weights are then the same
    /// to the bit on any number of ranks, for the memory of a gradient for each level of the tree.
    pub tree_reduction: bool,
    /// Seed of the weights, the order, the lengths and the noise.
    pub seed: u64,
    /// What the load-balancing loss of the experts counts beside the loss, in models that have some.
    pub balance: f64,
    /// What matrix products multiply. A run and its branches keep what `auto` finds when it starts.
    pub compute: Compute,
    /// Whether activations are computed again in the backward pass instead of saved for it (gradient
    /// checkpointing).
    pub recompute: bool,
    /// Steps between checkpoints; 0 writes only the last.
    pub checkpoint_every: u64,
    /// How many of the newest checkpoints stay; 0 keeps all.
    pub keep_last: usize,
    /// How many of the checkpoints with the lowest validation loss, or the highest reward, stay beside
    /// them. A validation that is among them writes one.
    pub keep_best: usize,
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
            tree_reduction: false,
            seed: 0,
            balance: 0.01,
            compute: Compute::Auto,
            recompute: false,
            checkpoint_every: 500,
            keep_last: 3,
            keep_best: 0,
            max_skipped: 3,
            spike_factor: 0.0,
        }
    }
}

/// `[eval]`.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Eval {
    /// Steps between validations; 0 never validates.
    pub every: u64,
    /// Sequences of the validation split, spread evenly over it.
    pub sequences: usize,
    /// Masked versions of each sequence.
    pub draws: usize,
    /// Tasks by which the model is measured besides: names of those that ship, or task files.
    pub tasks: OneOrMany<String>,
    /// The folder below which their data is.
    pub task_data: PathBuf,
    /// The first rows of each group of a task that are used; 0 uses all.
    pub task_rows: usize,
    /// Steps between their evaluations; 0 evaluates at every validation.
    pub task_every: u64,
}

impl Default for Eval {
    fn default() -> Self {
        Self {
            every: 250,
            sequences: 64,
            draws: 4,
            tasks: OneOrMany::Many(Vec::new()),
            task_data: PathBuf::from("."),
            task_rows: 0,
            task_every: 0,
        }
    }
}

impl Eval {
    /// Steps between evaluations by tasks; 0 makes none.
    pub(in crate::train) fn tasks_every(&self) -> u64 {
        match self.tasks.as_slice() {
            [] => 0,
            _ if self.task_every == 0 => self.every,
            _ => self.task_every,
        }
    }
}

/// `[log]`.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
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

/// `[sft]`: supervised fine-tuning on conversations (Algorithm 2). Its presence makes a run one.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Sft {
    /// How a conversation becomes text.
    pub template: SftTemplate,
    /// What follows a response that is shorter than the longest of its batch; by default `batch`
    /// for diffusion, `block` for block diffusion, and `none` for the baseline, which ends at its first
    /// end of sequence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub padding: Option<Padding>,
    /// Whether each sequence comes with its complement, in which exactly the other response tokens are
    /// masked. `train.batch_size` counts both.
    pub complementary_masks: bool,
    /// Passes over the dialogues, in place of `train.steps`; 0 leaves it to that.
    pub epochs: f64,
    /// Fraction of the dialogues held out for validation where `data.validation` names none; they
    /// are not trained on, whether or not there is a validation.
    pub held_out: f64,
}

impl Default for Sft {
    fn default() -> Self {
        Self {
            template: SftTemplate::Chat,
            padding: None,
            complementary_masks: false,
            epochs: 0.0,
            held_out: 0.05,
        }
    }
}

/// How a conversation becomes text.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum SftTemplate {
    /// By the chat template of the model's folder.
    Chat,
    /// The contents directly one after the other, for models without tokens for turns.
    Plain,
}

/// What follows a response that is shorter than the longest of its batch.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Padding {
    /// Ends of sequence up to the longest sequence of the batch, trained and attended as part of the
    /// response: this is how LLaDA learns to end a response in a canvas that is too large.
    Batch,
    /// Nothing but the one end of sequence that every response has.
    None,
    /// Ends of sequence up to the end of the response's last block, of a model that attends by blocks.
    Block,
}

/// `[lora]`: low-rank adapters in place of all weights (Hu et al., arXiv 2106.09685).
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Lora {
    /// Rank of the adapters; 0 trains all weights.
    pub rank: usize,
    /// The adapters' products count `alpha`/`rank` times.
    pub alpha: f64,
    /// Names of the matrices to adapt in every block, such as `q_proj`; by default all.
    pub targets: OneOrMany<String>,
}

impl Default for Lora {
    fn default() -> Self {
        Self { rank: 0, alpha: 16.0, targets: OneOrMany::Many(Vec::new()) }
    }
}
