//! Settings as an object of JSON or a table of TOML, strictly: a key is the name of a setting.

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error, MapAccess, Visitor},
};
use serde_json::{Map, Value};

use super::Settings;
use crate::diffusion::{SamplerError, Spelling};

impl Settings {
    /// Makes the setting `name` from a value of JSON: `0.5` and `"0.5"` are the same, and `null`
    /// leaves it open.
    ///
    /// # Errors
    /// As [`set`](Self::set).
    pub fn set_value(&mut self, name: &str, value: &Value) -> Result<(), SamplerError> {
        match value {
            Value::Null => self.set(name, super::OPEN),
            Value::String(text) => self.set(name, text),
            other => self.set(name, &other.to_string()),
        }
    }

    /// The settings that are made, as an object of JSON.
    pub fn to_json(&self) -> Map<String, Value> {
        let value = |text: String| serde_json::from_str(&text).unwrap_or(Value::String(text));
        self.list().into_iter().map(|(name, text)| (name.to_owned(), value(text))).collect()
    }
}

impl Serialize for Settings {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_json().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Settings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Object)
    }
}

/// Reads an object.
struct Object;

impl<'de> Visitor<'de> for Object {
    type Value = Settings;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("settings of the sampler")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Settings, A::Error> {
        let mut map = map;
        let mut settings = Settings::default();
        while let Some((name, value)) = map.next_entry::<String, Value>()? {
            settings.set_value(&name, &value).map_err(|error| A::Error::custom(told(&error)))?;
        }
        Ok(settings)
    }
}

/// An error in one line: a range says what to do, of names those that exist are told.
fn told(error: &SamplerError) -> String {
    match (error, error.hint_for(Spelling::Key)) {
        (SamplerError::Unknown { .. }, Some(hint)) => format!("{error}; {hint}"),
        _ => error.to_string(),
    }
}
