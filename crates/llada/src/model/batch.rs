//! Sequences of tokens laid out one after the other.

use std::ops::Range;

/// Sequences of tokens, one after the other and without padding between them ("ragged"). A token
/// attends within its sequence only, and its position is its index in it.
#[derive(Debug, Clone, Copy)]
pub struct Batch<'a> {
    /// The tokens of all sequences.
    pub tokens: &'a [u32],
    /// Where each sequence starts, and at the end the number of tokens: sequences + 1 offsets.
    pub starts: &'a [usize],
    /// `false` where a token is padding that no token attends to, as `transformers` has it; `None`
    /// where there is no padding.
    pub attention_mask: Option<&'a [bool]>,
}

impl<'a> Batch<'a> {
    /// Where each sequence lies.
    pub fn ranges(&self) -> impl ExactSizeIterator<Item = Range<usize>> + use<'a> {
        self.starts.windows(2).map(|bounds| bounds[0]..bounds[1])
    }
}

/// Sequences that are laid out one after the other: the only place where a [`Batch`] is made of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ragged {
    tokens: Vec<u32>,
    /// One more than sequences.
    starts: Vec<usize>,
    /// `false` where a token is padding; empty while none is.
    attention_mask: Vec<bool>,
}

impl Default for Ragged {
    fn default() -> Self {
        Self { tokens: Vec::new(), starts: vec![0], attention_mask: Vec::new() }
    }
}

impl Ragged {
    /// Forgets the sequences; their memory is reused.
    pub fn clear(&mut self) {
        self.tokens.clear();
        self.starts.truncate(1);
        self.attention_mask.clear();
    }

    /// Adds a sequence, and gives where it begins.
    pub fn push(&mut self, tokens: impl IntoIterator<Item = u32>) -> usize {
        let start = self.tokens.len();
        self.tokens.extend(tokens);
        self.starts.push(self.tokens.len());
        if !self.attention_mask.is_empty() {
            self.attention_mask.resize(self.tokens.len(), true);
        }
        start
    }

    /// Takes a token, by its index among all, for padding, which no other attends to.
    pub fn hide(&mut self, index: usize) {
        self.attention_mask.resize(self.tokens.len(), true);
        self.attention_mask[index] = false;
    }

    /// Sequences.
    pub fn count(&self) -> usize {
        self.starts.len() - 1
    }

    /// The tokens of all.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Where each sequence starts, and at the end the number of tokens.
    pub fn starts(&self) -> &[usize] {
        &self.starts
    }

    /// Tokens of each sequence.
    pub fn lengths(&self) -> impl Iterator<Item = usize> {
        self.as_batch().ranges().map(|range| range.len())
    }

    /// Some of the sequences, by their numbers, without what is padding in them.
    pub fn part(&self, sequences: Range<usize>) -> Self {
        let starts = &self.starts[sequences.start..=sequences.end];
        let first = starts[0];
        Self {
            tokens: self.tokens[first..starts[sequences.len()]].to_vec(),
            starts: starts.iter().map(|start| start - first).collect(),
            attention_mask: Vec::new(),
        }
    }

    /// What a model is fed.
    pub fn as_batch(&self) -> Batch<'_> {
        let attention_mask =
            (!self.attention_mask.is_empty()).then_some(self.attention_mask.as_slice());
        Batch { tokens: &self.tokens, starts: &self.starts, attention_mask }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_lie_one_after_the_other() {
        let mut ragged = Ragged::default();
        assert_eq!((ragged.count(), ragged.as_batch().ranges().len()), (0, 0));
        for _ in 0..2 {
            ragged.clear();
            let places = [vec![1, 2], vec![], vec![3, 4, 5]].map(|tokens| ragged.push(tokens));
            assert_eq!((places, ragged.tokens()), ([0, 2, 2], [1, 2, 3, 4, 5].as_slice()));
            assert_eq!(ragged.lengths().collect::<Vec<_>>(), [2, 0, 3]);
            let ranges: Vec<_> = ragged.as_batch().ranges().collect();
            assert_eq!(ranges, [0..2, 2..2, 2..5]);
            assert!(ragged.as_batch().attention_mask.is_none());
            ragged.hide(3);
            ragged.push([6]);
            let mask = [true, true, true, false, true, true];
            assert_eq!(ragged.as_batch().attention_mask, Some(mask.as_slice()));
        }
        let part = ragged.part(1..3);
        assert_eq!((part.starts(), part.tokens()), ([0, 0, 3].as_slice(), [3, 4, 5].as_slice()));
        assert_eq!(ragged.part(2..2).count(), 0);
    }
}
