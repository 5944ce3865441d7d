//! The files that make a tokenizer, as bytes: of a folder, or carried by a GGUF file.

use std::path::Path;

use super::{MAX_TOKENIZER, Settings, Tokenizer, TokenizerError};
use crate::{
    Result, chat,
    checkpoint::{self, GENERATION_CONFIG, gguf},
    files,
};

const TEMPLATE: &str = "chat_template.jinja";
const NAMES: [&str; 5] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    TEMPLATE,
    GENERATION_CONFIG,
];

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

    /// Reads those that `dir` has; of a GGUF file, those that it carries or that its vocabulary
    /// makes. Adapters without a tokenizer have that of their model, and propose what they
    /// themselves state.
    ///
    /// # Errors
    /// When one of them cannot be read.
    pub fn read(dir: &Path) -> Result<Self> {
        let from = checkpoint::tokenizer_dir(dir)?;
        if from != dir {
            let mut files = Self::read(&from)?;
            let own = dir.join(GENERATION_CONFIG);
            if own.exists() {
                files.set(GENERATION_CONFIG, files::read_bytes(&own, MAX_TOKENIZER)?);
            }
            return Ok(files);
        }
        if gguf::is_gguf(dir) {
            return gguf::tokenizer_files(dir);
        }
        let mut found = Vec::new();
        for name in NAMES {
            let path = dir.join(name);
            if path.exists() {
                found.push((name, files::read_bytes(&path, MAX_TOKENIZER)?));
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

    /// The tokenizer that they make, `None` without a `tokenizer.json`; errors name `origin`.
    ///
    /// # Errors
    /// When one of the files cannot be used.
    pub fn tokenizer(&self, origin: &Path) -> Result<Option<Tokenizer>> {
        let Some(json) = self.get(Self::JSON) else { return Ok(None) };
        let settings = Settings::of(self, origin)?;
        let read = serde_json::from_slice(json).map_err(|e| e.to_string());
        match read.and_then(|json| Tokenizer::from_json(json, settings)) {
            Ok(tokenizer) => Ok(Some(tokenizer)),
            Err(what) => Err(TokenizerError::File { file: origin.to_path_buf(), what }.into()),
        }
    }

    /// Adds LLaDA's chat template, which is the one of a model without any, if there is none.
    pub(crate) fn state_chat_template(&mut self) {
        if self.chat_template().is_none() {
            self.set(TEMPLATE, chat::LLADA.into());
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
