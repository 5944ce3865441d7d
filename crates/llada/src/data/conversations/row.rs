//! One row of a file: a conversation, or what is wrong with it.

use std::borrow::Cow;

use serde_json::{Map, Value};

use crate::{chat::Message, json};

/// What is wrong with a row, to stand after its place.
type Reason = String;

/// Columns of which one holds a list of messages. The first that is there and not empty counts.
const LISTS: [&str; 3] = ["messages", "conversations", "conversation"];

/// Columns of what is asked, each with those of which one holds the answer. The first that has its
/// answer counts.
const PAIRS: [(&str, &[&str]); 2] =
    [("prompt", &["response", "completion"]), ("instruction", &["output"])];

/// All columns that are read.
#[cfg(feature = "parquet")]
pub(super) const COLUMNS: [&str; 14] = [
    "messages",
    "conversations",
    "conversation",
    "system",
    "prompt",
    "response",
    "completion",
    "instruction",
    "input",
    "output",
    "history",
    "tools",
    "chosen",
    "rejected",
];

/// The columns of a row in JSON.
pub(super) fn columns(row: &[u8]) -> Result<Map<String, Value>, Reason> {
    match json::parse(row).map_err(|e| format!("not JSON ({e})"))? {
        Value::Object(columns) => Ok(columns),
        _ => Err("not a JSON object".into()),
    }
}

/// Two conversations that differ in their last message: the one that ends in the response that is
/// preferred, and the one with the other. A row is of one of TRL's layouts:
///
/// - `{"prompt", "chosen", "rejected"}`, each a text or a list of messages, with an optional `"system"`
///   and `"history"`;
/// - `{"chosen", "rejected"}`, each a whole conversation as a list of messages.
pub(super) fn preference(row: &Map<String, Value>) -> Result<[Vec<Message>; 2], Reason> {
    if there(row, "tools").is_some_and(|tools| !is_empty(&list(tools))) {
        return Err("it has `tools`, which cannot be shown to the model: remove the column".into());
    }
    for name in ["chosen", "rejected"] {
        there(row, name).ok_or_else(|| format!("no field `{name}`"))?;
    }
    let asked = there(row, "prompt").is_some();
    let of = |name| -> Result<Vec<Message>, Reason> {
        let mut messages = if asked { prompt(row)? } else { Vec::new() };
        let column = there(row, name).map(list);
        messages.extend(match column.as_deref() {
            Some(Value::String(_)) if !asked => {
                return Err(format!("`{name}` is a text, and there is no field `prompt`"));
            }
            Some(Value::String(text)) => vec![Message::new("assistant", text)],
            Some(list) => listed(name, list)?,
            None => Vec::new(),
        });
        check_order(&messages).map_err(|reason| format!("`{name}`: {reason}"))?;
        Ok(messages)
    };
    let both = [of("chosen")?, of("rejected")?];
    let [chosen, rejected] = &both;
    if chosen[..chosen.len() - 1] != rejected[..rejected.len() - 1] {
        return Err("`chosen` and `rejected` do not answer the same messages".into());
    }
    match chosen == rejected {
        true => Err("`chosen` and `rejected` are the same".into()),
        false => Ok(both),
    }
}

/// The messages of a row: an optional `system`, then `user` and `assistant` in turn, the last one
/// the assistant's. What is null is not there, nor is a list that is an empty string. A row is of the
/// first of these layouts that it has whole:
///
/// - `{"messages": [{"role", "content"}, …]}`, or `{"conversations": [{"from", "value"}, …]}` as
///   ShareGPT has it; the list, or its JSON as a string. An optional `"system"` goes before a list
///   that has none.
/// - `{"prompt", "response"}` or TRL's `{"prompt", "completion"}`, each a text or a list of messages,
///   with an optional `"system"` and `"history"`.
/// - Alpaca's `{"instruction", "input", "output"}`: the user says the instruction and, after a line
///   feed, the input if there is one. LLaMA-Factory adds the optional `"system"` and `"history"`,
///   the `[user, assistant]` pairs of earlier turns.
///
/// Tools are refused: a response that calls them would be trained on without them.
pub(super) fn messages(row: &Map<String, Value>) -> Result<Vec<Message>, Reason> {
    if there(row, "tools").is_some_and(|tools| !is_empty(&list(tools))) {
        return Err("it has `tools`, which cannot be shown to the model: remove the column".into());
    }
    let list_of = |name| there(row, name).filter(|value| *value != "").map(list);
    let mut lists = LISTS.into_iter().filter_map(|name| Some((name, list_of(name)?)));
    let filled = lists.clone().find(|(_, list)| **list != Value::Array(Vec::new()));
    let answer = |names: &[&'static str]| names.iter().copied().find(|n| there(row, n).is_some());
    let mut begun = PAIRS.into_iter().filter(|(asked, _)| there(row, asked).is_some());
    let pair = begun.clone().find(|(_, names)| answer(names).is_some()).or_else(|| begun.next());
    let messages = match (filled.or_else(|| lists.next().filter(|_| pair.is_none())), pair) {
        (Some((name, list)), _) => {
            let mut messages = listed(name, &list)?;
            let begins_so = messages.first().is_some_and(|message| message.role == "system");
            if let Some(system) = system(row)?.filter(|_| !begins_so) {
                messages.insert(0, system);
            }
            messages
        }
        (None, Some((asked, names))) => {
            let answer = answer(names).ok_or_else(|| format!("no field `{}`", names[0]))?;
            let mut messages = match asked {
                "instruction" => instruction(row)?,
                _ => prompt(row)?,
            };
            messages.extend(said(row, answer, "assistant")?);
            messages
        }
        (None, None) => {
            return Err("no field `messages`, and no `prompt` or `instruction` either".into());
        }
    };
    check_order(&messages)?;
    Ok(messages)
}

/// What a column holds, if it is not null.
fn there<'r>(row: &'r Map<String, Value>, name: &str) -> Option<&'r Value> {
    row.get(name).filter(|value| !value.is_null())
}

fn text<'r>(row: &'r Map<String, Value>, name: &str) -> Result<Option<&'r str>, Reason> {
    let text = |value: &'r Value| value.as_str().ok_or_else(|| format!("`{name}` is not a string"));
    there(row, name).map(text).transpose()
}

/// A list of messages as it is, or out of the JSON that tables store it as.
fn list(value: &Value) -> Cow<'_, Value> {
    let inside = value.as_str().and_then(|text| json::parse(text.as_bytes()).ok());
    match inside.filter(|inside| inside.is_array() || inside.is_object()) {
        Some(inside) => Cow::Owned(inside),
        None => Cow::Borrowed(value),
    }
}

/// Whether a column has nothing in it.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(columns) => columns.is_empty(),
        _ => false,
    }
}

/// The messages of a column that is a list of them, or the text of one.
fn said(row: &Map<String, Value>, name: &str, role: &str) -> Result<Vec<Message>, Reason> {
    match there(row, name) {
        Some(list @ (Value::Array(_) | Value::Object(_))) => listed(name, list),
        Some(Value::String(text)) => Ok(vec![Message::new(role, text)]),
        _ => Err(format!("`{name}` is not a string, nor a list of messages")),
    }
}

/// The system message of a column, where it is not empty.
fn system(row: &Map<String, Value>) -> Result<Option<Message>, Reason> {
    let text = text(row, "system")?.filter(|text| !text.is_empty());
    Ok(text.map(|text| Message::new("system", text)))
}

/// What comes before the answer to a `prompt`.
fn prompt(row: &Map<String, Value>) -> Result<Vec<Message>, Reason> {
    let system = text(row, "system")?.map(|system| Message::new("system", system));
    let earlier = system.into_iter().chain(history(row)?);
    Ok(earlier.chain(said(row, "prompt", "user")?).collect())
}

/// What comes before the answer to an `instruction`. As in LLaMA-Factory, what is empty is not
/// there.
fn instruction(row: &Map<String, Value>) -> Result<Vec<Message>, Reason> {
    let text = |name| text(row, name).map(|text| text.filter(|text| !text.is_empty()));
    let mut messages = Vec::new();
    messages.extend(system(row)?);
    messages.extend(history(row)?);
    let asked: Vec<&str> = [text("instruction")?, text("input")?].into_iter().flatten().collect();
    messages.push(Message::new("user", asked.join("\n")));
    Ok(messages)
}

/// The turns before what is asked.
fn history(row: &Map<String, Value>) -> Result<Vec<Message>, Reason> {
    let wrong = || Reason::from("`history` is not a list of [user, assistant] pairs");
    let turns = there(row, "history").map(list).filter(|turns| !is_empty(turns));
    let Some(turns) = turns else { return Ok(Vec::new()) };
    let mut messages = Vec::new();
    for turn in turns.as_array().ok_or_else(wrong)? {
        match turn.as_array().map(Vec::as_slice) {
            Some([Value::String(user), Value::String(assistant)]) => {
                messages.push(Message::new("user", user));
                messages.push(Message::new("assistant", assistant));
            }
            _ => return Err(wrong()),
        }
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

#[cfg(test)]
mod tests;
