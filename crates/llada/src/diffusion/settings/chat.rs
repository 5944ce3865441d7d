//! What answers in a conversation are like, where nobody says.

use super::Settings;
use crate::{
    config::{AttentionMask, ModelConfig},
    diffusion::Blocks,
};

/// Blocks of an answer are this long, or shorter in a small model.
const BLOCK_LENGTH: usize = 32;
/// An answer has at most so many blocks unless asked for more.
const BLOCKS: usize = 8;

/// What a model proposes of its answers: half of a sequence at least is for the conversation.
pub(super) fn proposed(proposed: &Settings, config: &ModelConfig) -> Settings {
    let most = config.max_sequence_length / 2;
    let gen_length = proposed.gen_length.filter(|&length| length <= most);
    Settings { gen_length, ..proposed.clone() }
}

/// Blocks from left to right, and no further than the end of the answer. Unless asked otherwise a
/// block is an eighth of the model's longest sequence, but not more than 32 tokens, and an answer
/// has at most eight of them, and three eighths of the sequence: the rest is for the conversation.
/// A length that the model proposes goes before that, in whole blocks.
pub(super) fn shape(settings: &mut Settings, config: &ModelConfig, proposed: Option<usize>) {
    let limit = config.max_sequence_length;
    let block = (limit / 8).clamp(1, BLOCK_LENGTH);
    let usual = block * (limit * 3 / 8 / block).clamp(1, BLOCKS);
    let length = proposed.map_or(usual, |length| (length / block).max(1) * block);
    match config.attention {
        AttentionMask::Bidirectional => {
            settings.blocks.get_or_insert(Blocks::SemiAutoregressive);
        }
        AttentionMask::Causal => {}
        // Blocks follow on each other until the answer ends, whatever its length is.
        AttentionMask::BlockCausal { .. } => {
            settings.gen_length.get_or_insert(length);
            return;
        }
    }
    if matches!(settings.blocks, Some(Blocks::SemiAutoregressive | Blocks::BlockDiffusion)) {
        match (settings.gen_length, settings.block_length) {
            (None, None) => {
                (settings.gen_length, settings.block_length) = (Some(length), Some(block));
            }
            (None, Some(block)) if block > 0 => {
                settings.gen_length = Some((length / block).max(1) * block);
            }
            (Some(length), None) => {
                let divides = |&block: &usize| length.is_multiple_of(block);
                settings.block_length = (1..=block).rev().find(divides);
            }
            _ => {}
        }
    }
    settings.gen_length.get_or_insert(length);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::{Objective, SpecialTokens},
        diffusion::{Sampler, SamplerError, blocks::AdaptiveBlocks, settings::Request},
    };

    fn config(limit: usize) -> ModelConfig {
        let recipe = crate::train::Recipe::default();
        let config = recipe.model_config(300, SpecialTokens::default()).unwrap();
        ModelConfig { max_sequence_length: limit, ..config }
    }

    fn sampler(settings: &Settings, config: &ModelConfig) -> Result<Sampler, SamplerError> {
        let delimiters = || AdaptiveBlocks::new(vec![1]);
        Request { is_chat: true, ..Request::new(settings, &delimiters) }.sampler(config, 0)
    }

    #[test]
    fn answers_leave_room_for_the_conversation() {
        for (limit, expected) in [(128, (48, 16)), (4096, (256, 32)), (32, (12, 4)), (3, (1, 1))] {
            let s = sampler(&Settings::default(), &config(limit)).unwrap();
            assert_eq!((s.gen_length, s.block_length), expected, "{limit}");
            assert_eq!((s.blocks, s.stop_at_eos), (Blocks::SemiAutoregressive, true));
            assert_eq!(s.steps, s.gen_length);
        }
        let causal = config(128).with_objective(Objective::Autoregressive);
        let s = sampler(&Settings::default(), &causal).unwrap();
        assert_eq!((s.gen_length, s.blocks), (48, Blocks::Autoregressive));
    }

    #[test]
    fn lengths_that_are_given_are_kept_and_the_other_fits() {
        let with = |gen_length, block_length| {
            let args = Settings { gen_length, block_length, ..Settings::default() };
            sampler(&args, &config(128)).map(|s| (s.gen_length, s.block_length))
        };
        assert_eq!(with(Some(60), None).unwrap(), (60, 15));
        assert_eq!(with(None, Some(10)).unwrap(), (40, 10));
        assert_eq!(with(Some(64), Some(32)).unwrap(), (64, 32));
        assert!(with(Some(60), Some(32)).is_err() && with(Some(500), None).is_err());
        assert!(with(None, Some(0)).is_err() && with(Some(0), None).is_err());
    }

    #[test]
    fn what_is_listed_of_a_sampler_gives_it_again() {
        let mut settings = Settings::default();
        let first = sampler(&settings, &config(128)).unwrap();
        for (name, value) in Settings::of(&first).list() {
            settings.set(name, &value).unwrap();
        }
        assert_eq!((settings.gen_length, settings.temperature), (Some(48), Some(0.0)));
        // Where there is no cache, none is asked for by what was listed.
        assert_eq!(sampler(&settings, &config(128)).unwrap().gen_length, 48);
    }
}
