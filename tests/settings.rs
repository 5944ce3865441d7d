//! Values of the sampler's settings, for the tests of all crates that walk over the settings.
#![allow(dead_code)]

use super::{Key, Kind};

/// A value of a setting that no preset has.
pub(crate) fn example(key: &Key) -> String {
    match key.kind {
        Kind::Number(range) if range.is_whole => (range.least + 3.0).to_string(),
        Kind::Number(range) => (range.least + (range.most - range.least) / 8.0).to_string(),
        Kind::Seed => u64::MAX.to_string(),
        Kind::Switch => "true".into(),
        Kind::Name(names) => names().pop().unwrap().to_owned(),
    }
}

/// Values that are outside of the range of a setting, if it has one.
pub(crate) fn outside(key: &Key) -> Vec<String> {
    let Some(range) = key.range() else { return Vec::new() };
    let mut wrong = vec![-1.0, range.least - 1.0, range.most * 2.0, f64::NAN, f64::INFINITY];
    wrong.extend(range.is_above.then_some(range.least));
    wrong.extend(range.is_whole.then_some(range.least + 0.5));
    wrong.into_iter().map(|number| number.to_string()).collect()
}
