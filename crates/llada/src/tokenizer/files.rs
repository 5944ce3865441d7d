//! The files that make a folder's tokenizer, as bytes.

use std::path::Path;

use crate::{Result, checkpoint::files, io};

const NAMES: [&str; 4] =
    ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja"];

/// The files of a tokenizer, to be given to other folders without a change.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TokenizerFiles(Vec<(&'static str, Vec<u8>)>);

impl TokenizerFiles {
    /// Reads those that `dir` has.
    ///
    /// # Errors
    /// When one of them cannot be read.
    pub fn read(dir: &Path) -> Result<Self> {
        let mut found = Vec::new();
        for name in NAMES {
            let path = dir.join(name);
            if path.is_file() {
                found.push((name, std::fs::read(&path).map_err(io("read", &path))?));
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

    /// CRC-32C of `tokenizer.json`.
    pub fn crc32c(&self) -> u32 {
        let json = self.0.iter().find(|(name, _)| *name == NAMES[0]);
        json.map_or(0, |(_, bytes)| crc32c::crc32c(bytes))
    }
}
