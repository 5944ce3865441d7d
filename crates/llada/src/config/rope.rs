//! Rotary positions: one base for every layer and every dimension of a head, and no scaling.
//!
//! `transformers` writes the base as `rope_theta`, from version 5 on inside of `rope_parameters`,
//! which may hold one set for each kind of layer; scaling stands there too, or in `rope_scaling`.

use serde_json::{Map, Value};

use super::{ConfigError, Result, keys::is_nothing, wrong};

/// The base of the angles.
///
/// # Errors
/// When it is nowhere, stands there twice with two values, or anything is scaled.
pub(super) fn theta(config: &Map<String, Value>) -> Result<f64> {
    let mut angles = Angles { config, theta: None };
    if let Some(value) = config.get("rope_theta").filter(|value| !value.is_null()) {
        angles.read_theta("rope_theta", value)?;
    }
    for key in ["rope_parameters", "rope_scaling"] {
        if let Some(value) = config.get(key) {
            angles.read_settings(key, value)?;
        }
    }
    angles.theta.map(|(_, theta)| theta).ok_or(ConfigError::Missing("rope_theta"))
}

/// Whether one of the keys above, at `path` within another object, says what the model has.
///
/// # Errors
/// When it is another base, or anything is scaled.
pub(super) fn agrees(
    config: &Map<String, Value>,
    theta: f64,
    path: &str,
    value: &Value,
) -> Result<()> {
    let mut angles = Angles { config, theta: Some(("rope_theta".into(), theta)) };
    match path.ends_with("rope_theta") {
        true if value.is_null() => Ok(()),
        true => angles.read_theta(path, value),
        false => angles.read_settings(path, value),
    }
}

/// What was read so far.
struct Angles<'a> {
    config: &'a Map<String, Value>,
    /// The base, and the key that gave it.
    theta: Option<(String, f64)>,
}

impl Angles<'_> {
    fn read_settings(&mut self, path: &str, value: &Value) -> Result<()> {
        match value {
            Value::Object(settings) => self.read(path, settings),
            Value::Null => Ok(()),
            other => Err(ConfigError::not_computed(path, other)),
        }
    }

    /// Reads one set of settings, or one for each kind of layer.
    fn read(&mut self, path: &str, settings: &Map<String, Value>) -> Result<()> {
        for (key, value) in settings {
            let path = format!("{path}.{key}");
            let is_plain = match (key.as_str(), value) {
                ("rope_theta", value) if !value.is_null() => {
                    self.read_theta(&path, value)?;
                    true
                }
                (_, Value::Object(of_layers)) => {
                    self.read(&path, of_layers)?;
                    true
                }
                // Layers without positions.
                (key, Value::Null) => !self.is_layer_type(key),
                ("rope_type" | "type", Value::String(kind)) => {
                    let by_one = settings.get("factor").and_then(Value::as_f64) == Some(1.0);
                    kind == "default" || (by_one && ["linear", "dynamic"].contains(&kind.as_str()))
                }
                (key, value) if key.starts_with("original_max") => {
                    is_longest_sequence(self.config, value)
                }
                (_, value) => is_nothing(value) || value.as_f64() == Some(1.0),
            };
            if !is_plain {
                return Err(ConfigError::not_computed(path, value));
            }
        }
        Ok(())
    }

    fn read_theta(&mut self, path: &str, value: &Value) -> Result<()> {
        let theta = value.as_f64().ok_or_else(|| wrong(path, value, "a number"))?;
        match &self.theta {
            Some((first, other)) if *other != theta => {
                Err(wrong(path, value, format!("`{other}`, which is `{first}`")))
            }
            Some(_) => Ok(()),
            None => {
                self.theta = Some((path.to_owned(), theta));
                Ok(())
            }
        }
    }

    fn is_layer_type(&self, key: &str) -> bool {
        let listed = self.config.get("layer_types").and_then(Value::as_array);
        key.ends_with("_attention") || listed.is_some_and(|types| types.iter().any(|t| t == key))
    }
}

/// Whether a length before any scaling is the length itself.
pub(super) fn is_longest_sequence(config: &Map<String, Value>, value: &Value) -> bool {
    let lengths = ["max_position_embeddings", "max_sequence_length"].map(|key| config.get(key));
    lengths.contains(&Some(value))
}
