//! Training: Algorithms 1 and 2 of the paper as one loop, from a recipe to checkpoints.
//!
//! `recipe` says what to do, `start` prepares it with the `initial` model, `trainer` does it `step` by
//! step. `source` gives the sequences (of shards, or of conversations), `batch` makes them noisy;
//! `alignment` has the updates by preferences and rewards, and an `update` is either. `trainable` is what is
//! trained (all weights, or adapters), `reduction` sums its gradients over ranks, `optimizer` and
//! `schedule` move it, `average` follows it, and `validation` measures. `store` keeps the run folder with
//! its checkpoints, which `saved` finds and checks; `changes` says what a resumed run may have otherwise,
//! and `memory` what a run takes. `metrics`, `run_log`, `events` and `report` tell how it goes.
//!
//! A run is a pure function of its recipe and data: every draw is addressed by seed and step, so a
//! run that was killed and resumed ends with the weights of one that was not, bit for bit, for any
//! number of threads.

mod alignment;
mod average;
mod batch;
mod changes;
mod error;
mod events;
mod initial;
mod keys;
mod memory;
mod metrics;
mod optimizer;
mod recipe;
mod reduction;
mod report;
mod run_log;
mod saved;
mod schedule;
mod source;
mod start;
mod state;
mod step;
mod store;
mod trainable;
mod trainer;
mod update;
mod validation;

pub use alignment::{RewardFunction, RewardPrompt};
pub use changes::Change;
pub use error::TrainError;
pub use memory::Memory;
pub use metrics::{Skip, StepMetrics, TaskScore, forward_flops, step_flops};
pub use recipe::{
    Algorithm, Block, BlockPreset, Data, Diffusion, Eval, Key, Log, Loop, Lora, ModelSizes,
    NoiseLevel, OneOrMany, Optim, Padding, Preference, Recipe, Reward, Schedule, Sft, SftTemplate,
    Stage, Weighting,
};
pub use report::render as render_report;
pub(crate) use saved::{STATE, checkpoints, marks};
pub use schedule::learning_rate;
pub use start::{RunRecipe, recipe_of};
pub use store::Start;
pub use trainer::{Evaluating, Event, Hooks, Outcome, Sampling, Trainer};
pub use update::Measured;
pub use validation::{Bucket, Validation};
