//! What an answer must be, by the flags that say so.

use std::path::Path;

use anyhow::{Context, Result};
use llada::constraint::Constraint;

use super::read_text;
use crate::{args::ConstraintArgs, error::Failure};

/// What an answer must be; `None` where no flag says.
pub(super) fn read(args: &ConstraintArgs) -> Result<Option<Constraint>> {
    let ConstraintArgs { json_schema, json_object, regex, choices } = args;
    Ok(match (json_schema, regex) {
        (Some(file), _) => Some(schema(file)?),
        (_, Some(regex)) => Some(Constraint::Regex(regex.clone())),
        _ if *json_object => Some(Constraint::Json),
        _ if !choices.is_empty() => Some(Constraint::Choices(choices.clone())),
        _ => None,
    })
}

fn schema(file: &Path) -> Result<Constraint> {
    let text = read_text(file)?;
    let schema = serde_json::from_str(&text)
        .map_err(|e| Failure::new(e.to_string(), "give a file that holds one JSON schema"))
        .with_context(|| format!("cannot read `{}`", file.display()))?;
    Ok(Constraint::JsonSchema(schema))
}
