//! Chat templates: messages to the text that a model was fine-tuned on.
//!
//! Templates are the Jinja of `tokenizer_config.json` or `chat_template.jinja`, and give what
//! `apply_chat_template` of `transformers` gives: with its context (`messages`, `tools`,
//! `documents`, `add_generation_prompt` and the special tokens), its functions
//! (`raise_exception`, `strftime_now`), its `tojson`, and `{% generation %}` around what the
//! assistant says. They are not trusted: a rendering has limits on the steps that it takes and the
//! text that it makes.

mod encode;
mod message;

use std::{collections::BTreeMap, path::Path};

use minijinja::{Environment, Value};
use serde_json::Value as Json;

pub use encode::Answered;
pub use message::Message;

use crate::{
    Result,
    jinja::{self, Dialect, Mistake},
    tokenizer::{DEFAULT, Settings, TOOLS, TokenizerFiles},
};

/// LLaDA's template. The original always ends with the assistant's header; here it does so when a
/// reply is asked for.
pub const LLADA: &str = "{% set loop_messages = messages %}{% for message in loop_messages %}\
    {% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + \
    message['content'] | trim + '<|eot_id|>' %}\
    {% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}\
    {% endfor %}{% if add_generation_prompt %}\
    {{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}";

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
    /// A field of a message besides its content, or a tool, that spells a special token.
    #[error("a special token stands in another field of a message than its content, or in a tool")]
    Field,
    /// What comes before an answer is not what asks for it, and differs in earlier messages.
    #[error(
        "the chat template of `{origin}` writes earlier messages otherwise once they are answered"
    )]
    Rewritten {
        /// Where the template is from.
        origin: String,
    },
    /// There are templates with names, none of which is the one that is meant without a name.
    #[error("the chat templates of `{origin}` are called {}, and none is called `default`", listed(.names))]
    NoDefault {
        /// Where the templates are from.
        origin: String,
        /// Their names.
        names: Vec<String>,
    },
    /// The template writes the same whatever the assistant answers.
    #[error("the chat template of `{origin}` writes nothing of the assistant's answer")]
    Unanswered {
        /// Where the template is from.
        origin: String,
    },
    /// A template that marks what the assistant says marks nothing in the last message.
    #[error("the chat template of `{origin}` does not mark the last answer with `generation`")]
    Unmarked {
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
                "mark what the assistant says with `{% generation %}` in the template, or use \
                 `sft.template = \"plain\"`"
            }
            Self::NoDefault { .. } => {
                "name one of them `default`, or write the one to use into `chat_template.jinja`"
            }
            Self::Unanswered { .. } => {
                "check how the template calls the role of answers: here it is `assistant`"
            }
            Self::Unmarked { .. } => {
                "put `{% generation %}` around every answer in the template, or take it out"
            }
            Self::Special { .. } | Self::Field => {
                "remove special tokens such as `<|eot_id|>` from the messages"
            }
        };
        Some(hint.into())
    }
}

fn listed(names: &[String]) -> String {
    match names.is_empty() {
        true => "nothing".into(),
        false => names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", "),
    }
}

/// A conversation as JSON, as programs pass it to `apply_chat_template`.
#[derive(Debug, Clone, PartialEq)]
pub struct Conversation {
    /// The messages: objects with a `role`, a `content` and whatever else the template reads.
    pub messages: Vec<Json>,
    /// Tools that the model may call, as JSON schemas.
    pub tools: Option<Json>,
    /// Documents to answer from.
    pub documents: Option<Json>,
}

/// A chat template, ready to be applied.
#[derive(Debug, Clone)]
pub struct Template {
    /// The one that is meant where none is named.
    plain: Option<Environment<'static>>,
    /// The one for conversations with tools, where that is another.
    with_tools: Option<Environment<'static>>,
    /// The names of all that there are.
    names: Vec<String>,
    /// `bos_token` and others, as the template calls them.
    tokens: Tokens,
    origin: String,
    /// Whether it marks what the assistant says.
    marks: bool,
}

/// Special tokens by the names that templates have for them.
type Tokens = BTreeMap<String, String>;

impl Template {
    /// The template among `files` (`chat_template.jinja`, or the key of `tokenizer_config.json`), or
    /// LLaDA's where there is none. Of several it is the one called `default`, and with tools
    /// `tool_use`. A special token that the files do not state is none; with LLaDA's template it is
    /// LLaDA's. Errors name `origin`, the folder or file that the files are from.
    ///
    /// # Errors
    /// When one of the files or a template is not valid.
    pub fn of(files: &TokenizerFiles, origin: &Path) -> Result<Self> {
        let settings = Settings::of(files, origin)?;
        let own = settings.tokens().map(|(name, token)| (name.to_owned(), token.to_owned()));
        if let Some(templates) = settings.chat_templates() {
            return Self::new(&templates, own.collect(), &origin.display().to_string());
        }
        let mut tokens = llada_tokens();
        // Stated to be none.
        tokens.iter_mut().filter(|(name, _)| settings.states(name)).for_each(|(_, t)| t.clear());
        tokens.extend(own);
        Self::new(&[(DEFAULT, LLADA)].into(), tokens, "LLaDA")
    }

    /// LLaDA's template with LLaDA's tokens.
    ///
    /// # Errors
    /// Never in practice: the template is [`LLADA`].
    pub fn llada() -> Result<Self> {
        Self::new(&[(DEFAULT, LLADA)].into(), llada_tokens(), "LLaDA")
    }

    fn new(templates: &BTreeMap<&str, &str>, tokens: Tokens, origin: &str) -> Result<Self> {
        // One time for all renderings, so that none differs from another.
        let now = chrono::Local::now().naive_local();
        let read = |source: &&str| {
            let mut jinja = jinja::environment(Dialect::Transformers { now })?;
            jinja::add(&mut jinja, source)?;
            Ok(jinja)
        };
        let named = |name| {
            templates.get(name).map(read).transpose().map_err(|Mistake { line, what }| {
                ChatError::Syntax { origin: origin.to_owned(), line, what }
            })
        };
        Ok(Self {
            plain: named(DEFAULT)?,
            with_tools: named(TOOLS)?,
            names: templates.keys().map(|name| (*name).to_owned()).collect(),
            tokens,
            origin: origin.to_owned(),
            marks: templates.get(DEFAULT).is_some_and(|source| jinja::has_generation(source)),
        })
    }

    /// The text of a conversation. With `add_generation_prompt` it ends where the assistant's next
    /// message begins. Special tokens are written out, those that a message spells as well:
    /// [`Template::encode`] tells them apart.
    ///
    /// # Errors
    /// When the template refuses the messages (`raise_exception`), fails on them, or takes too many
    /// steps.
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String> {
        let messages = messages.iter().map(Message::json).collect();
        let conversation = Conversation { messages, tools: None, documents: None };
        self.render_conversation(&conversation, add_generation_prompt)
    }

    /// As [`render`](Self::render), of a conversation with whatever a template may read.
    ///
    /// # Errors
    /// As [`render`](Self::render).
    pub fn render_conversation(
        &self,
        conversation: &Conversation,
        add_generation_prompt: bool,
    ) -> Result<String> {
        self.marked(conversation, add_generation_prompt, None)
    }

    /// As [`render_conversation`](Self::render_conversation), with marks around what
    /// `{% generation %}` holds if `mark` is given.
    fn marked(
        &self,
        conversation: &Conversation,
        add_generation_prompt: bool,
        mark: Option<&str>,
    ) -> Result<String> {
        let Conversation { messages, tools, documents } = conversation;
        let messages: Vec<Json> = messages.iter().map(message::normal).collect();
        let sizes = [tools, documents].into_iter().flatten().chain(&messages);
        let size = sizes.map(message::size).sum();
        let or_none = |json: &Option<Json>| json.as_ref().map_or(Value::from(()), jinja::value);
        let environment = match tools {
            Some(_) => self.with_tools.as_ref().or(self.plain.as_ref()),
            None => self.plain.as_ref(),
        };
        let Some(environment) = environment else {
            let (origin, names) = (self.origin.clone(), self.names.clone());
            return Err(ChatError::NoDefault { origin, names }.into());
        };
        let tokens = self.tokens.iter().map(|(name, token)| (name.as_str(), token.as_str().into()));
        let mut context: Vec<(&str, Value)> = tokens.collect();
        context.extend([
            ("messages", messages.iter().map(jinja::value).collect::<Vec<_>>().into()),
            ("tools", or_none(tools)),
            ("documents", or_none(documents)),
            ("add_generation_prompt", add_generation_prompt.into()),
        ]);
        context.extend(mark.map(|mark| (jinja::MARKS, mark.into())));
        let rendered = jinja::render(environment, Value::from_pairs(context), size);
        rendered.map_err(|Mistake { line, what }| {
            ChatError::Render { origin: self.origin.clone(), line, what }.into()
        })
    }
}

fn llada_tokens() -> Tokens {
    let tokens = [("bos_token", "<|startoftext|>"), ("eos_token", "<|endoftext|>")];
    tokens.map(|(name, token)| (name.to_owned(), token.to_owned())).into()
}

#[cfg(test)]
mod tests;
