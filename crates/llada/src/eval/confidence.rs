//! Choosing an answer by the confidence with which it is unmasked.
//!
//! The answer begins as masks. Each step predicts all that is still masked, unmasks the token of
//! the answer that is the most probable at its place, and adds the logarithm of that probability;
//! L steps for L tokens, the first of equals first. So it is what low-confidence decoding would pay
//! to write this answer: log p(answer | prompt) by the chain rule, in the order of confidence. It
//! needs no Monte Carlo samples. An answer of one token, such as a letter, takes one forward pass,
//! and its score is the logarithm of the confidence of the first step.

use crate::{
    Result,
    config::AttentionMask,
    diffusion::{
        Query, ReadSpec, Reading,
        likelihood::{Pair, Sequence, most_probable},
        predictor::Predictor,
    },
    engine::{self, Work},
};

/// The log-probability of each answer, in nats. `mask` is the mask token of a model that attends as
/// `attention` says; above 0, `cfg_scale` is the w of Eq. 16, at twice the work.
///
/// # Errors
/// If the model fails, or its logits are not finite.
pub fn score<P: Predictor + ?Sized>(
    predictor: &mut P,
    mask: u32,
    attention: AttentionMask,
    pairs: &[Pair],
    cfg_scale: f32,
) -> Result<Vec<f64>> {
    let works = pairs.iter().map(|pair| Confidence::new(pair, mask, attention, cfg_scale));
    Ok(engine::run(predictor, works)?.iter().map(Confidence::score).collect())
}

/// An answer on its way from masks to text, as work of an [`Engine`](crate::engine::Engine).
#[derive(Debug)]
pub struct Confidence {
    sequence: Sequence,
    score: f64,
}

impl Confidence {
    /// Begins with the whole answer masked.
    pub fn new(pair: &Pair, mask: u32, attention: AttentionMask, cfg_scale: f32) -> Self {
        let Pair { prompt, answer } = pair;
        let masked: Vec<usize> = (0..answer.len()).collect();
        Self {
            sequence: Sequence::masked(prompt, answer, &masked, mask, attention, cfg_scale),
            score: 0.0,
        }
    }

    /// The log-probability of what is unmasked so far, in nats.
    pub fn score(&self) -> f64 {
        self.score
    }
}

impl Work for Confidence {
    fn plan(&self, ahead: usize) -> Option<Query<'_>> {
        (ahead == 0 && !self.sequence.positions.is_empty()).then(|| self.sequence.query())
    }

    fn read_spec(&self, _ahead: usize, wanted: usize) -> ReadSpec<'_> {
        ReadSpec::probe(wanted, self.sequence.target(wanted), self.sequence.cfg_scale)
    }

    fn commit(&mut self, readings: &[Reading]) -> Result<()> {
        let best = most_probable(readings);
        self.sequence.unmask(best);
        self.score += readings[best].log_probability();
        Ok(())
    }

    fn attention(&self) -> AttentionMask {
        self.sequence.attention
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{diffusion::Logits, model::Batch};

    /// Predicts by a table: the logits of a position depend on the number of masks in its sequence.
    struct Table;

    const MASK: u32 = 3;
    const ALL: AttentionMask = AttentionMask::Bidirectional;

    impl Logits for Table {
        fn logits(
            &mut self,
            batch: &Batch<'_>,
            wanted: &[usize],
            out: &mut Vec<f32>,
        ) -> Result<()> {
            out.clear();
            for &position in wanted {
                let sequence =
                    batch.starts.windows(2).find(|s| s[0] <= position && position < s[1]);
                let (start, end) = sequence.map(|s| (s[0], s[1])).unwrap();
                let sequence = &batch.tokens[start..end];
                let masks = sequence.iter().filter(|&&t| t == MASK).count() as f32;
                let has_prompt = if sequence[0] == MASK { 0.0 } else { 1.0 };
                out.extend([has_prompt, (position - start) as f32 * 0.5, masks, 0.0]);
            }
            Ok(())
        }

        fn vocabulary(&self) -> usize {
            4
        }
    }

    fn log_p(logits: [f64; 4], target: usize) -> f64 {
        logits[target] - logits.iter().map(|l| l.exp()).sum::<f64>().ln()
    }

    #[test]
    fn a_letter_is_scored_by_the_confidence_of_the_first_step() {
        let pairs = [0, 1, 2].map(|token| Pair { prompt: vec![0, 0], answer: vec![token] });
        let scores = score(&mut Table, MASK, ALL, &pairs, 0.0).unwrap();
        for (token, score) in scores.iter().enumerate() {
            assert!((score - log_p([1.0, 1.0, 1.0, 0.0], token)).abs() < 1e-6, "{scores:?}");
        }
    }

    #[test]
    fn tokens_are_revealed_in_the_order_of_their_confidence() {
        // Token 1 is likelier further right, so position 2 is revealed first, then position 1.
        let pair = Pair { prompt: vec![0], answer: vec![1, 1] };
        let expected = log_p([1.0, 1.0, 2.0, 0.0], 1) + log_p([1.0, 0.5, 1.0, 0.0], 1);
        let other = Pair { prompt: vec![0, 0, 0], answer: vec![2] };
        let together = score(&mut Table, MASK, ALL, &[pair.clone(), other], 0.0).unwrap();
        assert!((together[0] - expected).abs() < 1e-6, "{together:?} {expected}");
        assert_eq!(score(&mut Table, MASK, ALL, &[pair], 0.0).unwrap()[0], together[0]);
    }

    #[test]
    fn guidance_adds_what_the_prompt_changes() {
        let pair = Pair { prompt: vec![0], answer: vec![0] };
        // Conditional (1, 0.5, 1, 0), unconditional (0, 0.5, 2, 0): u + 2 (l − u).
        let expected = log_p([2.0, 0.5, 0.0, 0.0], 0);
        let found = score(&mut Table, MASK, ALL, &[pair], 1.0).unwrap()[0];
        assert!((found - expected).abs() < 1e-6, "{found} {expected}");
    }
}
