//! `llada show --verify`: whether files are as they were written.

use std::path::Path;

use anyhow::Result;
use llada::verify::{Integrity, Verified, verify};
use serde_json::{Value, json};

#[cfg(feature = "hub")]
use crate::hub::Checksum;
use crate::{
    error::Failure,
    locate::{self, Shipped},
    term::{self, Term},
    view::units,
};

/// Prints what is known of each file, and fails when one is damaged or none has a checksum.
pub fn run(path: Option<&Path>, json: bool, term: &Term) -> Result<()> {
    let path = match path {
        // A run and token shards are no models, and damaged ones are looked at too.
        Some(path) if path.exists() => path.to_path_buf(),
        path => locate::model(path, Shipped::Base)?,
    };
    let mut files = verify(&path)?;
    #[cfg(feature = "hub")]
    for file in &mut files {
        if !matches!(file.integrity, Integrity::Damaged(_))
            && let Some(integrity) = as_fetched(&file.path)
        {
            file.integrity = integrity;
        }
    }
    term::answer(&if json { as_json(&files)? } else { as_text(&files, &path) })?;
    let count = |is: fn(&Integrity) -> bool| files.iter().filter(|f| is(&f.integrity)).count();
    let unknown = count(|integrity| *integrity == Integrity::Unknown);
    match count(|integrity| matches!(integrity, Integrity::Damaged(_))) {
        0 if unknown == files.len() => {
            let hint = "files of the hub's cache, of runs and of token shards have checksums, and \
                        weights that this program wrote";
            Err(Failure::new("nothing could be checked: no file has a checksum", hint).into())
        }
        0 => {
            match unknown {
                0 => {}
                1 => term.note("1 file has no checksum and was not checked"),
                n => term.note(&format!("{n} files have no checksum and were not checked")),
            }
            Ok(())
        }
        1 => Err(failure("1 file is damaged")),
        n => Err(failure(&format!("{n} files are damaged"))),
    }
}

/// What the name of a blob in the hub's cache, which is a checksum, says of a file that leads to it.
#[cfg(feature = "hub")]
fn as_fetched(path: &Path) -> Option<Integrity> {
    let blob = path.canonicalize().ok()?;
    let is_blob = blob.parent()?.file_name()? == "blobs";
    let expected = Checksum::of_etag(blob.file_name()?.to_str()?).filter(|_| is_blob)?;
    Some(match expected.is_of(&blob) {
        Ok(true) => Integrity::Intact,
        Ok(false) => Integrity::Damaged("it is not what was fetched: its checksum differs".into()),
        Err(error) => Integrity::Damaged(error.to_string()),
    })
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
