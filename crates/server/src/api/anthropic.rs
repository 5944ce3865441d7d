//! Anthropic's `/v1/messages`.

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response, sse::Event},
};
use llada::chat::Message;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    body::{Body, Fields},
    message::Content,
    openai::stream::{self, Chunks},
    structure::{self, Structure},
    tools::{self, Choice, Function},
    types::{self, Texts},
};
use crate::{
    answer::{self, Ask, Detail, End, Ends, Finish, Wanted},
    app::Shared,
    error::{ApiError, ApiResult},
    guard,
};

/// A request for the next message of a conversation. Settings of the sampler stand beside these fields.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct Messages {
    /// The model; the first of the server where none is named.
    #[serde(default)]
    model: Option<String>,
    /// The conversation.
    messages: Vec<Turn>,
    /// What the model is told before.
    #[serde(default)]
    system: Content,
    /// The most useful tokens of the answer: a cap, and no canvas.
    max_tokens: i64,
    /// Texts that end the answer.
    #[serde(default)]
    stop_sequences: Option<Vec<String>>,
    /// Whether to stream.
    #[serde(default)]
    stream: bool,
    /// Functions that the model may call.
    #[serde(default)]
    tools: Option<Vec<Tool>>,
    /// `{"type": "auto"}`, `any`, `none`, or `tool` with a `name`.
    #[serde(default)]
    tool_choice: Option<Value>,
    /// What the answer must be: its `format` is of the type `json_schema`, and has a `schema`.
    #[serde(default)]
    output_config: Option<Value>,
}

/// A request for the tokens of a conversation.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct Count {
    /// The model; the first of the server where none is named.
    #[serde(default)]
    model: Option<String>,
    /// The conversation.
    messages: Vec<Turn>,
    /// What the model is told before.
    #[serde(default)]
    system: Content,
    /// Functions that the model may call.
    #[serde(default)]
    tools: Option<Vec<Tool>>,
}

/// A message.
#[derive(Debug, Deserialize, JsonSchema)]
struct Turn {
    /// `user` or `assistant`.
    role: String,
    /// A text, or a list of blocks: text, calls of tools, their results.
    content: Value,
}

/// A function that can be called.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
struct Tool {
    /// Its name.
    name: String,
    /// What it does.
    #[serde(default)]
    description: Option<String>,
    /// The JSON schema of its arguments.
    #[serde(default)]
    input_schema: Option<Value>,
}

impl Fields for Messages {
    const IGNORED: &[&str] = &[
        "metadata",
        "service_tier",
        "thinking",
        "container",
        "mcp_servers",
        "context_management",
        "cache_control",
        "diagnostics",
        "inference_geo",
        "speed",
        "user_profile_id",
        "workspace_id",
    ];
}

impl Fields for Count {
    const IGNORED: &[&str] = &[
        "tool_choice",
        "thinking",
        "mcp_servers",
        "context_management",
        "cache_control",
        "output_config",
        "output_format",
        "speed",
        "user_profile_id",
        "workspace_id",
    ];
    const SETTINGS: bool = false;
}

/// An error in Anthropic's form.
pub(crate) struct Refusal(ApiError);

impl From<ApiError> for Refusal {
    fn from(error: ApiError) -> Self {
        Self(error)
    }
}

impl From<llada::Error> for Refusal {
    fn from(error: llada::Error) -> Self {
        Self(error.into())
    }
}

fn refusal(error: &ApiError) -> Value {
    let kind = match (error.status.as_u16(), error.kind()) {
        (413, _) => "request_too_large",
        (504, _) => "timeout_error",
        (_, "server_error") => "api_error",
        (_, "unavailable_error") => "overloaded_error",
        (_, kind) => kind,
    };
    json!({ "type": "error", "error": { "type": kind, "message": error.message } })
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let response = (self.0.status, Json(refusal(&self.0))).into_response();
        self.0.with_headers(response)
    }
}

/// Answers a conversation.
pub(crate) async fn create(
    State(app): State<Shared>,
    body: Result<Body<Messages>, ApiError>,
) -> Result<Response, Refusal> {
    let Body { fields, settings, warnings } = body?;
    let functions = functions(fields.tools)?;
    let tools = match choice(fields.tool_choice.as_ref())? {
        Some(choice) => tools::chosen(functions, choice)?,
        None => None,
    };
    let messages = conversation(fields.system, fields.messages)?;
    let max_tokens = types::most("max_tokens", Some(fields.max_tokens))?;
    let stops = Texts::stops(fields.stop_sequences.map(Texts), "stop_sequences")?;
    let json_schema = schema(fields.output_config)?;
    let constraint =
        Structure { json_schema, ..Structure::default() }.constraint(tools.as_ref())?;
    let model = app.models.get(fields.model.as_deref()).await?;
    let automaton = structure::automaton(&model, constraint).await?;
    let told = tools.as_ref().map_or(&[][..], |(functions, _)| functions);
    let prompt = tools::encode(&model.codec, &messages, told)?;
    let input = prompt.len();
    let settings = &settings;
    let wanted = Wanted { prompt, settings, max_tokens, is_chat: true, stops, automaton };
    let ask = Ask::response(&model.codec, wanted)?;
    let warning = ask.warning(&warnings);
    let detail = Detail::of(fields.stream, false, false);
    let pieces = answer::begin(&app, &model, vec![ask], detail)?;
    let reply = Reply {
        id: format!("msg_{}", guard::new_id()),
        model: model.name.clone(),
        input,
        warning,
        held: tools.map(|_| String::new()),
        is_open: false,
    };
    Ok(stream::respond(pieces, reply, fields.stream).await?)
}

/// Counts the tokens of a conversation.
pub(crate) async fn count_tokens(
    State(app): State<Shared>,
    body: Result<Body<Count>, ApiError>,
) -> Result<Json<Value>, Refusal> {
    let fields = body?.fields;
    let messages = conversation(fields.system, fields.messages)?;
    let model = app.models.get(fields.model.as_deref()).await?;
    let tokens = tools::encode(&model.codec, &messages, &functions(fields.tools)?)?;
    Ok(Json(json!({ "input_tokens": tokens.len() })))
}

fn functions(tools: Option<Vec<Tool>>) -> ApiResult<Vec<Function>> {
    let function = |Tool { name, description, input_schema }| Function {
        name,
        description,
        parameters: input_schema,
    };
    let tools = tools.unwrap_or_default();
    tools::check_count(tools.len())?;
    Ok(tools.into_iter().map(function).collect())
}

/// Which tools are to be called; `None` if none may be.
fn choice(choice: Option<&Value>) -> ApiResult<Option<Choice>> {
    let Some(choice) = choice else { return Ok(Some(Choice::Auto)) };
    match (choice["type"].as_str(), choice["name"].as_str()) {
        (Some("auto"), _) => Ok(Some(Choice::Auto)),
        (Some("any"), _) => Ok(Some(Choice::Required)),
        (Some("none"), _) => Ok(None),
        (Some("tool"), Some(name)) => Ok(Some(Choice::Named(name.into()))),
        _ => {
            let message = "tool_choice.type is one of auto, any, none, tool (with a name)";
            Err(ApiError::field("tool_choice", message))
        }
    }
}

/// The schema that an answer must match; the rest of `output_config` is for other models.
fn schema(output: Option<Value>) -> ApiResult<Option<Value>> {
    let format = output.and_then(|mut output| output.get_mut("format").map(Value::take));
    let Some(mut format) = format.filter(|format| !format.is_null()) else { return Ok(None) };
    let schema = format.get_mut("schema").map(Value::take);
    match (format["type"].as_str(), schema) {
        (Some("json_schema"), Some(schema)) => Ok(Some(schema)),
        _ => {
            let message = "output_config.format is of the type `json_schema` and has a `schema`";
            Err(ApiError::field("output_config.format", message))
        }
    }
}

/// The conversation as templates read it.
fn conversation(system: Content, turns: Vec<Turn>) -> ApiResult<Vec<Message>> {
    if turns.is_empty() {
        return Err(ApiError::field("messages", "there is no message"));
    }
    let system = Some(system.0).filter(|text| !text.is_empty());
    let mut messages: Vec<Message> =
        system.into_iter().map(|text| Message::new("system", text)).collect();
    for (i, Turn { role, content }) in turns.into_iter().enumerate() {
        if !["user", "assistant"].contains(&role.as_str()) {
            let message = format!("the role `{role}` is none of user, assistant");
            return Err(ApiError::field(format!("messages[{i}].role"), message));
        }
        read(&role, content, &mut messages)
            .map_err(|what| ApiError::field(format!("messages[{i}].content"), what))?;
    }
    Ok(messages)
}

/// The messages that one of Anthropic's is: results of tools are messages of their own.
fn read(role: &str, content: Value, messages: &mut Vec<Message>) -> Result<(), String> {
    let blocks = match content {
        Value::String(text) => {
            messages.push(Message::new(role, text));
            return Ok(());
        }
        Value::Array(blocks) => blocks,
        _ => return Err("the content is a text or a list of blocks".into()),
    };
    let (mut texts, mut calls) = (Vec::new(), Vec::new());
    for block in blocks {
        match block["type"].as_str() {
            Some("text") => {
                texts.push(block["text"].as_str().ok_or("a block has no text")?.to_owned())
            }
            Some("tool_use") => calls.push(json!({
                "id": block["id"], "type": "function",
                "function": { "name": block["name"], "arguments": block["input"] },
            })),
            Some("tool_result") => {
                let result = serde_json::from_value::<Content>(block["content"].clone());
                let result = result.map_err(|error| error.to_string())?;
                let mut message = Message::new("tool", result.0);
                message.other.insert("tool_call_id".into(), block["tool_use_id"].clone());
                messages.push(message);
            }
            // What a model thought is not shown to it again.
            Some("thinking" | "redacted_thinking") => {}
            Some(kind) => {
                return Err(format!(
                    "a block is of the type `{kind}`, and this model reads text alone"
                ));
            }
            None => return Err("a block has no type".into()),
        }
    }
    if !texts.is_empty() || !calls.is_empty() {
        let mut message = Message::new(role, texts.join("\n"));
        if !calls.is_empty() {
            message.other.insert("tool_calls".into(), calls.into());
        }
        messages.push(message);
    }
    Ok(())
}

/// What all events of a response have.
struct Reply {
    id: String,
    model: String,
    input: usize,
    warning: Option<String>,
    /// With tools, the text that may turn out to be calls.
    held: Option<String>,
    /// Whether a block of text has begun.
    is_open: bool,
}

impl Reply {
    /// The text of an answer, and the blocks that are calls of tools.
    fn calls<'a>(&self, end: &'a End) -> (&'a str, Vec<Value>) {
        let (text, calls) = match self.held {
            Some(_) => tools::calls(&end.text),
            None => (end.text.as_str(), Vec::new()),
        };
        let block = |call: tools::Call| {
            let input: Value = serde_json::from_str(&call.arguments).unwrap_or_default();
            let id = format!("toolu_{}", guard::new_id());
            json!({ "type": "tool_use", "id": id, "name": call.name, "input": input })
        };
        (text, calls.into_iter().map(block).collect())
    }

    fn message(&self, content: Value, stop: (Value, Value), output: usize, cached: usize) -> Value {
        let mut message = json!({
            "id": self.id, "type": "message", "role": "assistant", "model": self.model,
            "content": content, "stop_reason": stop.0, "stop_sequence": stop.1,
            "usage": {
                "input_tokens": self.input, "output_tokens": output, "cache_read_input_tokens": cached,
            },
        });
        if let Some(warning) = &self.warning {
            message["warning"] = warning.as_str().into();
        }
        message
    }

    /// A piece of the block of text.
    fn piece(&mut self, text: &str) -> Vec<Value> {
        let mut events = Vec::new();
        if !std::mem::replace(&mut self.is_open, true) {
            events.push(json!({
                "type": "content_block_start", "index": 0, "content_block": { "type": "text", "text": "" },
            }));
        }
        let delta = json!({ "type": "text_delta", "text": text });
        events.push(json!({ "type": "content_block_delta", "index": 0, "delta": delta }));
        events
    }
}

/// Why an answer ends, in Anthropic's words, and the stop string that ended it.
fn stop(end: &End, is_call: bool) -> (Value, Value) {
    match (&end.finish, is_call) {
        (_, true) => ("tool_use".into(), Value::Null),
        (Finish::Stop(Some(stop)), _) => ("stop_sequence".into(), stop.as_str().into()),
        (Finish::Stop(None), _) => ("end_turn".into(), Value::Null),
        (Finish::Length, _) => ("max_tokens".into(), Value::Null),
    }
}

impl Chunks for Reply {
    fn whole(&self, ends: &Ends) -> Value {
        let end = &ends.first;
        let (text, calls) = self.calls(end);
        let stop = stop(end, !calls.is_empty());
        let has_text = calls.is_empty() || !text.is_empty();
        let text = has_text.then(|| json!({ "type": "text", "text": text }));
        let content: Vec<Value> = text.into_iter().chain(calls).collect();
        self.message(content.into(), stop, end.usage.completion, end.usage.cached)
    }

    fn begin(&mut self, _: usize) -> Vec<Value> {
        let message = self.message(json!([]), (Value::Null, Value::Null), 0, 0);
        vec![json!({ "type": "message_start", "message": message }), json!({ "type": "ping" })]
    }

    fn text(&mut self, _: usize, text: String) -> Vec<Value> {
        let text = match &mut self.held {
            None => text,
            Some(held) => tools::released(held, &text),
        };
        if text.is_empty() { Vec::new() } else { self.piece(&text) }
    }

    fn end(&mut self, _: usize, end: &End) -> Vec<Value> {
        let (_, calls) = self.calls(end);
        let stop = stop(end, !calls.is_empty());
        let held = self.held.as_mut().map(std::mem::take).unwrap_or_default();
        let mut events = Vec::new();
        // A call that was cut off is text; and an answer has a block at least.
        let has_rest = calls.is_empty() && (!held.is_empty() || !self.is_open);
        if has_rest {
            events.extend(self.piece(&held));
        }
        if self.is_open {
            events.push(json!({ "type": "content_block_stop", "index": 0 }));
        }
        for (index, mut call) in (usize::from(self.is_open)..).zip(calls) {
            let input = std::mem::replace(&mut call["input"], json!({})).to_string();
            let delta = json!({ "type": "input_json_delta", "partial_json": input });
            events.extend([
                json!({ "type": "content_block_start", "index": index, "content_block": call }),
                json!({ "type": "content_block_delta", "index": index, "delta": delta }),
                json!({ "type": "content_block_stop", "index": index }),
            ]);
        }
        events.push(json!({
            "type": "message_delta",
            "delta": { "stop_reason": stop.0, "stop_sequence": stop.1 },
            "usage": {
                "input_tokens": self.input, "output_tokens": end.usage.completion,
                "cache_read_input_tokens": end.usage.cached,
            },
        }));
        events.push(json!({ "type": "message_stop" }));
        events
    }

    fn event(&self, chunk: &Value) -> Event {
        let name = chunk["type"].as_str().unwrap_or_default();
        Event::default().event(name).data(chunk.to_string())
    }

    fn close(&self) -> Option<Event> {
        None
    }

    fn error(&self, error: &ApiError) -> Event {
        Event::default().event("error").data(refusal(error).to_string())
    }
}
