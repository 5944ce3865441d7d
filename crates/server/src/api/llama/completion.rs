//! `/completion` and `/infill`.

use std::sync::Arc;

use axum::{
    extract::State,
    response::{Response, sse::Event},
};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    answer::{self, Ask, Detail, End, Ends, Finish, Usage, Wanted},
    api::{
        body::{Body, Fields},
        infill::{self, Between},
        openai::stream::{self, Chunks},
        structure::{self, Structure},
        types::{self, Texts},
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
    model: Option<String>,
    /// A text, its tokens, or a list of texts and tokens that follow each other.
    #[serde(default)]
    prompt: Value,
    /// The most useful tokens; -1 is as many as answers usually have.
    #[serde(default)]
    n_predict: Option<i64>,
    /// Another name of `n_predict`.
    #[serde(default)]
    max_tokens: Option<i64>,
    /// Texts that end the answer.
    #[serde(default)]
    stop: Option<Texts>,
    /// Whether to stream.
    #[serde(default)]
    stream: bool,
    /// A JSON schema that the answer must match.
    #[serde(default)]
    json_schema: Option<Value>,
    /// A regular expression that the whole answer must match.
    #[serde(default)]
    regex: Option<String>,
    /// A grammar in GBNF, which is not read: use `json_schema` or `regex`.
    #[serde(default)]
    grammar: Option<String>,
    /// Whether to answer with the tokens too.
    #[serde(default)]
    return_tokens: bool,
}

const IGNORED: &[&str] = &[
    "cache_prompt",
    "id_slot",
    "min_p",
    "typical_p",
    "repeat_penalty",
    "repeat_last_n",
    "presence_penalty",
    "frequency_penalty",
    "dry_multiplier",
    "dry_base",
    "dry_allowed_length",
    "dry_penalty_last_n",
    "dry_sequence_breakers",
    "xtc_probability",
    "xtc_threshold",
    "mirostat",
    "mirostat_tau",
    "mirostat_eta",
    "logit_bias",
    "n_probs",
    "min_keep",
    "t_max_predict_ms",
    "image_data",
    "samplers",
    "n_keep",
    "n_discard",
    "n_indent",
    "ignore_eos",
    "post_sampling_probs",
    "timings_per_token",
    "return_progress",
    "response_fields",
    "lora",
    "dynatemp_range",
    "dynatemp_exponent",
    "penalize_nl",
    "use_default_template",
    "api_key",
];

impl Fields for Completion {
    const IGNORED: &[&str] = IGNORED;
}

/// Continues a text.
pub(crate) async fn create(
    State(app): State<Shared>,
    body: Body<Completion>,
) -> ApiResult<Response> {
    let Body { fields, settings, warnings } = body;
    if fields.grammar.is_some_and(|grammar| !grammar.is_empty()) {
        let message = "grammars in GBNF are not read; use `json_schema` or `regex`";
        return Err(ApiError::field("grammar", message));
    }
    let stops = Texts::stops(fields.stop, "stop")?;
    let max_tokens = types::most("n_predict", fields.n_predict.or(fields.max_tokens))?;
    let Completion { json_schema, regex, .. } = fields;
    let structure = Structure { json_schema, regex, ..Structure::default() };
    let constraint = structure.constraint(None)?;
    let model = app.models.get(fields.model.as_deref()).await?;
    let automaton = structure::automaton(&model, constraint).await?;
    let prompt = tokens(&fields.prompt, &model)?;
    let wanted =
        Wanted { prompt, settings: &settings, max_tokens, is_chat: false, stops, automaton };
    let ask = Ask::response(&model.codec, wanted)?;
    let reply = Reply::new(&model, &ask, ask.warning(&warnings), fields.return_tokens);
    let detail = Detail::of(fields.stream, false, false);
    let pieces = answer::begin(&app, &model, vec![ask], detail)?;
    stream::respond(pieces, reply, fields.stream).await
}

/// A request for the text between two others, with context from other files. Settings of the sampler
/// stand beside these fields.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct Infill {
    /// The model; the first of the server where none is named.
    #[serde(default)]
    model: Option<String>,
    /// What comes before.
    #[serde(default)]
    input_prefix: String,
    /// What comes after.
    #[serde(default)]
    input_suffix: String,
    /// Other files: objects with `filename` and `text`.
    #[serde(default)]
    input_extra: Vec<Extra>,
    /// How the text between begins.
    #[serde(default)]
    prompt: String,
    /// The most tokens between.
    #[serde(default)]
    n_predict: Option<i64>,
    /// Just so many tokens between.
    #[serde(default)]
    hole_length: Option<usize>,
    /// Texts that end what is between.
    #[serde(default)]
    stop: Option<Texts>,
    /// Whether to stream.
    #[serde(default)]
    stream: bool,
}

/// Another file.
#[derive(Debug, Deserialize, JsonSchema)]
struct Extra {
    /// Its name.
    #[serde(default)]
    filename: String,
    /// What it says.
    text: String,
}

impl Fields for Infill {
    const IGNORED: &[&str] = IGNORED;
}

/// Fills in the middle.
pub(crate) async fn infill(State(app): State<Shared>, body: Body<Infill>) -> ApiResult<Response> {
    let Body { fields, settings, warnings } = body;
    let stops = Texts::stops(fields.stop, "stop")?;
    let most = types::most("n_predict", fields.n_predict)?;
    let model = app.models.get(fields.model.as_deref()).await?;
    let context =
        fields.input_extra.iter().map(|Extra { filename, text }| format!("{filename}\n{text}\n"));
    let context: String = context.collect();
    let prefix = format!("{context}{}{}", fields.input_prefix, fields.prompt);
    let hole = infill::Hole { length: fields.hole_length, most, stops, automaton: None };
    let ask =
        infill::ask(&app, &model, &Between::new(prefix, fields.input_suffix), hole, &settings)
            .await?;
    let reply = Reply::new(&model, &ask, ask.warning(&warnings), false);
    let detail = Detail::of(fields.stream, false, false);
    let pieces = answer::begin(&app, &model, vec![ask], detail)?;
    stream::respond(pieces, reply, fields.stream).await
}

/// The tokens of a prompt of any form.
fn tokens(prompt: &Value, model: &Arc<Model>) -> ApiResult<Vec<u32>> {
    let codec = &model.codec;
    let wrong = || ApiError::field("prompt", "prompt is a text, or a list of texts and tokens");
    let part = |part: &Value| match (part, part.as_u64()) {
        (Value::String(text), _) => codec.tokenizer.encode(text).map_err(ApiError::from),
        (_, Some(id)) => types::check_token(codec, id).map(|()| vec![id as u32]),
        _ => Err(wrong()),
    };
    match prompt {
        Value::Null => Ok(codec.encode("")?),
        Value::String(text) => Ok(codec.encode(text)?),
        Value::Array(parts) => Ok(parts.iter().map(part).collect::<Result<Vec<_>, _>>()?.concat()),
        _ => Err(wrong()),
    }
}

/// What a response has.
struct Reply {
    model: String,
    settings: Value,
    warning: Option<String>,
    returns_tokens: bool,
}

impl Reply {
    fn new(model: &Arc<Model>, ask: &Ask, warning: Option<String>, returns_tokens: bool) -> Self {
        let mut settings = serde_json::to_value(&ask.sampler).unwrap_or_default();
        // The sampler of holes takes as many steps as a hole has tokens, and its length from the hole.
        if let Some(settings) = settings.as_object_mut().filter(|_| ask.sampler.steps == usize::MAX)
        {
            settings.remove("steps");
            settings.remove("gen_length");
        }
        Self { model: model.name.clone(), settings, warning, returns_tokens }
    }

    /// The last object, or the only one.
    fn last_object(&self, end: &End, text: &str) -> Value {
        let (kind, word) = match &end.finish {
            Finish::Stop(Some(word)) => ("word", word.as_str()),
            Finish::Stop(None) => ("eos", ""),
            Finish::Length => ("limit", ""),
        };
        let Usage { prompt, completion, cached, nfe, canvas, .. } = end.usage;
        let seconds = end.timings.total.as_secs_f64().max(1e-9);
        let mut whole = json!({
            "index": 0,
            "content": text,
            "tokens": if self.returns_tokens { end.tokens.as_slice() } else { &[] },
            "id_slot": 0,
            "stop": true,
            "model": self.model,
            "tokens_predicted": completion,
            "tokens_evaluated": prompt,
            "tokens_cached": cached,
            "generation_settings": self.settings,
            "truncated": false,
            "stop_type": kind,
            "stopping_word": word,
            "seed": end.seed,
            "nfe": nfe,
            "canvas_tokens": canvas,
            "timings": {
                "prompt_n": prompt - cached,
                "predicted_n": completion,
                "predicted_ms": seconds * 1e3,
                "predicted_per_token_ms": seconds * 1e3 / completion.max(1) as f64,
                "predicted_per_second": completion as f64 / seconds,
            },
        });
        if let Some(warning) = &self.warning {
            whole["warning"] = warning.as_str().into();
        }
        whole
    }
}

impl Chunks for Reply {
    fn whole(&self, ends: &Ends) -> Value {
        self.last_object(&ends.first, &ends.first.text)
    }

    fn text(&mut self, _: usize, text: String) -> Vec<Value> {
        vec![json!({ "index": 0, "content": text, "tokens": [], "stop": false, "id_slot": 0 })]
    }

    fn end(&mut self, _: usize, end: &End) -> Vec<Value> {
        vec![self.last_object(end, "")]
    }

    fn close(&self) -> Option<Event> {
        None
    }
}
