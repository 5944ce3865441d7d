//! What a row of the table says of a setting.

use std::fmt::Display;

use super::{Range, Settings};
use crate::diffusion::{
    Blocks, Cache, Preset, Reference, Remasking, SamplerError, TransferRule, cache::CacheType,
};

/// A row of the table: all that is said of a setting but where it takes effect.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Its name in files and commands; as a flag it has `-` for `_`.
    pub name: &'static str,
    /// What it is, as it is written above its field.
    pub(super) about: &'static str,
    /// The values that it may have.
    pub kind: Kind,
    /// What stands for a value in a help.
    pub placeholder: &'static str,
    /// What an open setting becomes, where it is no value of the preset.
    pub default: Option<&'static str>,
    /// The paper or code that it is from; empty if it is ours.
    pub source: &'static str,
    /// What it belongs to.
    pub group: Group,
    /// Whether the short help has it.
    pub is_frequent: bool,
    /// Its flag of one letter.
    pub short: Option<char>,
    /// Names of the flag in other programs.
    pub aliases: &'static [&'static str],
    /// The setting without which it has no meaning.
    pub needs: Option<&'static str>,
    /// Whether it goes with any choice of the others.
    pub is_free: bool,
}

/// The values of a setting.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// A number.
    Number(Range),
    /// Any whole number of 64 bits.
    Seed,
    /// On or off.
    Switch,
    /// One of these names; numbers may follow some of them.
    Name(fn() -> Vec<&'static str>),
}

/// What settings are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// What is generated, and in which order.
    Sampling,
    /// How many tokens a pass unmasks, and how many it is fed.
    Saving,
}

impl Group {
    /// Both, in their order.
    pub const ALL: [Self; 2] = [Self::Sampling, Self::Saving];

    /// The heading over its settings.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Sampling => "Sampling",
            Self::Saving => "Fewer and smaller passes",
        }
    }
}

impl Key {
    /// A row that says nothing.
    pub(super) const PLAIN: Self = Self {
        name: "",
        about: "",
        kind: Kind::Switch,
        placeholder: "",
        default: None,
        source: "",
        group: Group::Sampling,
        is_frequent: false,
        short: None,
        aliases: &[],
        needs: None,
        is_free: false,
    };

    /// The setting of this name, in any case and with `-` or `_`.
    ///
    /// # Errors
    /// If there is none.
    pub fn named(name: &str) -> Result<&'static Self, SamplerError> {
        let name = name.trim().to_ascii_lowercase().replace('-', "_");
        Settings::KEYS.iter().find(|key| key.name == name).ok_or_else(|| {
            let known = Settings::names().collect::<Vec<_>>().join(", ");
            SamplerError::Unknown { what: "setting", found: name, known }
        })
    }

    /// Its name as a flag, without dashes.
    pub fn flag(&self) -> String {
        self.name.replace('_', "-")
    }

    /// What it is.
    pub fn about(&self) -> &'static str {
        self.about.trim()
    }

    /// Its range, if it is a number that has one.
    pub fn range(&self) -> Option<&Range> {
        match &self.kind {
            Kind::Number(range) => Some(range),
            Kind::Seed | Kind::Switch | Kind::Name(_) => None,
        }
    }
}

impl Kind {
    /// The values in words: `a number from 0 to 1`.
    pub fn values(&self) -> String {
        match self {
            Self::Number(range) => range.to_string(),
            Self::Seed => "a whole number of 64 bits".into(),
            Self::Switch => "true, false".into(),
            Self::Name(names) => names().join(", "),
        }
    }
}

/// A value of a setting: read from text, and written as it is read.
pub(super) trait Value: Copy + Display {
    /// Reads a value of the setting `name`.
    fn read(name: &'static str, text: &str) -> Result<Self, SamplerError>;

    /// The number that it is.
    fn number(self) -> Option<f64> {
        None
    }
}

macro_rules! numbers {
    ($($type:ty),*) => {$(
        impl Value for $type {
            fn read(name: &'static str, text: &str) -> Result<Self, SamplerError> {
                Range::parse(name, text)
            }

            fn number(self) -> Option<f64> {
                Some(self as f64)
            }
        }
    )*};
}

macro_rules! names {
    ($($type:ty),*) => {$(
        impl Value for $type {
            fn read(_: &'static str, text: &str) -> Result<Self, SamplerError> {
                text.parse()
            }
        }
    )*};
}

numbers!(usize, u64, f32, f64);
names!(Preset, Reference, Blocks, Remasking, TransferRule, Cache, CacheType);

impl Value for bool {
    fn read(name: &'static str, text: &str) -> Result<Self, SamplerError> {
        match text.to_ascii_lowercase().as_str() {
            "true" | "on" | "yes" => Ok(true),
            "false" | "off" | "no" => Ok(false),
            other => {
                let (found, known) = (other.to_owned(), Kind::Switch.values());
                Err(SamplerError::Unknown { what: name, found, known })
            }
        }
    }
}
