//! From settings to a sampler: what was not said is chosen to fit the model and the prompts.

use super::{Settings, chat};
use crate::{
    config::{AttentionMask, ModelConfig},
    diffusion::{
        Blocks, Cache, Reference, Remasking, Sampler, SamplerError, TransferRule,
        blocks::AdaptiveBlocks,
    },
    rng::drawn_seed,
};

/// Shortest blocks that a preset cuts a response into.
const SHORTEST_BLOCK: usize = 8;

/// What a sampler is made of.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// What was asked for.
    pub asked: &'a Settings,
    /// What the model proposes where nothing was asked for.
    pub proposed: &'a Settings,
    /// The delimiters at which adaptive blocks end.
    pub delimiters: &'a dyn Fn() -> AdaptiveBlocks,
    /// Whether the response answers a conversation: it is then written from left to right up to the end
    /// of its text, and leaves room for more of the conversation.
    pub is_chat: bool,
}

impl<'a> Request<'a> {
    /// What is `asked` of a model that proposes nothing.
    pub fn new(asked: &'a Settings, delimiters: &'a dyn Fn() -> AdaptiveBlocks) -> Self {
        const NOTHING: &Settings = &Settings::NONE;
        Self { asked, proposed: NOTHING, delimiters, is_chat: false }
    }

    /// The sampler for prompts of which the longest has so many tokens, checked; without a seed that
    /// was asked for its seed is drawn. What the model proposes is never the reason of an error, unless
    /// it contradicts itself: it yields to what was asked for.
    ///
    /// # Errors
    /// If what was asked for contradicts itself, the model or the prompts.
    pub fn sampler(&self, config: &ModelConfig, longest: usize) -> Result<Sampler, SamplerError> {
        match self.is_chat {
            false => self.resolved(config, longest),
            true => {
                let proposed = chat::proposed(self.proposed, config);
                let request = Request { proposed: &proposed, ..*self };
                Ok(Sampler { stop_at_eos: true, ..request.resolved(config, longest)? })
            }
        }
    }

    fn resolved(&self, config: &ModelConfig, longest: usize) -> Result<Sampler, SamplerError> {
        let (asked, proposed) = (self.asked, self.proposed);
        let with = |proposed: &Settings| self.checked(asked, proposed, config, longest);
        let whole = with(proposed);
        if whole.is_ok() || *proposed == Settings::NONE {
            return whole;
        }
        self.checked(&Settings::NONE, proposed, config, 0)
            .map_err(|error| SamplerError::Proposed(Box::new(error)))?;
        with(&proposed.unbound()).or_else(|_| with(&Settings::NONE))
    }

    /// What was `asked` for, and what is `proposed` where nothing was.
    fn checked(
        &self,
        asked: &Settings,
        proposed: &Settings,
        config: &ModelConfig,
        longest: usize,
    ) -> Result<Sampler, SamplerError> {
        let mut settings = asked.over(proposed);
        // A length that is only proposed is one that may be shortened.
        let usual = proposed.gen_length.filter(|_| asked.gen_length.is_none());
        settings.gen_length = asked.gen_length;
        if self.is_chat {
            chat::shape(&mut settings, config, usual);
        }
        let mut base = settings.preset.unwrap_or_default().sampler_for(config);
        base.gen_length = usual.unwrap_or(base.gen_length);
        let base = yielding(base, &settings);
        let limit = config.max_sequence_length;
        let room = limit.saturating_sub(longest);
        let least = settings.gen_length.unwrap_or(1);
        if least > room {
            let (prompt, response) = (longest, least);
            return Err(SamplerError::NoRoom { prompt, response, limit });
        }
        self.fitted(&settings, base, config, room)
    }

    /// The sampler where there is `room` for a response.
    fn fitted(
        &self,
        settings: &Settings,
        base: Sampler,
        config: &ModelConfig,
        room: usize,
    ) -> Result<Sampler, SamplerError> {
        let adaptive = settings.adaptive_blocks == Some(true);
        let needs_blocks =
            settings.block_length.is_some() || adaptive || settings.suffix_window.is_some();
        let chosen = settings.blocks.or(needs_blocks.then_some(Blocks::SemiAutoregressive));
        let (blocks, block_length) = match (config.attention, chosen) {
            (AttentionMask::Causal, blocks) => (blocks.unwrap_or(base.blocks), None),
            (AttentionMask::BlockCausal { .. }, _) => {
                (settings.blocks.unwrap_or(base.blocks), None)
            }
            (_, Some(blocks)) => (blocks, None),
            (_, None) => preset_blocks(&base, settings, room),
        };
        let block_length = settings.block_length.or(block_length).unwrap_or(base.block_length);
        let gen_length =
            settings.gen_length.unwrap_or_else(|| fitting(&base, blocks, block_length, room));
        // The layout and its lengths are those found above.
        let (blocks, block_length) = (Some(blocks), Some(block_length));
        let gen_length = Some(gen_length);
        let steps = settings.steps.or(gen_length);
        let seed = Some(settings.seed.unwrap_or_else(drawn_seed));
        let whole = Settings { gen_length, steps, blocks, block_length, seed, ..settings.clone() };
        let sampler = whole.apply(base)?.ending_blocks(self.delimiters);
        settings.check_used(&sampler)?;
        sampler.check()?;
        Ok(sampler)
    }
}

/// The preset without what was asked for rules out: a preset is a place to start from, and never the
/// reason of an error.
fn yielding(base: Sampler, settings: &Settings) -> Sampler {
    let mut base = base;
    // Luck and place are no confidences that a rule could compare, nor are draws by confidence.
    let ranked = [Remasking::Random, Remasking::Sequential];
    let drawn = settings.alg_temp.is_some_and(|t| t > 0.0);
    if settings.remasking.is_some_and(|measure| ranked.contains(&measure)) || drawn {
        base.transfer = TransferRule::Schedule;
    }
    // Of the exact modes only LLaDA2.1's edits.
    if base.exact && base.reference == Reference::Llada2 && settings.edit.is_some() {
        base.reference = Reference::Llada21;
    }
    let other = settings.reference.is_some_and(|code| code != Reference::FastDllmV2);
    let revised = settings.edit.is_some() || settings.revise.is_some();
    let found = [settings.adaptive_blocks, settings.variable_length].contains(&Some(true));
    if base.sub_block_length.is_some() && (other || revised || found) {
        // Their cache is of parts.
        (base.sub_block_length, base.cache) = (None, Cache::None);
    }
    if base.exact
        && settings.remasking == Some(Remasking::Random)
        && let Reference::Dream { origin, .. } = &mut base.reference
    {
        *origin = true;
    }
    base
}

/// The blocks of a preset, as long as it has them or shorter, so that they share a length and steps
/// that were asked for; one block where they would be very short.
fn preset_blocks(base: &Sampler, settings: &Settings, room: usize) -> (Blocks, Option<usize>) {
    let length =
        settings.gen_length.unwrap_or_else(|| fitting(base, base.blocks, base.block_length, room));
    let fits = |&block: &usize| {
        let shares = |steps: usize| steps.is_multiple_of(length / block);
        length.is_multiple_of(block) && settings.steps.is_none_or(shares)
    };
    match (base.blocks, (SHORTEST_BLOCK..=base.block_length).rev().find(fits)) {
        (Blocks::SemiAutoregressive, Some(block)) if block < length => (base.blocks, Some(block)),
        _ => (Blocks::Pure, None),
    }
}

/// The default length, or the largest that fits into `room` and is a whole number of blocks.
fn fitting(base: &Sampler, blocks: Blocks, block_length: usize, room: usize) -> usize {
    let length = base.gen_length.min(room);
    match blocks {
        Blocks::SemiAutoregressive | Blocks::BlockDiffusion if block_length > 0 => {
            (length - length % block_length).max(block_length)
        }
        _ => length,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::{Family, LogitShift, Objective, SpecialTokens},
        diffusion::{Preset, settings::tests::config},
    };

    type Result<T> = std::result::Result<T, SamplerError>;

    fn args() -> Settings {
        Settings::default()
    }

    fn sampler(settings: &Settings, config: &ModelConfig, prompts: &[Vec<u32>]) -> Result<Sampler> {
        let longest = prompts.iter().map(Vec::len).max().unwrap_or(0);
        Request::new(settings, &|| AdaptiveBlocks::new(vec![1])).sampler(config, longest)
    }

    #[test]
    fn unsaid_settings_fit_the_model() {
        let config = config();
        let limit = config.max_sequence_length;
        let s = sampler(&args(), &config, &[vec![1; limit - 10]]).unwrap();
        assert_eq!((s.gen_length, s.steps, s.blocks), (10, 10, Blocks::Pure));
        let block = Settings { block_length: Some(4), ..args() };
        let s = sampler(&block, &config, &[vec![1; limit - 10]]).unwrap();
        assert_eq!((s.gen_length, s.steps, s.blocks), (8, 8, Blocks::SemiAutoregressive));
        let causal = config.with_objective(Objective::Autoregressive);
        let s = sampler(&args(), &causal, &[vec![1]]).unwrap();
        assert_eq!(s.blocks, Blocks::Autoregressive);
    }

    #[test]
    fn the_blocks_of_a_preset_fit_what_was_asked_for() {
        let config = ModelConfig { max_sequence_length: 256, ..config() };
        let with = |gen_length, steps| {
            let args = Settings { gen_length, steps, ..args() };
            let s = sampler(&args, &config, &[vec![1; 20]]).unwrap();
            (s.gen_length, s.block(), s.blocks)
        };
        let semi = Blocks::SemiAutoregressive;
        assert_eq!(with(None, None), (128, 32, semi));
        assert_eq!(with(Some(100), None), (100, 25, semi));
        assert_eq!(with(Some(100), Some(10)), (100, 20, semi));
        assert_eq!(with(Some(100), Some(7)), (100, 100, Blocks::Pure));
        assert_eq!(with(Some(97), None), (97, 97, Blocks::Pure));
        assert_eq!(with(Some(32), None), (32, 32, Blocks::Pure));
        assert_eq!(with(None, Some(6)), (128, 128, Blocks::Pure));
        assert_eq!(with(None, Some(8)), (128, 32, semi));
    }

    #[test]
    fn a_preset_yields_to_what_was_asked_for() {
        let random = Settings { remasking: Some(Remasking::Random), ..args() };
        assert_eq!(
            sampler(&random, &config(), &[vec![1]]).unwrap().transfer,
            TransferRule::Schedule
        );
        let fast = Settings { preset: Some(Preset::Fast), ..args() };
        let causal = config().with_objective(Objective::Autoregressive);
        let s = sampler(&fast, &causal, &[vec![1]]).unwrap();
        assert_eq!(
            (s.blocks, s.cache, s.transfer),
            (Blocks::Autoregressive, Cache::None, TransferRule::Schedule)
        );
    }

    #[test]
    fn a_model_that_attends_by_blocks_fills_its_blocks() {
        let attention = AttentionMask::BlockCausal { block_length: 4 };
        let config = ModelConfig { attention, family: Family::Sdar, ..config() };
        let s = sampler(&args(), &config, &[vec![1; 5]]).unwrap();
        assert_eq!((s.blocks, s.block_length), (Blocks::BlockDiffusion, 4));
        assert_eq!((s.transfer, s.cache), (TransferRule::Threshold(0.85), Cache::None));
        let special = SpecialTokens { mask: Some(0), ..SpecialTokens::default() };
        s.check_model(&special, config.attention).unwrap();
        let odd = Settings { gen_length: Some(9), ..args() };
        let s = sampler(&odd, &config, &[vec![1; 5]]).unwrap();
        assert_eq!((s.gen_length, s.block_count()), (9, 3));
        let exact = Settings { preset: Some(Preset::Exact), ..args() };
        let s = sampler(&exact, &config, &[vec![1; 5]]).unwrap();
        assert_eq!((s.exact, s.reference), (true, Reference::Sdar));
        let config = ModelConfig { family: Family::FastDllmV2, ..config };
        let s = sampler(&exact, &config, &[vec![1; 5]]).unwrap();
        assert_eq!((s.reference, s.sub_block_length), (Reference::FastDllmV2, None), "blocks of 4");
        let attention = AttentionMask::BlockCausal { block_length: 32 };
        let wide = ModelConfig { attention, max_sequence_length: 256, ..config.clone() };
        let s = sampler(&args(), &wide, &[vec![1; 5]]).unwrap();
        assert_eq!((s.sub_block_length, s.cache), (Some(8), Cache::None));
        let fast = Settings { preset: Some(Preset::Fast), ..args() };
        assert!(matches!(sampler(&fast, &wide, &[]).unwrap().cache, Cache::Dual(_)));
        // The parts of the preset yield to what does not go with them.
        for other in [
            Settings { edit: Some(0.9), ..fast.clone() },
            Settings { revise: Some(0.9), ..fast.clone() },
            Settings { reference: Some(Reference::Diffusers), ..exact.clone() },
        ] {
            let s = sampler(&other, &wide, &[vec![1; 5]]).unwrap();
            assert_eq!((s.sub_block_length, s.cache), (None, Cache::None));
        }
        let idle = Settings { reference: Some(Reference::Diffusers), ..args() };
        let error = sampler(&idle, &wide, &[vec![1; 5]]).unwrap_err();
        assert!(error.to_string().starts_with("reference cannot be combined"), "{error}");
        let config = ModelConfig { family: Family::Llada2, ..config };
        let edits = Settings { edit: Some(0.9), ..exact };
        assert_eq!(sampler(&edits, &config, &[]).unwrap().reference, Reference::Llada21);
    }

    #[test]
    fn the_exact_mode_is_that_of_the_family() {
        let shift = LogitShift::Next;
        let config = ModelConfig { family: Family::Dream, shift, ..config() };
        let exact = Settings { preset: Some(Preset::Exact), ..args() };
        let s = sampler(&exact, &config, &[vec![1; 5]]).unwrap();
        assert_eq!((s.reference, s.remasking), (DREAM, Remasking::Entropy));
        let random = Settings { remasking: Some(Remasking::Random), ..exact };
        let s = sampler(&random, &config, &[vec![1; 5]]).unwrap();
        assert_eq!(s.reference, Reference::Dream { eps: 1e-3, origin: true });
        assert_eq!(sampler(&args(), &config, &[]).unwrap().remasking, Remasking::Entropy);
    }

    const DREAM: Reference = Reference::Dream { eps: 1e-3, origin: false };

    #[test]
    fn what_does_not_fit_is_refused() {
        let config = config();
        let limit = config.max_sequence_length;
        let full = sampler(&args(), &config, &[vec![1; limit]]).unwrap_err();
        assert!(full.to_string().contains("do not fit"), "{full}");
        let long = Settings { gen_length: Some(limit), ..args() };
        assert!(sampler(&long, &config, &[vec![1]]).is_err());
        let odd = Settings { gen_length: Some(9), block_length: Some(4), ..args() };
        assert!(sampler(&odd, &config, &[vec![1]]).is_err());
    }

    #[test]
    fn flags_without_effect_are_refused() {
        let config = config();
        for (blocks, block_length, steps) in [
            (Blocks::Pure, Some(4), None),
            (Blocks::Autoregressive, Some(4), None),
            (Blocks::Autoregressive, None, Some(4)),
        ] {
            let given = Settings {
                blocks: Some(blocks),
                block_length,
                steps,
                gen_length: Some(8),
                ..args()
            };
            let error = sampler(&given, &config, &[vec![1]]).unwrap_err();
            assert!(error.to_string().contains("has no meaning"), "{error}");
        }
        let agreeing = Settings {
            blocks: Some(Blocks::Autoregressive),
            block_length: Some(1),
            steps: Some(8),
            gen_length: Some(8),
            ..args()
        };
        assert!(sampler(&agreeing, &config, &[vec![1]]).is_ok());
    }

    #[test]
    fn flags_and_presets_are_taken_over() {
        let given = Settings {
            preset: Some(Preset::Exact),
            temperature: Some(0.5),
            seed: Some(7),
            gen_length: Some(8),
            steps: Some(4),
            logits_eos_inf: Some(true),
            ..args()
        };
        let s = sampler(&given, &config(), &[vec![1]]).unwrap();
        let expected = Sampler {
            temperature: 0.5,
            seed: 7,
            gen_length: 8,
            steps: 4,
            logits_eos_inf: true,
            ..Sampler::exact()
        };
        assert_eq!(s, expected);
    }

    /// A sampler of a model that proposes something.
    fn proposed(asked: Settings, proposed: &[(&str, &str)]) -> Result<Sampler> {
        let mut settings = Settings::default();
        proposed.iter().for_each(|(name, value)| settings.set(name, value).unwrap());
        let config = ModelConfig { max_sequence_length: 256, ..config() };
        let delimiters = || AdaptiveBlocks::new(vec![1]);
        let request = Request { proposed: &settings, ..Request::new(&asked, &delimiters) };
        request.sampler(&config, 20)
    }

    #[test]
    fn flags_go_before_the_model_and_the_model_before_the_preset() {
        let file = [("temperature", "0.7"), ("transfer", "factor=2"), ("gen_length", "64")];
        let s = proposed(args(), &file).unwrap();
        assert_eq!((s.temperature, s.transfer, s.gen_length), (0.7, TransferRule::Factor(2.0), 64));
        let cool = Settings { temperature: Some(0.0), gen_length: Some(32), ..args() };
        let s = proposed(cool, &file).unwrap();
        assert_eq!((s.temperature, s.transfer, s.gen_length), (0.0, TransferRule::Factor(2.0), 32));
        let fast = Settings { preset: Some(Preset::Fast), ..args() };
        assert_eq!(proposed(fast.clone(), &file).unwrap().transfer, TransferRule::Factor(2.0));
        let s = proposed(fast, &[("preset", "exact")]).unwrap();
        assert_eq!((s.exact, s.transfer), (false, TransferRule::Threshold(0.7)));
        assert!(proposed(args(), &[("preset", "exact")]).unwrap().exact);
    }

    #[test]
    fn what_a_model_proposes_yields() {
        let file = [("transfer", "leap"), ("temperature", "0.7"), ("block_length", "48")];
        let exact = Settings { preset: Some(Preset::Exact), ..args() };
        let s = proposed(exact, &file).unwrap();
        assert_eq!((s.exact, s.transfer, s.temperature), (true, TransferRule::Schedule, 0.7));
        let luck = Settings { remasking: Some(Remasking::Random), ..args() };
        assert_eq!(proposed(luck, &file).unwrap().transfer, TransferRule::Schedule);
        let odd = Settings { gen_length: Some(64), ..args() };
        assert_eq!(proposed(odd, &file).unwrap().gen_length, 64);
        let s = proposed(args(), &[("gen_length", "4096")]).unwrap();
        assert_eq!(s.gen_length, 224, "whole blocks, as many as there is room for");
    }

    #[test]
    fn a_model_that_contradicts_itself_is_an_error_of_its_own() {
        let error = proposed(args(), &[("transfer", "leap"), ("remasking", "random")]).unwrap_err();
        assert!(error.to_string().contains("`generation_config.json` contradicts"), "{error}");
        assert!(matches!(error, SamplerError::Proposed(cause) if cause.hint().is_some()));
    }
}
