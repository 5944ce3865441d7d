//! The settings of the reverse process: plain values, checked before anything runs.

mod check;
mod preset;
mod reference;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

pub use preset::Preset;
pub use reference::{Edit, Reference};

use crate::config::AttentionMask;

use super::{
    Blocks, Cache, FastDllm, Precision, Remasking, TransferRule,
    blocks::AdaptiveBlocks,
    cache::{CacheType, Refresh, SuffixWindow},
    variable::VariableLength,
};

/// How to sample. The names are the arguments of the reference's `generate()`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sampler {
    /// Sampling steps, shared equally by the blocks; where [`TransferRule`] grants more tokens than
    /// their share, the most that are taken. Not used by [`Blocks::Autoregressive`], which takes one
    /// for each token.
    pub steps: usize,
    /// Length of the response, or its limit in a layout that grows.
    pub gen_length: usize,
    /// Length of a block. Not used by [`Blocks::Pure`] (one block) and [`Blocks::Autoregressive`]
    /// (one token).
    pub block_length: usize,
    /// Factor on the Gumbel noise: 0 takes the most probable token.
    pub temperature: f64,
    /// Draw among this many most probable tokens only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_k: Option<usize>,
    /// Draw among the fewest most probable tokens only that have this probability together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f64>,
    /// Draw which positions are unmasked with probabilities proportional to exp(confidence / this); 0
    /// unmasks the most confident (`alg_temp` of Dream).
    #[serde(skip_serializing_if = "is_zero")]
    pub alg_temp: f64,
    /// Guidance w of Eq. 16; 0 is none, more needs two sequences for each forward.
    pub cfg_scale: f32,
    /// Which positions are unmasked.
    pub remasking: Remasking,
    /// How many are unmasked in a step.
    pub transfer: TransferRule,
    /// Where tokens may be committed.
    pub blocks: Blocks,
    /// Fill each block a part of this length at a time, from left to right (Fast-dLLM v2, arXiv
    /// 2509.26328); `None` fills it all over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sub_block_length: Option<usize>,
    /// Blocks that end at a delimiter of the text; `None` is after `block_length`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adaptive_blocks: Option<AdaptiveBlocks>,
    /// Mask a token of the open block again once the model gives another one at least this
    /// probability, each position at most once: T2M (arXiv 2604.18738), which revises what was unmasked
    /// too early; `None` unmasks for good, as the reference does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revise: Option<f64>,
    /// Edit tokens of the open block: replace them by others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub edit: Option<Edit>,
    /// Find the length of the response, of which `gen_length` is then the most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variable_length: Option<VariableLength>,
    /// What a pass forwards.
    pub cache: Cache,
    /// The type of cached keys and values; bf16 asks for a cache, or for a causal model, which
    /// always has one.
    pub cache_type: CacheType,
    /// Which masks after the block take part; `None` is all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suffix_window: Option<SuffixWindow>,
    /// Never choose EOS.
    pub logits_eos_inf: bool,
    /// Choose EOS and EoT last: they count as predictions without confidence.
    pub confidence_eos_eot_inf: bool,
    /// Stop once the response has an EOS or EoT with no mask before it. What would follow is never
    /// read: [`Canvas::useful`](super::Canvas::useful) is the same, for fewer forward passes.
    pub stop_at_eos: bool,
    /// Precision of the confidences.
    pub confidence: Precision,
    /// Follow the reference also where it is peculiar:
    /// - the model may predict the mask token: the position stays masked, its share of the
    ///   schedule is spent, and masks can remain in the response;
    /// - with a temperature, `confidence_eos_eot_inf` acts on EoT only;
    /// - mask tokens in the prompt are filled, but are not counted in the schedule, so that as
    ///   many masks of the response can remain.
    ///
    /// Otherwise the mask token is never predicted, the flag acts on both tokens, and masks in the
    /// prompt are filled together with the first block.
    pub exact: bool,
    /// Whose sampler that reference is.
    #[serde(skip_serializing_if = "is_llada")]
    pub reference: Reference,
    /// Follow Fast-dLLM's code instead, where it is peculiar.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fast_dllm: Option<FastDllm>,
    /// Seed of all random draws.
    pub seed: u64,
}

impl Default for Sampler {
    fn default() -> Self {
        Self {
            steps: 128,
            gen_length: 128,
            block_length: 32,
            temperature: 0.0,
            top_k: None,
            top_p: None,
            alg_temp: 0.0,
            cfg_scale: 0.0,
            remasking: Remasking::LowConfidence,
            transfer: TransferRule::Schedule,
            blocks: Blocks::Pure,
            sub_block_length: None,
            adaptive_blocks: None,
            revise: None,
            edit: None,
            variable_length: None,
            cache: Cache::None,
            cache_type: CacheType::F32,
            suffix_window: None,
            logits_eos_inf: false,
            confidence_eos_eot_inf: false,
            stop_at_eos: false,
            confidence: Precision::F64,
            exact: false,
            reference: Reference::Llada,
            fast_dllm: None,
            seed: 0,
        }
    }
}

impl Sampler {
    /// The settings that reproduce the reference's `generate()` decision by decision.
    pub fn exact() -> Self {
        Self { confidence: Precision::F32, exact: true, ..Self::default() }
    }

    /// The settings for daily use: blocks of 32 from left to right, of which only the open one is
    /// fed while the keys and values of the rest are cached (the dual cache of Fast-dLLM, refreshed
    /// with each block and after every eighth pass), and more than the schedule's share of tokens
    /// is unmasked where the model is sure.
    pub fn balanced() -> Self {
        Self {
            blocks: Blocks::SemiAutoregressive,
            transfer: TransferRule::Threshold(0.9),
            cache: Cache::Dual(Refresh { every: 8, ..Refresh::default() }),
            stop_at_eos: true,
            ..Self::default()
        }
    }

    /// As [`balanced`](Self::balanced), for those who would rather wait less: the cache is refreshed
    /// with each block only, and a token needs less confidence.
    pub fn fast() -> Self {
        Self {
            transfer: TransferRule::Threshold(0.7),
            cache: Cache::Dual(Refresh::default()),
            ..Self::balanced()
        }
    }

    /// The reference's sampler for the same response: its length, blocks, guidance and temperature, a
    /// step for each token, and nothing saved.
    pub fn reference(&self) -> Self {
        Self {
            steps: self.gen_length,
            gen_length: self.gen_length,
            block_length: self.block_length,
            temperature: self.temperature,
            cfg_scale: self.cfg_scale,
            blocks: self.blocks,
            logits_eos_inf: self.logits_eos_inf,
            confidence_eos_eot_inf: self.confidence_eos_eot_inf,
            seed: self.seed,
            ..Self::exact()
        }
    }

    /// The sampler, whose adaptive blocks end where `ends` says unless they have delimiters.
    #[must_use]
    pub fn ending_blocks(self, ends: &dyn Fn() -> AdaptiveBlocks) -> Self {
        let mut sampler = self;
        if let Some(adaptive) = &mut sampler.adaptive_blocks
            && adaptive.delimiters.is_empty()
        {
            *adaptive = ends();
        }
        sampler
    }

    /// Length of a block in the chosen layout.
    pub fn block(&self) -> usize {
        match self.blocks {
            Blocks::Pure => self.gen_length,
            Blocks::SemiAutoregressive | Blocks::BlockDiffusion => self.block_length,
            Blocks::Autoregressive => 1,
        }
    }

    /// Number of blocks in the chosen layout.
    pub fn block_count(&self) -> usize {
        self.gen_length.div_ceil(self.block().max(1))
    }

    /// Sampling steps of the chosen layout, in all blocks.
    pub fn total_steps(&self) -> usize {
        match self.blocks {
            Blocks::Autoregressive => self.gen_length,
            _ => self.steps,
        }
    }

    /// Steps given to each block.
    pub fn steps_per_block(&self) -> usize {
        self.total_steps().div_ceil(self.block_count().max(1))
    }

    /// Length of the response before the first step.
    pub fn initial_length(&self) -> usize {
        match self.variable_length {
            Some(variable) => variable.initial.min(self.gen_length),
            None => self.gen_length,
        }
    }

    /// Steps for a block of this many masks, where blocks are found while sampling: as many for each
    /// token as the response has.
    pub(super) fn steps_for(&self, masks: usize) -> usize {
        (masks * self.total_steps()).div_ceil(self.gen_length.max(1)).max(1)
    }

    /// Whether a sequence gains from a predictor that caches keys and values, or leaves positions out.
    /// Where no token sees those of later blocks it always does.
    pub(super) fn wants_caches(&self, attention: AttentionMask) -> bool {
        let is_exact = attention != AttentionMask::Bidirectional;
        is_exact || self.cache != Cache::None || self.suffix_window.is_some()
    }

    /// Whether blocks and their steps are known only while sampling.
    pub(super) fn is_irregular(&self) -> bool {
        self.adaptive_blocks.is_some()
            || self.variable_length.is_some()
            || self.revise.is_some()
            || self.edit.is_some()
            || self.sub_block_length.is_some()
            || self.reference == Reference::FastDllmV2
    }

    /// Whether this published code is followed to the letter.
    pub(super) fn follows(&self, reference: Reference) -> bool {
        self.exact && self.reference == reference
    }

    /// Whether Dream's code is followed to the letter.
    pub(super) fn follows_dream(&self) -> bool {
        self.exact && self.reference.is_dream()
    }

    /// Whether confidences are of the logits that were divided by the temperature and filtered.
    pub(super) fn tempers(&self) -> bool {
        let follows = self.exact && self.reference.tempers();
        follows || self.top_k.is_some() || self.top_p.is_some()
    }

    /// Whether `top_k` and `top_p` count: where tokens are drawn, and in Dream's code always.
    pub fn filters(&self) -> bool {
        self.temperature > 0.0 || self.follows_dream()
    }

    /// Whether published code is followed to the letter: the model may predict the mask token.
    pub(super) fn is_literal(&self) -> bool {
        self.exact || self.fast_dllm.is_some()
    }

    /// Forward passes that a sequence needs, or the most that it needs where [`TransferRule`] may grant
    /// more than the schedule, if nothing is revised or found while sampling, its prompt has no masks
    /// and its text does not end early: steps beyond the tokens of a block need none.
    pub fn forwards(&self) -> usize {
        let (block, steps) = (self.block(), self.steps_per_block());
        let passes = match self.sub_block_length {
            Some(part) => block / part * part.div_ceil(block.div_ceil(steps.max(1)).max(1)),
            None => steps.min(block),
        };
        self.block_count() * passes
    }
}

fn is_zero(x: &f64) -> bool {
    *x == 0.0
}

fn is_llada(reference: &Reference) -> bool {
    *reference == Reference::Llada
}
