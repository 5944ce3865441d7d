//! Names for settings that go together.

use std::{fmt, str::FromStr};

use super::{Reference, Sampler};
use crate::{
    config::{AttentionMask, ModelConfig, PublishedSampler},
    diffusion::{Blocks, Cache, Remasking, SamplerError, TransferRule, cache::Refresh},
};

/// Where settings start from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Preset {
    /// Decision by decision as the reference's code: [`Sampler::exact`].
    Exact,
    /// Saves what costs nothing that could be measured: [`Sampler::balanced`].
    #[default]
    Balanced,
    /// Saves more, for a price: [`Sampler::fast`].
    Fast,
}

impl Preset {
    /// All presets.
    pub const ALL: [Self; 3] = [Self::Exact, Self::Balanced, Self::Fast];

    /// Its name on the command line and in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Balanced => "balanced",
            Self::Fast => "fast",
        }
    }

    /// Its settings, of a model that is LLaDA's kind.
    pub fn sampler(self) -> Sampler {
        match self {
            Self::Exact => Sampler::exact(),
            Self::Balanced => Sampler::balanced(),
            Self::Fast => Sampler::fast(),
        }
    }

    /// Its settings for a model of `config`: what its attention mask asks for, and the rules of the
    /// published sampler that its family comes with.
    pub fn sampler_for(self, config: &ModelConfig) -> Sampler {
        let mut sampler = self.sampler();
        match config.attention {
            AttentionMask::Bidirectional => {}
            AttentionMask::Causal => {
                sampler.blocks = Blocks::Autoregressive;
                (sampler.cache, sampler.transfer) = (Cache::None, TransferRule::Schedule);
                return sampler;
            }
            AttentionMask::BlockCausal { block_length } => {
                sampler.blocks = Blocks::BlockDiffusion;
                (sampler.block_length, sampler.cache) = (block_length, Cache::None);
            }
        }
        let is_fast = self == Self::Fast;
        match config.published_sampler() {
            PublishedSampler::Llada => {}
            // Entropy is what Dream's authors recommend (arXiv 2508.15487).
            PublishedSampler::Dream => {
                sampler.remasking = Remasking::Entropy;
                sampler.reference = Reference::Dream { eps: 1e-3, origin: false };
            }
            // Its card's threshold; 0.7 is what the card of LLaDA2.1 calls speed mode.
            PublishedSampler::Llada2 => {
                sampler.transfer = TransferRule::Threshold(if is_fast { 0.7 } else { 0.95 });
                sampler.reference = Reference::Llada2;
            }
            // What its card calls `generate()` with; parts of 8 whose neighbours are cached as they
            // were (the sub-block cache of arXiv 2509.26328) are its faster mode.
            PublishedSampler::FastDllmV2 => {
                let block = sampler.block_length;
                sampler.sub_block_length = Some(8).filter(|&part| block.is_multiple_of(part));
                sampler.transfer = TransferRule::Threshold(if is_fast { 0.7 } else { 0.9 });
                (sampler.reference, sampler.stop_at_eos) = (Reference::FastDllmV2, true);
                if is_fast && sampler.sub_block_length.is_some() {
                    sampler.cache = Cache::Dual(Refresh::default());
                }
            }
            // `low_confidence_dynamic` at its default.
            PublishedSampler::Sdar => {
                sampler.transfer = TransferRule::Threshold(if is_fast { 0.7 } else { 0.85 });
                sampler.reference = Reference::Sdar;
            }
        }
        sampler
    }
}

impl fmt::Display for Preset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Preset {
    type Err = SamplerError;

    fn from_str(s: &str) -> Result<Self, SamplerError> {
        let name = s.to_ascii_lowercase();
        Self::ALL.into_iter().find(|p| p.name() == name).ok_or_else(|| SamplerError::Unknown {
            what: "preset",
            found: s.to_owned(),
            known: Self::ALL.map(Self::name).join(", "),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{checkpoint::load_config, config::SpecialTokens, golden};

    #[test]
    fn names_stand_for_samplers() {
        for preset in Preset::ALL {
            assert_eq!(preset.to_string().to_uppercase().parse(), Ok(preset));
            preset.sampler().check().unwrap();
        }
        for golden in golden::of_families() {
            let config = load_config(&golden.own_folder()).unwrap();
            let special = SpecialTokens { mask: Some(1), ..config.tokens };
            for preset in Preset::ALL {
                let sampler = preset.sampler_for(&config);
                sampler.check().unwrap();
                sampler.check_model(&special, config.attention).unwrap();
            }
            assert!(!config.family.sampler().source().is_empty());
        }
        assert!("best".parse::<Preset>().unwrap_err().hint().unwrap().contains("balanced"));
    }
}
