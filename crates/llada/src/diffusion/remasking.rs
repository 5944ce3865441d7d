//! *Who* is kept: each step predicts every open position and remasks all but the most trusted.
//!
//! As the reference does, a committed token is final: "remasking" means not committing it yet.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::SamplerError;

/// What a prediction must have to be kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Remasking {
    /// A high probability under the model (Alg. 5).
    #[default]
    #[serde(alias = "low_confidence")]
    LowConfidence,
    /// Luck: the positions are drawn at random (Alg. 4).
    Random,
}

impl Remasking {
    /// All strategies.
    pub const ALL: [Self; 2] = [Self::LowConfidence, Self::Random];

    /// Its name on the command line and in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::LowConfidence => "low-confidence",
            Self::Random => "random",
        }
    }
}

impl fmt::Display for Remasking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Remasking {
    type Err = SamplerError;

    fn from_str(s: &str) -> Result<Self, SamplerError> {
        let name = s.replace('_', "-");
        Self::ALL.into_iter().find(|r| r.name() == name).ok_or_else(|| SamplerError::Unknown {
            what: "remasking",
            found: s.to_owned(),
            known: Self::ALL.map(Self::name).join(", "),
        })
    }
}

/// Indices, in ascending order, of the `n` highest confidences; of equal ones the first are kept
/// (`torch.topk` leaves that order open).
pub fn most_confident(confidence: &[f64], n: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..confidence.len()).collect();
    order.sort_by(|&a, &b| confidence[b].total_cmp(&confidence[a]));
    order.truncate(n);
    order.sort_unstable();
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_are_kept_and_ties_go_to_the_first() {
        let confidence = [0.5, 0.9, 0.5, 0.0, 0.9];
        assert_eq!(most_confident(&confidence, 0), Vec::<usize>::new());
        assert_eq!(most_confident(&confidence, 1), [1]);
        assert_eq!(most_confident(&confidence, 3), [0, 1, 4]);
        assert_eq!(most_confident(&confidence, 99), [0, 1, 2, 3, 4]);
        assert_eq!(most_confident(&[0.25; 4], 2), [0, 1]);
    }

    #[test]
    fn names_round_trip() {
        for remasking in Remasking::ALL {
            assert_eq!(remasking.to_string().parse(), Ok(remasking));
            assert_eq!(serde_json::to_value(remasking).unwrap(), remasking.name());
        }
        assert_eq!("low_confidence".parse(), Ok(Remasking::LowConfidence));
        assert!("entropy".parse::<Remasking>().is_err());
    }
}
