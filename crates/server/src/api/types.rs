//! Values that fields of several interfaces have.

use std::borrow::Cow;

use llada::Codec;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de::Error as _};
use serde_json::{Value, json};

use crate::{
    answer::{End, Finish, Usage},
    error::{ApiError, ApiResult},
};

/// Most stop strings of a request.
const MAX_STOPS: usize = 16;

/// Most answers to one prompt.
pub(crate) const MAX_CHOICES: usize = 16;

/// One text or several, as `stop` is given.
#[derive(Debug, Clone, Default)]
pub(crate) struct Texts(pub(crate) Vec<String>);

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let wrong = || D::Error::custom("expected a text or a list of texts");
        let text = |value: Value| match value {
            Value::String(text) => Ok(text),
            _ => Err(wrong()),
        };
        match Value::deserialize(deserializer)? {
            Value::Array(items) => items.into_iter().map(text).collect::<Result<_, _>>().map(Self),
            value => text(value).map(|text| Self(vec![text])),
        }
    }
}

impl JsonSchema for Texts {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Texts".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [
            { "type": "string" },
            { "type": "array", "items": { "type": "string" } },
        ] })
    }
}

impl Texts {
    /// The stop strings of a request.
    ///
    /// # Errors
    /// If there are too many.
    pub(crate) fn stops(stop: Option<Self>, name: &str) -> ApiResult<Vec<String>> {
        let stops: Vec<_> =
            stop.unwrap_or_default().0.into_iter().filter(|s| !s.is_empty()).collect();
        match stops.len() > MAX_STOPS {
            true => {
                Err(ApiError::field(name, format!("there are more than {MAX_STOPS} stop strings")))
            }
            false => Ok(stops),
        }
    }
}

/// What a stream tells besides its pieces.
#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
pub(crate) struct StreamOptions {
    /// Whether a last chunk tells how many tokens the answer took.
    #[serde(default)]
    pub(crate) include_usage: bool,
}

/// How many answers are wanted.
///
/// # Errors
/// If it is none, or too many.
pub(crate) fn choices(n: Option<usize>) -> ApiResult<usize> {
    match n.unwrap_or(1) {
        n @ 1..=MAX_CHOICES => Ok(n),
        _ => Err(ApiError::field("n", format!("n is a whole number from 1 to {MAX_CHOICES}"))),
    }
}

/// The most tokens that are wanted, of several names for it.
///
/// # Errors
/// If it is none.
pub(crate) fn most(name: &str, tokens: Option<i64>) -> ApiResult<Option<usize>> {
    match tokens {
        // llama-server's word for no limit.
        None | Some(-1) => Ok(None),
        Some(tokens) => match usize::try_from(tokens) {
            Ok(tokens) if tokens > 0 => Ok(Some(tokens)),
            _ => Err(ApiError::field(name, format!("{name} is {tokens}, which is not 1 or more"))),
        },
    }
}

/// Refuses an id that is no token of a model.
///
/// # Errors
/// If it is none.
pub(crate) fn check_token(codec: &Codec, id: u64) -> ApiResult<()> {
    let vocabulary = codec.config().embedding_size as u64;
    match id < vocabulary {
        true => Ok(()),
        false => {
            let message = format!("the token {id} is not one of the model's {vocabulary}");
            Err(ApiError::field("prompt", message))
        }
    }
}

/// Why an answer of text ends, in OpenAI's words.
pub(crate) fn finish_reason(end: &End) -> &'static str {
    match end.finish {
        Finish::Stop(_) => "stop",
        Finish::Length => "length",
    }
}

/// `usage`, with what only a canvas has beside OpenAI's fields.
pub(crate) fn usage(usage: &Usage) -> Value {
    let Usage { prompt, completion, cached, canvas, nfe, .. } = *usage;
    json!({
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": { "cached_tokens": cached },
        "nfe": nfe,
        "canvas_tokens": canvas,
        "tokens_per_forward": usage.tokens_per_forward(),
    })
}

/// `timings`, in milliseconds.
pub(crate) fn timings(end: &End) -> Value {
    let End { timings, usage, .. } = end;
    let ms = |time: std::time::Duration| time.as_secs_f64() * 1e3;
    json!({
        "queued_ms": ms(timings.queued),
        "first_ms": timings.first.map(ms),
        "total_ms": ms(timings.total),
        "tokens_per_second": usage.completion as f64 / timings.total.as_secs_f64().max(1e-9),
    })
}
