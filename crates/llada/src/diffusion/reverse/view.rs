//! A canvas seen from outside.

use std::fmt;

use super::Canvas;
use crate::{
    config::AttentionMask,
    diffusion::{Outcome, Prompt, Sampler, Step},
};

impl Canvas {
    /// Whether nothing more will be committed.
    pub fn is_done(&self) -> bool {
        self.done
    }

    /// Number of blocks.
    pub fn block_count(&self) -> usize {
        match &self.holes {
            Some(holes) => holes.block_ends.len(),
            None => self.sampler.block_count(),
        }
    }

    /// Steps given to each block, unless blocks are found while sampling.
    pub fn steps_per_block(&self) -> usize {
        match &self.holes {
            // Blocks are unequal where the holes do not share them evenly.
            Some(holes) => self.sampler.steps.div_ceil(holes.block_ends.len().max(1)),
            None => self.sampler.steps_per_block(),
        }
    }

    /// The sequence as it is now: prompt, then response.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// The response as it is now.
    pub fn response(&self) -> &[u32] {
        &self.tokens[self.prompt.tokens.len()..]
    }

    /// The response before the first EOS or EoT.
    pub fn useful(&self) -> &[u32] {
        let response = self.response();
        let end = response.iter().position(|&token| self.ends(token));
        &response[..end.unwrap_or(response.len())]
    }

    /// The prompt.
    pub fn prompt(&self) -> &Prompt {
        &self.prompt
    }

    /// The settings.
    pub fn sampler(&self) -> &Sampler {
        &self.sampler
    }

    /// The mask token; `None` for a causal model.
    pub fn mask_token(&self) -> Option<u32> {
        self.mask
    }

    /// Length of the sequence when its response is full, or as long as it may be.
    pub fn length(&self) -> usize {
        self.whole_length()
    }

    /// How the canvas ended, or stands.
    pub fn outcome(&self) -> Outcome {
        let is_mask = |token: &&u32| Some(**token) == self.mask;
        // Behind an end that was to stop the run nothing is to be filled.
        let read = match self.stopped_at_eos && self.sampler.stop_at_eos {
            true => self.prompt.tokens.len() + self.useful().len(),
            false => self.tokens.len(),
        };
        Outcome {
            nfe: self.nfe,
            committed: self.committed,
            masks_left: self.tokens[..read].iter().filter(is_mask).count(),
            canvas_tokens: self.response().len(),
            useful_tokens: self.useful().iter().filter(|token| !is_mask(token)).count(),
            stopped_at_eos: self.stopped_at_eos,
        }
    }

    /// The last step that it took; before the first, one without any commit.
    pub fn last_step(&self) -> &Step {
        &self.work.step
    }

    /// Whether it gains from a predictor that caches keys and values, or leaves positions out.
    pub(crate) fn wants_caches(&self) -> bool {
        self.sampler.wants_caches(self.attention)
    }

    /// Which tokens a token attends to.
    pub(crate) fn attention(&self) -> AttentionMask {
        self.attention
    }
}

impl fmt::Debug for Canvas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Canvas")
            .field("tokens", &self.tokens)
            .field("block", &self.block)
            .field("step", &self.step)
            .field("outcome", &self.outcome())
            .finish_non_exhaustive()
    }
}
