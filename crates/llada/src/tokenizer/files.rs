//! The files that make a tokenizer, as bytes: of a folder, or carried by a GGUF file.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::TokenizerError;
use crate::{Result, files, hub::folder::GENERATION_CONFIG, json};

pub(super) const CONFIG: &str = "tokenizer_config.json";
pub(super) const TEMPLATE: &str = "chat_template.jinja";
/// Special tokens as folders stated them before `added_tokens_decoder` was a key.
pub(super) const MAP: &str = "special_tokens_map.json";
/// The chat template that is meant where none is named.
pub(crate) const DEFAULT: &str = "default";

const NAMES: [&str; 5] = ["tokenizer.json", CONFIG, MAP, TEMPLATE, GENERATION_CONFIG];

/// The folder of further chat templates, each a file `NAME.jinja`.
const TEMPLATES: &str = "additional_chat_templates";

/// LLaDA's `tokenizer.json` has 10 MB.
pub(super) const MAX_JSON: u64 = 1 << 30;
/// Real ones of the others have 50 kB.
const MAX_OTHER: u64 = 64 << 20;

/// The files of a tokenizer, to be given to other folders without a change; and with them what
/// their model proposes to be sampled with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TokenizerFiles(Vec<(&'static str, Vec<u8>)>);

impl TokenizerFiles {
    /// The names that they have.
    pub const NAMES: [&str; 5] = NAMES;

    /// Whether one of them has this name.
    pub fn names(name: &str) -> bool {
        NAMES.contains(&name)
    }

    /// The name of the one file that every tokenizer has.
    pub const JSON: &str = NAMES[0];

    /// Reads those that are in the folder `dir`.
    ///
    /// # Errors
    /// When one of them cannot be read.
    pub fn in_folder(dir: &Path) -> Result<Self> {
        Self::some_of(dir, &NAMES)
    }

    /// Those of the files `names` that are in the folder `dir`. Chat templates in a folder of their own
    /// become keys of `tokenizer_config.json`, in which `transformers` writes several.
    pub(crate) fn some_of(dir: &Path, names: &[&'static str]) -> Result<Self> {
        let mut found = Vec::new();
        for &name in names {
            let path = dir.join(name);
            let limit = if name == Self::JSON { MAX_JSON } else { MAX_OTHER };
            if path.exists() {
                found.push((name, files::read_bytes(&path, limit)?));
            }
        }
        let mut found = Self(found);
        if names.contains(&TEMPLATE) {
            found.take_in(further_templates(dir)?, dir);
        }
        Ok(found)
    }

    /// Makes `templates` and that of `chat_template.jinja` the only chat templates.
    fn take_in(&mut self, templates: Vec<(String, String)>, origin: &Path) {
        if templates.is_empty() {
            return;
        }
        // What is damaged is left to whoever reads it.
        let Ok(own) = self.text(TEMPLATE, origin) else { return };
        let config = self.get(CONFIG).map(json::parse_object);
        let Ok(mut config) = config.unwrap_or_else(|| Ok(Map::new())) else { return };
        let own = own.map(|template| (DEFAULT.to_owned(), template.to_owned()));
        let templates: Map<String, Value> =
            own.into_iter().chain(templates).map(|(name, text)| (name, text.into())).collect();
        config.insert("chat_template".into(), templates.into());
        self.set(CONFIG, format!("{:#}\n", Value::Object(config)).into_bytes());
        self.0.retain(|(name, _)| *name != TEMPLATE);
    }

    /// Writes them to `dir`.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn write(&self, dir: &Path) -> Result<()> {
        self.0.iter().try_for_each(|(name, bytes)| files::replace_with(&dir.join(name), bytes))
    }

    /// Those of the files that `read` gives bytes for.
    pub(crate) fn collect(read: impl Fn(&str) -> Option<Vec<u8>>) -> Self {
        Self(NAMES.into_iter().filter_map(|name| Some((name, read(name)?))).collect())
    }

    /// The files there are, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &[u8])> {
        self.0.iter().map(|(name, bytes)| (*name, bytes.as_slice()))
    }

    /// One of them.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.iter().find(|(found, _)| *found == name).map(|(_, bytes)| bytes)
    }

    /// Adds one, or puts it in the place of another.
    pub(crate) fn set(&mut self, name: &'static str, bytes: Vec<u8>) {
        self.0.retain(|(found, _)| *found != name);
        self.0.push((name, bytes));
    }

    /// Adds those of `others`, each in the place of one that there is.
    pub(crate) fn add(&mut self, others: Self) {
        others.0.into_iter().for_each(|(name, bytes)| self.set(name, bytes));
    }

    /// The text of one of them; what is wrong with it is said of the file in `origin`, where that
    /// is a folder, and otherwise of `origin`.
    pub(crate) fn text(&self, name: &str, origin: &Path) -> Result<Option<&str>> {
        let Some(bytes) = self.get(name) else { return Ok(None) };
        let file = place(origin, name);
        if file != origin {
            return files::as_text(bytes, &file).map(Some);
        }
        let what = || format!("{name}: it is not UTF-8");
        let text = str::from_utf8(bytes);
        Ok(Some(text.map_err(|_| TokenizerError::File { file, what: what() })?))
    }

    /// CRC-32C of `tokenizer.json`.
    pub fn crc32c(&self) -> u32 {
        self.get(Self::JSON).map_or(0, crc32c::crc32c)
    }
}

/// The chat templates that are files of their own in the model folder `dir`, by name.
fn further_templates(dir: &Path) -> Result<Vec<(String, String)>> {
    let Ok(entries) = dir.join(TEMPLATES).read_dir() else { return Ok(Vec::new()) };
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.retain(|path| path.extension().is_some_and(|ending| ending == "jinja"));
    paths.sort();
    let read = |path: PathBuf| {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Ok((name, files::read_text(&path, MAX_OTHER)?))
    };
    paths.into_iter().map(read).collect()
}

/// Where the file `name` of a tokenizer from `origin` is: in the folder, or in the file that
/// carries it.
pub(super) fn place(origin: &Path, name: &str) -> PathBuf {
    if origin.is_dir() { origin.join(name) } else { origin.to_path_buf() }
}
