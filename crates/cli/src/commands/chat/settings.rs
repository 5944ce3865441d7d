//! How answers are sampled: the flags, changed by `/set`, and what a chat fills in.

use anyhow::Result;
use llada::{
    config::{AttentionMask, ModelConfig},
    diffusion::{Blocks, Sampler, Settings, Spelling, settings::Key},
};

use crate::{commands::Wish, session::Session};

/// Blocks of an answer are this long, or shorter in a small model.
const BLOCK_LENGTH: usize = 32;
/// An answer has at most so many blocks unless asked for more.
const BLOCKS: usize = 8;

/// The sampler of a chat with the model of a session: what was `asked` for, in this `spelling`, then
/// what the model proposes, then what [`shape`] chooses.
pub fn sampler(asked: &Settings, session: &Session, spelling: Spelling) -> Result<Sampler> {
    let limit = session.config().max_sequence_length;
    let mut proposed = session.proposed.clone();
    // Half of a row at least is for the conversation.
    proposed.gen_length = proposed.gen_length.filter(|&length| length <= limit / 2);
    let joints = || session.joints();
    let wish = Wish { proposed: &proposed, spelling, ..session.wish(asked, &joints) };
    of(wish, session.config())
}

fn of(wish: Wish<'_>, config: &ModelConfig) -> Result<Sampler> {
    let sampler = Wish { shape, ..wish }.sampler(config, &[])?;
    Ok(Sampler { stop_at_eos: true, ..sampler })
}

/// Blocks from left to right, and no further than the end of the answer. Unless asked otherwise a
/// block is an eighth of the model's row, but not more than 32 tokens, and an answer has at most
/// eight of them, and three eighths of the row: the rest is for the conversation. A length that the
/// model proposes goes before that, in whole blocks.
fn shape(settings: &mut Settings, config: &ModelConfig, proposed: Option<usize>) {
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

/// The settings and their values, one on each line, as `/set` takes them.
pub fn list(sampler: &Sampler) -> Vec<String> {
    let settings = Settings::of(sampler);
    let rows = settings.rows().filter(|(key, _)| key.name != "preset");
    let line = |(key, value): (&Key, Option<String>)| {
        format!("{:24}{}", key.name, value.unwrap_or_else(|| "default".into()))
    };
    rows.map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use llada::{
        config::{Objective, SpecialTokens},
        diffusion::blocks::AdaptiveBlocks,
    };

    fn config(limit: usize) -> ModelConfig {
        let recipe = llada::train::Recipe::default();
        let config = recipe.model_config(300, SpecialTokens::default()).unwrap();
        ModelConfig { max_sequence_length: limit, ..config }
    }

    fn sampler(settings: &Settings, config: &ModelConfig) -> Result<Sampler> {
        of(Wish::flags(settings, &|| AdaptiveBlocks::new(vec![1])), config)
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
    fn settings_are_set_and_taken_back() {
        let mut args = Settings::default();
        for line in list(&sampler(&args, &config(128)).unwrap()) {
            let (key, value) = line.split_once(' ').unwrap();
            args.set(key, value.trim()).unwrap();
        }
        assert_eq!((args.gen_length, args.temperature), (Some(48), Some(0.0)));
        // Where there is no cache, none is asked for by what was listed.
        assert_eq!(sampler(&args, &config(128)).unwrap().gen_length, 48);
    }

    #[test]
    fn every_setting_is_listed_and_can_be_set() {
        let listed = list(&Sampler::default());
        for key in Settings::KEYS.iter().filter(|key| key.name != "preset") {
            let line = listed.iter().find(|line| line.split(' ').next() == Some(key.name));
            let value = line.and_then(|line| line.split_whitespace().nth(1)).unwrap();
            Settings::default().set(key.name, value).unwrap();
        }
        assert_eq!(listed.len(), Settings::KEYS.len() - 1);
    }
}
