//! JSON as Python's `json` reads and writes it, beyond the standard: numbers that are none (`NaN`,
//! `Infinity`) or larger than all numbers (`1e999`), and halves of surrogate pairs.

use serde::de::{Error as _, IgnoredAny};
use serde_json::{Error, Map, Result, Value};

/// Names that Python gives to numbers that JSON has none for.
const NO_NUMBERS: [&[u8]; 3] = [b"NaN", b"-Infinity", b"Infinity"];

/// Arrays and objects may lie in each other so deep: a limit of the parser.
const MOST_DEEP: usize = 127;

/// Whether a value says that there is nothing of what its key is about.
pub(crate) fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::String(text) => text == "none" || text.is_empty(),
        Value::Bool(true) | Value::Number(_) => false,
    }
}

/// Parses a text as Python does, but for numbers that are none or larger than all numbers, which
/// are null. Half of a surrogate pair is U+FFFD.
///
/// # Errors
/// When it is not JSON otherwise, or nested more than 127 deep.
pub fn parse(text: &[u8]) -> Result<Value> {
    read(text, |_| b"null".to_vec())
}

/// The same of a file of settings: such a number is the text that it is written as, so that who reads
/// it says what it is, and nobody else minds.
///
/// # Errors
/// As [`parse`].
pub(crate) fn parse_settings(text: &[u8]) -> Result<Value> {
    read(text, |number| [b"\"", number, b"\""].concat())
}

/// The same of a file that holds an object.
///
/// # Errors
/// As [`parse`], and when it holds something else.
pub(crate) fn parse_object(text: &[u8]) -> Result<Map<String, Value>> {
    parse_settings(text).and_then(serde_json::from_value)
}

fn read(text: &[u8], no_number: impl Fn(&[u8]) -> Vec<u8>) -> Result<Value> {
    // Plain JSON, which nearly all texts are, is read once and not copied.
    let read = serde_json::from_slice(text).or_else(|error| match standard(text, no_number) {
        Some(text) => serde_json::from_slice(&text),
        None => Err(error),
    });
    read.map_err(|error| match error.to_string().starts_with("recursion limit") {
        true => Error::custom(format!("arrays and objects are nested more than {MOST_DEEP} deep")),
        false => error,
    })
}

/// The text as the standard has it, where it differs.
fn standard(text: &[u8], no_number: impl Fn(&[u8]) -> Vec<u8>) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() + 64);
    let (mut rest, mut in_string, mut differs) = (text, false, false);
    while let Some(&byte) = rest.first() {
        let taken = match byte {
            b'\\' if in_string => escape_length(rest),
            b'-' | b'0'..=b'9' | b'N' | b'I' if !in_string => number_length(rest),
            _ => 1,
        };
        let (token, after) = rest.split_at(taken);
        if in_string && is_half(token) {
            out.extend(b"\\ufffd");
            differs = true;
        } else if !in_string && is_no_number(token) {
            out.extend(no_number(token));
            differs = true;
        } else {
            out.extend(token);
        }
        in_string ^= byte == b'"';
        rest = after;
    }
    differs.then_some(out)
}

/// Bytes of what begins with a backslash: two halves of a pair are one.
fn escape_length(text: &[u8]) -> usize {
    match (unit(text), text.get(6..).and_then(unit)) {
        (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => 12,
        (Some(_), _) => 6,
        // What is escaped ends no string.
        (None, _) => text.len().min(2),
    }
}

/// Whether an escape is half of a surrogate pair.
fn is_half(token: &[u8]) -> bool {
    token.len() == 6 && matches!(unit(token), Some(0xd800..=0xdfff))
}

/// The code unit of `\uXXXX`.
fn unit(text: &[u8]) -> Option<u32> {
    let digits = text.strip_prefix(b"\\u")?.get(..4)?;
    digits.iter().try_fold(0, |unit, &digit| Some(16 * unit + char::from(digit).to_digit(16)?))
}

/// Bytes of a number, or of a name of none, that begins here.
fn number_length(text: &[u8]) -> usize {
    let named = NO_NUMBERS.iter().find(|name| text.starts_with(name)).map(|name| name.len());
    named.unwrap_or_else(|| {
        let is_of_number = |b: &&u8| b.is_ascii_digit() || b"+-.eE".contains(b);
        text.iter().take_while(is_of_number).count().max(1)
    })
}

/// Whether a number is none, or larger than all numbers.
fn is_no_number(token: &[u8]) -> bool {
    let is_too_large = || {
        let value = std::str::from_utf8(token).ok().and_then(|text| text.parse::<f64>().ok());
        // Rust reads more than JSON allows, such as `.5`.
        value.is_some_and(f64::is_infinite) && serde_json::from_slice::<IgnoredAny>(token).is_ok()
    };
    let may_be_large = token.len() > 4 && token[token.len() - 1].is_ascii_digit();
    NO_NUMBERS.contains(&token) || (may_be_large && is_too_large())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn numbers_that_are_none_are_null() {
        let text = br#"{"a": NaN, "b": [Infinity, -Infinity, -1], "NaN": "NaN \" Infinity\\"}"#;
        let expected = json!({"a": null, "b": [null, null, -1], "NaN": "NaN \" Infinity\\"});
        assert_eq!(parse(text).unwrap(), expected);
        assert_eq!(parse(b"NaN").unwrap(), json!(null));
        assert_eq!(
            parse(br#"{"big": 123456789012345678901234567890}"#).unwrap()["big"],
            1.2345678901234568e29
        );
        let wrong = ["{", "nan", r#"{"a": NaNa}"#, r#"{"a": Inf}"#, r#"{"a": "NaN"#, "", "01e999"];
        for wrong in wrong.into_iter().chain(["[1e999", "[1e9999.]", r#"["\ud80"]"#, r#""\"#]) {
            assert!(parse(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn numbers_larger_than_all_are_none() {
        let digits = "9".repeat(400);
        let text =
            format!(r#"{{"a": 1e999, "b": [-1E+400,{digits}, 1e-999, 1e308], "1e999": "1e999"}}"#);
        let expected = json!({"a": null, "b": [null, null, 0.0, 1e308], "1e999": "1e999"});
        assert_eq!(parse(text.as_bytes()).unwrap(), expected);
        let settings = parse_settings(br#"{"a": 1e999, "b": -Infinity, "c": 2}"#).unwrap();
        assert_eq!(settings, json!({"a": "1e999", "b": "-Infinity", "c": 2}));
    }

    #[test]
    fn halves_of_surrogate_pairs_are_replaced() {
        let text = br#"{"a\udc00": "x\ud800", "b": "\ud83d\ude00\uD83D\ude00", "c": "\\ud800 \"\ud800\ud83d\ude00", "d": "\udc00\ud800"}"#;
        let expected = json!({
            "a\u{fffd}": "x\u{fffd}", "b": "\u{1f600}\u{1f600}",
            "c": "\\ud800 \"\u{fffd}\u{1f600}", "d": "\u{fffd}\u{fffd}",
        });
        assert_eq!(parse(text).unwrap(), expected);
    }

    #[test]
    fn deep_nesting_is_called_so() {
        let nested = |n| format!("{}{}", "[".repeat(n), "]".repeat(n));
        assert!(parse(nested(MOST_DEEP).as_bytes()).is_ok());
        for deep in [nested(MOST_DEEP + 1), format!("[NaN, {}]", nested(100_000))] {
            let error = parse(deep.as_bytes()).unwrap_err().to_string();
            assert_eq!(error, "arrays and objects are nested more than 127 deep");
        }
    }
}
