//! Where the model is when nobody says so.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::error::Failure;

/// The models that come with the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shipped {
    /// Continues text.
    Base,
    /// Answers.
    Tuned,
}

impl Shipped {
    /// Its folder under `models/`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Base => "storyteller",
            Self::Tuned => "storyteller-chat",
        }
    }

    /// The one that a conversation needs, or the one that it does not.
    pub fn for_chat(chat: bool) -> Self {
        if chat { Self::Tuned } else { Self::Base }
    }
}

/// The folder or GGUF file of the model to use: `given` (from `--model` or `LLADA_MODEL`), or else the one that
/// ships for the purpose; the base model where only that one was installed.
pub fn model(given: Option<&Path>, otherwise: Shipped) -> Result<PathBuf> {
    match given {
        Some(dir) if is_model(dir) => Ok(dir.to_owned()),
        Some(dir) if dir.is_dir() => Err(Failure::new(
            format!("`{}` is not a model: it has no `config.json`", dir.display()),
            "give the folder that holds `config.json`, `tokenizer.json` and the safetensors files",
        )
        .into()),
        Some(file) if file.is_file() => Err(Failure::new(
            format!("`{}` is not a model: its name does not end in `.gguf`", file.display()),
            "give the folder of a checkpoint, or a GGUF file",
        )
        .into()),
        Some(dir) => Err(Failure::new(
            format!("there is no folder `{}`", dir.display()),
            "`--model` takes the folder of a checkpoint or a GGUF file; without it the shipped \
             model is used",
        )
        .into()),
        None => shipped(otherwise).or_else(|| shipped(Shipped::Base)).ok_or_else(|| {
            Failure::new(
                format!("the shipped model `models/{}` was not found", otherwise.name()),
                "run inside the project's folder, or name a model with `--model DIR` or `LLADA_MODEL`",
            )
            .into()
        }),
    }
}

/// The folder of a shipped model: above the working folder, above the executable, or in the source tree that
/// the program was built from.
pub fn shipped(model: Shipped) -> Option<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let starts = [std::env::current_dir().ok(), std::env::current_exe().ok()];
    let upwards = starts.iter().flatten().flat_map(|start| start.ancestors());
    upwards
        .map(Path::to_owned)
        .chain(source.canonicalize().ok())
        .map(|dir| dir.join("models").join(model.name()))
        .find(|dir| is_model(dir))
}

fn is_model(dir: &Path) -> bool {
    let is_file = llada::checkpoint::gguf::is_gguf(dir) && dir.is_file();
    is_file || dir.join("config.json").is_file() || llada::checkpoint::is_adapter(dir)
}
