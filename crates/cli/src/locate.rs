//! Where the model is when nobody says so.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::error::Failure;

/// The folder under `models/` of the model that comes with the program.
pub const SHIPPED: &str = "storyteller";

/// The folder of the model to use: `given` (from `--model` or `LLADA_MODEL`), or the shipped one.
pub fn model(given: Option<&Path>) -> Result<PathBuf> {
    match given {
        Some(dir) if is_model(dir) => Ok(dir.to_owned()),
        Some(dir) if dir.is_dir() => Err(Failure::new(
            format!("`{}` is not a model: it has no `config.json`", dir.display()),
            "give the folder that holds `config.json`, `tokenizer.json` and the safetensors files",
        )
        .into()),
        Some(dir) => Err(Failure::new(
            format!("there is no folder `{}`", dir.display()),
            "`--model` takes the folder of a checkpoint; without it the shipped model is used",
        )
        .into()),
        None => shipped().ok_or_else(|| {
            Failure::new(
                format!("the shipped model `models/{SHIPPED}` was not found"),
                "run inside the project's folder, or name a model with `--model DIR` or `LLADA_MODEL`",
            )
            .into()
        }),
    }
}

/// The shipped model: above the working folder, above the executable, or in the source tree that
/// the program was built from.
pub fn shipped() -> Option<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let starts = [std::env::current_dir().ok(), std::env::current_exe().ok()];
    let upwards = starts.iter().flatten().flat_map(|start| start.ancestors());
    upwards
        .map(Path::to_owned)
        .chain(source.canonicalize().ok())
        .map(|dir| dir.join("models").join(SHIPPED))
        .find(|dir| is_model(dir))
}

fn is_model(dir: &Path) -> bool {
    dir.join("config.json").is_file() || llada::checkpoint::is_adapter(dir)
}
