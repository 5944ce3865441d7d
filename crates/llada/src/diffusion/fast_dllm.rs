//! Following Fast-dLLM's published code step by step, for tests against its trajectories.

use serde::{Deserialize, Serialize};

/// A release of Fast-dLLM (arXiv 2505.22618) whose loops are followed also where they are peculiar.
/// Common to both: the model may predict the mask token; a threshold or factor unmasks at least one
/// token whatever the schedule says; a factor that stops at the last candidate unmasks it too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FastDllm {
    /// The first release: with a cache it looks only after a block's second pass whether the block
    /// is full, so that each takes two passes at least.
    V0,
    /// The second: looks before each pass; with a dual cache a block takes no more than its steps,
    /// and masks can remain.
    V1,
}
