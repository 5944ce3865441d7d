//! One row of a JSONL file: a conversation, or what is wrong with it.

use serde_json::{Map, Value};

use crate::chat::Message;

/// What is wrong with a row, to stand after its place.
type Reason = String;

/// The messages of a row: an optional `system`, then `user` and `assistant` in turn, the last one
/// the assistant's. A row is `{"prompt", "response"}` with an optional `"system"`, or
/// `{"messages": [{"role", "content"}, …]}`, which goes before the other where a row has both.
pub(super) fn messages(line: &[u8]) -> Result<Vec<Message>, Reason> {
    let row: Value = serde_json::from_slice(line).map_err(|e| format!("not JSON ({e})"))?;
    let row = row.as_object().ok_or("not a JSON object")?;
    let messages = match row.get("messages") {
        Some(list) => listed(list)?,
        None => prompt_and_response(row)?,
    };
    check_order(&messages)?;
    Ok(messages)
}

fn prompt_and_response(row: &Map<String, Value>) -> Result<Vec<Message>, Reason> {
    let text = |field: &str| match row.get(field) {
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(Value::Null) | None => Ok(None),
        Some(_) => Err(format!("`{field}` is not a string")),
    };
    let mut messages = Vec::new();
    messages.extend(text("system")?.map(|content| Message::new("system", content)));
    for (field, role) in [("prompt", "user"), ("response", "assistant")] {
        let content = text(field)?.ok_or_else(|| match field {
            "prompt" => "no field `messages`, and no `prompt` either".into(),
            _ => format!("no field `{field}`"),
        })?;
        messages.push(Message::new(role, content));
    }
    Ok(messages)
}

fn listed(list: &Value) -> Result<Vec<Message>, Reason> {
    let list = list.as_array().ok_or("`messages` is not a list")?;
    let message = |(i, message): (usize, &Value)| {
        let n = i + 1;
        let role = match message.get("role").and_then(Value::as_str) {
            Some(role @ ("system" | "user" | "assistant")) => role,
            Some(role) => return Err(format!("message {n} has the unknown role `{role}`")),
            None => return Err(format!("message {n} has no `role`")),
        };
        let content = content(message.get("content")).map_err(|e| format!("message {n} {e}"))?;
        Ok(Message::new(role, content))
    };
    list.iter().enumerate().map(message).collect()
}

/// A string, or the texts of a list of parts.
fn content(content: Option<&Value>) -> Result<String, Reason> {
    match content {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(Value::Array(parts)) => parts.iter().map(part).collect(),
        Some(_) => Err("has a `content` that is neither a string nor a list of parts".into()),
        None => Err("has no `content`".into()),
    }
}

fn part(part: &Value) -> Result<String, Reason> {
    match (part.get("type").and_then(Value::as_str), part.get("text")) {
        (Some("text"), Some(Value::String(text))) => Ok(text.clone()),
        (Some("text"), _) => Err("has a part without `text`".into()),
        (Some(kind), _) => Err(format!("has a part of type `{kind}`, only `text` can be used")),
        (None, _) => Err("has a part without `type`".into()),
    }
}

fn check_order(messages: &[Message]) -> Result<(), Reason> {
    let system = usize::from(messages.first().is_some_and(|m| m.role == "system"));
    let turns = &messages[system..];
    for (i, message) in turns.iter().enumerate() {
        let expected = if i % 2 == 0 { "user" } else { "assistant" };
        if message.role != expected {
            let (n, found) = (system + i + 1, &message.role);
            return Err(format!("message {n} is of `{found}` where `{expected}` should speak"));
        }
        if expected == "assistant" && message.content.trim().is_empty() {
            return Err(match turns.len() {
                2 => "the response is empty".into(),
                _ => format!("message {} is an empty response", system + i + 1),
            });
        }
    }
    match turns.len() {
        0 => Err("there is no message of `user`".into()),
        n if n % 2 == 1 => Err("the last message is not of `assistant`".into()),
        _ => Ok(()),
    }
}
