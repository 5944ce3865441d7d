//! The files that make a tokenizer, as bytes: of a folder, or carried by a GGUF file.

use std::path::{Path, PathBuf};

use super::{Settings, Tokenizer, TokenizerError, settings};
use crate::{Result, files, hub::folder::GENERATION_CONFIG};

const NAMES: [&str; 5] = [
    "tokenizer.json",
    settings::FILE,
    "special_tokens_map.json",
    settings::TEMPLATE,
    GENERATION_CONFIG,
];

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

    /// Those of the files `names` that are in the folder `dir`.
    pub(crate) fn some_of(dir: &Path, names: &[&'static str]) -> Result<Self> {
        let mut found = Vec::new();
        for &name in names {
            let path = dir.join(name);
            let limit = if name == Self::JSON { MAX_JSON } else { MAX_OTHER };
            if path.exists() {
                found.push((name, files::read_bytes(&path, limit)?));
            }
        }
        Ok(Self(found))
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

    /// The tokenizer that they make, `None` without a `tokenizer.json`. Errors name `origin`, the
    /// file that carries them, or the file in `origin` where that is their folder.
    ///
    /// # Errors
    /// When one of the files cannot be used.
    pub fn tokenizer(&self, origin: &Path) -> Result<Option<Tokenizer>> {
        let Some(json) = self.text(Self::JSON, origin)? else { return Ok(None) };
        let settings = Settings::of(self, origin)?;
        Tokenizer::from_text(json, settings, &place(origin, Self::JSON)).map(Some)
    }

    /// The tokenizer that they make.
    ///
    /// # Errors
    /// As [`TokenizerFiles::tokenizer`], and when there is no `tokenizer.json`.
    pub(crate) fn needed(&self, origin: &Path) -> Result<Tokenizer> {
        let missing = || TokenizerError::Missing { dir: origin.to_path_buf() };
        Ok(self.tokenizer(origin)?.ok_or_else(missing)?)
    }

    /// Adds a chat template if there is none.
    pub(crate) fn or_chat_template(&mut self, template: &str) {
        if self.chat_template().is_none() {
            self.set(settings::TEMPLATE, template.into());
        }
    }

    /// The chat template that they hold.
    pub(crate) fn chat_template(&self) -> Option<String> {
        let settings = Settings::of(self, Path::new("")).ok()?;
        settings.chat_template().map(str::to_owned)
    }

    /// CRC-32C of `tokenizer.json`.
    pub fn crc32c(&self) -> u32 {
        self.get(Self::JSON).map_or(0, crc32c::crc32c)
    }
}

/// Where the file `name` of a tokenizer from `origin` is: in the folder, or in the file that
/// carries it.
pub(super) fn place(origin: &Path, name: &str) -> PathBuf {
    if origin.is_dir() { origin.join(name) } else { origin.to_path_buf() }
}
