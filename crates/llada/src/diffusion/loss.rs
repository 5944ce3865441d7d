//! The losses: each is Σ weight · nll over predicted positions, and differs only in the weights.

use super::forward::Noised;

/// What the loss of block diffusion divides its sum over masked tokens by.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Normalisation {
    /// The tokens of the batch that can be masked (BD3LM, SDAR).
    Tokens,
    /// Those that are masked (LLaDA2).
    Masked,
    /// In each sequence its tokens that can be masked, and then the sequences: Eq. 5.
    Sequence,
    /// The sequences.
    Batch,
}

/// The weights that the tokens of `noised` have, normalised over the batch: one of sequences whose
/// tokens that can be masked number `answer_lengths`, `masked` of which are.
pub fn normalised(
    noised: &Noised,
    by: Normalisation,
    answer_lengths: &[usize],
    masked: usize,
) -> Vec<f32> {
    let all = match by {
        Normalisation::Tokens => answer_lengths.iter().sum(),
        Normalisation::Masked => masked,
        Normalisation::Sequence => return sft_weights(noised, answer_lengths),
        Normalisation::Batch => answer_lengths.len(),
    };
    noised.weights.iter().map(|weight| weight / all.max(1) as f32).collect()
}

/// Weights of the pre-training loss (Eq. 3): 1/p of each masked token, over all `total_tokens` of
/// the batch, masked or not.
pub fn pretrain_weights(noised: &Noised, total_tokens: usize) -> Vec<f32> {
    let scale = 1.0 / total_tokens.max(1) as f32;
    noised.weights.iter().map(|weight| weight * scale).collect()
}

/// Weights of the fine-tuning loss (Eq. 5): 1/p of each masked token, over the length of its
/// sequence's answer, averaged over the sequences. `answer_lengths` has one entry for each
/// sequence, EOS padding that is trained on included.
pub fn sft_weights(noised: &Noised, answer_lengths: &[usize]) -> Vec<f32> {
    let sequences = answer_lengths.len().max(1) as f32;
    let length = |row: usize| answer_lengths.get(row).copied().unwrap_or(0).max(1) as f32;
    noised
        .weights
        .iter()
        .zip(&noised.sequences)
        .map(|(w, &sequence)| w / length(sequence) / sequences)
        .collect()
}

/// The autoregressive baseline (Eq. 2): nothing is masked, each token predicts the next one of its
/// sequence, and all predictions weigh the same. `starts` has sequences + 1 offsets into `tokens`.
pub fn autoregressive(tokens: &[u32], starts: &[usize]) -> Noised {
    let mut next = autoregressive_response(tokens, starts, &[]);
    next.weights.fill(1.0 / next.positions.len().max(1) as f32);
    next
}

/// The baseline's fine-tuning: as [`autoregressive`], but only the tokens of each sequence after the
/// first `prompt_lengths[sequence]` are predicted, each with the weight 1, as if p were 1 in
/// [`sft_weights`]. A sequence without an entry has no prompt.
pub fn autoregressive_response(
    tokens: &[u32],
    starts: &[usize],
    prompt_lengths: &[usize],
) -> Noised {
    let mut next = Noised { tokens: tokens.to_vec(), ..Noised::default() };
    for (sequence, bounds) in starts.windows(2).enumerate() {
        // Nothing predicts the first token of a sequence.
        let first = prompt_lengths.get(sequence).copied().unwrap_or(0).max(1);
        for i in bounds[0] + first..bounds[1] {
            next.positions.push(i - 1);
            next.targets.push(tokens[i]);
            next.sequences.push(sequence);
        }
    }
    next.weights = vec![1.0; next.positions.len()];
    next
}

/// The loss Σ weight · nll.
pub fn value(weights: &[f32], nll: &[f32]) -> f64 {
    weights.iter().zip(nll).map(|(&w, &n)| f64::from(w) * f64::from(n)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noised() -> Noised {
        Noised { weights: vec![2.0, 4.0, 5.0], sequences: vec![0, 0, 2], ..Noised::default() }
    }

    #[test]
    fn weights_normalise_as_the_equations_say() {
        assert_eq!(pretrain_weights(&noised(), 10), [0.2, 0.4, 0.5]);
        assert_eq!(sft_weights(&noised(), &[4, 7, 5]), [0.5 / 3.0, 1.0 / 3.0, 1.0 / 3.0]);
        assert_eq!(value(&[0.5, 2.0], &[4.0, 1.0]), 4.0);
    }

    #[test]
    fn block_diffusion_is_normalised_as_each_recipe_does() {
        let by = |by| normalised(&noised(), by, &[4, 7, 9], 8);
        assert_eq!(by(Normalisation::Tokens), [0.1, 0.2, 0.25]);
        assert_eq!(by(Normalisation::Masked), [0.25, 0.5, 0.625]);
        assert_eq!(by(Normalisation::Sequence), sft_weights(&noised(), &[4, 7, 9]));
        assert_eq!(by(Normalisation::Batch), [2.0, 4.0, 5.0].map(|w: f32| w / 3.0));
        let none = normalised(&noised(), Normalisation::Masked, &[], 0);
        assert!(none.iter().all(|w| w.is_finite()));
    }

    #[test]
    fn empty_sequences_and_batches_divide_by_nothing() {
        assert!(pretrain_weights(&Noised::default(), 0).is_empty());
        assert!(sft_weights(&noised(), &[0, 0, 0]).iter().all(|w| w.is_finite()));
        assert!(autoregressive(&[], &[0]).positions.is_empty());
    }

    #[test]
    fn each_token_predicts_the_next_of_its_sequence() {
        let next = autoregressive(&[1, 2, 3, 4, 5, 6], &[0, 3, 4, 6]);
        assert_eq!(next.tokens, [1, 2, 3, 4, 5, 6]);
        assert_eq!(next.positions, [0, 1, 4]);
        assert_eq!(next.targets, [2, 3, 6]);
        assert_eq!(next.sequences, [0, 0, 2]);
        assert_eq!(next.weights, [1.0 / 3.0; 3]);
    }

    #[test]
    fn only_the_response_is_predicted() {
        let next = autoregressive_response(&[1, 2, 3, 4, 5, 6], &[0, 4, 6], &[2, 0]);
        assert_eq!((next.positions, next.targets), (vec![1, 2, 4], vec![3, 4, 6]));
        assert_eq!((next.sequences, next.weights), (vec![0, 0, 1], vec![1.0; 3]));
    }
}
