//! Settings of a [`Sampler`] by name, each of which may be left to another layer: what flags say,
//! what a chat's `/set` changes, what a task file or a model's `generation_config.json` proposes.
//!
//! All that is known of a setting is its row in the table: see [`Key`].

mod chat;
mod json;
mod key;
mod places;
mod range;
mod resolve;
mod table;
#[cfg(test)]
pub(crate) mod tests;

pub use key::{Group, Key, Kind};
pub use range::Range;
pub use resolve::Request;
pub use table::Settings;

use range::{MAX_FACTOR, MAX_LENGTH, MAX_STEPS, above, real, whole};

use super::{Blocks, Sampler, SamplerError};

/// The text of a setting that leaves it open.
const OPEN: &str = "default";

impl Settings {
    /// The names of all settings.
    pub fn names() -> impl Iterator<Item = &'static str> {
        Self::KEYS.iter().map(|key| key.name)
    }

    /// Makes the setting `name` (`-` counts as `_`) from its text; `default` leaves it open again.
    ///
    /// # Errors
    /// When there is no such setting, or `value` is none of its values.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), SamplerError> {
        let value = value.trim();
        let is_open = value.eq_ignore_ascii_case(OPEN);
        self.assign(Key::named(name)?, (!is_open).then_some(value))
    }

    /// The settings with their values, if they are made, in the spelling that [`set`](Self::set)
    /// reads.
    pub fn rows(&self) -> impl Iterator<Item = (&'static Key, Option<String>)> {
        Self::KEYS.iter().zip(self.texts())
    }

    /// The settings that are made, by name.
    pub fn list(&self) -> Vec<(&'static str, String)> {
        self.rows().filter_map(|(key, value)| Some((key.name, value?))).collect()
    }

    /// Those of the settings that go with any choice of the others.
    #[must_use]
    pub fn unbound(&self) -> Self {
        self.only(|key| key.is_free)
    }

    /// Checks that numbers are in their ranges.
    pub(super) fn check_ranges(&self) -> Result<(), SamplerError> {
        let numbers = Self::KEYS.iter().zip(self.numbers());
        let ranged = numbers.filter(|(key, _)| key.range().is_some());
        let made = ranged.filter_map(|(key, number)| Some((key.name, number?)));
        Range::check(&made.collect::<Vec<_>>())
    }

    /// Refuses what was set and has no effect in the layout of the `sampler` that these settings
    /// gave.
    ///
    /// # Errors
    /// If there is such a setting.
    pub fn check_used(&self, sampler: &Sampler) -> Result<(), SamplerError> {
        if self.reference.is_some() && !sampler.exact {
            let (setting, with) = ("reference", "a preset that follows no published code".into());
            let why = "which is what the preset exact does";
            return Err(SamplerError::Combination { setting, with, why });
        }
        let blocks = sampler.blocks;
        let refuse = |setting, why| Err(SamplerError::Unused { setting, blocks, why });
        match blocks {
            Blocks::Pure if self.block_length.is_some_and(|n| n != sampler.gen_length) => {
                refuse("block_length", "whose one block is the response")
            }
            Blocks::Autoregressive if self.block_length.is_some_and(|n| n != 1) => {
                refuse("block_length", "whose blocks are single tokens")
            }
            Blocks::Autoregressive if self.steps.is_some_and(|n| n != sampler.gen_length) => {
                refuse("steps", "which takes one step for each token")
            }
            _ => Ok(()),
        }
    }
}
