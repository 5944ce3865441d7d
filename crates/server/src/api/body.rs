//! Bodies of requests: JSON with the fields of an endpoint, and any setting of the sampler beside them.

use std::{
    any::TypeId,
    collections::{HashMap, HashSet},
    sync::{Arc, LazyLock, Mutex, PoisonError},
};

use axum::{
    body::Bytes,
    extract::{FromRequest, Request},
    http::StatusCode,
};
use llada::diffusion::Settings;
use schemars::{JsonSchema, SchemaGenerator};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::{
    app::Shared,
    error::{ApiError, ApiResult},
};

/// The fields of an endpoint.
pub(crate) trait Fields: DeserializeOwned + JsonSchema + Send + 'static {
    /// Fields of the interface that mean nothing here, with the value that asks for nothing: another one is
    /// accepted with a warning.
    const IGNORED: &[&str] = &[];

    /// Fields of the interface that cannot be had, with what can be had instead.
    const REFUSED: &[(&str, &str)] = &[];

    /// Whether settings of the sampler stand beside them.
    const SETTINGS: bool = true;
}

/// The body of a request, read.
#[derive(Debug)]
pub(crate) struct Body<F> {
    pub(crate) fields: F,
    pub(crate) settings: Settings,
    /// What was accepted and has no effect.
    pub(crate) warnings: Vec<String>,
}

impl<F: Fields> FromRequest<Shared> for Body<F> {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &Shared) -> ApiResult<Self> {
        let read = Bytes::from_request(request, app);
        let bytes = match tokio::time::timeout(app.options.client_timeout, read).await {
            Ok(bytes) => bytes.map_err(|error| match error.status() {
                StatusCode::PAYLOAD_TOO_LARGE => {
                    let most = app.options.max_body;
                    let message = format!("the body is longer than {most} bytes");
                    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, message)
                }
                status => ApiError::new(status, "the body cannot be read"),
            })?,
            Err(_) => {
                let message = "the body did not come in time";
                return Err(ApiError::new(StatusCode::REQUEST_TIMEOUT, message));
            }
        };
        Self::parse(&bytes)
    }
}

impl<F: Fields> Body<F> {
    /// Reads a body.
    ///
    /// # Errors
    /// If it is no such object, or a field has a value that it cannot have.
    pub(crate) fn parse(bytes: &[u8]) -> ApiResult<Self> {
        let object: Map<String, Value> = serde_json::from_slice(bytes).map_err(|error| {
            ApiError::bad(format!("the body is no JSON object: {error}")).coded("invalid_json")
        })?;
        let names = names::<F>();
        let (mut own, mut settings, mut warnings) = (Map::new(), Settings::default(), Vec::new());
        for (name, value) in object {
            // `null` is what clients write for what they leave out, be it known here or not.
            if value.is_null() {
                continue;
            }
            let refused = F::REFUSED.iter().find(|(refused, _)| *refused == name);
            if names.contains(&name) {
                own.insert(name, whole(value));
            } else if let Some((_, why)) = refused {
                if asks_for_something(&value) {
                    return Err(ApiError::field(&name, *why).coded("unsupported_parameter"));
                }
            } else if F::IGNORED.contains(&name.as_str()) {
                if asks_for_something(&value) {
                    warnings.push(format!("`{name}` has no effect here"));
                }
            } else if F::SETTINGS && name == "random_seed" {
                // Mistral's name for it.
                set(&mut settings, "seed", &value)?;
            } else if F::SETTINGS && Settings::names().any(|setting| setting == name) {
                set(&mut settings, &name, &value)?;
            } else {
                let error = ApiError::field(&name, unknown(&name, &names, F::SETTINGS));
                return Err(error.coded("unknown_parameter"));
            }
        }
        let fields = serde_path_to_error::deserialize(Value::Object(own)).map_err(|error| {
            let path = error.path().to_string();
            let message = plain(&error.into_inner().to_string());
            match path.as_str() {
                "." => ApiError { param: missing(&message), ..ApiError::bad(message) },
                path => ApiError::field(path, format!("{path}: {message}")),
            }
        })?;
        Ok(Self { fields, settings, warnings })
    }
}

/// Whether a value of a field without meaning asks for anything.
fn asks_for_something(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !["", "auto", "none", "default"].contains(&text.as_str()),
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
        Value::Bool(true) => true,
    }
}

/// Makes a setting. What clients send to say that nothing is cut off is no setting.
fn set(settings: &mut Settings, name: &str, value: &Value) -> ApiResult<()> {
    let number = value.as_f64();
    match (name, number) {
        ("top_p", Some(1.0)) => return Ok(()),
        ("top_k", Some(k)) if k <= 0.0 => return Ok(()),
        // llama-server's word for a random seed.
        ("seed", Some(seed)) if seed < 0.0 => return Ok(()),
        _ => {}
    }
    settings.set_value(name, &whole(value.clone())).map_err(|error| {
        let error = ApiError::sampler(&error);
        ApiError { param: Some(name.into()), ..error }
    })
}

/// A whole number without a point, where some clients write `8.0`.
fn whole(value: Value) -> Value {
    let number = value.as_f64().filter(|number| number.fract() == 0.0 && number.abs() < 1e15);
    match number {
        Some(number) if value.is_f64() => Value::from(number as i64),
        _ => value,
    }
}

/// What is said of a field that does not exist.
fn unknown(name: &str, names: &HashSet<String>, has_settings: bool) -> String {
    let settings = Settings::names().filter(|_| has_settings).map(str::to_owned);
    let mut known: Vec<String> = names.iter().cloned().chain(settings).collect();
    known.sort_unstable();
    format!("there is no field `{name}`; there are: {}", known.join(", "))
}

/// An error of serde's without the names of Rust's types.
fn plain(message: &str) -> String {
    let Some((found, expected)) = message.split_once(", expected ") else { return message.into() };
    let found = found.strip_prefix("invalid type: ").or(found.strip_prefix("invalid value: "));
    let expected = match expected {
        "usize" | "u64" | "u32" | "u16" | "u8" => "a whole number that is not negative",
        "isize" | "i64" | "i32" => "a whole number",
        "f64" | "f32" => "a number",
        "a boolean" => "true or false",
        "a sequence" => "an array",
        "a map" => "an object",
        other if other.starts_with("struct ") => "an object",
        other => other,
    };
    let found = match found {
        Some("map") => "an object",
        Some("sequence") => "an array",
        Some("null") => "null",
        Some(found) => found,
        None => return message.into(),
    };
    format!("it is {found}, and must be {expected}")
}

/// The field that an error of serde's says is missing.
fn missing(message: &str) -> Option<String> {
    let name = message.strip_prefix("missing field `")?;
    name.split('`').next().map(str::to_owned)
}

/// The names of the fields, found once for each endpoint.
fn names<F: Fields>() -> Arc<HashSet<String>> {
    static NAMES: LazyLock<Mutex<HashMap<TypeId, Arc<HashSet<String>>>>> =
        LazyLock::new(Mutex::default);
    let mut all = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    let names = all.entry(TypeId::of::<F>()).or_insert_with(|| {
        let schema = SchemaGenerator::default().into_root_schema_for::<F>();
        let fields = schema.get("properties").and_then(Value::as_object);
        Arc::new(fields.into_iter().flat_map(Map::keys).cloned().collect())
    });
    Arc::clone(names)
}
