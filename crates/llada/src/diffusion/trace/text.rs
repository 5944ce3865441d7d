//! The text of one token, which may be a part of a character.

use serde::{Deserialize, Serialize};

/// Longest text of a token that is read, in bytes.
pub(super) const MAX_TEXT: usize = 1024;

/// The text of a token, in bytes: those of several tokens together may be a character of which each
/// holds a part. In a trace it is a string, or a list of bytes where it is not UTF-8.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Form", into = "Form")]
pub struct Text(Vec<u8>);

/// As it is written.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Form {
    Whole(String),
    Bytes(Vec<u8>),
}

impl Text {
    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl From<Vec<u8>> for Text {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl From<Form> for Text {
    fn from(form: Form) -> Self {
        match form {
            Form::Whole(text) => Self(text.into_bytes()),
            Form::Bytes(bytes) => Self(bytes),
        }
    }
}

impl From<Text> for Form {
    fn from(text: Text) -> Self {
        match String::from_utf8(text.0) {
            Ok(text) => Self::Whole(text),
            Err(error) => Self::Bytes(error.into_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_characters_are_lists_of_bytes() {
        for (bytes, json) in [
            ("Größe 王".as_bytes(), "\"Größe 王\""),
            (&"王".as_bytes()[..2], "[231,142]"),
            (b"a\xc3", "[97,195]"),
            (b"", "\"\""),
        ] {
            let text = Text::from(bytes.to_vec());
            assert_eq!(serde_json::to_string(&text).unwrap(), json);
            assert_eq!(serde_json::from_str::<Text>(json).unwrap(), text);
        }
        for wrong in ["7", "null", "[256]", "[-1]", "{}", "[\"a\"]"] {
            assert!(serde_json::from_str::<Text>(wrong).is_err(), "{wrong}");
        }
    }
}
