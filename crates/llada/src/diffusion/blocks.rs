//! *Where* tokens may be committed: the four block layouts of the paper's Fig. 4 and Tab. 7.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::SamplerError;

/// The order in which the parts of the response are opened for sampling.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Blocks {
    /// One block: the whole response at once ("pure diffusion").
    #[default]
    Pure,
    /// Blocks from left to right on a canvas of fixed length: the masks of later blocks are seen
    /// ("block diffusion LLaDA" in the paper, `block_length` in the reference).
    SemiAutoregressive,
    /// The sequence grows by a block at a time; there are no later masks; stops at the end of the
    /// text ("block diffusion").
    BlockDiffusion,
    /// As `BlockDiffusion` with blocks of one token.
    Autoregressive,
}

impl Blocks {
    /// All layouts.
    pub const ALL: [Self; 4] =
        [Self::Pure, Self::SemiAutoregressive, Self::BlockDiffusion, Self::Autoregressive];

    /// Its name on the command line and in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pure => "pure",
            Self::SemiAutoregressive => "semi-autoregressive",
            Self::BlockDiffusion => "block-diffusion",
            Self::Autoregressive => "autoregressive",
        }
    }

    /// Whether the sequence grows block by block, and may stop early.
    pub fn grows(self) -> bool {
        matches!(self, Self::BlockDiffusion | Self::Autoregressive)
    }
}

impl fmt::Display for Blocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Blocks {
    type Err = SamplerError;

    fn from_str(s: &str) -> Result<Self, SamplerError> {
        let name = s.replace('_', "-");
        Self::ALL.into_iter().find(|b| b.name() == name).ok_or_else(|| SamplerError::Unknown {
            what: "block layout",
            found: s.to_owned(),
            known: Self::ALL.map(Self::name).join(", "),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_in_text_and_in_json() {
        for blocks in Blocks::ALL {
            assert_eq!(blocks.to_string().parse(), Ok(blocks));
            assert_eq!(serde_json::to_value(blocks).unwrap(), blocks.name());
        }
        assert_eq!("semi_autoregressive".parse(), Ok(Blocks::SemiAutoregressive));
        let error = "spiral".parse::<Blocks>().unwrap_err();
        assert_eq!(error.to_string(), "unknown block layout `spiral`");
        assert!(error.hint().unwrap().contains("block-diffusion"));
    }
}
