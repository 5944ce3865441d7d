//! `/v1/completions`: a text that is continued, or with a `suffix` filled in between.

use axum::{extract::State, response::Response};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    envelope::Envelope,
    stream::{self, Chunks},
};
use crate::{
    answer::{self, Ask, Detail, End, Ends, Usage, Wanted},
    api::{
        body::{Body, Fields},
        infill::{self, Between},
        structure::{self, ResponseFormat, Structure},
        types::{self, MAX_CHOICES, StreamOptions, Texts},
    },
    app::Shared,
    error::{ApiError, ApiResult},
    models::Model,
};

/// A request for the continuation of a text. Settings of the sampler stand beside these fields.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct Completion {
    /// The model; the first of the server where none is named.
    #[serde(default)]
    pub(crate) model: Option<String>,
    /// A text, its tokens, or several of either. A text with the sentinels of fill-in-the-middle has a
    /// hole where they say.
    #[serde(default)]
    pub(crate) prompt: Value,
    /// What follows the wanted text.
    #[serde(default)]
    pub(crate) suffix: Option<String>,
    /// The most useful tokens: a cap, and no canvas.
    #[serde(default)]
    pub(crate) max_tokens: Option<i64>,
    /// Tokens of the hole before a suffix; chosen where it is not given.
    #[serde(default)]
    pub(crate) hole_length: Option<usize>,
    /// Texts that end the answer.
    #[serde(default)]
    pub(crate) stop: Option<Texts>,
    /// How many answers to each prompt.
    #[serde(default)]
    pub(crate) n: Option<usize>,
    /// Whether the answer begins with its prompt.
    #[serde(default)]
    pub(crate) echo: bool,
    /// Whether to stream.
    #[serde(default)]
    pub(crate) stream: bool,
    /// What a stream tells beside its pieces.
    #[serde(default)]
    pub(crate) stream_options: Option<StreamOptions>,
    /// Stream the whole text after each step, which replaces the last one (Mercury).
    #[serde(default)]
    pub(crate) diffusing: bool,
    /// Stream the canvas and each step of it as events of their own.
    #[serde(default)]
    pub(crate) stream_events: bool,
    /// What the answer must be: text, JSON, or JSON of a schema.
    #[serde(default)]
    pub(crate) response_format: Option<ResponseFormat>,
    /// A JSON schema that the answer must match.
    #[serde(default)]
    pub(crate) json_schema: Option<Value>,
    /// A regular expression that the whole answer must match.
    #[serde(default)]
    pub(crate) regex: Option<String>,
    /// Texts of which the answer must be one.
    #[serde(default)]
    pub(crate) choices: Option<Vec<String>>,
}

impl Fields for Completion {
    const IGNORED: &[&str] = &[
        "frequency_penalty",
        "presence_penalty",
        "logit_bias",
        "user",
        "best_of",
        "min_p",
        "repetition_penalty",
        "repeat_penalty",
        "cache_prompt",
        "id_slot",
        "skip_special_tokens",
        "metadata",
        "store",
        "service_tier",
        "environment",
    ];

    const REFUSED: &[(&str, &str)] = &[(
        "logprobs",
        "a masked-diffusion model has no probability of each token given those before it; \
         `/v1/score` tells how probable an answer is after a prompt",
    )];
}

/// What one prompt of a request is.
enum Prompt {
    Text(String),
    Tokens(Vec<u32>),
}

/// Continues texts.
pub(crate) async fn create(
    State(app): State<Shared>,
    body: Body<Completion>,
) -> ApiResult<Response> {
    let Body { fields, settings, warnings } = body;
    let n = types::choices(fields.n)?;
    let stops = Texts::stops(fields.stop, "stop")?;
    let max_tokens = types::most("max_tokens", fields.max_tokens)?;
    let structure = Structure {
        response_format: fields.response_format,
        json_schema: fields.json_schema,
        regex: fields.regex,
        choices: fields.choices,
    };
    let constraint = structure.constraint(None)?;
    let prompts = prompts(fields.prompt)?;
    if prompts.len() * n > MAX_CHOICES * MAX_CHOICES {
        return Err(ApiError::field("prompt", "these are too many prompts for one request"));
    }
    let model = app.models.get(fields.model.as_deref()).await?;
    let automaton = structure::automaton(&model, constraint).await?;
    let (mut asks, mut echoes) = (Vec::new(), Vec::new());
    for prompt in prompts {
        let (between, tokens) = read(prompt, fields.suffix.as_deref(), &model)?;
        let ask = match between {
            Some(between) => {
                let length = fields.hole_length;
                let (stops, automaton) = (stops.clone(), automaton.clone());
                let hole = infill::Hole { length, most: max_tokens, stops, automaton };
                infill::ask(&app, &model, &between, hole, &settings).await?
            }
            None => {
                let (prompt, settings, is_chat) = (tokens.clone(), &settings, false);
                let (stops, automaton) = (stops.clone(), automaton.clone());
                let wanted = Wanted { prompt, settings, max_tokens, is_chat, stops, automaton };
                Ask::response(&model.codec, wanted)?
            }
        };
        let echo = match fields.echo {
            true => model.codec.tokenizer.decode(&tokens, true)?,
            false => String::new(),
        };
        asks.extend(ask.times(n));
        echoes.extend(std::iter::repeat_n(echo, n));
    }
    let warning = asks.first().and_then(|ask: &Ask| ask.warning(&warnings));
    let detail = Detail::of(fields.stream, fields.diffusing, fields.stream_events);
    let pieces = answer::begin(&app, &model, asks, detail)?;
    let mut reply = Reply::new(&model, warning, echoes);
    reply.envelope.tells_usage = fields.stream_options.unwrap_or_default().include_usage;
    reply.envelope.tells_events = fields.stream_events;
    stream::respond(pieces, reply, fields.stream).await
}

/// The prompts of a request, of any form that OpenAI allows.
fn prompts(value: Value) -> ApiResult<Vec<Prompt>> {
    let wrong =
        || ApiError::field("prompt", "prompt is a text, a list of tokens, or a list of either");
    let tokens = |items: &[Value]| -> ApiResult<Vec<u32>> {
        let id =
            |item: &Value| item.as_u64().and_then(|id| u32::try_from(id).ok()).ok_or_else(wrong);
        items.iter().map(id).collect()
    };
    match value {
        Value::Null => Ok(vec![Prompt::Text(String::new())]),
        Value::String(text) => Ok(vec![Prompt::Text(text)]),
        Value::Array(items) if items.is_empty() => Err(wrong()),
        Value::Array(items) if items[0].is_number() => Ok(vec![Prompt::Tokens(tokens(&items)?)]),
        Value::Array(items) => items
            .into_iter()
            .map(|item| match item {
                Value::String(text) => Ok(Prompt::Text(text)),
                Value::Array(items) => Ok(Prompt::Tokens(tokens(&items)?)),
                _ => Err(wrong()),
            })
            .collect(),
        _ => Err(wrong()),
    }
}

/// A prompt in tokens, or what a hole in it is between.
fn read(
    prompt: Prompt,
    suffix: Option<&str>,
    model: &Model,
) -> ApiResult<(Option<Between>, Vec<u32>)> {
    let codec = &model.codec;
    match (prompt, suffix.filter(|suffix| !suffix.is_empty())) {
        (Prompt::Text(text), Some(suffix)) => Ok((Some(Between::new(text, suffix)), Vec::new())),
        (Prompt::Text(text), None) => match infill::sentinels(&text) {
            Some(between) => Ok((Some(between), Vec::new())),
            None => Ok((None, codec.encode(&text)?)),
        },
        (Prompt::Tokens(tokens), suffix) => {
            tokens.iter().try_for_each(|&id| types::check_token(codec, u64::from(id)))?;
            match suffix {
                Some(suffix) => {
                    let text = codec.tokenizer.decode(&tokens, true)?;
                    Ok((Some(Between::new(text, suffix)), Vec::new()))
                }
                None => Ok((None, tokens)),
            }
        }
    }
}

/// The kind of a response, and of a part of one.
const OBJECT: &str = "text_completion";

/// How texts are continued.
pub(super) struct Reply {
    pub(super) envelope: Envelope,
    /// Whether a choice has its text as a message too, which is where Mistral's clients look.
    pub(super) has_messages: bool,
    /// What comes before each answer.
    echoes: Vec<String>,
}

impl Reply {
    pub(super) fn new(model: &Model, warning: Option<String>, echoes: Vec<String>) -> Self {
        Self { envelope: Envelope::new("cmpl", model, warning), has_messages: false, echoes }
    }

    /// A chunk with one choice.
    fn piece(&self, number: usize, text: &str, reason: Option<&str>) -> Value {
        let mut choice = choice(number, text, reason);
        if self.has_messages {
            choice["delta"] = json!({ "content": text });
        }
        self.envelope.chunk(OBJECT, json!([choice]))
    }
}

fn choice(index: usize, text: &str, reason: Option<&str>) -> Value {
    json!({ "index": index, "text": text, "logprobs": null, "finish_reason": reason })
}

impl Chunks for Reply {
    fn whole(&self, ends: &Ends) -> Value {
        let answers = ends.iter().zip(&self.echoes).enumerate();
        let written = |(index, (end, echo)): (usize, (&End, &String))| {
            let text = format!("{echo}{}", end.text);
            let mut choice = choice(index, &text, Some(types::finish_reason(end)));
            if self.has_messages {
                choice["message"] = json!({ "role": "assistant", "content": text });
            }
            choice
        };
        self.envelope.whole(OBJECT, answers.map(written).collect(), ends)
    }

    fn begin(&mut self, number: usize) -> Vec<Value> {
        let echo = std::mem::take(&mut self.echoes[number]);
        if echo.is_empty() && !self.envelope.has_warning() {
            return Vec::new();
        }
        let first = self.piece(number, &echo, None);
        self.envelope.first(first)
    }

    fn text(&mut self, number: usize, text: String) -> Vec<Value> {
        vec![self.piece(number, &text, None)]
    }

    fn snapshot(&mut self, number: usize, text: String) -> Vec<Value> {
        self.text(number, text)
    }

    fn end(&mut self, number: usize, end: &End) -> Vec<Value> {
        let reason = types::finish_reason(end);
        let mut chunks = vec![self.piece(number, "", Some(reason))];
        if self.envelope.tells_events {
            chunks.push(stream::done(number, end, reason));
        }
        chunks
    }

    fn last(&mut self, usage: &Usage) -> Vec<Value> {
        self.envelope.last(OBJECT, usage)
    }
}
