//! What the numbers of a sampler may be: each range is said here, for flags, files and code alike.

use std::{fmt, str::FromStr};

use crate::diffusion::SamplerError;

/// The numbers that a setting may have.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Range {
    /// The setting. A number of a rule for what is kept has the rule's name before its own.
    pub name: &'static str,
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
const MAX_LENGTH: f64 = (1u32 << 20) as f64;
/// Most steps that can be asked for; random draws are addressed by 24 bits of step.
const MAX_STEPS: f64 = (1u32 << 24) as f64;
/// Far above what leaves anything of a distribution, and far below where numbers overflow.
const MAX_FACTOR: f64 = 100.0;

const fn whole(name: &'static str, least: f64, most: f64) -> Range {
    Range { name, least, most, is_above: false, is_whole: true }
}

const fn real(name: &'static str, least: f64, most: f64) -> Range {
    Range { name, least, most, is_above: false, is_whole: false }
}

const fn above(name: &'static str, least: f64, most: f64) -> Range {
    Range { name, least, most, is_above: true, is_whole: false }
}

/// All of them.
pub static RANGES: [Range; 38] = [
    whole("steps", 1.0, MAX_STEPS),
    whole("gen_length", 1.0, MAX_LENGTH),
    whole("block_length", 1.0, MAX_LENGTH),
    real("temperature", 0.0, MAX_FACTOR),
    whole("top_k", 1.0, MAX_STEPS),
    above("top_p", 0.0, 1.0),
    real("alg_temp", 0.0, MAX_FACTOR),
    real("cfg_scale", 0.0, MAX_FACTOR),
    real("revise", 0.0, 1.0),
    real("edit", 0.0, 1.0),
    whole("edit_rounds", 0.0, MAX_STEPS),
    whole("cache_refresh", 0.0, MAX_STEPS),
    whole("cache_warm_up", 0.0, MAX_STEPS),
    whole("cache_window", 0.0, MAX_LENGTH),
    whole("suffix_window", 0.0, MAX_LENGTH),
    real("keep threshold", 0.0, 1.0),
    above("keep factor", 0.0, MAX_LENGTH),
    real("keep entropy", 0.0, MAX_LENGTH),
    real("klass confidence", 0.0, 1.0),
    above("klass divergence", 0.0, MAX_FACTOR),
    whole("klass steps", 1.0, MAX_STEPS),
    real("leap anchor", 0.0, 1.0),
    real("leap neighbour", 0.0, 1.0),
    whole("leap reach", 1.0, MAX_LENGTH),
    real("credit confidence", 0.0, 1.0),
    real("credit weight", 0.0, MAX_FACTOR),
    real("credit decay", 0.0, 1.0),
    real("credit exponent", 0.0, MAX_FACTOR),
    real("adaptive_blocks confidence", 0.0, 1.0),
    whole("variable_length initial", 1.0, MAX_LENGTH),
    whole("variable_length window", 1.0, MAX_LENGTH),
    real("variable_length enough", 0.0, 1.0),
    real("variable_length unsure", 0.0, 1.0),
    real("variable_length sure_of_end", 0.0, 1.0),
    whole("variable_length grow_by", 1.0, MAX_LENGTH),
    // The seed has no range: any number of 64 bits is one. What scores and what prepares data have
    // numbers too.
    whole("mc_num", 1.0, MAX_STEPS),
    whole("batch_size", 1.0, MAX_STEPS),
    real("validation", 0.0, 1.0),
];

impl Range {
    /// The range of a setting.
    pub fn of(name: &str) -> Option<&'static Self> {
        RANGES.iter().find(|range| range.name == name)
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
        for (i, range) in RANGES.iter().enumerate() {
            assert!(range.least < range.most, "{range:?}");
            assert!(range.contains(range.most) && range.contains(range.least) != range.is_above);
            assert!(RANGES[..i].iter().all(|other| other.name != range.name), "{range:?}");
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
            ("keep factor", "0", "a number above 0, up to 1048576"),
        ] {
            let error = Range::parse::<f64>(name, text).unwrap_err();
            assert_eq!(error.to_string(), format!("{name} is {text}, which is not {range}"));
        }
    }
}
