//! One row of a file: a conversation, or what is wrong with it.

use serde_json::{Map, Value};

use crate::{chat::Message, json};

/// What is wrong with a row, to stand after its place.
type Reason = String;

/// Columns of which one holds a list of messages. The first that is there and not empty counts.
const LISTS: [&str; 3] = ["messages", "conversations", "conversation"];

/// All columns that are read.
#[cfg(feature = "parquet")]
pub(super) const COLUMNS: [&str; 6] =
    ["messages", "conversations", "conversation", "system", "prompt", "response"];

/// The messages of a line of JSON, as [`messages`] reads them.
pub(super) fn of_line(line: &[u8]) -> Result<Vec<Message>, Reason> {
    let row = json::parse(line).map_err(|e| format!("not JSON ({e})"))?;
    messages(row.as_object().ok_or("not a JSON object")?)
}

/// The messages of a row: an optional `system`, then `user` and `assistant` in turn, the last one
/// the assistant's. A row is `{"prompt", "response"}` with an optional `"system"`, or
/// `{"messages": [{"role", "content"}, …]}`, which goes before the other where a row has both, or
/// `{"conversations": [{"from", "value"}, …]}` as ShareGPT has it. What is null is not there.
pub(super) fn messages(row: &Map<String, Value>) -> Result<Vec<Message>, Reason> {
    let there = |name: &&str| row.get(*name).is_some_and(|list| !list.is_null());
    let mut lists = LISTS.into_iter().filter(there);
    let filled = lists.clone().find(|name| row[*name] != Value::Array(Vec::new()));
    let has_prompt = row.get("prompt").is_some_and(|prompt| !prompt.is_null());
    let messages = match filled.or_else(|| lists.next().filter(|_| !has_prompt)) {
        Some(name) => listed(name, &row[name])?,
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

fn listed(name: &str, list: &Value) -> Result<Vec<Message>, Reason> {
    let list = match list {
        Value::Object(columns) => &by_row(name, columns)?,
        list => list,
    };
    let list = list.as_array().ok_or_else(|| format!("`{name}` is not a list"))?;
    let message = |(i, message): (usize, &Value)| {
        let n = i + 1;
        let field = |names: [&str; 2]| {
            names.into_iter().filter_map(|name| message.get(name)).find(|field| !field.is_null())
        };
        let role = match field(["role", "from"]).and_then(Value::as_str) {
            Some(role) => {
                role_of(role).ok_or_else(|| format!("message {n} has the unknown role `{role}`"))?
            }
            None => return Err(format!("message {n} has no `role`")),
        };
        let content = field(["content", "value"]).or(message.get("content"));
        let content = content_of(content).map_err(|e| format!("message {n} {e}"))?;
        Ok(Message::new(role, content))
    };
    list.iter().enumerate().map(message).collect()
}

/// A list of messages that is stored as one list of roles and one of contents.
fn by_row(name: &str, columns: &Map<String, Value>) -> Result<Value, Reason> {
    let mut rows: Vec<Map<String, Value>> = Vec::new();
    for (column, values) in columns.iter().filter(|(_, values)| !values.is_null()) {
        let values = values.as_array().ok_or_else(|| format!("`{name}` is not a list"))?;
        rows.resize(values.len().max(rows.len()), Map::new());
        for (row, value) in rows.iter_mut().zip(values) {
            row.insert(column.clone(), value.clone());
        }
    }
    Ok(rows.into())
}

/// Who speaks, in the names of `messages` and in those of ShareGPT.
fn role_of(name: &str) -> Option<&'static str> {
    Some(match name {
        "system" => "system",
        "user" | "human" => "user",
        "assistant" | "gpt" | "chatgpt" | "bot" | "model" => "assistant",
        _ => return None,
    })
}

/// A string, or the texts of a list of parts.
fn content_of(content: Option<&Value>) -> Result<String, Reason> {
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
