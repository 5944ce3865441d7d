//! The settings of the reverse process: plain values, checked before anything runs.

use serde::{Deserialize, Serialize};

use super::{Blocks, Remasking, SamplerError};
use crate::config::{Objective, SpecialTokens};

/// Longest response that can be asked for.
const MAX_GEN_LENGTH: usize = 1 << 20;
/// Most steps that can be asked for; random draws are addressed by 24 bits of step.
const MAX_STEPS: usize = 1 << 24;

/// The precision in which confidences are computed and compared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Precision {
    /// As the reference; probabilities near 1 become equal.
    F32,
    /// Tells apart probabilities near 1.
    #[default]
    F64,
}

/// How to sample. The names are the arguments of the reference's `generate()`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sampler {
    /// Sampling steps, shared equally by the blocks. Not used by [`Blocks::Autoregressive`], which
    /// takes one for each token.
    pub steps: usize,
    /// Length of the response, or its limit in a layout that grows.
    pub gen_length: usize,
    /// Length of a block. Not used by [`Blocks::Pure`] (one block) and [`Blocks::Autoregressive`]
    /// (one token).
    pub block_length: usize,
    /// Factor on the Gumbel noise: 0 takes the most probable token.
    pub temperature: f64,
    /// Guidance w of Eq. 16; 0 is none, more needs two rows for each forward.
    pub cfg_scale: f32,
    /// Who is kept.
    pub remasking: Remasking,
    /// Where tokens may be committed.
    pub blocks: Blocks,
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
            cfg_scale: 0.0,
            remasking: Remasking::LowConfidence,
            blocks: Blocks::Pure,
            logits_eos_inf: false,
            confidence_eos_eot_inf: false,
            stop_at_eos: false,
            confidence: Precision::F64,
            exact: false,
            seed: 0,
        }
    }
}

impl Sampler {
    /// The settings that reproduce the reference's `generate()` decision by decision.
    pub fn exact() -> Self {
        Self { confidence: Precision::F32, exact: true, ..Self::default() }
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
        self.gen_length / self.block().max(1)
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
        self.total_steps() / self.block_count().max(1)
    }

    /// Forward passes that a row needs if its prompt has no masks and its text does not end early:
    /// steps beyond the tokens of a block need none.
    pub fn forwards(&self) -> usize {
        self.block_count() * self.steps_per_block().min(self.block())
    }

    /// Checks that the settings fit each other.
    pub fn check(&self) -> Result<(), SamplerError> {
        let block_length = self.block();
        let sizes = [
            ("gen_length", self.gen_length, MAX_GEN_LENGTH),
            ("block_length", block_length, MAX_GEN_LENGTH),
            ("steps", self.total_steps(), MAX_STEPS),
        ];
        for (name, value, limit) in sizes {
            match value {
                0 => return Err(SamplerError::Zero(name)),
                _ if value > limit => return Err(SamplerError::TooLarge { name, value, limit }),
                _ => {}
            }
        }
        if !self.gen_length.is_multiple_of(block_length) {
            return Err(SamplerError::BlockLength { block_length, gen_length: self.gen_length });
        }
        let blocks = self.block_count();
        if !self.total_steps().is_multiple_of(blocks) {
            return Err(SamplerError::Steps { steps: self.steps, blocks });
        }
        self.check_factors()
    }

    /// Checks the settings for an infill, which has holes instead of a response: `gen_length` is not
    /// used, and any number of steps can be shared by any number of blocks.
    pub(super) fn check_infill(&self) -> Result<(), SamplerError> {
        let block_length = match self.blocks {
            Blocks::Pure => 1,
            Blocks::SemiAutoregressive => self.block_length,
            Blocks::BlockDiffusion | Blocks::Autoregressive => {
                return Err(SamplerError::InfillLayout(self.blocks));
            }
        };
        for (name, value) in [("steps", self.steps), ("block_length", block_length)] {
            if value == 0 {
                return Err(SamplerError::Zero(name));
            }
        }
        self.check_factors()
    }

    fn check_factors(&self) -> Result<(), SamplerError> {
        let factors = [("temperature", self.temperature), ("cfg_scale", f64::from(self.cfg_scale))];
        for (name, value) in factors {
            if !(value.is_finite() && value >= 0.0) {
                return Err(SamplerError::Factor { name, value });
            }
        }
        Ok(())
    }

    /// Checks that a model of this `objective` with these `special` tokens can be sampled so.
    pub fn check_model(
        &self,
        special: &SpecialTokens,
        objective: Objective,
    ) -> Result<(), SamplerError> {
        match objective {
            Objective::Autoregressive if self.blocks != Blocks::Autoregressive => {
                return Err(SamplerError::CausalLayout(self.blocks));
            }
            Objective::Autoregressive if self.cfg_scale > 0.0 => {
                return Err(SamplerError::CausalGuidance(self.cfg_scale));
            }
            Objective::Diffusion if special.mask.is_none() => return Err(SamplerError::NoMask),
            _ => {}
        }
        if self.logits_eos_inf && special.eos.is_none() {
            return Err(SamplerError::NoToken { setting: "logits_eos_inf", token: "EOS" });
        }
        if self.confidence_eos_eot_inf && special.eos.is_none() && special.eot.is_none() {
            let setting = "confidence_eos_eot_inf";
            return Err(SamplerError::NoToken { setting, token: "EOS or EoT" });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaint(sampler: Sampler) -> (String, String) {
        let error = sampler.check().unwrap_err();
        (error.to_string(), error.hint().unwrap_or_default())
    }

    #[test]
    fn the_presets_are_valid_and_survive_json() {
        for sampler in [Sampler::default(), Sampler::exact()] {
            sampler.check().unwrap();
            let json = serde_json::to_string(&sampler).unwrap();
            assert_eq!(serde_json::from_str::<Sampler>(&json).unwrap(), sampler);
        }
        let partial: Sampler = serde_json::from_str(r#"{"steps": 7}"#).unwrap();
        assert_eq!(partial, Sampler { steps: 7, ..Sampler::default() });
    }

    #[test]
    fn contradictions_name_the_values_that_would_do() {
        let blocks = Blocks::SemiAutoregressive;
        let sampler = Sampler { gen_length: 100, blocks, ..Sampler::default() };
        let (error, hint) = complaint(sampler);
        assert_eq!(error, "block_length 32 does not divide gen_length 100");
        assert_eq!(hint, "use --gen-length 96 or 128");

        let (error, hint) = complaint(Sampler { steps: 10, blocks, ..Sampler::default() });
        assert_eq!(error, "steps 10 cannot be shared equally by 4 blocks");
        assert_eq!(hint, "use --steps 8 or 12");

        let (_, hint) = complaint(Sampler { gen_length: 8, blocks, ..Sampler::default() });
        assert_eq!(hint, "use --gen-length 32");
    }

    #[test]
    fn absurd_numbers_are_refused() {
        let d = Sampler::default;
        for sampler in [
            Sampler { steps: 0, ..d() },
            Sampler { gen_length: 0, ..d() },
            Sampler { gen_length: usize::MAX, ..d() },
            Sampler { steps: usize::MAX, ..d() },
            Sampler { block_length: 0, blocks: Blocks::BlockDiffusion, ..d() },
            Sampler { temperature: f64::NAN, ..d() },
            Sampler { temperature: -1.0, ..d() },
            Sampler { cfg_scale: f32::INFINITY, ..d() },
        ] {
            assert!(sampler.check().is_err(), "{sampler:?}");
        }
    }

    #[test]
    fn unused_settings_are_not_checked() {
        Sampler { block_length: 0, ..Sampler::default() }.check().unwrap();
        let blocks = Blocks::Autoregressive;
        let sampler = Sampler { steps: 0, blocks, gen_length: 10, ..Sampler::default() };
        sampler.check().unwrap();
        assert_eq!((sampler.total_steps(), sampler.forwards()), (10, 10));
    }

    #[test]
    fn the_model_must_have_what_the_settings_need() {
        let none = SpecialTokens::default();
        let mask = SpecialTokens { mask: Some(1), ..none };
        let s = Sampler::default();
        assert_eq!(s.check_model(&none, Objective::Diffusion), Err(SamplerError::NoMask));
        assert_eq!(s.check_model(&mask, Objective::Diffusion), Ok(()));
        assert!(s.check_model(&mask, Objective::Autoregressive).is_err());
        let ar = Sampler { blocks: Blocks::Autoregressive, ..s.clone() };
        assert_eq!(ar.check_model(&none, Objective::Autoregressive), Ok(()));
        assert_eq!(ar.check_model(&mask, Objective::Diffusion), Ok(()));
        let guided = Sampler { cfg_scale: 1.0, ..ar };
        assert!(guided.check_model(&mask, Objective::Autoregressive).is_err());
        let eos = Sampler { logits_eos_inf: true, ..s };
        assert!(eos.check_model(&mask, Objective::Diffusion).is_err());
    }
}
