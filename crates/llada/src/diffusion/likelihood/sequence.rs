//! A sequence some of whose tokens are predicted, and what they should be.

use crate::{
    config::AttentionMask,
    diffusion::{Query, ReadSpec, Reading},
    engine::Work,
};

/// A sequence of which some tokens are predicted.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sequence {
    /// The tokens that the model sees.
    pub(crate) tokens: Vec<u32>,
    /// The same with its prompt masked, for guidance (Eq. 16).
    pub(crate) unconditional: Option<Vec<u32>>,
    /// The positions that are predicted, in ascending order; of a causal model those that predict.
    pub(crate) positions: Vec<usize>,
    /// The token that each should be.
    pub(crate) targets: Vec<u32>,
    pub(crate) attention: AttentionMask,
    /// The guidance w; 0 where there is none.
    pub(crate) cfg_scale: f32,
}

impl Sequence {
    /// A prompt and an answer whose tokens at `masked` are masks, which are predicted. Above 0,
    /// `cfg_scale` guides.
    pub(crate) fn masked(
        prompt: &[u32],
        answer: &[u32],
        masked: &[usize],
        mask: u32,
        attention: AttentionMask,
        cfg_scale: f32,
    ) -> Self {
        let mut tokens = [prompt, answer].concat();
        let positions: Vec<usize> = masked.iter().map(|i| prompt.len() + i).collect();
        let targets = positions.iter().map(|&i| std::mem::replace(&mut tokens[i], mask)).collect();
        let unconditional = (cfg_scale > 0.0).then(|| {
            let mut tokens = tokens.clone();
            tokens[..prompt.len()].fill(mask);
            tokens
        });
        Self { tokens, unconditional, positions, targets, attention, cfg_scale }
    }

    /// Asks for all that is predicted.
    pub(crate) fn query(&self) -> Query<'_> {
        Query {
            tokens: &self.tokens,
            fresh: 0..self.tokens.len(),
            present: None,
            padding: 0,
            unseen: usize::MAX,
            unconditional: self.unconditional.as_deref(),
            wanted: &self.positions,
        }
    }

    /// What the token at one of the positions should be.
    pub(crate) fn target(&self, position: usize) -> u32 {
        self.positions.binary_search(&position).map_or(0, |i| self.targets[i])
    }

    /// Unmasks the token that is predicted as number `index`.
    pub(crate) fn unmask(&mut self, index: usize) {
        let (position, target) = (self.positions.remove(index), self.targets.remove(index));
        self.tokens[position] = target;
        if let Some(unconditional) = &mut self.unconditional {
            unconditional[position] = target;
        }
    }

    /// Tokens that a pass is fed.
    fn len(&self) -> usize {
        self.tokens.len() + self.unconditional.as_ref().map_or(0, Vec::len)
    }
}

/// −log p of the targets of sequences, summed over each: work of an engine.
#[derive(Debug)]
pub(super) struct Losses {
    sequences: Vec<Sequence>,
    /// Of the sequences that were computed.
    pub(super) losses: Vec<f64>,
}

impl Losses {
    pub(super) fn of(sequences: Vec<Sequence>) -> Self {
        Self { losses: Vec::with_capacity(sequences.len()), sequences }
    }

    /// Sequences.
    pub(super) fn len(&self) -> usize {
        self.sequences.len()
    }

    /// Tokens that are yet to be fed.
    pub(super) fn tokens_left(&self) -> usize {
        self.sequences[self.losses.len()..].iter().map(Sequence::len).sum()
    }
}

impl Work for Losses {
    fn plan(&self, ahead: usize) -> Option<Query<'_>> {
        self.sequences.get(self.losses.len() + ahead).map(Sequence::query)
    }

    fn read_spec(&self, ahead: usize, wanted: usize) -> ReadSpec<'_> {
        let sequence = &self.sequences[self.losses.len() + ahead];
        ReadSpec::loss(wanted, sequence.target(wanted), sequence.cfg_scale)
    }

    /// Losses of a model that has diverged are NaN, and no error.
    fn commit(&mut self, readings: &[Reading]) -> crate::Result<()> {
        self.losses.push(readings.iter().map(|reading| -reading.log_probability()).sum());
        Ok(())
    }

    fn attention(&self) -> AttentionMask {
        self.sequences.first().map_or(AttentionMask::Bidirectional, |sequence| sequence.attention)
    }
}
