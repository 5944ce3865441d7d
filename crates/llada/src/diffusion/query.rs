//! What goes into a canvas and what comes out of it.

use std::ops::Range;

/// What a sequence starts from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Prompt {
    /// Its tokens, padding included. Mask tokens among them are filled ([`Sampler::exact`](super::Sampler::exact) tells
    /// the difference to the reference).
    pub tokens: Vec<u32>,
    /// How many of the first tokens are padding that no position may attend to. Sequences of unequal
    /// length need none.
    pub padding: usize,
}

impl From<Vec<u32>> for Prompt {
    fn from(tokens: Vec<u32>) -> Self {
        Self { tokens, padding: 0 }
    }
}

/// What the next step needs from the model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query<'a> {
    /// The sequence as it is now.
    pub tokens: &'a [u32],
    /// The positions that must be fed to a model which has answered the queries before this one and
    /// cached the keys and values of the others; all, where nothing may be cached. The wanted positions
    /// are among them.
    pub fresh: Range<usize>,
    /// The positions that take part, in ascending order: no other is fed, and none may attend to
    /// another; `None` where all do. The wanted positions are among them.
    pub present: Option<&'a [u32]>,
    /// How many of the first tokens are padding that no position may attend to.
    pub padding: usize,
    /// From which position on no position may attend to the tokens.
    pub unseen: usize,
    /// The sequence with its prompt masked, padding included, for guidance (Eq. 16).
    pub unconditional: Option<&'a [u32]>,
    /// Positions whose logits are wanted: those that can be committed now, in ascending order; of a
    /// causal model, the one before. The one after the sequence where the first token of a block is
    /// found before the block is opened.
    pub wanted: &'a [usize],
}

/// How a canvas ended, or stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// Forward passes that this sequence took part in; guidance does not add to them.
    pub nfe: usize,
    /// Tokens committed.
    pub committed: usize,
    /// Positions that are still masked, before the end of the text if [`Sampler::stop_at_eos`](super::Sampler::stop_at_eos)
    /// stopped the sequence there.
    pub masks_left: usize,
    /// Tokens of the response, whatever they are.
    pub canvas_tokens: usize,
    /// Tokens of the response before the first EOS or EoT.
    pub useful_tokens: usize,
    /// Whether the end of the text was found before `gen_length`, in a layout that grows or with
    /// [`Sampler::stop_at_eos`](super::Sampler::stop_at_eos).
    pub stopped_at_eos: bool,
}
