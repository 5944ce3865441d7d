//! Messages, and what `transformers` makes of them before a template sees them.

use serde_json::{Map, Value as Json};

/// The names under which programs pass what a model thought, the usual one first.
const REASONING: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Message {
    /// Who speaks: `system`, `user` or `assistant`.
    pub role: String,
    /// What is said.
    pub content: String,
    /// What else a template may read: `name`, `reasoning_content`, `tool_calls` and the like.
    #[serde(flatten)]
    pub other: Map<String, Json>,
}

impl Message {
    /// A message of `role`.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: content.into(), other: Map::new() }
    }

    /// The message as an object.
    pub fn json(&self) -> Json {
        let mut fields = Map::new();
        fields.insert("role".into(), self.role.as_str().into());
        fields.insert("content".into(), self.content.as_str().into());
        for (name, value) in &self.other {
            fields.entry(name).or_insert_with(|| value.clone());
        }
        Json::Object(fields)
    }

    /// The texts among its other fields.
    pub(super) fn other_texts(&self) -> Vec<&str> {
        self.other.values().flat_map(texts).collect()
    }
}

/// The texts and names in a value.
pub(super) fn texts(json: &Json) -> Vec<&str> {
    fn collect<'a>(json: &'a Json, texts: &mut Vec<&'a str>) {
        match json {
            Json::String(text) => texts.push(text),
            Json::Array(items) => items.iter().for_each(|item| collect(item, texts)),
            Json::Object(fields) => {
                for (name, field) in fields {
                    texts.push(name);
                    collect(field, texts);
                }
            }
            _ => {}
        }
    }
    let mut texts = Vec::new();
    collect(json, &mut texts);
    texts
}

/// A message without its fields that are null, and with what the model thought under each name that
/// templates read.
pub(super) fn normal(message: &Json) -> Json {
    let Json::Object(fields) = message else { return message.clone() };
    let given: Map<String, Json> =
        fields.iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k.clone(), v.clone())).collect();
    let Some(thought) = REASONING.iter().find_map(|name| given.get(*name)).cloned() else {
        return Json::Object(given);
    };
    let mut normal = Map::new();
    normal.insert("thinking".into(), thought.clone());
    normal.extend(given);
    normal.insert("reasoning_content".into(), thought);
    Json::Object(normal)
}

/// The bytes of what a template reads, about.
pub(super) fn size(json: &Json) -> usize {
    match json {
        Json::String(text) => text.len() + 2,
        Json::Array(items) => items.iter().map(size).sum::<usize>() + 2,
        Json::Object(fields) => {
            fields.iter().map(|(k, v)| k.len() + 4 + size(v)).sum::<usize>() + 2
        }
        _ => 8,
    }
}
