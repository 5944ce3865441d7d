//! What an answer must be: JSON, a value of a JSON schema, a match of a regular expression, one of some texts,
//! or calls of tools. An answer that is sampled under a [`Constraint`] satisfies it by construction.
//!
//! A constraint is a regular language over bytes, which becomes a deterministic automaton. With a
//! [`Vocabulary`] that is an [`Automaton`] over tokens, in which the tokens that no state tells apart are one
//! class. Each step of a [`Canvas`](crate::diffusion::Canvas) then takes the most probable tokens that make its open
//! positions, together with what is committed around them, a text of the language: the dynamic programme of DINGO
//! (arXiv 2505.23061). What is committed at any time can therefore be completed, in whatever order that was.

mod automaton;
mod dfa;
mod error;
mod format;
mod json;
mod nfa;
mod node;
mod number;
mod pattern;
mod schema;
mod search;
mod tools;
mod vocabulary;

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use automaton::Automaton;
pub use error::ConstraintError;
pub(crate) use search::{Best, Ending, Place};
pub use vocabulary::Vocabulary;

use crate::{config::SpecialTokens, tokenizer::Tokenizer};
use node::Node;

/// What an answer must be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Constraint {
    /// A JSON object, whatever is in it.
    #[serde(rename = "json_object")]
    Json,
    /// A JSON value that this schema accepts.
    JsonSchema(Value),
    /// A text that this regular expression matches from end to end, in the syntax of the crate `regex`
    /// without look-around.
    Regex(String),
    /// One of these texts.
    Choices(Vec<String>),
    /// A text, or calls of tools.
    Tools {
        /// The tools.
        tools: Vec<Tool>,
        /// Which of them are called.
        choice: ToolChoice,
    },
}

/// A tool that a model may call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tool {
    /// Its name.
    pub name: String,
    /// The schema of its arguments.
    pub parameters: Value,
}

/// Which tools a model calls.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToolChoice {
    /// Any or none: a text, and after it calls if there are any. Wherever an answer has `<tool_call>`, a valid
    /// call begins.
    Auto,
    /// One or more calls of any.
    Required,
    /// One call of this one.
    Named(String),
}

impl Constraint {
    /// The texts that satisfy it.
    fn node(&self) -> Result<Node, ConstraintError> {
        match self {
            Self::Json => Ok(json::object(json::WHOLE_DEPTH)),
            Self::JsonSchema(schema) => schema::node(schema),
            Self::Regex(pattern) => pattern::whole(pattern),
            Self::Choices(choices) if choices.is_empty() => Err(ConstraintError::Empty("choices")),
            Self::Choices(choices) => {
                Ok(Node::Or(choices.iter().map(|choice| Node::text(choice)).collect()))
            }
            Self::Tools { tools, choice } => tools::node(tools, choice),
        }
    }
}

/// Most automata that are kept.
const KEPT: usize = 16;

/// Most bytes of them.
const KEPT_BYTES: usize = 64 << 20;

/// The automata of one tokenizer, each compiled when it is first needed, and the last of them kept.
#[derive(Debug, Default)]
pub(crate) struct Automata {
    vocabulary: OnceLock<Arc<Vocabulary>>,
    kept: Mutex<Kept>,
}

/// Automata of constraints, the last used at the end.
type Kept = VecDeque<(Constraint, Arc<Automaton>)>;

/// Forgets the first until there are at most so many, of so many bytes.
fn forget(kept: &mut Kept, count: usize, bytes: usize) {
    let sum = |kept: &Kept| kept.iter().map(|(_, automaton)| automaton.bytes()).sum::<usize>();
    while kept.len() > count || sum(kept) > bytes {
        kept.pop_front();
    }
}

impl Automata {
    /// The automaton of `constraint` over the tokens of `tokenizer`, which is the same at every call.
    pub(crate) fn of(
        &self,
        constraint: &Constraint,
        tokenizer: &Tokenizer,
        special: &SpecialTokens,
    ) -> Result<Arc<Automaton>, ConstraintError> {
        let find = || {
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            let found = kept.iter().position(|(known, _)| known == constraint)?;
            let entry = kept.remove(found)?;
            let automaton = Arc::clone(&entry.1);
            kept.push_back(entry);
            Some(automaton)
        };
        if let Some(automaton) = find() {
            return Ok(automaton);
        }
        let vocabulary = match self.vocabulary.get() {
            Some(vocabulary) => vocabulary,
            None => {
                let made = Arc::new(Vocabulary::new(tokenizer, special)?);
                self.vocabulary.get_or_init(|| made)
            }
        };
        // Others may compile in the meantime; of the same constraint both get an automaton that works.
        let automaton = Arc::new(Automaton::new(constraint, vocabulary)?);
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push_back((constraint.clone(), Arc::clone(&automaton)));
        forget(&mut kept, KEPT, KEPT_BYTES);
        Ok(automaton)
    }
}

#[cfg(test)]
mod tests;
