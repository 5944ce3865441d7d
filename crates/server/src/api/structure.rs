//! Fields that say what an answer must match.

use std::sync::Arc;

use llada::constraint::{Automaton, Constraint, Tool, ToolChoice};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::tools::{Choice, Function};
use crate::{
    error::{ApiError, ApiResult},
    models::Model,
};

/// OpenAI's `response_format`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
pub(crate) struct ResponseFormat {
    /// `text`, `json_object` or `json_schema`.
    #[serde(rename = "type")]
    kind: String,
    /// Of `json_schema`: an object with the key `schema`.
    #[serde(default)]
    json_schema: Option<Value>,
    /// Of `json_object`, as llama-server has it.
    #[serde(default)]
    schema: Option<Value>,
}

/// All ways to ask for structure.
#[derive(Debug, Clone, Default)]
pub(crate) struct Structure {
    pub(crate) response_format: Option<ResponseFormat>,
    pub(crate) json_schema: Option<Value>,
    pub(crate) regex: Option<String>,
    pub(crate) choices: Option<Vec<String>>,
}

/// What the answer must match, and the field that says so.
pub(crate) type Asked = (&'static str, Constraint);

impl Structure {
    /// What the answer must match, calls of tools included.
    ///
    /// # Errors
    /// If several things are asked for, or one is none.
    pub(crate) fn constraint(
        self,
        tools: Option<&(Vec<Function>, Choice)>,
    ) -> ApiResult<Option<Asked>> {
        let format = match self.response_format {
            Some(format) => format.constraint()?.map(|constraint| ("response_format", constraint)),
            None => None,
        };
        let schema = self.json_schema.map(|schema| ("json_schema", Constraint::JsonSchema(schema)));
        let regex = self.regex.map(|regex| ("regex", Constraint::Regex(regex)));
        let choices = self.choices.map(|choices| ("choices", Constraint::Choices(choices)));
        let tools = tools.map(|(functions, choice)| ("tools", calls(functions, choice)));
        let mut asked = [format, schema, regex, choices].into_iter().flatten();
        let (first, second) = (asked.next(), asked.next());
        match (first, second, tools) {
            (Some((a, _)), Some((b, _)), _) => {
                let message =
                    format!("`{a}` and `{b}` both say what the answer must match; give one");
                Err(ApiError::field(b, message))
            }
            // A text in that format, or calls: what tools leave free is not both.
            (Some((name, _)), None, Some(_)) => {
                let message =
                    format!("`{name}` and `tools` both say what the answer must match; give one");
                Err(ApiError::field(name, message))
            }
            (Some(asked), None, None) => Ok(Some(asked)),
            (None, _, tools) => Ok(tools),
        }
    }
}

impl ResponseFormat {
    fn constraint(self) -> ApiResult<Option<Constraint>> {
        let field = |message: String| Err(ApiError::field("response_format", message));
        match (self.kind.as_str(), self.json_schema, self.schema) {
            ("text", ..) => Ok(None),
            ("json_object", _, Some(schema)) => Ok(Some(Constraint::JsonSchema(schema))),
            ("json_object", ..) => Ok(Some(Constraint::Json)),
            ("json_schema", Some(mut wrapped), schema) => {
                let schema = schema.or_else(|| wrapped.get_mut("schema").map(Value::take));
                match schema {
                    Some(schema) => Ok(Some(Constraint::JsonSchema(schema))),
                    None => field("response_format.json_schema has no `schema`".into()),
                }
            }
            ("json_schema", None, Some(schema)) => Ok(Some(Constraint::JsonSchema(schema))),
            ("json_schema", None, None) => field("response_format has no `json_schema`".into()),
            (other, ..) => field(format!(
                "response_format.type is `{other}`, which is none of text, json_object, json_schema"
            )),
        }
    }
}

fn calls(functions: &[Function], choice: &Choice) -> Constraint {
    let tool = |function: &Function| Tool {
        name: function.name.clone(),
        parameters: function.parameters.clone().unwrap_or_else(|| json!({ "type": "object" })),
    };
    let choice = match choice {
        Choice::Auto => ToolChoice::Auto,
        Choice::Required => ToolChoice::Required,
        Choice::Named(name) => ToolChoice::Named(name.clone()),
    };
    Constraint::Tools { tools: functions.iter().map(tool).collect(), choice }
}

/// Compiles a constraint for the vocabulary of a model.
///
/// # Errors
/// If it cannot be.
pub(crate) async fn automaton(
    model: &Arc<Model>,
    asked: Option<Asked>,
) -> ApiResult<Option<Arc<Automaton>>> {
    let Some((field, constraint)) = asked else { return Ok(None) };
    // One at a time: each may take much memory, and its client may have left.
    static COMPILING: Semaphore = Semaphore::const_new(1);
    let permit = COMPILING.acquire().await.map_err(ApiError::internal)?;
    let model = Arc::clone(model);
    let compile = move || {
        // Until it has ended, whoever waits for it.
        let _permit = permit;
        model.codec.automaton(&constraint)
    };
    let compiled = tokio::task::spawn_blocking(compile).await.map_err(ApiError::internal)?;
    match compiled {
        Ok(automaton) => Ok(Some(automaton)),
        Err(error) => Err(ApiError { param: Some(field.into()), ..error.into() }),
    }
}
