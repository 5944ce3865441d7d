//! `/v1/chat/completions`.

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
        message::{self, ChatMessage},
        structure::{self, ResponseFormat, Structure},
        tools::{self, Call, ToolSpec},
        types::{self, StreamOptions, Texts},
    },
    app::Shared,
    error::ApiResult,
    guard,
    models::Model,
};

/// A request for the next message of a conversation. Settings of the sampler stand beside these fields.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct Chat {
    /// The model; the first of the server where none is named.
    #[serde(default)]
    pub(crate) model: Option<String>,
    /// The conversation.
    pub(crate) messages: Vec<ChatMessage>,
    /// The most useful tokens of the answer: a cap, and no canvas.
    #[serde(default)]
    pub(crate) max_tokens: Option<i64>,
    /// The same under its newer name.
    #[serde(default)]
    pub(crate) max_completion_tokens: Option<i64>,
    /// Texts that end the answer.
    #[serde(default)]
    pub(crate) stop: Option<Texts>,
    /// How many answers.
    #[serde(default)]
    pub(crate) n: Option<usize>,
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
    /// Functions that the model may call.
    #[serde(default)]
    pub(crate) tools: Option<Vec<ToolSpec>>,
    /// `auto`, `none`, `required`, or an object that names a function.
    #[serde(default)]
    pub(crate) tool_choice: Option<Value>,
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

impl Fields for Chat {
    const IGNORED: &[&str] = &[
        "frequency_penalty",
        "presence_penalty",
        "logit_bias",
        "logprobs",
        "top_logprobs",
        "user",
        "store",
        "metadata",
        "service_tier",
        "parallel_tool_calls",
        "reasoning_effort",
        "reasoning_summary",
        "reasoning_summary_wait",
        "realtime",
        "verbosity",
        "modalities",
        "audio",
        "prediction",
        "prompt_cache_key",
        "prompt_cache_retention",
        "safety_identifier",
        "web_search_options",
        "min_p",
        "repetition_penalty",
        "repeat_penalty",
        "cache_prompt",
        "id_slot",
        "functions",
        "function_call",
        "timings_per_token",
        "return_progress",
        "reasoning_format",
        "chat_template_kwargs",
        "mirostat",
        "typical_p",
        "samplers",
        "prompt_cache_options",
        "moderation",
        "thinking",
        "safe_prompt",
        "prompt_mode",
        "guardrails",
        "min_tokens",
        "prompt_logprobs",
        "top_prompt_logprobs",
        "nextEdit",
    ];
}

/// Answers a conversation.
pub(crate) async fn create(State(app): State<Shared>, body: Body<Chat>) -> ApiResult<Response> {
    let Body { fields: chat, settings, warnings } = body;
    let n = types::choices(chat.n)?;
    let tools = tools::read(chat.tools, chat.tool_choice.as_ref())?;
    let structure = Structure {
        response_format: chat.response_format,
        json_schema: chat.json_schema,
        regex: chat.regex,
        choices: chat.choices,
    };
    let constraint = structure.constraint(tools.as_ref())?;
    let messages = message::messages(chat.messages)?;
    let stops = Texts::stops(chat.stop, "stop")?;
    let max_tokens = match chat.max_completion_tokens {
        Some(most) => types::most("max_completion_tokens", Some(most))?,
        None => types::most("max_tokens", chat.max_tokens)?,
    };
    let model = app.models.get(chat.model.as_deref()).await?;
    let automaton = structure::automaton(&model, constraint).await?;
    let functions = tools.as_ref().map_or(&[][..], |(functions, _)| functions);
    let prompt = tools::encode(&model.codec, &messages, functions)?;
    let settings = &settings;
    let wanted = Wanted { prompt, settings, max_tokens, is_chat: true, stops, automaton };
    let ask = Ask::response(&model.codec, wanted)?;
    let warning = ask.warning(&warnings);
    let asks = ask.times(n).collect();
    let detail = Detail::of(chat.stream, chat.diffusing, chat.stream_events);
    let pieces = answer::begin(&app, &model, asks, detail)?;
    let mut reply = Reply::new("chatcmpl", &model, warning);
    reply.envelope.tells_usage = chat.stream_options.unwrap_or_default().include_usage;
    reply.envelope.tells_events = chat.stream_events;
    reply.held = tools.is_some().then(|| vec![String::new(); n]);
    stream::respond(pieces, reply, chat.stream).await
}

/// The kind of a response, and of a part of one.
const WHOLE: &str = "chat.completion";
const CHUNK: &str = "chat.completion.chunk";

/// How conversations are answered.
pub(super) struct Reply {
    pub(super) envelope: Envelope,
    /// With tools: of each answer the text that may turn out to be calls.
    held: Option<Vec<String>>,
}

/// Why an answer ends, in OpenAI's words.
fn finish_reason(end: &End, calls: &[Call]) -> &'static str {
    if calls.is_empty() { types::finish_reason(end) } else { "tool_calls" }
}

impl Reply {
    /// The plain one, whose name begins with `kind`.
    pub(super) fn new(kind: &str, model: &Model, warning: Option<String>) -> Self {
        Self { envelope: Envelope::new(kind, model, warning), held: None }
    }

    /// The text of an answer, and its calls where there are tools.
    fn calls<'a>(&self, end: &'a End) -> (&'a str, Vec<Call>) {
        if self.held.is_some() { tools::calls(&end.text) } else { (&end.text, Vec::new()) }
    }

    /// Answer `index` in a response that is not streamed.
    fn choice(&self, (index, end): (usize, &End)) -> Value {
        let (text, calls) = self.calls(end);
        let reason = finish_reason(end, &calls);
        let message = match calls.as_slice() {
            [] => json!({ "role": "assistant", "content": text }),
            calls => json!({
                "role": "assistant",
                "content": Some(text).filter(|text| !text.is_empty()),
                "tool_calls": calls.iter().map(|call| written(call, None)).collect::<Vec<_>>(),
            }),
        };
        json!({ "index": index, "message": message, "logprobs": null, "finish_reason": reason })
    }

    fn delta(&self, number: usize, delta: Value) -> Value {
        let choice = json!({ "index": number, "delta": delta, "finish_reason": null });
        self.envelope.chunk(CHUNK, json!([choice]))
    }
}

/// A call as a message has it; with an index in a stream.
fn written(call: &Call, index: Option<usize>) -> Value {
    let mut written = json!({
        "id": format!("call_{}", guard::new_id()),
        "type": "function",
        "function": { "name": call.name, "arguments": call.arguments },
    });
    if let Some(index) = index {
        written["index"] = index.into();
    }
    written
}

impl Chunks for Reply {
    fn whole(&self, ends: &Ends) -> Value {
        let choices = ends.iter().enumerate().map(|answer| self.choice(answer)).collect();
        self.envelope.whole(WHOLE, choices, ends)
    }

    fn begin(&mut self, number: usize) -> Vec<Value> {
        let first = self.delta(number, json!({ "role": "assistant", "content": "" }));
        self.envelope.first(first)
    }

    fn text(&mut self, number: usize, text: String) -> Vec<Value> {
        let text = match &mut self.held {
            Some(held) => tools::released(&mut held[number], &text),
            None => text,
        };
        match text.is_empty() {
            true => Vec::new(),
            false => vec![self.delta(number, json!({ "content": text }))],
        }
    }

    fn snapshot(&mut self, number: usize, text: String) -> Vec<Value> {
        vec![self.delta(number, json!({ "content": text }))]
    }

    fn end(&mut self, number: usize, end: &End) -> Vec<Value> {
        let (_, calls) = self.calls(end);
        let mut chunks = Vec::new();
        let held = self.held.as_mut().map(|held| std::mem::take(&mut held[number]));
        match held {
            Some(_) if !calls.is_empty() => {
                let calls = calls.iter().enumerate().map(|(i, call)| written(call, Some(i)));
                chunks.push(self.delta(number, json!({ "tool_calls": calls.collect::<Vec<_>>() })));
            }
            // A call that was cut off is text.
            Some(held) if !held.is_empty() => {
                chunks.push(self.delta(number, json!({ "content": held })));
            }
            _ => {}
        }
        let reason = finish_reason(end, &calls);
        let last = json!({ "index": number, "delta": {}, "finish_reason": reason });
        chunks.push(self.envelope.chunk(CHUNK, json!([last])));
        if self.envelope.tells_events {
            chunks.push(stream::done(number, end, reason));
        }
        chunks
    }

    fn last(&mut self, usage: &Usage) -> Vec<Value> {
        self.envelope.last(CHUNK, usage)
    }
}
