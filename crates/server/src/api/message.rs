//! Messages of a conversation, as clients write them.

use std::borrow::Cow;

use llada::chat::Message;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de::Error as _};
use serde_json::{Map, Value};

use crate::error::{ApiError, ApiResult};

/// What a message says: a text, or a list of parts that are texts.
#[derive(Debug, Clone, Default)]
pub(crate) struct Content(pub(crate) String);

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let part = |part: &Value| match (part, part["type"].as_str(), &part["text"]) {
            (Value::String(text), ..) => Ok(text.clone()),
            (_, Some("text" | "input_text") | None, Value::String(text)) => Ok(text.clone()),
            (_, Some(kind), _) => Err(D::Error::custom(format!(
                "a part is of the type `{kind}`, and this model reads text alone"
            ))),
            _ => Err(D::Error::custom("a part has no text")),
        };
        match Value::deserialize(deserializer)? {
            Value::String(text) => Ok(Self(text)),
            Value::Null => Ok(Self::default()),
            Value::Array(parts) => {
                let texts: Vec<String> = parts.iter().map(part).collect::<Result<_, _>>()?;
                Ok(Self(texts.join("\n")))
            }
            _ => Err(D::Error::custom("expected a text or a list of parts")),
        }
    }
}

impl JsonSchema for Content {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Content".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [
            { "type": "string" },
            { "type": "null" },
            { "type": "array", "items": {
                "type": "object",
                "properties": { "type": { "const": "text" }, "text": { "type": "string" } },
                "required": ["type", "text"],
            } },
        ] })
    }
}

/// A message of a conversation.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
pub(crate) struct ChatMessage {
    /// Who speaks: `system`, `user`, `assistant` or `tool`.
    role: String,
    /// What is said.
    #[serde(default)]
    content: Content,
    /// What else the model's template may read: `name`, `tool_calls`, `tool_call_id`, …
    #[serde(flatten)]
    other: Map<String, Value>,
}

/// The roles that a conversation may have.
const ROLES: [&str; 5] = ["system", "developer", "user", "assistant", "tool"];

/// Messages as templates read them.
///
/// # Errors
/// If there are none, or a role is none.
pub(crate) fn messages(messages: Vec<ChatMessage>) -> ApiResult<Vec<Message>> {
    if messages.is_empty() {
        return Err(ApiError::field("messages", "there is no message"));
    }
    let read = |(i, message): (usize, ChatMessage)| {
        let ChatMessage { role, content, other } = message;
        if !ROLES.contains(&role.as_str()) {
            let message = format!("the role `{role}` is none of {}", ROLES.join(", "));
            return Err(ApiError::field(format!("messages[{i}].role"), message));
        }
        // OpenAI's newer name for the same.
        let role = if role == "developer" { "system".into() } else { role };
        let mut message = Message::new(role, content.0);
        message.other = other;
        if let Some(Value::Array(calls)) = message.other.get_mut("tool_calls") {
            calls.iter_mut().for_each(with_parsed_arguments);
        }
        Ok(message)
    };
    messages.into_iter().enumerate().map(read).collect()
}

/// OpenAI writes the arguments of a call as a text of JSON; templates want the object.
fn with_parsed_arguments(call: &mut Value) {
    let Some(arguments) = call.pointer_mut("/function/arguments") else { return };
    if let Some(parsed) = arguments.as_str().and_then(|text| serde_json::from_str(text).ok()) {
        *arguments = parsed;
    }
}
