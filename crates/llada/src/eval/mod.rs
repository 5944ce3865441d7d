//! Evaluation: tasks that are data, answers that are scored or generated, results with their
//! errors.
//!
//! | what | here |
//! |---|---|
//! | a task file, and those that ship | [`Task`], [`shipped`] |
//! | rows, prompts, what is right | [`prepare`] gives [`Prepared`] |
//! | settings of a run | [`Overrides`] over the task's give a [`Plan`] |
//! | the loop | [`Evaluator::run`] |
//! | best answer by likelihood (Eq. 6) | [`crate::diffusion::likelihood`] |
//! | best answer by confidence | [`confidence`] |
//! | what a way to sample costs | [`quality`] |
//! | tasks by which a model is measured while it is trained | [`Monitor`] |
//! | rewards of reinforcement learning | [`reward`] |
//! | results in the form of lm-evaluation-harness | [`report`] |

mod arithmetic;
pub mod confidence;
mod csv;
mod dataset;
mod error;
mod extract;
mod fewshot;
mod judge;
mod mersenne;
pub mod metric;
mod monitor;
mod plan;
mod prompt;
pub mod quality;
pub mod record;
pub mod report;
mod request;
pub mod reward;
mod runner;
pub mod settings;
pub mod shipped;
pub mod task;
mod template;

pub use dataset::BadRow;
pub use error::EvalError;
pub use judge::{Checker, Verdict};
pub use monitor::Monitor;
pub use plan::{Overrides, Plan, SEED};
pub use prompt::{Example, Prepared, prepare};
pub use record::Record;
pub use request::Request;
pub use runner::{Evaluator, Observer, Outcome};
pub use task::{Kind, Task};

#[cfg(test)]
mod tests;
