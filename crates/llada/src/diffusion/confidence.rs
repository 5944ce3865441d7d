//! How sure the model is of a prediction.

use llada_kernels::statistics::Statistics;

use super::Remasking;

/// The token that the model proposes for one masked position, and how sure it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Candidate {
    /// The position in the sequence.
    pub(super) position: usize,
    /// The token that it would take.
    pub(super) token: u32,
    /// The token's probability.
    pub(super) probability: f64,
    /// What predictions are ranked by.
    pub(super) confidence: f64,
    /// Of the distribution, in nats.
    pub(super) entropy: f64,
}

/// The confidence in `token`, which has this `probability` in the logits that `whole` is of: between 0
/// and 1 but for a margin, which is negative where another token is more probable. A token without
/// probability has no confidence whatever the measure.
pub(super) fn confidence(
    measure: Remasking,
    probability: f64,
    whole: &Statistics,
    token: usize,
) -> f64 {
    match measure {
        _ if probability == 0.0 => 0.0,
        Remasking::LowConfidence | Remasking::Random | Remasking::Sequential => probability,
        Remasking::Margin => {
            let other = if token == whole.token { whole.second } else { whole.greatest };
            probability - whole.probability(other)
        }
        Remasking::Entropy => (-whole.entropy()).exp(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diffusion::{Precision, sample};
    use llada_kernels::statistics;

    #[test]
    fn the_measures_agree_on_what_is_sure_and_what_is_not() {
        let of = |measure, logits: &[f32], token| {
            let whole = statistics::of(logits).unwrap();
            let probability = sample::probability(logits, &whole, token, Precision::F64);
            confidence(measure, probability, &whole, token)
        };

        let half = [0.5f32.ln(), 0.3f32.ln(), 0.2f32.ln()];
        assert!((of(Remasking::LowConfidence, &half, 0) - 0.5).abs() < 1e-6);
        assert!((of(Remasking::Margin, &half, 0) - 0.2).abs() < 1e-6);
        assert!((of(Remasking::Margin, &half, 1) + 0.2).abs() < 1e-6);
        assert!((of(Remasking::Entropy, &[1.0; 4], 2) - 0.25).abs() < 1e-12);
        let excluded = [0.0, f32::NEG_INFINITY];
        for measure in Remasking::ALL {
            assert_eq!(of(measure, &excluded, 1), 0.0);
            assert!((of(measure, &excluded, 0) - 1.0).abs() < 1e-12, "{measure}");
        }
    }
}
