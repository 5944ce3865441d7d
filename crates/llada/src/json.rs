//! JSON as Python writes it: numbers that are none (`NaN`, `Infinity`) are null.

use serde_json::{Result, Value};

/// Names that Python gives to numbers that JSON has none for.
const NO_NUMBERS: [&[u8]; 3] = [b"NaN", b"-Infinity", b"Infinity"];

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

/// Parses a text. `NaN`, `Infinity` and `-Infinity` outside of strings, as Python writes numbers
/// that are none, are read as null.
///
/// # Errors
/// When it is not JSON otherwise.
pub fn parse(text: &[u8]) -> Result<Value> {
    match serde_json::from_slice(text) {
        Ok(value) => Ok(value),
        // Texts without such numbers, nearly all of them, are read once and not copied.
        Err(error) => match without_nan(text) {
            Some(text) => serde_json::from_slice(&text),
            None => Err(error),
        },
    }
}

/// The text with null in the place of such numbers, where there is one.
fn without_nan(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() + 64);
    let (mut rest, mut in_string, mut found) = (text, false, false);
    while let Some((&byte, after)) = rest.split_first() {
        let name = NO_NUMBERS.iter().find(|name| !in_string && rest.starts_with(name));
        if let Some(name) = name {
            out.extend(b"null");
            rest = &rest[name.len()..];
            found = true;
            continue;
        }
        out.push(byte);
        rest = after;
        match byte {
            b'"' => in_string = !in_string,
            b'\\' if in_string => {
                // What is escaped ends no string.
                if let Some((&escaped, after)) = rest.split_first() {
                    out.push(escaped);
                    rest = after;
                }
            }
            _ => {}
        }
    }
    found.then_some(out)
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
        for wrong in [&b"{"[..], b"nan", b"{\"a\": NaNa}", b"{\"a\": Inf}", b"{\"a\": \"NaN", b""] {
            assert!(parse(wrong).is_err(), "{}", String::from_utf8_lossy(wrong));
        }
    }
}
