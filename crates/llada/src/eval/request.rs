//! From a row to what the model is asked.

use minijinja::{Environment, Value};

use super::{
    arithmetic, extract,
    task::{Choice, Choices, Fewshot, Kind, Task},
    template::{evaluate, render},
};
use crate::text::is_space;

/// What is asked.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Request {
    /// Score a document.
    Document {
        /// The text to be scored.
        text: String,
        /// Words of the document as it is stored: its parts between white space, as the harness
        /// counts them.
        words: usize,
        /// Its bytes in UTF-8.
        bytes: usize,
    },
    /// Score a continuation.
    Continuation {
        /// All that stands before it.
        context: String,
        /// The continuation, with the delimiter.
        target: String,
    },
    /// Choose an answer.
    Choice {
        /// All that stands before it.
        context: String,
        /// What stands between the context and each answer.
        delimiter: String,
        /// The answers.
        choices: Vec<String>,
        /// Number of the right one.
        answer: usize,
    },
    /// Write.
    Generate {
        /// All that stands before the response.
        context: String,
        /// What the answer is compared with.
        target: Option<String>,
        /// Numbers that an expression must use, and its value.
        expression: Option<(Vec<i128>, i128)>,
        /// The puzzle whose blanks are to be filled.
        given: Option<String>,
    },
}

impl Request {
    /// What the model sees first.
    pub fn context(&self) -> &str {
        match self {
            Self::Document { .. } => "",
            Self::Continuation { context, .. }
            | Self::Choice { context, .. }
            | Self::Generate { context, .. } => context,
        }
    }
}

/// The length of Python's `re.split(r"\s+", text)`: one more than the runs of white space, so that a
/// text with white space at an end has an empty word there.
pub(super) fn words(text: &str) -> usize {
    let runs = text.chars().fold((0, false), |(runs, before), c| {
        (runs + usize::from(is_space(c) && !before), is_space(c))
    });
    runs.0 + 1
}

/// Renders rows of a task.
#[derive(Clone, Copy)]
pub(super) struct Renderer<'a> {
    pub(super) task: &'a Task,
    pub(super) environment: &'a Environment<'static>,
}

impl Renderer<'_> {
    fn render(&self, template: &str, fields: &Value) -> std::result::Result<String, String> {
        render(self.environment, template, fields)
    }

    pub(super) fn request(
        &self,
        prefix: &str,
        fields: &Value,
    ) -> std::result::Result<Request, String> {
        let task = self.task;
        let context = format!("{prefix}{}", self.render(&task.prompt, fields)?);
        let delimiter = task.delimiter.clone();
        match (task.kind, &task.choice) {
            (Kind::Perplexity, _) => self.document(fields),
            (Kind::Choice, Some(choice)) => {
                let (choices, answer) = self.choices(choice, fields)?;
                Ok(Request::Choice { context, delimiter, choices, answer })
            }
            (Kind::Generate, _) => self.generate(context, fields),
            (Kind::Continuation | Kind::Choice, _) => {
                let target = self.render(&task.target, fields)?;
                if target.is_empty() {
                    return Err("the continuation is empty".into());
                }
                Ok(Request::Continuation { context, target: format!("{delimiter}{target}") })
            }
        }
    }

    fn document(&self, fields: &Value) -> std::result::Result<Request, String> {
        let stored = self.render(&self.task.target, fields)?;
        let mut text = stored.clone();
        for [pattern, replacement] in &self.task.clean {
            let regex = extract::compile(pattern)?;
            text = regex.replace_all(&text, replacement.as_str()).into_owned();
        }
        if text.trim().is_empty() {
            return Err("the document is empty".into());
        }
        Ok(Request::Document { text, words: words(&stored), bytes: stored.len() })
    }

    fn generate(&self, context: String, fields: &Value) -> std::result::Result<Request, String> {
        let task = self.task;
        let target = match task.target.as_str() {
            "" => None,
            template => Some(self.render(template, fields)?),
        };
        let expression = task.expression.as_ref().map(|expression| {
            let (numbers, value) = (
                self.render(&expression.numbers, fields)?,
                self.render(&expression.value, fields)?,
            );
            let numbers = arithmetic::numbers(&numbers).filter(|n| !n.is_empty());
            let value = value.trim().parse().ok();
            numbers.zip(value).ok_or_else(|| "the numbers or their value are no numbers".to_owned())
        });
        let given = task.cells.as_ref().map(|cells| {
            let given = self.render(&cells.given, fields)?;
            let target = target.as_deref().unwrap_or_default();
            match given.chars().count() == target.chars().count() && given.contains(cells.blank) {
                true => Ok(given),
                false => {
                    Err("the puzzle has no blanks, or not the length of its solution".to_owned())
                }
            }
        });
        if let Some(code) = &task.code {
            let fields = minijinja::context! { response => "", ..fields.clone() };
            self.render(&code.program, &fields)?;
            self.render(&code.tests, &fields)?;
        }
        Ok(Request::Generate {
            context,
            target,
            expression: expression.transpose()?,
            given: given.transpose()?,
        })
    }

    /// The answers, and the number of the right one.
    fn choices(
        &self,
        choice: &Choice,
        fields: &Value,
    ) -> std::result::Result<(Vec<String>, usize), String> {
        let choices = match &choice.choices {
            Choices::Templates(list) => list
                .iter()
                .map(|t| self.render(t, fields))
                .collect::<std::result::Result<_, _>>()?,
            Choices::Expression(expression) => self.list(expression, fields)?,
        };
        if choices.len() < 2 || choices.iter().any(String::is_empty) {
            return Err(format!("{} choices, or an empty one", choices.len()));
        }
        let answer = evaluate(self.environment, &choice.answer, fields)?.to_string();
        let answer = answer.trim();
        let number = match &choice.labels {
            Some(labels) => self.list(labels, fields)?.iter().position(|label| label == answer),
            None => answer.parse().ok(),
        };
        match number.filter(|n| *n < choices.len()) {
            Some(number) => Ok((choices, number)),
            None => Err(format!("the answer `{answer}` is none of the {} choices", choices.len())),
        }
    }

    fn list(&self, expression: &str, fields: &Value) -> std::result::Result<Vec<String>, String> {
        let value = evaluate(self.environment, expression, fields)?;
        let items = value.try_iter().map_err(|_| format!("`{expression}` gives no list"))?;
        Ok(items.map(|item| item.to_string()).collect())
    }

    /// An example of the prompt: a row with its answer.
    pub(super) fn shot(
        &self,
        fewshot: &Fewshot,
        fields: &Value,
    ) -> std::result::Result<String, String> {
        let task = self.task;
        let prompt = self.render(&task.prompt, fields)?;
        let answer = match (&fewshot.target, &task.choice) {
            (Some(template), _) => self.render(template, fields)?,
            (None, Some(choice)) => {
                let (mut choices, answer) = self.choices(choice, fields)?;
                choices.swap_remove(answer)
            }
            (None, None) => self.render(&task.target, fields)?,
        };
        Ok(format!("{prompt}{}{answer}", task.delimiter))
    }
}
