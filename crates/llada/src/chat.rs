//! Chat templates: messages to the text that a model was fine-tuned on.
//!
//! Templates are the Jinja of `tokenizer_config.json` or `chat_template.jinja`, set up as
//! `transformers` does (`trim_blocks`, `lstrip_blocks`, `raise_exception`), with the methods of
//! Python's strings and dictionaries that such templates call.

mod encode;

use std::{collections::BTreeMap, path::Path};

use minijinja::{Environment, ErrorKind, State, Value, syntax::SyntaxConfig, value::ValueKind};

use crate::{Result, tokenizer::Settings};

/// LLaDA's template. The original always ends with the assistant's header; here it does so when a
/// reply is asked for.
pub const LLADA: &str = "{% set loop_messages = messages %}{% for message in loop_messages %}\
    {% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + \
    message['content'] | trim + '<|eot_id|>' %}\
    {% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}\
    {% endfor %}{% if add_generation_prompt %}\
    {{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}";

/// The name under which the one template is registered.
const NAME: &str = "chat template";

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Message {
    /// Who speaks: `system`, `user` or `assistant`.
    pub role: String,
    /// What is said.
    pub content: String,
}

impl Message {
    /// A message of `role`.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: content.into() }
    }
}

/// Why a chat template cannot be read or applied.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChatError {
    /// The template is not valid.
    #[error("the chat template of `{origin}` is not valid, line {line}: {what}")]
    Syntax {
        /// Where the template is from.
        origin: String,
        /// The line in the template.
        line: usize,
        /// What is wrong.
        what: String,
    },
    /// The template refuses the messages or fails on them.
    #[error("the chat template of `{origin}` failed, line {line}: {what}")]
    Render {
        /// Where the template is from.
        origin: String,
        /// The line in the template.
        line: usize,
        /// What went wrong.
        what: String,
    },
    /// A role that spells a special token.
    #[error("the role `{role}` contains a special token")]
    Role {
        /// The role.
        role: String,
    },
    /// A message spells a special token, and the template does not show messages as they are.
    #[error(
        "a message contains a special token, and the chat template of `{origin}` changes messages, \
         so that it cannot be kept apart"
    )]
    Special {
        /// Where the template is from.
        origin: String,
    },
    /// What comes before an answer is not what asks for it.
    #[error("the chat template of `{origin}` writes the prompt otherwise once it is answered")]
    Rewritten {
        /// Where the template is from.
        origin: String,
    },
}

impl ChatError {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Syntax { .. } => "mend `chat_template`, or remove it to use LLaDA's",
            Self::Render { .. } => {
                "check the roles and their order: many templates want user and assistant in turn"
            }
            Self::Role { .. } => "use the roles system, user and assistant",
            Self::Rewritten { .. } => {
                "end the prompt with the very header that the template puts before an answer"
            }
            Self::Special { .. } => "remove special tokens such as `<|eot_id|>` from the messages",
        };
        Some(hint.into())
    }
}

/// A chat template, ready to be applied.
#[derive(Debug, Clone)]
pub struct Template {
    environment: Environment<'static>,
    /// `bos_token` and others, as the template calls them.
    tokens: BTreeMap<&'static str, String>,
    origin: String,
}

impl Template {
    /// The template in `dir` (`chat_template.jinja`, or the key of `tokenizer_config.json`), or
    /// LLaDA's where there is none.
    ///
    /// # Errors
    /// When a file cannot be read or the template is not valid.
    pub fn from_dir(dir: &Path) -> Result<Self> {
        let settings = Settings::read(dir)?;
        let mut tokens = llada_tokens();
        for key in ["bos_token", "eos_token", "pad_token", "mask_token", "unk_token"] {
            if let Some(token) = settings.token(key) {
                tokens.insert(key, token.to_owned());
            }
        }
        match settings.chat_template() {
            Some(source) => Self::new(source, tokens, &dir.display().to_string()),
            None => Self::new(LLADA, tokens, "LLaDA"),
        }
    }

    /// LLaDA's template with LLaDA's tokens.
    ///
    /// # Errors
    /// Never in practice: the template is [`LLADA`].
    pub fn llada() -> Result<Self> {
        Self::new(LLADA, llada_tokens(), "LLaDA")
    }

    fn new(source: &str, tokens: BTreeMap<&'static str, String>, origin: &str) -> Result<Self> {
        let origin = origin.to_owned();
        match environment(source) {
            Ok(environment) => Ok(Self { environment, tokens, origin }),
            Err(e) => {
                let (line, what) = (e.line().unwrap_or(1), reason(&e));
                Err(ChatError::Syntax { origin, line, what }.into())
            }
        }
    }

    /// The text of a conversation. With `add_generation_prompt` it ends where the assistant's next
    /// message begins. Special tokens are written out, those that a message spells as well:
    /// [`Template::encode`] tells them apart.
    ///
    /// # Errors
    /// When the template refuses the messages (`raise_exception`) or fails on them.
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String> {
        let messages = messages.iter().map(|m| {
            Value::from_pairs([("role", m.role.as_str()), ("content", m.content.as_str())])
        });
        let tokens = self.tokens.iter().map(|(&key, token)| (key, token.as_str()));
        let context = minijinja::context! {
            messages => messages.collect::<Vec<_>>(),
            add_generation_prompt,
            ..Value::from_pairs(tokens)
        };
        self.environment.get_template(NAME).and_then(|t| t.render(context)).map_err(|e| {
            let (origin, line) = (self.origin.clone(), e.line().unwrap_or(1));
            ChatError::Render { origin, line, what: reason(&e) }.into()
        })
    }
}

/// Jinja as `transformers` sets it up, with one template.
fn environment(source: &str) -> std::result::Result<Environment<'static>, minijinja::Error> {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?;
    environment.set_syntax(syntax);
    environment.set_unknown_method_callback(python);
    environment.add_function("raise_exception", |what: String| {
        Err::<Value, _>(minijinja::Error::new(ErrorKind::InvalidOperation, what))
    });
    environment.add_template_owned(NAME, source.to_owned())?;
    Ok(environment)
}

fn llada_tokens() -> BTreeMap<&'static str, String> {
    let tokens = [("bos_token", "<|startoftext|>"), ("eos_token", "<|endoftext|>")];
    tokens.map(|(key, token)| (key, token.to_owned())).into()
}

fn reason(error: &minijinja::Error) -> String {
    error.detail().map_or_else(|| error.kind().to_string(), str::to_owned)
}

/// The methods of Python's strings and dictionaries that chat templates use.
pub(crate) fn python(
    state: &mut State<'_, '_>,
    value: &Value,
    name: &str,
    args: &[Value],
) -> std::result::Result<Value, minijinja::Error> {
    let unknown = || minijinja::Error::from(ErrorKind::UnknownMethod);
    if value.kind() == ValueKind::Map {
        return match (name, args) {
            ("items", []) => state.apply_filter("items", std::slice::from_ref(value)),
            ("get", [key]) => value.get_item(key),
            ("get", [key, default]) => {
                value.get_item(key).map(|v| if v.is_undefined() { default.clone() } else { v })
            }
            _ => Err(unknown()),
        };
    }
    let text = value.as_str().ok_or_else(unknown)?;
    let words: Vec<&str> = args.iter().filter_map(Value::as_str).collect();
    if words.len() != args.len() {
        return Err(unknown());
    }
    let strip = |set: &str| -> Vec<char> { set.chars().collect() };
    Ok(match (name, words.as_slice()) {
        ("strip", []) => text.trim().into(),
        ("lstrip", []) => text.trim_start().into(),
        ("rstrip", []) => text.trim_end().into(),
        ("strip", [set]) => text.trim_matches(strip(set).as_slice()).into(),
        ("lstrip", [set]) => text.trim_start_matches(strip(set).as_slice()).into(),
        ("rstrip", [set]) => text.trim_end_matches(strip(set).as_slice()).into(),
        ("startswith", [start]) => text.starts_with(start).into(),
        ("endswith", [end]) => text.ends_with(end).into(),
        ("upper", []) => text.to_uppercase().into(),
        ("lower", []) => text.to_lowercase().into(),
        ("replace", [from, to]) => text.replace(from, to).into(),
        ("split", []) => text.split_whitespace().map(Value::from).collect::<Vec<_>>().into(),
        ("split", [at]) if !at.is_empty() => {
            text.split(at).map(Value::from).collect::<Vec<_>>().into()
        }
        _ => return Err(unknown()),
    })
}

#[cfg(test)]
mod tests;
