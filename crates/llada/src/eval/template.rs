//! Templates and expressions of a task file over the columns of a row.

use minijinja::{Environment, ErrorKind, Value};

use super::extract::compile;
use crate::jinja::{self, Dialect, Mistake};

pub(super) use jinja::value;

/// What evaluates templates; a column that does not exist is an error, not an empty text.
pub(super) fn environment() -> Result<Environment<'static>, String> {
    let mut environment = jinja::environment(Dialect::Harness).map_err(|e| e.what)?;
    environment.add_filter("resub", resub);
    Ok(environment)
}

fn resub(text: &str, pattern: &str, replacement: &str) -> Result<String, minijinja::Error> {
    let invalid = |what| minijinja::Error::new(ErrorKind::InvalidOperation, what);
    Ok(compile(pattern).map_err(invalid)?.replace_all(text, replacement).into_owned())
}

/// Renders a template over `fields`.
pub(super) fn render(
    environment: &Environment<'_>,
    template: &str,
    fields: &Value,
) -> Result<String, String> {
    jinja::render_str(environment, template, fields).map_err(|e| reason(template, e))
}

/// The value of an expression over `fields`.
pub(super) fn evaluate(
    environment: &Environment<'_>,
    expression: &str,
    fields: &Value,
) -> Result<Value, String> {
    jinja::evaluate(environment, expression, fields).map_err(|e| reason(expression, e))
}

fn reason(source: &str, Mistake { what, .. }: Mistake) -> String {
    let first = source.trim().lines().next().unwrap_or_default();
    format!("{what} in `{first}`")
}
