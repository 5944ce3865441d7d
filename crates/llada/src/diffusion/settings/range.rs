//! What numbers may be. The ranges of settings are in their table; here are those of the numbers
//! that are parts of a setting, and of what scores and what prepares data.

use std::{fmt, str::FromStr};

use super::{Key, Settings};
use crate::diffusion::SamplerError;

/// The numbers that a setting may have.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Range {
    /// The least number.
    pub least: f64,
    /// The greatest number.
    pub most: f64,
    /// Whether `least` itself is too little.
    pub is_above: bool,
    /// Whether only whole numbers will do.
    pub is_whole: bool,
}

/// Longest response that can be asked for.
pub(super) const MAX_LENGTH: f64 = (1u32 << 20) as f64;
/// Most steps that can be asked for; random draws are addressed by 24 bits of step.
pub(super) const MAX_STEPS: f64 = (1u32 << 24) as f64;
/// Far above what leaves anything of a distribution, and far below where numbers overflow.
pub(super) const MAX_FACTOR: f64 = 100.0;

pub(super) const fn whole(least: f64, most: f64) -> Range {
    Range { least, most, is_above: false, is_whole: true }
}

pub(super) const fn real(least: f64, most: f64) -> Range {
    Range { least, most, is_above: false, is_whole: false }
}

pub(super) const fn above(least: f64, most: f64) -> Range {
    Range { least, most, is_above: true, is_whole: false }
}

/// Ranges of numbers that are no setting on their own. A part has the name of its setting, or of its
/// transfer rule, before its own.
static PARTS: [(&str, Range); 24] = [
    ("transfer threshold", real(0.0, 1.0)),
    ("transfer factor", above(0.0, MAX_LENGTH)),
    ("transfer entropy", real(0.0, MAX_LENGTH)),
    ("klass confidence", real(0.0, 1.0)),
    ("klass divergence", above(0.0, MAX_FACTOR)),
    ("klass steps", whole(1.0, MAX_STEPS)),
    ("leap anchor", real(0.0, 1.0)),
    ("leap neighbour", real(0.0, 1.0)),
    ("leap reach", whole(1.0, MAX_LENGTH)),
    ("credit confidence", real(0.0, 1.0)),
    ("credit weight", real(0.0, MAX_FACTOR)),
    ("credit decay", real(0.0, 1.0)),
    ("credit exponent", real(0.0, MAX_FACTOR)),
    ("adaptive_blocks confidence", real(0.0, 1.0)),
    ("variable_length initial", whole(1.0, MAX_LENGTH)),
    ("variable_length window", whole(1.0, MAX_LENGTH)),
    ("variable_length enough", real(0.0, 1.0)),
    ("variable_length unsure", real(0.0, 1.0)),
    ("variable_length sure_of_end", real(0.0, 1.0)),
    ("variable_length grow_by", whole(1.0, MAX_LENGTH)),
    // What scores, prepares data and predicts memory has numbers too.
    ("mc_num", whole(1.0, MAX_STEPS)),
    ("mc_batch_size", whole(1.0, MAX_STEPS)),
    ("length", whole(1.0, MAX_LENGTH)),
    ("validation", real(0.0, 1.0)),
];

impl Range {
    /// The range of a setting, or of a part of one.
    pub fn of(name: &str) -> Option<&'static Self> {
        let key = Settings::KEYS.iter().find(|key| key.name == name);
        let part = || PARTS.iter().find(|(part, _)| *part == name).map(|(_, range)| range);
        key.and_then(Key::range).or_else(part)
    }

    /// Whether a setting may have this number.
    pub fn contains(&self, number: f64) -> bool {
        let is_enough = if self.is_above { number > self.least } else { number >= self.least };
        is_enough && number <= self.most && (!self.is_whole || number.fract() == 0.0)
    }

    /// Reads a number of the setting `name`.
    ///
    /// # Errors
    /// When `text` is no number of its range.
    pub fn parse<T: FromStr>(name: &'static str, text: &str) -> Result<T, SamplerError> {
        let text = text.trim();
        let number = text.parse::<f64>().ok();
        let is_within = |number| Self::of(name).is_none_or(|range| range.contains(number));
        match text.parse() {
            Ok(parsed) if number.is_some_and(is_within) => Ok(parsed),
            _ => Err(SamplerError::out_of_range(name, text)),
        }
    }

    /// Checks numbers of settings.
    pub(crate) fn check(numbers: &[(&'static str, f64)]) -> Result<(), SamplerError> {
        let wrong = numbers.iter().find(|(name, number)| match Self::of(name) {
            Some(range) => !range.contains(*number),
            None => !number.is_finite(),
        });
        match wrong {
            None => Ok(()),
            Some((name, number)) => Err(SamplerError::out_of_range(name, number)),
        }
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.is_whole { "a whole number" } else { "a number" };
        let Self { least, most, .. } = self;
        match self.is_above {
            true => write!(f, "{kind} above {least}, up to {most}"),
            false => write!(f, "{kind} from {least} to {most}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_there_once_and_ranges_are_no_empty_ones() {
        let settings = Settings::KEYS.iter().map(|key| key.name);
        let names: Vec<_> = settings.chain(PARTS.iter().map(|(name, _)| *name)).collect();
        for (i, name) in names.iter().enumerate() {
            assert!(!names[..i].contains(name), "{name}");
            let Some(range) = Range::of(name) else { continue };
            assert!(range.least < range.most, "{range:?}");
            assert!(range.contains(range.most) && range.contains(range.least) != range.is_above);
            for wrong in [-1.0, range.most + 1.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
                assert!(!range.contains(wrong), "{range:?} {wrong}");
            }
        }
    }

    #[test]
    fn numbers_are_read_within_their_range() {
        assert_eq!(Range::parse("steps", " 7 "), Ok(7usize));
        assert_eq!(Range::parse("temperature", "1e-1"), Ok(0.1));
        for (name, text) in [
            ("steps", "0"),
            ("steps", "1.5"),
            ("steps", "1e3"),
            ("steps", "-4"),
            ("steps", "many"),
            ("gen_length", "99999999999999999999"),
        ] {
            let error = Range::parse::<usize>(name, text).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{name} is {text}, ")), "{error}");
        }
        for (name, text, range) in [
            ("temperature", "-0.1", "a number from 0 to 100"),
            ("temperature", "NaN", "a number from 0 to 100"),
            ("cfg_scale", "inf", "a number from 0 to 100"),
            ("revise", "2", "a number from 0 to 1"),
            ("transfer factor", "0", "a number above 0, up to 1048576"),
        ] {
            let error = Range::parse::<f64>(name, text).unwrap_err();
            assert_eq!(error.to_string(), format!("{name} is {text}, which is not {range}"));
        }
    }
}
