//! The sections of training by preferences and by rewards.

use super::{OneOrMany, SftTemplate};

/// `[preference]`: preference optimisation (VRPO of LLaDA 1.5) on pairs of responses. Its presence makes a
/// run one; `train.batch_size` counts pairs.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Preference {
    /// How a conversation becomes text.
    pub template: SftTemplate,
    /// β: how much a difference from the reference, the model that training starts from, counts.
    pub beta: f64,
    /// Masked versions of each response, with a noise level each: the budget of its evidence bound.
    pub draws: usize,
    /// Whether versions come in antithetic pairs, of which one masks what the other shows and whose noise
    /// levels make up for each other, for still less variance.
    pub antithetic: bool,
    /// What −log p of a token of the chosen response counts beside the preference.
    pub sft_weight: f64,
    /// Passes over the pairs, in place of `train.steps`; 0 leaves it to that.
    pub epochs: f64,
    /// Fraction of the prompts whose pairs are held out for validation where `data.validation` names none.
    pub held_out: f64,
}

impl Default for Preference {
    fn default() -> Self {
        Self {
            template: SftTemplate::Chat,
            beta: 0.2,
            draws: 8,
            antithetic: false,
            sft_weight: 0.0,
            epochs: 0.0,
            held_out: 0.05,
        }
    }
}

/// The loss of reinforcement learning.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Algorithm {
    /// The evidence bound of a whole completion stands for its log-probability (arXiv 2512.03759).
    Espo,
    /// Tokens are actions, whose log-probabilities are those of the fully masked completion (d1).
    DiffuGrpo,
    /// The log-ratio of a completion regresses on its advantage (arXiv 2605.29398).
    Gdsd,
}

/// `[reward]`: reinforcement learning on completions that a task judges. Its presence makes a run one;
/// `train.batch_size` counts completions, and `data.path` is the folder of the task's data.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Reward {
    /// The task that asks and judges: the name of one that ships, or a task file.
    pub task: String,
    /// The metrics of the task whose mean is the reward, such as `solved` or `cell_accuracy,answer`; by
    /// default all that it computes.
    pub metrics: OneOrMany<String>,
    /// The loss.
    pub algorithm: Algorithm,
    /// Completions of each prompt, which are compared with each other.
    pub completions: usize,
    /// Updates by the same completions, each under masks of its own.
    pub iterations: u64,
    /// Masks of each completion, every one with its complement; diffu-GRPO has none.
    pub draws: usize,
    /// What the divergence from the reference, the model that training starts from, counts; 0 needs no
    /// reference.
    pub beta: f64,
    /// The ratio to the policy that wrote the completions counts down to 1 − `clip_low`.
    pub clip_low: f64,
    /// And up to 1 + `clip_high`.
    pub clip_high: f64,
    /// GDSD: what an advantage counts.
    pub psi: f64,
    /// diffu-GRPO: the probability that a token of the prompt is masked.
    pub prompt_mask: f64,
    /// How a prompt becomes text.
    pub template: SftTemplate,
    /// Tokens of a completion.
    pub gen_length: usize,
    /// Steps in which they are unmasked; 0 is one for each.
    pub steps: usize,
    /// Tokens of a block of them; 0 is all.
    pub block_length: usize,
    /// Temperature at which completions are sampled.
    pub temperature: f64,
    /// Passes over the prompts, in place of `train.steps`; 0 leaves it to that.
    pub epochs: f64,
    /// Fraction of the prompts held out for validation where `data.validation` names no other folder.
    pub held_out: f64,
}

impl Default for Reward {
    fn default() -> Self {
        Self {
            task: String::new(),
            metrics: OneOrMany::Many(Vec::new()),
            algorithm: Algorithm::Espo,
            completions: 8,
            iterations: 8,
            draws: 2,
            beta: 0.0,
            clip_low: 0.2,
            clip_high: 0.2,
            psi: 10.0,
            prompt_mask: 0.15,
            template: SftTemplate::Chat,
            gen_length: 128,
            steps: 0,
            block_length: 0,
            temperature: 1.0,
            epochs: 0.0,
            held_out: 0.05,
        }
    }
}
