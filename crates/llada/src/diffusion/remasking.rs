//! *Which* positions are unmasked: each step predicts every open position and remasks all but those
//! that are trusted most.
//!
//! As in the reference, a committed token is final unless [`Sampler::revise`](super::Sampler::revise)
//! says otherwise: "remasking" means not committing it yet.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::SamplerError;

/// By what candidates are ranked: those of the first positions are unmasked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Remasking {
    /// A high probability under the model (Alg. 5).
    #[default]
    #[serde(alias = "low_confidence")]
    LowConfidence,
    /// Luck: the positions are drawn at random (Alg. 4).
    Random,
    /// A high probability above that of the next best token ("top-K probability margin", arXiv
    /// 2502.06768).
    Margin,
    /// A place further left (`sequential` of SDAR, arXiv 2510.06303).
    Sequential,
    /// A distribution of low entropy H (`entropy` of Dream, arXiv 2508.15487). The confidence is
    /// exp(−H), between 0 and 1 as a probability is.
    Entropy,
}

impl Remasking {
    /// All strategies.
    pub const ALL: [Self; 5] =
        [Self::LowConfidence, Self::Random, Self::Margin, Self::Entropy, Self::Sequential];

    /// Its name on the command line and in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::LowConfidence => "low-confidence",
            Self::Random => "random",
            Self::Margin => "margin",
            Self::Entropy => "entropy",
            Self::Sequential => "sequential",
        }
    }

    /// Whether predictions are ranked by something else than how sure the model is.
    pub(super) fn is_ranked_by_place(self) -> bool {
        matches!(self, Self::Random | Self::Sequential)
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
        let name = s.to_ascii_lowercase().replace('_', "-");
        Self::ALL.into_iter().find(|r| r.name() == name).ok_or_else(|| SamplerError::Unknown {
            what: "remasking",
            found: s.to_owned(),
            known: Self::ALL.map(Self::name).join(", "),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for remasking in Remasking::ALL {
            assert_eq!(remasking.to_string().parse(), Ok(remasking));
            assert_eq!(serde_json::to_value(remasking).unwrap(), remasking.name());
        }
        assert_eq!("low_confidence".parse(), Ok(Remasking::LowConfidence));
        let error = "luck".parse::<Remasking>().unwrap_err();
        assert!(error.hint().unwrap().contains("margin"));
    }
}
