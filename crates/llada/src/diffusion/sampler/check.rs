//! Which settings are possible, and which fit each other and a model.

use crate::{
    config::{AttentionMask, SpecialTokens},
    diffusion::{
        Blocks, Cache, Range, Reference, Sampler, SamplerError, Settings, TransferRule,
        cache::CacheType,
    },
};

impl Sampler {
    /// Checks that the settings fit each other.
    pub fn check(&self) -> Result<(), SamplerError> {
        let block_length = self.block();
        Settings::of(self).check_ranges()?;
        // Blocks that grow come one after the other until the response is long enough.
        if self.blocks == Blocks::BlockDiffusion {
            return self.check_parts();
        }
        if !self.gen_length.is_multiple_of(block_length) {
            return Err(SamplerError::BlockLength { block_length, gen_length: self.gen_length });
        }
        let blocks = self.block_count();
        if !self.total_steps().is_multiple_of(blocks) {
            return Err(SamplerError::Steps { steps: self.steps, blocks });
        }
        self.check_parts()
    }

    /// Checks the settings for an infill, which has holes instead of a response: `gen_length` is not
    /// used, and any number of steps can be shared by any number of blocks.
    pub(in crate::diffusion) fn check_infill(&self) -> Result<(), SamplerError> {
        if self.blocks.grows() {
            return Err(SamplerError::InfillLayout(self.blocks));
        }
        let numbers = Settings::of(self);
        // Without a number of its own, an infill has more steps than any range allows.
        let steps = numbers.steps.filter(|&steps| steps < usize::MAX);
        let block_length = numbers.block_length.filter(|_| self.blocks != Blocks::Pure);
        Settings { gen_length: None, steps, block_length, ..numbers }.check_ranges()?;
        let why = "holes have their lengths, and blocks run over their masks";
        let adaptive = ("adaptive_blocks", self.adaptive_blocks.is_some());
        let variable = ("variable_length", self.variable_length.is_some());
        let parts = ("sub_block_length", self.sub_block_length.is_some());
        refuse(&[adaptive, variable, parts], "an infill", why)?;
        self.check_parts()
    }

    /// Checks the numbers that are parts of a setting.
    fn check_parts(&self) -> Result<(), SamplerError> {
        self.transfer.check()?;
        if let Some(adaptive) = &self.adaptive_blocks {
            Range::check(&[("adaptive_blocks confidence", adaptive.confidence)])?;
        }
        if let Some(variable) = self.variable_length {
            Range::check(&[
                ("variable_length initial", variable.initial as f64),
                ("variable_length window", variable.window as f64),
                ("variable_length enough", variable.enough),
                ("variable_length unsure", variable.unsure),
                ("variable_length sure_of_end", variable.sure_of_end),
                ("variable_length grow_by", variable.grow_by as f64),
            ])?;
        }
        self.check_choices()
    }

    /// Checks that the choices combine.
    fn check_choices(&self) -> Result<(), SamplerError> {
        let transfer = ("transfer", self.transfer != TransferRule::Schedule);
        let cache = ("cache", self.cache != Cache::None);
        let rounded = ("cache_type", self.cache_type != CacheType::F32);
        let suffix = ("suffix_window", self.suffix_window.is_some());
        let adaptive = ("adaptive_blocks", self.adaptive_blocks.is_some());
        let revise = ("revise", self.revise.is_some());
        let variable = ("variable_length", self.variable_length.is_some());
        let edit = ("edit", self.edit.is_some());
        let parts = ("sub_block_length", self.sub_block_length.is_some());
        let drawn = ("alg_temp", self.alg_temp > 0.0);
        let tempered = [("top_k", self.top_k.is_some()), ("top_p", self.top_p.is_some()), drawn];
        let found = [suffix, adaptive, revise, variable];
        if self.exact {
            let why = "the reference knows no such thing";
            let by_blocks = self.reference.is_by_blocks();
            let other = !(by_blocks && matches!(self.transfer, TransferRule::Threshold(_)));
            let edit = ("edit", edit.1 && !self.reference.edits());
            refuse(&[("transfer", transfer.1 && other), edit], "the exact mode", why)?;
            let has_parts = self.reference == Reference::FastDllmV2;
            refuse(&[("cache", cache.1 && !has_parts), rounded], "the exact mode", why)?;
            refuse(&[(parts.0, parts.1 && !has_parts)], "the exact mode", why)?;
            refuse(&found, "the exact mode", why)?;
            let measure = !self.reference.has(self.remasking);
            let both = self.fast_dllm.is_some();
            refuse(&[("remasking", measure), ("fast_dllm", both)], "the exact mode", why)?;
            if self.reference == Reference::Llada {
                refuse(&tempered, "the exact mode", why)?;
            }
            let layout = match by_blocks {
                true => self.blocks != Blocks::BlockDiffusion,
                false => self.reference.is_dream() && self.blocks != Blocks::Pure,
            };
            refuse(&[("blocks", layout)], "the exact mode", "the reference has one layout")?;
        }
        if !self.filters() {
            let why = "where no token is drawn";
            refuse(&tempered[..2], "temperature 0", why)?;
        }
        if self.alg_temp > 0.0 {
            let why = "which draws by confidence as many as the schedule says";
            let ranked = ("remasking", self.remasking.is_ranked_by_place());
            refuse(&[transfer, ranked], "alg_temp", why)?;
        }
        if self.edit.is_some() {
            let why = "which overwrites tokens where the other masks them again";
            refuse(&[revise, adaptive], "edit", why)?;
        }
        if self.fast_dllm.is_some() {
            refuse(&[rounded], "Fast-dLLM's code", "which caches what it computed")?;
            refuse(&tempered, "Fast-dLLM's code", "its code knows no such thing")?;
            refuse(&[edit, parts], "Fast-dLLM's code", "its code knows no such thing")?;
            let why = "its code knows no such thing";
            let other = matches!(
                self.transfer,
                TransferRule::Schedule | TransferRule::Threshold(_) | TransferRule::Factor(_)
            );
            let grows = ("blocks", self.blocks.grows());
            refuse(&[("transfer", !other), grows], "Fast-dLLM's code", why)?;
            refuse(&found, "Fast-dLLM's code", why)?;
        }
        if let Some(part) = self.sub_block_length {
            let why = "which need the block that is divided to stay as it is";
            refuse(&[adaptive, variable, revise, edit], "parts of a block", why)?;
            let block_length = self.block();
            if !block_length.is_multiple_of(part) {
                return Err(SamplerError::SubBlock { part, block_length });
            }
        }
        if self.transfer.compares() && self.remasking.is_ranked_by_place() {
            let why = "which compares confidences, and neither luck nor place is one";
            return refuse(
                &[("remasking", true)],
                &format!("transfer {}", self.transfer.name()),
                why,
            );
        }
        if self.adaptive_blocks.is_some() && self.remasking.is_ranked_by_place() {
            let why = "which need a confidence in delimiters, and neither luck nor place is one";
            return refuse(&[("remasking", true)], "adaptive blocks", why);
        }
        let layout = format!("the layout {}", self.blocks);
        if self.blocks != Blocks::SemiAutoregressive {
            refuse(&[suffix], &layout, "where no masks follow the block")?;
            refuse(&[adaptive], &layout, "whose blocks are not cut from a longer canvas")?;
        }
        if self.blocks.grows() {
            refuse(&[variable], &layout, "which ends with its text in any case")?;
        }
        if self.variable_length.is_some() {
            let eos = ("logits_eos_inf", self.logits_eos_inf);
            let why = "which looks for the end of the text at the end of the sequence";
            refuse(&[suffix, eos], "a variable length", why)?;
        }
        Ok(())
    }

    /// Checks that a model with this `attention` mask and these `special` tokens can be sampled so.
    pub fn check_model(
        &self,
        special: &SpecialTokens,
        attention: AttentionMask,
    ) -> Result<(), SamplerError> {
        if attention != AttentionMask::Causal && special.mask.is_none() {
            return Err(SamplerError::NoMask);
        }
        match attention {
            AttentionMask::Bidirectional => {
                if self.cache == Cache::None {
                    let rounded = ("cache_type", self.cache_type != CacheType::F32);
                    refuse(&[rounded], "no cache", "where nothing is cached")?;
                }
                if self.exact && self.reference.is_by_blocks() {
                    return Err(SamplerError::ByBlocks(self.reference));
                }
            }
            AttentionMask::Causal => {
                if self.blocks != Blocks::Autoregressive {
                    return Err(SamplerError::CausalLayout(self.blocks));
                }
                if self.cfg_scale > 0.0 {
                    return Err(SamplerError::CausalGuidance(self.cfg_scale));
                }
                let why = "a causal model sees each token once in any case";
                refuse(&[("cache", self.cache != Cache::None)], "an autoregressive model", why)?;
                let why = "it has no masks";
                let masks = [
                    ("suffix_window", self.suffix_window.is_some()),
                    ("revise", self.revise.is_some()),
                    ("edit", self.edit.is_some()),
                ];
                refuse(&masks, "an autoregressive model", why)?;
            }
            AttentionMask::BlockCausal { block_length } => {
                if self.blocks != Blocks::BlockDiffusion {
                    return Err(SamplerError::BlockLayout(self.blocks));
                }
                if self.block_length != block_length {
                    let (found, attention) = (self.block_length, block_length);
                    return Err(SamplerError::BlockAttention { found, attention });
                }
                if self.exact && !self.reference.is_by_blocks() {
                    return Err(SamplerError::ByBlocks(self.reference));
                }
                let why = "which caches what is exact in any case";
                // Only of the open block can something be cached that is not exact: its other parts.
                let has_parts = self.sub_block_length.is_some();
                let other = self.cache != Cache::None;
                let other = other && !(has_parts && matches!(self.cache, Cache::Dual(_)));
                refuse(&[("cache", other)], "a model that attends by blocks", why)?;
            }
        }
        if self.edit.is_some() && attention == AttentionMask::Bidirectional {
            // Without an order of blocks nothing says which tokens are still open.
            let pure = [("edit", self.blocks == Blocks::Pure)];
            refuse(&pure, "the layout pure", "whose one block is never closed")?;
        }
        if self.logits_eos_inf && special.eos.is_none() {
            return Err(SamplerError::NoToken { setting: "logits_eos_inf", token: "EOS" });
        }
        let ends = special.eos.is_some() || special.eot.is_some();
        if self.variable_length.is_some() && !ends {
            return Err(SamplerError::NoToken { setting: "variable_length", token: "EOS or EoT" });
        }
        if self.confidence_eos_eot_inf && !ends {
            let setting = "confidence_eos_eot_inf";
            return Err(SamplerError::NoToken { setting, token: "EOS or EoT" });
        }
        Ok(())
    }
}

impl Sampler {
    /// Checks that what it does goes with a constraint on the text.
    pub(in crate::diffusion) fn check_constrained(&self) -> Result<(), SamplerError> {
        let with = "a constraint";
        let edit = [("edit", self.edit.is_some())];
        refuse(&edit, with, "which knows the tokens that are left, not those that change")?;
        let variable = [("variable_length", self.variable_length.is_some())];
        refuse(&variable, with, "which counts on the room that it was given")?;
        let peculiar =
            self.exact && !matches!(self.reference, Reference::Llada | Reference::Dream { .. });
        let why = "since that published code may leave a text unfinished";
        refuse(&[("preset", peculiar)], with, why)?;
        refuse(&[("fast_dllm", self.fast_dllm.is_some())], with, why)
    }
}

/// Refuses the first of the settings that is on.
fn refuse(
    settings: &[(&'static str, bool)],
    with: &str,
    why: &'static str,
) -> Result<(), SamplerError> {
    match settings.iter().find(|(_, is_on)| *is_on) {
        None => Ok(()),
        Some(&(setting, _)) => {
            Err(SamplerError::Combination { setting, with: with.to_owned(), why })
        }
    }
}
