//! Templates and expressions of a task file over the columns of a row.

use minijinja::{Environment, ErrorKind, UndefinedBehavior, Value, syntax::SyntaxConfig};
use serde_json::Value as Json;

use super::extract::compile;

/// What evaluates templates; a column that does not exist is an error, not an empty text.
pub(super) fn environment() -> Result<Environment<'static>, String> {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder().keep_trailing_newline(true).build();
    environment.set_syntax(syntax.map_err(|e| e.to_string())?);
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.add_filter("resub", resub);
    environment.set_unknown_method_callback(crate::chat::python);
    Ok(environment)
}

fn resub(text: &str, pattern: &str, replacement: &str) -> Result<String, minijinja::Error> {
    let invalid = |what| minijinja::Error::new(ErrorKind::InvalidOperation, what);
    Ok(compile(pattern).map_err(invalid)?.replace_all(text, replacement).into_owned())
}

/// A column as templates see it.
pub(super) fn value(json: &Json) -> Value {
    match json {
        Json::Null => Value::from(()),
        Json::Bool(yes) => Value::from(*yes),
        Json::Number(n) => match n.as_i64() {
            Some(n) => Value::from(n),
            None => Value::from(n.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::from(text.as_str()),
        Json::Array(items) => items.iter().map(value).collect::<Vec<_>>().into(),
        Json::Object(fields) => {
            Value::from_pairs(fields.iter().map(|(name, field)| (name.as_str(), value(field))))
        }
    }
}

/// Renders a template over `fields`.
pub(super) fn render(
    environment: &Environment<'_>,
    template: &str,
    fields: &Value,
) -> Result<String, String> {
    environment.render_str(template, fields).map_err(|e| reason(template, &e))
}

/// The value of an expression over `fields`.
pub(super) fn evaluate(
    environment: &Environment<'_>,
    expression: &str,
    fields: &Value,
) -> Result<Value, String> {
    let compiled = environment.compile_expression(expression);
    compiled.and_then(|e| e.eval(fields)).map_err(|e| reason(expression, &e))
}

fn reason(source: &str, error: &minijinja::Error) -> String {
    let what = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
    let first = source.trim().lines().next().unwrap_or_default();
    format!("{what} in `{first}`")
}
