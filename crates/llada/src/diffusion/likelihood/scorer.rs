//! What a model has to be shown to score a pair.

use std::collections::HashMap;

use super::{Draws, LikelihoodError, Pair, Settings, samples::Samples, sequence::Sequence};
use crate::{
    Result,
    config::{AttentionMask, ModelConfig, Objective, SpecialTokens},
    diffusion::Range,
};

/// How a model's likelihood is had.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scorer {
    /// The mask token of a diffusion model; `None` for a causal one.
    mask: Option<u32>,
    /// Stands for an empty prompt of a causal model.
    start: Option<u32>,
    cfg_scale: f32,
    attention: AttentionMask,
    limit: usize,
    vocabulary: usize,
}

/// The mask token that likelihoods of a diffusion model are estimated with; `None` for a causal one.
pub(super) fn mask_of(config: &ModelConfig, mask: Option<u32>) -> Result<Option<u32>> {
    match config.objective {
        Objective::Diffusion => Ok(Some(mask.ok_or(LikelihoodError::NoMask)?)),
        Objective::Autoregressive => Ok(None),
    }
}

impl Scorer {
    pub(super) fn new(
        config: &ModelConfig,
        special: &SpecialTokens,
        cfg_scale: f32,
    ) -> Result<Self> {
        if Range::check(&[("cfg_scale", f64::from(cfg_scale))]).is_err() {
            return Err(LikelihoodError::CfgScale(cfg_scale).into());
        }
        if config.attention.block_length().is_some() {
            return Err(LikelihoodError::ByBlocks.into());
        }
        let mask = mask_of(config, special.mask)?;
        if mask.is_none() && cfg_scale > 0.0 {
            return Err(LikelihoodError::CausalGuidance(cfg_scale).into());
        }
        let (limit, vocabulary) = (config.max_sequence_length, config.embedding_size);
        let (start, attention) = (special.eos, config.attention);
        Ok(Self { mask, start, cfg_scale, attention, limit, vocabulary })
    }

    pub(super) fn is_autoregressive(&self) -> bool {
        self.mask.is_none()
    }

    pub(super) fn check(&self, pair: &Pair) -> Result<()> {
        if pair.answer.is_empty() {
            return Err(LikelihoodError::EmptyAnswer.into());
        }
        let causal_start = self.is_autoregressive() && pair.prompt.is_empty();
        if causal_start && self.start.is_none() {
            return Err(LikelihoodError::NoStart.into());
        }
        let found = pair.prompt.len() + usize::from(causal_start) + pair.answer.len();
        if found > self.limit {
            return Err(LikelihoodError::TooLong { found, limit: self.limit }.into());
        }
        let outside = |token: &&u32| **token as usize >= self.vocabulary;
        if let Some(&token) = pair.prompt.iter().chain(&pair.answer).find(outside) {
            return Err(LikelihoodError::TokenOutside { token, vocabulary: self.vocabulary }.into());
        }
        Ok(())
    }

    /// The different sequences that a pair needs, and its samples. A short answer has fewer different
    /// noisy copies than samples; each is computed once.
    pub(super) fn sequences(
        &self,
        number: usize,
        pair: &Pair,
        settings: &Settings,
        draws: &mut dyn Draws,
    ) -> (Vec<Sequence>, Samples) {
        if self.is_autoregressive() {
            return (vec![self.causal_sequence(pair)], Samples::exact());
        }
        let length = pair.answer.len();
        let mut known: HashMap<Vec<usize>, usize> = HashMap::new();
        let mut sequences = Vec::new();
        let mut samples = Samples::new(settings.batch_size);
        for iteration in 0..settings.mc_num / settings.batch_size {
            for masked in draws.masked(number, iteration, length, settings.batch_size) {
                let weight = length as f64 / masked.len().max(1) as f64;
                let sequence = *known.entry(masked).or_insert_with_key(|masked| {
                    sequences.push(self.noisy_sequence(pair, masked));
                    sequences.len() - 1
                });
                samples.push(sequence, weight);
            }
        }
        (sequences, samples)
    }

    /// Prompt and answer, the latter's tokens at `masked` replaced by masks.
    pub(super) fn noisy_sequence(&self, pair: &Pair, masked: &[usize]) -> Sequence {
        // A scorer of a causal model makes no noisy sequences.
        let mask = self.mask.unwrap_or_default();
        Sequence::masked(&pair.prompt, &pair.answer, masked, mask, self.attention, self.cfg_scale)
    }

    /// Prompt and answer without its last token, each token of the answer predicted from the one
    /// before.
    pub(super) fn causal_sequence(&self, pair: &Pair) -> Sequence {
        let mut tokens = pair.prompt.clone();
        if tokens.is_empty() {
            tokens.extend(self.start);
        }
        let first = tokens.len() - 1;
        tokens.extend_from_slice(&pair.answer[..pair.answer.len() - 1]);
        Sequence {
            positions: (first..tokens.len()).collect(),
            tokens,
            unconditional: None,
            targets: pair.answer.clone(),
            attention: self.attention,
            cfg_scale: 0.0,
        }
    }
}
