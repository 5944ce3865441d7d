//! Responses without a fixed length: `gen_length` is a cap, the canvas starts short.
//!
//! DAEDAL (arXiv 2508.00819), training-free. Before the first token, the canvas is lengthened until
//! the model expects the end of the text at its end; while it is filled, more masks are put in where
//! the model is very unsure, which is read as a want of room.

use serde::{Deserialize, Serialize};

/// How the length is found.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct VariableLength {
    /// Masks to begin with.
    pub initial: usize,
    /// Positions at the end of the sequence whose mean probability of EOS or EoT says whether the model
    /// expects the text to have ended.
    pub window: usize,
    /// The canvas is long enough from this mean on. Until then each pass lengthens it by a quarter,
    /// which takes fewer passes than the paper's fixed number of tokens.
    pub enough: f64,
    /// Masks are put in at the least probable prediction of a step if it is below this, ...
    pub unsure: f64,
    /// ... unless the mean is at least this.
    pub sure_of_end: f64,
    /// Masks that are put in at once; also the least that the canvas is lengthened by.
    pub grow_by: usize,
}

impl Default for VariableLength {
    fn default() -> Self {
        Self { initial: 64, window: 32, enough: 0.5, unsure: 0.1, sure_of_end: 0.9, grow_by: 7 }
    }
}

impl VariableLength {
    /// The length after one of `length` that was too short, at most `cap`.
    pub(super) fn longer(self, length: usize, cap: usize) -> usize {
        (length + (length / 4).max(self.grow_by).max(1)).min(cap)
    }
}
