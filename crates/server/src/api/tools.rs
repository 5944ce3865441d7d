//! Tools that a model may call: how it is told of them, and how its calls are read.
//!
//! Calls are written as the templates of Qwen's line have them, `<tool_call>` around an object with
//! `name` and `arguments`. A model whose template knows no tools is told of them in a system message.

use llada::{Codec, chat::Message};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::{ApiError, ApiResult};

/// Most tools of a request, as OpenAI has it.
const MAX_TOOLS: usize = 128;

const OPEN: &str = "<tool_call>";
const CLOSE: &str = "</tool_call>";

/// A tool.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
pub(crate) struct ToolSpec {
    /// Only functions can be called.
    #[serde(rename = "type", default)]
    kind: Option<String>,
    /// The function.
    pub(crate) function: Function,
}

/// A function that can be called.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
pub(crate) struct Function {
    /// Its name.
    pub(crate) name: String,
    /// What it does.
    #[serde(default)]
    pub(crate) description: Option<String>,
    /// The JSON schema of its arguments.
    #[serde(default)]
    pub(crate) parameters: Option<Value>,
}

/// Which tools are to be called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Choice {
    /// As the model wants.
    Auto,
    /// One or more.
    Required,
    /// This one.
    Named(String),
}

/// A call that a model makes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Call {
    pub(crate) name: String,
    /// Its arguments, as a text of JSON.
    pub(crate) arguments: String,
}

/// The tools of a request, none where none may be called.
///
/// # Errors
/// If one is no function, or has the name of another, or one is to be called that is not there.
pub(crate) fn read(
    tools: Option<Vec<ToolSpec>>,
    choice: Option<&Value>,
) -> ApiResult<Option<(Vec<Function>, Choice)>> {
    let tools = tools.unwrap_or_default();
    check_count(tools.len())?;
    let mut functions: Vec<Function> = Vec::new();
    for (i, ToolSpec { kind, function }) in tools.into_iter().enumerate() {
        if kind.as_deref().is_some_and(|kind| kind != "function") {
            let message = "only tools of the type `function` can be called";
            return Err(ApiError::field(format!("tools[{i}].type"), message));
        }
        if functions.iter().any(|other| other.name == function.name) {
            let message = format!("two tools are called `{}`", function.name);
            return Err(ApiError::field(format!("tools[{i}].function.name"), message));
        }
        functions.push(function);
    }
    let choice = match choice {
        None => Choice::Auto,
        Some(Value::String(word)) => match word.as_str() {
            "auto" => Choice::Auto,
            "none" => return Ok(None),
            "required" | "any" => Choice::Required,
            other => {
                let message =
                    format!("tool_choice is `{other}`, which is none of auto, none, required");
                return Err(ApiError::field("tool_choice", message));
            }
        },
        Some(value) => match value.pointer("/function/name").or_else(|| value.get("name")) {
            Some(Value::String(name)) => Choice::Named(name.clone()),
            _ => return Err(ApiError::field("tool_choice", "tool_choice names no function")),
        },
    };
    chosen(functions, choice)
}

/// The tools of a request and which of them are to be called; `None` if there are none.
///
/// # Errors
/// If one is to be called that is not there.
pub(crate) fn chosen(
    functions: Vec<Function>,
    choice: Choice,
) -> ApiResult<Option<(Vec<Function>, Choice)>> {
    match &choice {
        Choice::Named(name) if !functions.iter().any(|function| function.name == *name) => {
            Err(ApiError::field("tool_choice", format!("there is no tool `{name}`")))
        }
        Choice::Required if functions.is_empty() => {
            Err(ApiError::field("tool_choice", "a tool is required, and there are none"))
        }
        _ => Ok((!functions.is_empty()).then_some((functions, choice))),
    }
}

/// Refuses more tools than a request may have.
///
/// # Errors
/// If there are more.
pub(crate) fn check_count(tools: usize) -> ApiResult<()> {
    match tools > MAX_TOOLS {
        true => Err(ApiError::field("tools", format!("there are more than {MAX_TOOLS} tools"))),
        false => Ok(()),
    }
}

/// The tokens of a conversation in which the model may call `tools`.
///
/// # Errors
/// If the template or the tokenizer refuses the messages.
pub(crate) fn encode(
    codec: &Codec,
    messages: &[Message],
    tools: &[Function],
) -> llada::Result<Vec<u32>> {
    let schemas: Value = tools.iter().map(schema).collect();
    let tools = (!tools.is_empty()).then_some(&schemas);
    let encode = |messages: &[Message], tools: Option<&Value>| {
        codec.template.encode_with_tools(&codec.tokenizer, messages, tools, true)
    };
    let plain = encode(messages, None)?;
    let has_calls = messages.iter().any(|m| m.role == "tool" || m.other.contains_key("tool_calls"));
    if tools.is_none() && !has_calls {
        return Ok(plain);
    }
    // A template that knows tools writes something else for them.
    let with_tools = encode(messages, tools)?;
    if tools.is_some() && with_tools != plain {
        return Ok(with_tools);
    }
    let mut written: Vec<Message> = messages.iter().map(as_text).collect();
    if let Some(tools) = tools {
        let told = instructions(tools);
        match written.first_mut().filter(|first| first.role == "system") {
            Some(system) => system.content = format!("{}\n\n{told}", system.content),
            None => written.insert(0, Message::new("system", told)),
        }
    }
    encode(&written, None)
}

/// A function as templates read it.
fn schema(function: &Function) -> Value {
    let Function { name, description, parameters } = function;
    json!({ "type": "function", "function": {
        "name": name,
        "description": description.as_deref().unwrap_or_default(),
        "parameters": parameters.clone().unwrap_or_else(|| json!({ "type": "object", "properties": {} })),
    } })
}

/// What a model is told whose template knows no tools.
fn instructions(tools: &Value) -> String {
    let list = tools.as_array().into_iter().flatten().map(|tool| format!("{tool}\n"));
    let list: String = list.collect();
    format!(
        "You may call these functions:\n{list}To call one, answer with\n{OPEN}\n\
         {{\"name\": \"NAME\", \"arguments\": {{...}}}}\n{CLOSE}"
    )
}

/// A message whose calls, and results of calls, are text.
fn as_text(message: &Message) -> Message {
    let calls = message.other.get("tool_calls").and_then(Value::as_array);
    let mut content = message.content.clone();
    for call in calls.into_iter().flatten() {
        let function = &call["function"];
        let call = json!({ "name": function["name"], "arguments": function["arguments"] });
        let gap = if content.is_empty() { "" } else { "\n" };
        content = format!("{content}{gap}{OPEN}\n{call}\n{CLOSE}");
    }
    match message.role.as_str() {
        "tool" => Message::new("user", format!("<tool_response>\n{content}\n</tool_response>")),
        role => Message::new(role, content),
    }
}

/// Adds to a text that is `held` back, and takes from it what is surely no call.
pub(crate) fn released(held: &mut String, text: &str) -> String {
    held.push_str(text);
    let rest = held.split_off(plain(held));
    std::mem::replace(held, rest)
}

/// How much of a text, as far as it is known, is surely no call: what precedes the first mark of one, or what
/// may become that mark.
fn plain(text: &str) -> usize {
    let begins = |&at: &usize| text[at..].starts_with(OPEN) || OPEN.starts_with(&text[at..]);
    text.char_indices().map(|(at, _)| at).find(begins).unwrap_or(text.len())
}

/// The text of an answer, and the calls after it; no calls if one of them is cut off.
pub(crate) fn calls(text: &str) -> (&str, Vec<Call>) {
    let Some(at) = text.find(OPEN) else { return (text, Vec::new()) };
    let mut calls = Vec::new();
    let mut rest = &text[at..];
    while let Some(after) = rest.strip_prefix(OPEN) {
        let Some((written, after)) = after.split_once(CLOSE) else { return (text, Vec::new()) };
        let Some(call) = call(written) else { return (text, Vec::new()) };
        calls.push(call);
        rest = after.trim_start();
    }
    (text[..at].trim_end(), calls)
}

fn call(written: &str) -> Option<Call> {
    let call: Value = serde_json::from_str(written.trim()).ok()?;
    let arguments = call.get("arguments").filter(|arguments| arguments.is_object())?;
    Some(Call { name: call.get("name")?.as_str()?.to_owned(), arguments: arguments.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_told_from_text() {
        let call =
            "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": [1, \"</b>\"]}}\n</tool_call>";
        let one = Call { name: "f".into(), arguments: r#"{"a":[1,"</b>"]}"#.into() };
        assert_eq!(calls(call), ("", vec![one.clone()]));
        assert_eq!(calls(&format!("{call}\n{call}")), ("", vec![one.clone(), one.clone()]));
        assert_eq!(calls(&format!("I look.\n{call}")), ("I look.", vec![one]));
        for text in ["", "Hello", "<tool_call>", "<tool_call>{}</tool_call>", "so: <tool_call>{"] {
            assert_eq!(calls(text), (text, vec![]), "{text}");
        }
        for (text, length) in [
            ("", 0),
            ("<tool", 0),
            (call, 0),
            ("<b>", 3),
            ("Hi", 2),
            ("Hi <to", 3),
            ("a<tool_callx", 12),
        ] {
            assert_eq!(plain(text), length, "{text}");
        }
    }

    #[test]
    fn choices_are_among_the_tools() {
        let tools: Vec<ToolSpec> =
            serde_json::from_value(json!([{ "type": "function", "function": { "name": "f" } }]))
                .unwrap();
        let of = |choice: Option<Value>| read(Some(tools.clone()), choice.as_ref());
        assert_eq!(of(None).unwrap().unwrap().1, Choice::Auto);
        assert!(of(Some(json!("none"))).unwrap().is_none());
        let named = json!({ "type": "function", "function": { "name": "f" } });
        assert_eq!(of(Some(named)).unwrap().unwrap().1, Choice::Named("f".into()));
        for wrong in [json!("sometimes"), json!({}), json!({ "function": { "name": "g" } })] {
            assert_eq!(of(Some(wrong)).unwrap_err().param.as_deref(), Some("tool_choice"));
        }
        assert!(read(None, Some(&json!("required"))).is_err());
        let twice = Some([tools.clone(), tools.clone()].concat());
        assert!(read(twice, None).is_err());
    }
}
