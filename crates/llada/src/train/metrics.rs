//! What one step tells.

use super::Measured;
use crate::config::{AttentionMask, ModelConfig};

/// Why a step left the weights as they were.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Skip {
    /// The loss or its gradient was not finite.
    NotFinite,
    /// The gradient norm was above `train.spike_factor` times the running median.
    Spike,
}

/// One training step.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct StepMetrics {
    /// Steps done, this one included.
    pub step: u64,
    /// Steps of the run.
    pub steps: u64,
    /// Loss of the batch in nats per token: Eq. 3, a bound, or Eq. 2; of block diffusion as the recipe has
    /// it, CAP included.
    pub loss: f64,
    /// The loss, smoothed over about the last 50 steps.
    pub loss_ema: f64,
    /// The load-balancing loss of the experts, in models that have some: as many as a token goes through
    /// where all are used alike. `loss` does not have it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub balance: Option<f64>,
    /// Tokens of the batch that each expert got, in all layers together.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub expert_tokens: Vec<u64>,
    /// Learning rate of the update.
    pub learning_rate: f64,
    /// Norm of the whole gradient before clipping.
    pub grad_norm: f64,
    /// Why there was no update, if so.
    pub skipped: Option<Skip>,
    /// Tokens of each sequence.
    pub length: usize,
    /// Tokens of the batch.
    pub tokens: u64,
    /// Tokens of the run so far.
    pub total_tokens: u64,
    /// Seconds that the step took.
    pub seconds: f64,
    /// Of these, those in which the first of several ranks waited for others, and exchanged gradients
    /// and weights with them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub communication: Option<f64>,
    /// Tokens of the batch for each of them.
    pub tokens_per_second: f64,
    /// Floating-point operations of the step that the model asks for ([`step_flops`]).
    pub flops: f64,
    /// Seconds to the end of the run, at the mean speed since it was started or resumed.
    pub seconds_left: f64,
    /// What the objective tells besides: `accuracy` and `margin` of preferences; `reward`, `flat_groups`
    /// (the share of the prompts whose completions all have the same reward), `completion_tokens`,
    /// `clipped` and `kl` in reinforcement learning.
    #[serde(flatten)]
    pub measured: Measured,
}

/// A metric of a task by which the model was measured.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct TaskScore {
    /// The task.
    pub task: String,
    /// The metric, with its filter: `acc,none`.
    pub metric: String,
    /// Its value over the rows.
    pub value: f64,
    /// The standard error of the value, where it has one.
    pub standard_error: Option<f64>,
    /// Rows.
    pub rows: usize,
}

/// Weight of a new loss in the smoothed one.
const FRESH: f64 = 0.02;

/// The smoothed loss after `loss`.
pub(super) fn smooth(before: Option<f64>, loss: f64) -> f64 {
    match before {
        Some(mean) if loss.is_finite() => mean + FRESH * (loss - mean),
        Some(mean) => mean,
        None => loss,
    }
}

/// Operations of a forward pass over a sequence of `length` tokens with the logits of `wanted`
/// positions: a third of [`step_flops`], since the backward pass is twice the forward one.
pub fn forward_flops(config: &ModelConfig, length: usize, wanted: usize) -> f64 {
    step_flops(config, 1, length, wanted) / 3.0
}

/// Floating-point operations of a forward and a backward pass over `sequences` sequences of
/// `length` tokens with the logits of `predicted` positions: 6 for each weight of a matrix and
/// token, and 12 · d · length in attention for each token and block (half with a causal mask). What
/// recomputation adds is not counted, so that the share of the machine's peak is of useful work.
pub fn step_flops(config: &ModelConfig, sequences: usize, length: usize, predicted: usize) -> f64 {
    let (d, q) = (config.d_model as f64, config.q_dim() as f64);
    let visible = match config.attention {
        AttentionMask::Bidirectional => length as f64,
        AttentionMask::Causal => (length as f64 + 1.0) / 2.0,
        AttentionMask::BlockCausal { block_length } => {
            (length as f64 + block_length.min(length) as f64) / 2.0
        }
    };
    let weights: f64 = (0..config.n_layers).map(|layer| active_weights(config, layer)).sum();
    let token = 6.0 * weights + config.n_layers as f64 * 12.0 * q * visible;
    let head = 6.0 * d * config.embedding_size as f64;
    (sequences * length) as f64 * token + predicted as f64 * head
}

/// Weights of the matrices of a layer that one token goes through.
fn active_weights(config: &ModelConfig, layer: usize) -> f64 {
    let (d, q, kv) = (config.d_model as f64, config.q_dim() as f64, config.kv_dim() as f64);
    let feed_forward = match &config.experts {
        Some(e) if config.has_experts(layer) => {
            3.0 * d * e.active_width() as f64 + d * e.count as f64
        }
        _ => 3.0 * d * config.mlp_hidden_size as f64,
    };
    2.0 * d * q + 2.0 * d * kv + feed_forward
}
