//! `llada show --verify`: whether files are as they were written.

use std::path::Path;

use anyhow::Result;
use llada::verify::{Integrity, Verified, verify};
use serde_json::{Value, json};

use crate::{
    error::Failure,
    locate::{self, Shipped},
    term,
    view::units,
};

/// Prints what is known of each file, and fails when one is damaged.
pub fn run(path: Option<&Path>, json: bool) -> Result<()> {
    let path = match path {
        // A run and token shards are no models, and damaged ones are looked at too.
        Some(path) if path.exists() => path.to_path_buf(),
        path => locate::model(path, Shipped::Base)?,
    };
    let files = verify(&path)?;
    term::answer(&if json { as_json(&files)? } else { as_text(&files, &path) })?;
    let damaged = files.iter().filter(|file| matches!(file.integrity, Integrity::Damaged(_)));
    match damaged.count() {
        0 => Ok(()),
        1 => Err(failure("1 file is damaged")),
        n => Err(failure(&format!("{n} files are damaged"))),
    }
}

fn failure(message: &str) -> anyhow::Error {
    let hint = "fetch or make it again; a run goes on from an earlier checkpoint";
    Failure::new(message, hint).into()
}

fn as_json(files: &[Verified]) -> Result<String> {
    let one = |file: &Verified| {
        let (state, reason) = match &file.integrity {
            Integrity::Intact => ("ok", Value::Null),
            Integrity::Damaged(reason) => ("damaged", reason.as_str().into()),
            Integrity::Unknown => ("no checksum", Value::Null),
        };
        json!({"file": file.path, "state": state, "reason": reason})
    };
    Ok(serde_json::to_string_pretty(&files.iter().map(one).collect::<Vec<_>>())?)
}

fn as_text(files: &[Verified], from: &Path) -> String {
    let name = |file: &Verified| match file.path.strip_prefix(from) {
        Ok(rest) if !rest.as_os_str().is_empty() => rest.display().to_string(),
        _ => file.path.display().to_string(),
    };
    let state = |file: &Verified| match &file.integrity {
        Integrity::Intact => "ok".to_owned(),
        Integrity::Damaged(reason) => format!("damaged: {reason}"),
        Integrity::Unknown => "has no checksum".to_owned(),
    };
    let names: Vec<String> = files.iter().map(name).collect();
    let rows: Vec<(&str, String)> =
        names.iter().map(String::as_str).zip(files.iter().map(state)).collect();
    units::table(&rows)
}
