//! Names for settings that go together.

use std::{fmt, str::FromStr};

use super::Sampler;
use crate::diffusion::SamplerError;

/// Where settings start from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Preset {
    /// Decision by decision as the reference's code: [`Sampler::exact`].
    Exact,
    /// Saves what costs nothing that could be measured: [`Sampler::balanced`].
    #[default]
    Balanced,
    /// Saves more, for a price: [`Sampler::fast`].
    Fast,
}

impl Preset {
    /// All presets.
    pub const ALL: [Self; 3] = [Self::Exact, Self::Balanced, Self::Fast];

    /// Its name on the command line and in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Balanced => "balanced",
            Self::Fast => "fast",
        }
    }

    /// Its settings.
    pub fn sampler(self) -> Sampler {
        match self {
            Self::Exact => Sampler::exact(),
            Self::Balanced => Sampler::balanced(),
            Self::Fast => Sampler::fast(),
        }
    }
}

impl fmt::Display for Preset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Preset {
    type Err = SamplerError;

    fn from_str(s: &str) -> Result<Self, SamplerError> {
        let name = s.to_ascii_lowercase();
        Self::ALL.into_iter().find(|p| p.name() == name).ok_or_else(|| SamplerError::Unknown {
            what: "preset",
            found: s.to_owned(),
            known: Self::ALL.map(Self::name).join(", "),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_for_samplers() {
        for preset in Preset::ALL {
            assert_eq!(preset.to_string().to_uppercase().parse(), Ok(preset));
            preset.sampler().check().unwrap();
        }
        assert!("best".parse::<Preset>().unwrap_err().hint().unwrap().contains("balanced"));
    }
}
