//! The small models that ship with `llada`, as bytes in the program.
//!
//! Each is a folder as the hub has them. The files lie in this crate's own folder, so that a
//! package of it is complete.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

/// A file of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct File {
    /// Its name in the folder.
    pub name: &'static str,
    /// What it holds.
    pub bytes: &'static [u8],
}

/// A model that ships.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Model {
    /// The name of its folder.
    pub name: &'static str,
    /// Its files.
    pub files: &'static [File],
}

/// The files of a folder, by their names.
macro_rules! files {
    ($folder:literal: $($name:literal),+ $(,)?) => {
        &[$(File { name: $name, bytes: include_bytes!(concat!("../", $folder, "/", $name)) }),+]
    };
}

/// Continues text: a teller of fairy tales with 3 million parameters.
pub static STORYTELLER: Model = Model {
    name: "storyteller",
    files: files!("storyteller":
        "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
        "generation_config.json", "quality.jsonl",
    ),
};

/// Answers: the same, tuned on dialogues.
pub static STORYTELLER_CHAT: Model = Model {
    name: "storyteller-chat",
    files: files!("storyteller-chat":
        "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
        "generation_config.json", "quality.jsonl",
    ),
};

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, path::Path};

    /// Every file that belongs to a model, and not to how it was made, is in the program.
    #[test]
    fn the_models_are_whole() {
        for model in [STORYTELLER, STORYTELLER_CHAT] {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(model.name);
            let names = fs::read_dir(&folder).unwrap();
            let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
            let of_model = |name: &String| {
                [".json", ".jsonl", ".jinja", ".safetensors"].iter().any(|end| name.ends_with(end))
            };
            for name in names.filter(of_model) {
                let file = model.files.iter().find(|file| file.name == name);
                let file = file.unwrap_or_else(|| panic!("{}/{name} is left out", model.name));
                assert!(file.bytes == fs::read(folder.join(&name)).unwrap(), "{name}");
            }
        }
    }
}
