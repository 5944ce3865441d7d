//! Whose published sampler the exact mode follows, and the rules that came with these.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::diffusion::{Remasking, SamplerError};

/// The published sampler that [`Sampler::exact`](super::Sampler::exact) follows also where it is
/// peculiar. Common to all: the model may predict the mask token, which then stays where it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reference {
    /// `generate()` of LLaDA and LLaDA-MoE.
    #[default]
    Llada,
    /// `diffusion_generate()` of Dream: the step from time t to s unmasks int(M·(1 − s/t)) of M masks,
    /// the last step all; the times are spread evenly from 1 to `eps`.
    Dream {
        /// The last time.
        eps: f64,
        /// Whether each mask is unmasked by its own draw of probability 1 − s/t (`origin`).
        origin: bool,
    },
    /// `generate()` of LLaDA2.0: a block has the steps of its schedule and no more, and the schedule is
    /// that of a whole block; it stops after a block that holds the end of the text, and gives nothing
    /// where the prompt holds one too and is to be stopped at.
    Llada2,
    /// `generate()` of LLaDA2.1, with [`Edit`]: a block has as many steps as it needs, and the end of
    /// the text stops only where it is asked to.
    Llada21,
    /// `block_diffusion_generate()` of SDAR: as LLaDA2.0, tempered before it is filtered.
    Sdar,
    /// `generate()` of Fast-dLLM v2: a block is left once it is full, however many steps that takes; the
    /// most probable token becomes the first of a block, whatever the temperature. It fills as many
    /// blocks as `gen_length` has whole ones, and gives the token after the last. Two of its flaws are
    /// not repeated: a prompt of exactly one block is not ignored, and a `gen_length` of less than one
    /// block gives an answer.
    FastDllmV2,
    /// `LLaDA2Pipeline` of diffusers with its `BlockRefinementScheduler`, for LLaDA2.0 and 2.1: a block
    /// has the steps of its schedule, of which a pass over a full block takes none; one more pass looks
    /// whether a full block is at rest, with [`Edit`] or without; nothing attends to what a last whole
    /// block has beyond the response; and the end of the text stops where it is asked to, at once and
    /// unless the prompt holds one. The sequences of one batch wait for each other:
    /// [`diffusers::run`](crate::diffusion::diffusers::run).
    Diffusers,
}

impl Reference {
    /// The names of all, in commands and files.
    pub const NAMES: [&'static str; 8] = [
        "llada",
        "dream",
        "dream-origin",
        "llada2",
        "llada2.1",
        "sdar",
        "fast-dllm-v2",
        "diffusers",
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Llada => "llada",
            Self::Dream { origin: false, .. } => "dream",
            Self::Dream { origin: true, .. } => "dream-origin",
            Self::Llada2 => "llada2",
            Self::Llada21 => "llada2.1",
            Self::Sdar => "sdar",
            Self::FastDllmV2 => "fast-dllm-v2",
            Self::Diffusers => "diffusers",
        }
    }

    /// Whether its confidences are of the logits divided by the temperature, and of those that
    /// `top_k` and `top_p` leave.
    pub(in crate::diffusion) fn tempers(self) -> bool {
        self != Self::Llada
    }

    /// Whether it is Dream's.
    pub(in crate::diffusion) fn is_dream(self) -> bool {
        matches!(self, Self::Dream { .. })
    }

    /// Whether it edits.
    pub(in crate::diffusion) fn edits(self) -> bool {
        matches!(self, Self::Llada21 | Self::Diffusers)
    }

    /// Whether it fills blocks that end at multiples of their length.
    pub(in crate::diffusion) fn is_by_blocks(self) -> bool {
        !matches!(self, Self::Llada | Self::Dream { .. })
    }

    /// Whether it has this measure.
    pub(super) fn has(self, remasking: Remasking) -> bool {
        match self {
            Self::Llada => matches!(remasking, Remasking::LowConfidence | Remasking::Random),
            Self::Dream { origin: true, .. } => remasking == Remasking::Random,
            Self::Dream { .. } => !matches!(remasking, Remasking::Random | Remasking::Sequential),
            Self::Llada2 | Self::Llada21 | Self::FastDllmV2 | Self::Diffusers => {
                remasking == Remasking::LowConfidence
            }
            Self::Sdar => matches!(remasking, Remasking::LowConfidence | Remasking::Sequential),
        }
    }

    /// Of Dream: the probability 1 − s/t by which step `step` of `steps` unmasks a mask; 1 in the last.
    pub(in crate::diffusion) fn share(self, step: usize, steps: usize) -> Option<f32> {
        let Self::Dream { eps, .. } = self else { return None };
        if step + 1 >= steps {
            return Some(1.0);
        }
        // `torch.linspace` in `f32`, which counts from the nearer end.
        let width = (eps as f32 - 1.0) / steps as f32;
        let time = |i: usize| match i < steps.div_ceil(2) {
            true => 1.0 + width * i as f32,
            false => eps as f32 - width * (steps - i) as f32,
        };
        Some(1.0 - time(step + 1) / time(step))
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Reference {
    type Err = SamplerError;

    fn from_str(s: &str) -> Result<Self, SamplerError> {
        let dream = |origin| Self::Dream { eps: 1e-3, origin };
        match s.to_ascii_lowercase().as_str() {
            "llada" => Ok(Self::Llada),
            "dream" => Ok(dream(false)),
            "dream-origin" => Ok(dream(true)),
            "llada2" => Ok(Self::Llada2),
            "llada2.1" => Ok(Self::Llada21),
            "sdar" => Ok(Self::Sdar),
            "fast-dllm-v2" => Ok(Self::FastDllmV2),
            "diffusers" => Ok(Self::Diffusers),
            _ => Err(SamplerError::Unknown {
                what: "reference",
                found: s.to_owned(),
                known: Self::NAMES.join(", "),
            }),
        }
    }
}

/// Editing: unmasked tokens of the open block are replaced by others (T2T of LLaDA2.1; diffusers).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Edit {
    /// A token is replaced by the most probable one in its place if that has more than this
    /// probability.
    pub threshold: f64,
    /// Passes over a block that is full already, at most; there are no more once none changes it.
    pub rounds: usize,
}

impl Default for Edit {
    fn default() -> Self {
        Self { threshold: 0.9, rounds: 16 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for name in Reference::NAMES {
            assert_eq!(name.to_uppercase().parse::<Reference>().unwrap().to_string(), name);
        }
        let error = "openai".parse::<Reference>().unwrap_err();
        assert!(error.hint().unwrap().contains("diffusers"));
    }

    #[test]
    fn the_shares_of_dream_follow_its_times() {
        let dream = Reference::Dream { eps: 1e-3, origin: false };
        let shares: Vec<f32> = (0..5).map(|step| dream.share(step, 5).unwrap()).collect();
        // torch.linspace(1, 1e-3, 6), then 1 - t[1:] / t[:-1].
        let expected = [0.1998, 0.249_687_5, 0.332_777_2, 0.498_751_6, 1.0];
        for (found, expected) in shares.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-5, "{shares:?}");
        }
        assert_eq!(Reference::Llada.share(0, 5), None);
        assert_eq!(dream.share(0, 1), Some(1.0));
    }
}
