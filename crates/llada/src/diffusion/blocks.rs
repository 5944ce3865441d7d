//! *Where* tokens may be committed: the four block layouts of the paper's Fig. 4 and Tab. 7.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::SamplerError;
use crate::tokenizer::Tokenizer;

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

/// Where blocks end that are no longer than what they say: at a delimiter of which the model is sure,
/// such as a line's end (AdaBlock, arXiv 2509.26432).
///
/// The first pass of a block looks over twice `block_length` positions. The block ends with the most
/// confident prediction of a delimiter among them, or after `block_length` where none is confident
/// enough.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AdaptiveBlocks {
    /// The tokens that can end a block.
    pub delimiters: Vec<u32>,
    /// Least confidence in them; the paper's is 0.3.
    #[serde(default = "AdaptiveBlocks::confidence")]
    pub confidence: f64,
}

impl AdaptiveBlocks {
    /// With the paper's least confidence.
    pub fn new(delimiters: Vec<u32>) -> Self {
        Self { delimiters, confidence: Self::confidence() }
    }

    /// At the tokens that are nothing but line ends, full stops, commas and the like.
    pub fn of(tokenizer: &Tokenizer) -> Self {
        let is_delimiter = |c: char| c.is_whitespace() || ".,;:!?。，、；：！？".contains(c);
        let is_delimiter = |&id: &u32| {
            let text = tokenizer.token(id).filter(|_| !tokenizer.is_special(id));
            text.is_some_and(|t| {
                t.chars().all(is_delimiter) && !t.trim_matches([' ', '\t']).is_empty()
            })
        };
        Self::new((0..tokenizer.vocab_size() as u32).filter(is_delimiter).collect())
    }

    fn confidence() -> f64 {
        0.3
    }
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
        let name = s.to_ascii_lowercase().replace('_', "-");
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
