//! `/tokenize`, `/detokenize` and `/apply-template`.

use axum::{Json, extract::State};
use llada::diffusion::trace;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    api::{
        body::{Body, Fields},
        message::{self, ChatMessage},
    },
    app::Shared,
    error::{ApiError, ApiResult},
};

/// A text whose tokens are wanted.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct Tokenize {
    /// The model; the first of the server where none is named.
    #[serde(default)]
    model: Option<String>,
    /// The text.
    content: String,
    /// Whether a token for the beginning of a text comes first.
    #[serde(default)]
    add_special: bool,
    /// Whether special tokens that the text spells are those tokens.
    #[serde(default = "yes")]
    parse_special: bool,
    /// Whether the text of each token is wanted too.
    #[serde(default)]
    with_pieces: bool,
}

fn yes() -> bool {
    true
}

impl Fields for Tokenize {
    const SETTINGS: bool = false;
}

/// The tokens of a text.
pub(crate) async fn tokenize(
    State(app): State<Shared>,
    body: Body<Tokenize>,
) -> ApiResult<Json<Value>> {
    let fields = body.fields;
    let model = app.models.get(fields.model.as_deref()).await?;
    let codec = &model.codec;
    let bos = codec.special.bos.filter(|_| fields.add_special);
    let tokens = match fields.parse_special {
        true => codec.tokenizer.encode(&fields.content)?,
        false => codec.tokenizer.encode_plain(&fields.content)?,
    };
    let tokens = bos.into_iter().chain(tokens);
    let with_piece = |id: u32| {
        let piece: Option<trace::Text> = codec.tokenizer.token_bytes(id).map(Into::into);
        json!({ "id": id, "piece": piece })
    };
    let tokens: Vec<Value> = match fields.with_pieces {
        true => tokens.map(with_piece).collect(),
        false => tokens.map(Value::from).collect(),
    };
    Ok(Json(json!({ "tokens": tokens })))
}

/// Tokens whose text is wanted.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct Detokenize {
    /// The model; the first of the server where none is named.
    #[serde(default)]
    model: Option<String>,
    /// The tokens.
    tokens: Vec<u32>,
}

impl Fields for Detokenize {
    const SETTINGS: bool = false;
}

/// The text of tokens.
pub(crate) async fn detokenize(
    State(app): State<Shared>,
    body: Body<Detokenize>,
) -> ApiResult<Json<Value>> {
    let fields = body.fields;
    let model = app.models.get(fields.model.as_deref()).await?;
    let vocabulary = model.codec.config().vocab_size;
    if let Some(token) = fields.tokens.iter().find(|&&token| token as usize >= vocabulary) {
        let message = format!("token {token} is not one of the {vocabulary} of the model");
        return Err(ApiError::field("tokens", message));
    }
    let content = model.codec.tokenizer.decode(&fields.tokens, false)?;
    Ok(Json(json!({ "content": content })))
}

/// A conversation whose text is wanted.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct Apply {
    /// The model; the first of the server where none is named.
    #[serde(default)]
    model: Option<String>,
    /// The conversation.
    messages: Vec<ChatMessage>,
    /// Whether it ends where the assistant's next message begins.
    #[serde(default = "yes")]
    add_generation_prompt: bool,
}

impl Fields for Apply {
    const IGNORED: &[&str] = &["chat_template_kwargs", "tools"];
    const SETTINGS: bool = false;
}

/// The text of a conversation, as the model's template writes it.
pub(crate) async fn apply_template(
    State(app): State<Shared>,
    body: Body<Apply>,
) -> ApiResult<Json<Value>> {
    let fields = body.fields;
    let messages = message::messages(fields.messages)?;
    let model = app.models.get(fields.model.as_deref()).await?;
    let prompt = model.codec.template.render(&messages, fields.add_generation_prompt);
    Ok(Json(json!({ "prompt": prompt.map_err(ApiError::from)? })))
}
