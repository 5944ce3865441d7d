//! Choosing an answer by the confidence with which it is unmasked.
//!
//! The answer begins as masks. Each step predicts all that is still masked, reveals the token of
//! the answer that is the most probable at its place, and adds the logarithm of that probability;
//! L steps for L tokens, the first of equals first. So it is what low-confidence decoding would pay
//! to write this answer: log p(answer | prompt) by the chain rule, in the order of confidence. It
//! needs no Monte Carlo samples. An answer of one token, such as a letter, takes one forward pass,
//! and its score is the logarithm of the confidence of the first step.

use crate::{
    Result,
    diffusion::{
        ReadSpec,
        likelihood::Pair,
        predictor::{Predictor, Read, ReadResult},
    },
    model::Batch,
};

/// The log-probability of each answer, in nats. `mask` is the mask token; above 0, `cfg_scale` is
/// the w of Eq. 16, at twice the work.
///
/// # Errors
/// If the model fails, or its logits are not finite.
pub fn score<P: Predictor + ?Sized>(
    predictor: &mut P,
    mask: u32,
    pairs: &[Pair],
    cfg_scale: f32,
) -> Result<Vec<f64>> {
    let mut slots: Vec<Slot> = pairs.iter().map(|pair| Slot::new(pair, mask)).collect();
    let (mut tokens, mut starts) = (Vec::new(), Vec::new());
    let (mut reads, mut said) = (Vec::new(), Vec::new());
    while slots.iter().any(|slot| !slot.masked.is_empty()) {
        tokens.clear();
        starts.clear();
        starts.push(0);
        reads.clear();
        for slot in slots.iter().filter(|slot| !slot.masked.is_empty()) {
            let start = tokens.len();
            tokens.extend_from_slice(&slot.tokens);
            starts.push(tokens.len());
            let twin = (cfg_scale > 0.0).then_some(tokens.len());
            if twin.is_some() {
                tokens.resize(tokens.len() + slot.prompt, mask);
                tokens.extend_from_slice(&slot.tokens[slot.prompt..]);
                starts.push(tokens.len());
            }
            reads.extend(slot.masked.iter().map(|&position| Read {
                spec: ReadSpec::probe(position, slot.target(position), cfg_scale),
                row: start + position,
                unconditional: twin.map(|twin| twin + position),
            }));
        }
        let batch = Batch { tokens: &tokens, starts: &starts, keep: None };
        predictor.forward(&batch.into(), &reads, &mut said)?;
        let mut said = said.drain(..);
        for slot in slots.iter_mut().filter(|slot| !slot.masked.is_empty()) {
            slot.reveal(said.by_ref().take(slot.masked.len()))?;
        }
    }
    Ok(slots.iter().map(|slot| slot.score).collect())
}

/// An answer on its way from masks to text.
struct Slot {
    tokens: Vec<u32>,
    prompt: usize,
    answer: Vec<u32>,
    /// Positions that are still masked, in ascending order.
    masked: Vec<usize>,
    score: f64,
}

impl Slot {
    fn new(pair: &Pair, mask: u32) -> Self {
        let prompt = pair.prompt.len();
        let mut tokens = pair.prompt.clone();
        tokens.resize(prompt + pair.answer.len(), mask);
        let masked = (prompt..tokens.len()).collect();
        Self { tokens, prompt, answer: pair.answer.clone(), masked, score: 0.0 }
    }

    /// The token of the answer at `position`.
    fn target(&self, position: usize) -> u32 {
        self.answer[position - self.prompt]
    }

    /// Reveals the token that is the most probable at its place, by what is `said` of those masked.
    fn reveal(&mut self, said: impl Iterator<Item = ReadResult>) -> Result<()> {
        let mut best = (0, f64::NEG_INFINITY);
        for (i, said) in said.enumerate() {
            let value = said?.log_probability();
            if value > best.1 || i == 0 {
                best = (i, value);
            }
        }
        let position = self.masked.remove(best.0);
        self.tokens[position] = self.target(position);
        self.score += best.1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diffusion::Logits;

    /// Predicts by a table: the logits of a position depend on the number of masks in its row.
    struct Table;

    const MASK: u32 = 3;

    impl Logits for Table {
        fn logits(
            &mut self,
            batch: &Batch<'_>,
            wanted: &[usize],
            out: &mut Vec<f32>,
        ) -> Result<()> {
            out.clear();
            for &position in wanted {
                let row = batch.starts.windows(2).find(|s| s[0] <= position && position < s[1]);
                let (start, end) = row.map(|s| (s[0], s[1])).unwrap();
                let row = &batch.tokens[start..end];
                let masks = row.iter().filter(|&&t| t == MASK).count() as f32;
                let has_prompt = if row[0] == MASK { 0.0 } else { 1.0 };
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
        let scores = score(&mut Table, MASK, &pairs, 0.0).unwrap();
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
        let together = score(&mut Table, MASK, &[pair.clone(), other], 0.0).unwrap();
        assert!((together[0] - expected).abs() < 1e-6, "{together:?} {expected}");
        assert_eq!(score(&mut Table, MASK, &[pair], 0.0).unwrap()[0], together[0]);
    }

    #[test]
    fn guidance_adds_what_the_prompt_changes() {
        let pair = Pair { prompt: vec![0], answer: vec![0] };
        // Conditional (1, 0.5, 1, 0), unconditional (0, 0.5, 2, 0): u + 2 (l − u).
        let expected = log_p([2.0, 0.5, 0.0, 0.0], 0);
        let found = score(&mut Table, MASK, &[pair], 1.0).unwrap()[0];
        assert!((found - expected).abs() < 1e-6, "{found} {expected}");
    }
}
