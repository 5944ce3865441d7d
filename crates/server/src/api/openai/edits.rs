//! What editors ask, by Mercury's names: `/v1/fim/completions` (Mistral's too), `/v1/edit/completions` and
//! `/v1/apply/completions`.

use axum::{extract::State, response::Response};
use llada::{chat::Message, constraint::Constraint};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{chat, completions, stream};
use crate::{
    answer::{self, Ask, Detail, Wanted},
    api::{
        body::{Body, Fields},
        infill::{self, Between},
        message::{self, ChatMessage},
        structure,
        types::{self, StreamOptions, Texts},
    },
    app::Shared,
    error::{ApiError, ApiResult},
};

/// A request for the text between two others. Settings of the sampler stand beside these fields.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct Fim {
    /// The model; the first of the server where none is named.
    #[serde(default)]
    model: Option<String>,
    /// What comes before.
    prompt: String,
    /// What comes after.
    #[serde(default)]
    suffix: Option<String>,
    /// The most tokens between.
    #[serde(default)]
    max_tokens: Option<i64>,
    /// Just so many tokens between.
    #[serde(default)]
    hole_length: Option<usize>,
    /// Texts that end what is between.
    #[serde(default)]
    stop: Option<Texts>,
    /// Whether to stream.
    #[serde(default)]
    stream: bool,
    /// What a stream tells beside its pieces.
    #[serde(default)]
    stream_options: Option<StreamOptions>,
    /// Stream the whole text after each step, which replaces the last one.
    #[serde(default)]
    diffusing: bool,
    /// Stream the canvas and each step of it as events of their own.
    #[serde(default)]
    stream_events: bool,
}

impl Fields for Fim {
    const IGNORED: &[&str] = &[
        "presence_penalty",
        "frequency_penalty",
        "min_tokens",
        "user",
        "metadata",
        "prompt_cache_key",
    ];
}

/// Fills in the middle.
pub(crate) async fn fim(State(app): State<Shared>, body: Body<Fim>) -> ApiResult<Response> {
    let Body { fields, settings, warnings } = body;
    let stops = Texts::stops(fields.stop, "stop")?;
    let most = types::most("max_tokens", fields.max_tokens)?;
    let model = app.models.get(fields.model.as_deref()).await?;
    let ask = match fields.suffix.filter(|suffix| !suffix.is_empty()) {
        Some(suffix) => {
            let hole = infill::Hole { length: fields.hole_length, most, stops, automaton: None };
            infill::ask(&app, &model, &Between::new(fields.prompt, suffix), hole, &settings).await?
        }
        // Nothing follows: a continuation.
        None => {
            let (prompt, settings) = (model.codec.encode(&fields.prompt)?, &settings);
            let (max_tokens, is_chat, automaton) = (most, false, None);
            let wanted = Wanted { prompt, settings, max_tokens, is_chat, stops, automaton };
            Ask::response(&model.codec, wanted)?
        }
    };
    let warning = ask.warning(&warnings);
    let detail = Detail::of(fields.stream, fields.diffusing, fields.stream_events);
    let pieces = answer::begin(&app, &model, vec![ask], detail)?;
    let mut reply = completions::Reply::new(&model, warning, vec![String::new()]);
    reply.envelope.tells_usage = fields.stream_options.unwrap_or_default().include_usage;
    reply.envelope.tells_events = fields.stream_events;
    reply.has_messages = true;
    stream::respond(pieces, reply, fields.stream).await
}

/// A request for an edit, in one message of the user.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct Edit {
    /// The model; the first of the server where none is named.
    #[serde(default)]
    model: Option<String>,
    /// One message of the user.
    messages: Vec<ChatMessage>,
    /// The most useful tokens of the answer.
    #[serde(default)]
    max_tokens: Option<i64>,
    /// Texts that end the answer.
    #[serde(default)]
    stop: Option<Texts>,
    /// Whether to stream.
    #[serde(default)]
    stream: bool,
    /// What a stream tells beside its pieces.
    #[serde(default)]
    stream_options: Option<StreamOptions>,
}

impl Fields for Edit {
    const IGNORED: &[&str] =
        &["presence_penalty", "frequency_penalty", "user", "metadata", "nextEdit"];
}

/// What a model is told that is to rewrite a region.
const EDIT: &str = "You edit code. The user shows code that was recently viewed, the current file with the \
    region to edit between <|code_to_edit|> and <|/code_to_edit|> and the place of the cursor, and the \
    recent edits. Answer with the new text of that region in a fenced block, and nothing else.";

/// What a model is told that is to merge a snippet.
const APPLY: &str = "You merge edits into code. The user shows a file between <|original_code|> and \
    <|/original_code|> and a snippet between <|update_snippet|> and <|/update_snippet|>, which leaves out what \
    stays. Answer with the whole new file in a fenced block, and nothing else.";

/// Rewrites the region around the cursor.
pub(crate) async fn edit(State(app): State<Shared>, body: Body<Edit>) -> ApiResult<Response> {
    rewrite(&app, body, EDIT, "<|code_to_edit|>").await
}

/// Merges a snippet into a file.
pub(crate) async fn apply(State(app): State<Shared>, body: Body<Edit>) -> ApiResult<Response> {
    rewrite(&app, body, APPLY, "<|original_code|>").await
}

/// Answers with a fenced block.
async fn rewrite(app: &Shared, body: Body<Edit>, told: &str, mark: &str) -> ApiResult<Response> {
    let Body { fields, settings, warnings } = body;
    let messages = message::messages(fields.messages)?;
    let [Message { role, content, .. }] = messages.as_slice() else {
        return Err(ApiError::field("messages", "there must be one message, of the user"));
    };
    if role != "user" || !content.contains(mark) {
        let message =
            format!("the message must be the user's and have a part between `{mark}` and its end");
        return Err(ApiError::field("messages", message));
    }
    let max_tokens = types::most("max_tokens", fields.max_tokens)?;
    let stops = Texts::stops(fields.stop, "stop")?;
    let model = app.models.get(fields.model.as_deref()).await?;
    let fenced = Constraint::Regex("```[a-z]*\\n(?s:.*)\\n```".into());
    let automaton = structure::automaton(&model, Some(("messages", fenced))).await?;
    let messages = [Message::new("system", told), messages[0].clone()];
    let (prompt, settings) = (model.codec.encode_chat(&messages)?, &settings);
    let wanted = Wanted { prompt, settings, max_tokens, is_chat: true, stops, automaton };
    let ask = Ask::response(&model.codec, wanted)?;
    let warning = ask.warning(&warnings);
    let detail = Detail::of(fields.stream, false, false);
    let pieces = answer::begin(app, &model, vec![ask], detail)?;
    let mut reply = chat::Reply::new("edit", &model, warning);
    reply.envelope.tells_usage = fields.stream_options.unwrap_or_default().include_usage;
    stream::respond(pieces, reply, fields.stream).await
}
