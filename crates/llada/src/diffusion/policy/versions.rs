//! Masked versions of sequences, and the log-probabilities that their masked tokens add up to.

use std::ops::Range;

use crate::{config::LogitShift, diffusion::forward::Noised, model::Ragged};

/// A token that is predicted.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Predicted {
    /// Its place in its version.
    position: usize,
    token: u32,
    /// log p of its term has −weight · nll of it.
    weight: f64,
    term: usize,
}

/// Masked versions of sequences. Each masked token that is predicted belongs to a term, of which its
/// −weight · nll is a part: the evidence bound of a response under a draw, or the log-probability of one
/// token. A policy and what it is compared with see the same versions.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Versions {
    sequences: Ragged,
    predicted: Vec<Predicted>,
    /// Where the predicted tokens of each version end.
    ends: Vec<usize>,
    terms: usize,
}

impl Versions {
    /// Of `terms` log-probabilities.
    pub fn new(terms: usize) -> Self {
        Self { terms, ..Self::default() }
    }

    /// Adds a version of `tokens` with `mask` at the places `hidden`. Of these the places in `predicted`
    /// count, each with its weight and the number of its term.
    ///
    /// # Panics
    /// If a place is none of the sequence, or a term none of these.
    pub fn push(
        &mut self,
        tokens: &[u32],
        mask: u32,
        hidden: impl IntoIterator<Item = usize>,
        predicted: impl IntoIterator<Item = (usize, f64, usize)>,
    ) {
        for (position, weight, term) in predicted {
            assert!(term < self.terms, "term {term} of {}", self.terms);
            self.predicted.push(Predicted { position, token: tokens[position], weight, term });
        }
        let mut noisy = tokens.to_vec();
        hidden.into_iter().for_each(|place| noisy[place] = mask);
        self.sequences.push(noisy);
        self.ends.push(self.predicted.len());
    }

    /// Versions.
    pub fn count(&self) -> usize {
        self.sequences.count()
    }

    /// Tokens of each version.
    pub fn lengths(&self) -> impl Iterator<Item = usize> {
        self.sequences.lengths()
    }

    /// Tokens that are predicted, of all versions.
    pub fn predicted(&self) -> usize {
        self.predicted.len()
    }

    /// The predicted tokens of the versions `range`, as indices into those of all.
    pub fn span(&self, range: Range<usize>) -> Range<usize> {
        let end = |version: usize| version.checked_sub(1).map_or(0, |before| self.ends[before]);
        end(range.start)..end(range.end)
    }

    /// log p of each term, from the nll of every predicted token.
    pub fn log_probabilities(&self, nll: &[f32]) -> Vec<f64> {
        let mut terms = vec![0.0; self.terms];
        for (predicted, &nll) in self.predicted.iter().zip(nll) {
            terms[predicted.term] -= predicted.weight * f64::from(nll);
        }
        terms
    }

    /// ∂loss/∂nll of every predicted token, from ∂loss/∂log p of each term.
    pub fn weights(&self, slopes: &[f64]) -> Vec<f32> {
        self.predicted.iter().map(|p| (-p.weight * slopes[p.term]) as f32).collect()
    }

    /// The versions of which a token counts by `weights`, with those of their tokens.
    pub fn that_count(&self, weights: &[f32]) -> (Self, Vec<f32>) {
        let (mut kept, mut of) = (Self::new(self.terms), Vec::new());
        for version in 0..self.count() {
            let span = self.span(version..version + 1);
            if weights[span.clone()].iter().all(|weight| *weight == 0.0) {
                continue;
            }
            kept.sequences.push(self.sequences.part(version..version + 1).tokens().iter().copied());
            kept.predicted.extend_from_slice(&self.predicted[span.clone()]);
            kept.ends.push(kept.predicted.len());
            of.extend_from_slice(&weights[span]);
        }
        (kept, of)
    }

    /// The versions `range` as a batch with its targets, which count as `weights` of all says, for a
    /// model whose logits are shifted so.
    pub fn part(
        &self,
        range: Range<usize>,
        weights: &[f32],
        shift: LogitShift,
    ) -> (Ragged, Noised) {
        let part = self.sequences.part(range.clone());
        let mut noised = Noised { tokens: part.tokens().to_vec(), ..Noised::default() };
        for (version, start) in range.clone().zip(part.starts()) {
            for i in self.span(version..version + 1) {
                let Predicted { position, token, .. } = self.predicted[i];
                noised.positions.push(start + position);
                noised.targets.push(token);
                noised.sequences.push(version);
            }
        }
        noised.weights = weights[self.span(range)].to_vec();
        noised.shift(shift, part.starts());
        (part, noised)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn versions() -> Versions {
        let mut versions = Versions::new(2);
        versions.push(&[1, 2, 3], 9, [1, 2], [(1, 0.5, 0), (2, 2.0, 1)]);
        versions.push(&[4, 5], 9, [0, 1], [(1, 4.0, 0)]);
        versions
    }

    #[test]
    fn masked_tokens_add_up_to_their_terms() {
        let versions = versions();
        assert_eq!((versions.count(), versions.predicted()), (2, 3));
        assert_eq!(versions.log_probabilities(&[1.0, 3.0, 0.25]), [-1.5, -6.0]);
        assert_eq!(versions.weights(&[1.0, -1.0]), [-0.5, 2.0, -4.0]);
    }

    #[test]
    fn versions_without_weight_are_left_out() {
        let versions = versions();
        let (kept, weights) = versions.that_count(&[0.0, 0.0, 0.5]);
        let (part, noised) = kept.part(0..1, &weights, LogitShift::Same);
        assert_eq!((kept.count(), part.tokens(), &noised.weights), (1, &[9, 9][..], &vec![0.5]));
        assert_eq!(kept.log_probabilities(&[1.0]), [-4.0, 0.0]);
        assert_eq!(versions.that_count(&[0.1; 3]).0, versions);
    }

    #[test]
    fn parts_are_batches() {
        let versions = versions();
        let weights = [0.1, 0.2, 0.3];
        let (all, noised) = versions.part(0..2, &weights, LogitShift::Same);
        assert_eq!((all.starts(), all.tokens()), (&[0, 3, 5][..], &[1, 9, 9, 9, 9][..]));
        assert_eq!(noised.tokens, all.tokens());
        assert_eq!((noised.positions, noised.targets), (vec![1, 2, 4], vec![2, 3, 5]));
        assert_eq!((noised.weights, noised.sequences), (weights.to_vec(), vec![0, 0, 1]));
        let (last, noised) = versions.part(1..2, &weights, LogitShift::Next);
        assert_eq!((last.starts(), last.tokens()), (&[0, 2][..], &[9, 9][..]));
        assert_eq!((noised.positions, noised.targets), (vec![0], vec![5]));
        assert_eq!(noised.weights, [0.3]);
        assert_eq!(versions.part(1..1, &weights, LogitShift::Same).1.positions.len(), 0);
    }
}
