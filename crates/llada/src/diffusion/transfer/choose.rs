//! Which candidates of a step each rule unmasks.

use super::{Leap, Memory, TransferRule};
use crate::diffusion::confidence::Candidate;

impl TransferRule {
    /// Leaves in `unmasked` the indices, in ascending order, of the `candidates` that are unmasked:
    /// those that the rule grants, and in any case the `least` most confident. Of equals the first
    /// come first.
    pub(in crate::diffusion) fn choose(
        self,
        candidates: &[Candidate],
        least: usize,
        memory: &Memory,
        unmasked: &mut Vec<usize>,
    ) {
        unmasked.clear();
        unmasked.extend(0..candidates.len());
        unmasked.sort_unstable_by(|&a, &b| {
            candidates[b].confidence.total_cmp(&candidates[a].confidence).then(a.cmp(&b))
        });
        let sorted = || unmasked.iter().map(|&i| candidates[i].confidence);
        let first = match self {
            Self::Schedule => 0,
            Self::Threshold(threshold) => sorted().take_while(|&c| c >= threshold).count(),
            Self::Credit(credit) => sorted().take_while(|&c| c >= credit.confidence).count(),
            Self::Factor(factor) => {
                let grants = |(n, c): (usize, f64)| c >= 1.0 - factor / (n as f64 + 2.0);
                sorted().enumerate().take_while(|&rank| grants(rank)).count()
            }
            Self::Entropy(bound) => {
                within_entropy(unmasked.iter().map(|&i| candidates[i].entropy), bound)
            }
            Self::Klass(_) | Self::Leap(_) => 0,
        };
        unmasked.truncate(first.max(least));
        match self {
            Self::Klass(klass) => unmasked.extend((0..candidates.len()).filter(|&i| {
                candidates[i].confidence >= klass.confidence
                    && memory.steps_at_rest(candidates[i].position) >= klass.steps
            })),
            Self::Leap(leap) => unmasked.extend(leaping(candidates, leap)),
            _ => {}
        }
        unmasked.sort_unstable();
        unmasked.dedup();
    }
}

/// The most for which the sum of the entropies less the largest of them is at most `bound`.
fn within_entropy(entropies: impl Iterator<Item = f64>, bound: f64) -> usize {
    let (mut sum, mut largest) = (0.0f64, 0.0f64);
    let grants = |&entropy: &f64| {
        sum += entropy;
        largest = largest.max(entropy);
        sum - largest <= bound
    };
    entropies.take_while(grants).count()
}

/// Anchors, and the neighbours within their reach.
fn leaping(candidates: &[Candidate], leap: Leap) -> impl Iterator<Item = usize> + '_ {
    let is_anchor = move |candidate: &Candidate| candidate.confidence >= leap.anchor;
    (0..candidates.len()).filter(move |&i| {
        let Candidate { confidence, position, .. } = candidates[i];
        let reaches = |other: &Candidate| other.position.abs_diff(position) <= leap.reach;
        let near = || candidates.iter().any(|other| is_anchor(other) && reaches(other));
        confidence >= leap.anchor || (confidence >= leap.neighbour && near())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates(confidences: &[f64]) -> Vec<Candidate> {
        let candidate = |(position, &confidence): (usize, &f64)| Candidate {
            position,
            token: 0,
            probability: confidence,
            confidence,
            entropy: -confidence.ln(),
        };
        confidences.iter().enumerate().map(candidate).collect()
    }

    fn chosen(rule: TransferRule, confidences: &[f64], least: usize) -> Vec<usize> {
        let mut unmasked = vec![7];
        rule.choose(&candidates(confidences), least, &Memory::default(), &mut unmasked);
        unmasked
    }

    #[test]
    fn the_schedule_unmasks_its_share_and_nothing_more() {
        let confidence = [0.5, 0.9, 0.5, 0.0, 0.9];
        assert_eq!(chosen(TransferRule::Schedule, &confidence, 0), Vec::<usize>::new());
        assert_eq!(chosen(TransferRule::Schedule, &confidence, 1), [1]);
        assert_eq!(chosen(TransferRule::Schedule, &confidence, 3), [0, 1, 4]);
        assert_eq!(chosen(TransferRule::Schedule, &confidence, 99), [0, 1, 2, 3, 4]);
        assert_eq!(chosen(TransferRule::Schedule, &[0.25; 4], 2), [0, 1]);
    }

    #[test]
    fn a_threshold_unmasks_all_above_it_and_the_most_confident_in_any_case() {
        assert_eq!(chosen(TransferRule::Threshold(0.6), &[0.7, 0.5, 0.6, 0.9], 1), [0, 2, 3]);
        assert_eq!(chosen(TransferRule::Threshold(0.95), &[0.7, 0.5, 0.6, 0.9], 1), [3]);
        assert_eq!(chosen(TransferRule::Threshold(0.95), &[0.7, 0.5, 0.6, 0.9], 2), [0, 3]);
        assert_eq!(chosen(TransferRule::Threshold(0.5), &[], 1), Vec::<usize>::new());
    }

    #[test]
    fn a_factor_asks_more_of_more() {
        // 1 − 1/(n + 1): 1/2, 2/3, 3/4, 4/5.
        assert_eq!(chosen(TransferRule::Factor(1.0), &[0.9, 0.7, 0.76, 0.1], 1), [0, 2]);
        assert_eq!(chosen(TransferRule::Factor(1.0), &[0.9, 0.75, 0.76, 0.1], 1), [0, 1, 2]);
        assert_eq!(chosen(TransferRule::Factor(1.0), &[0.1, 0.2], 1), [1]);
        assert_eq!(chosen(TransferRule::Factor(0.0), &[1.0, 0.9999], 1), [0]);
    }

    #[test]
    fn an_entropy_bound_forgives_the_largest() {
        let e = |h: f64| (-h).exp();
        let confidences = [e(0.05), e(2.0), e(0.04), e(0.3)];
        // In order 0.04, 0.05, 0.3, 2.0: the sums without the largest are 0, 0.04, 0.09, 0.39.
        assert_eq!(chosen(TransferRule::Entropy(0.0), &confidences, 1), [2]);
        assert_eq!(chosen(TransferRule::Entropy(0.1), &confidences, 1), [0, 2, 3]);
        assert_eq!(chosen(TransferRule::Entropy(0.4), &confidences, 1), [0, 1, 2, 3]);
    }

    #[test]
    fn neighbours_of_anchors_leap_along() {
        let rule = TransferRule::Leap(Leap { anchor: 0.9, neighbour: 0.7, reach: 2 });
        assert_eq!(chosen(rule, &[0.8, 0.8, 0.5, 0.95, 0.6, 0.7, 0.8], 1), [1, 3, 5]);
        assert_eq!(chosen(rule, &[0.8, 0.85, 0.5], 1), [1]);
    }
}
