//! How sure the model is of a prediction.

use super::{Precision, Remasking, sample};

/// What the model thinks of one open position.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Belief {
    /// The position in the row.
    pub(super) position: usize,
    /// The token that it would take.
    pub(super) token: u32,
    /// The token's probability.
    pub(super) probability: f64,
    /// What predictions are ranked by.
    pub(super) confidence: f64,
    /// Of the distribution, in nats; NaN where it was not computed.
    pub(super) entropy: f64,
}

/// The probability of `token` and the confidence in it: between 0 and 1 but for a margin, which is
/// negative where another token is more probable. A token without probability has no confidence
/// whatever the measure.
pub(super) fn confidence(
    measure: Remasking,
    logits: &[f32],
    token: usize,
    precision: Precision,
) -> (f64, f64) {
    let probability = sample::probability(logits, token, precision);
    let confidence = match measure {
        _ if probability == 0.0 => 0.0,
        Remasking::LowConfidence | Remasking::Random => probability,
        Remasking::Margin => {
            let others = logits.iter().enumerate().filter(|&(i, _)| i != token);
            let second = others.max_by(|a, b| a.1.total_cmp(b.1)).map_or(0, |(i, _)| i);
            probability - sample::probability(logits, second, precision)
        }
        Remasking::Entropy => (-entropy(logits)).exp(),
    };
    (probability, confidence)
}

/// The entropy of the soft-max, in nats: ln Z − Σ p·l, with logits less their maximum.
pub(super) fn entropy(logits: &[f32]) -> f64 {
    let max = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let (mut sum, mut weighted) = (0.0, 0.0);
    for &logit in logits.iter().filter(|l| **l > f32::NEG_INFINITY) {
        let l = f64::from(logit) - max;
        let weight = l.exp();
        sum += weight;
        weighted += weight * l;
    }
    // Rounding must not make a sure distribution surer than sure.
    (sum.ln() - weighted / sum).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_entropy_of_equals_is_the_logarithm_of_their_number() {
        assert!((entropy(&[3.0; 8]) - 8f64.ln()).abs() < 1e-12);
        assert!((entropy(&[3.0, 3.0, f32::NEG_INFINITY]) - 2f64.ln()).abs() < 1e-12);
        assert!(entropy(&[100.0, -100.0]) < 1e-12);
    }

    #[test]
    fn the_measures_agree_on_what_is_sure_and_what_is_not() {
        let of =
            |measure, logits: &[f32], token| confidence(measure, logits, token, Precision::F64).1;

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
