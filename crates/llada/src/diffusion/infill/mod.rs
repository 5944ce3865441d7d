//! Infilling: text with holes in it, which a mask predictor fills with both sides in view.
//!
//! A [`Template`] is the text, `The {{hole:3}} sat on the {{hole}}.`; an [`Encoder`] makes a
//! [`Frame`] of it, the same in tokens; [`Canvas::infill`] is a frame whose holes have lengths, ready for the one sampling loop;
//! [`length::search`] chooses lengths that nobody gave.
//!
//! The canvas of an infill has no response. Its schedule runs over the masks of all holes: at once
//! in [`Blocks::Pure`](super::Blocks), or in blocks of `block_length` masks from left to right,
//! holes or not between them. What stands around the holes is condition, for guidance too.

mod frame;
pub mod length;
mod template;

pub(crate) use frame::SharedChoices;
pub(super) use frame::{Choices, Holes};
pub use frame::{Encoder, Frame, Piece};
pub use template::{Part, Template};

use std::sync::Arc;

use super::{Blocks, Canvas, Sampler, SamplerError};
use crate::config::{AttentionMask, SpecialTokens};

/// Longest hole that can be asked for, in tokens.
pub const MAX_HOLE: usize = 1 << 20;

/// Why a text with holes cannot be read or filled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InfillError {
    /// Two braces that open no hole.
    #[error("line {line}, column {column}: {what}")]
    Syntax {
        /// The line, from 1.
        line: usize,
        /// The character in it, from 1.
        column: usize,
        /// What is wrong.
        what: String,
    },
    /// There is nothing to fill.
    #[error("the text has no hole")]
    NoHole,
    /// The sequence does not fit into the model.
    #[error("the text and its holes have {tokens} tokens or more; the model reads {limit}")]
    TooLong {
        /// Tokens of the sequence, with each hole of free length counted as one.
        tokens: usize,
        /// The model's longest sequence.
        limit: usize,
    },
}

impl InfillError {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Syntax { .. } => {
                "write `{{hole}}` or `{{hole:12}}`, and `\\{{` for two braces that are text"
            }
            Self::NoHole => {
                "write `{{hole}}`, or `{{hole:12}}` for 12 tokens, where text is wanted"
            }
            Self::TooLong { .. } => "shorten the text or its holes",
        };
        Some(hint.into())
    }
}

/// Refuses a model that sees nothing of what follows a hole.
fn check_attention(attention: AttentionMask) -> Result<(), SamplerError> {
    match attention {
        AttentionMask::Bidirectional => Ok(()),
        AttentionMask::Causal => Err(SamplerError::CausalInfill),
        AttentionMask::BlockCausal { .. } => Err(SamplerError::BlockInfill),
    }
}

impl Canvas {
    /// Starts a sequence whose holes are to be filled with as many tokens as `lengths` says. Special
    /// tokens are never chosen. `sampler.gen_length` is not used; `sampler.steps` are shared by the
    /// blocks, of which each gets the same number, rounded up.
    ///
    /// # Errors
    /// If the settings contradict each other or the model, the model is autoregressive, or the
    /// lengths are not one of at least 1 for each hole.
    pub fn infill(
        frame: &Frame,
        lengths: &[usize],
        sampler: &Sampler,
        special: &SpecialTokens,
        attention: AttentionMask,
    ) -> Result<Self, SamplerError> {
        check_attention(attention)?;
        sampler.check_infill()?;
        sampler.check_model(special, attention)?;
        let mask = special.mask.ok_or(SamplerError::NoMask)?;
        let holes = frame.hole_count();
        if lengths.len() != holes || lengths.contains(&0) || holes == 0 {
            return Err(SamplerError::HoleLengths { lengths: lengths.len(), holes });
        }
        let masks: usize = lengths.iter().sum();
        let block_length = match sampler.blocks {
            Blocks::Pure => masks,
            _ => sampler.block_length,
        };
        let sampler = Sampler { gen_length: 0, steps: sampler.steps.min(masks), ..sampler.clone() };
        let (tokens, holes) = frame.sequence(lengths, mask, block_length);
        let mut canvas = Self::with_holes(tokens, holes, sampler, special);
        if let Some(automaton) = frame.constraint() {
            canvas.constrain(Arc::clone(automaton))?;
        }
        Ok(canvas)
    }
}

#[cfg(test)]
mod tests;
