//! Text to token ids and back, with any `tokenizer.json` or one trained here.

mod bpe;
mod error;
mod files;
mod pieces;
mod settings;
mod train;

use std::{
    collections::HashSet,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::OnceLock,
};

use serde_json::{Map, Value};

pub use error::TokenizerError;
pub(crate) use files::DEFAULT;
pub use files::TokenizerFiles;
pub(crate) use settings::{Settings, TOOLS};
pub use train::{Kind, SPECIAL_TOKENS, train};

use crate::{
    Result,
    config::{ModelConfig, SpecialTokens},
    files as disk,
};

/// A tokenizer, with the settings that lie beside it.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    /// The same, but blind to special tokens in the text; made when it is first needed.
    plain: OnceLock<Box<tokenizers::Tokenizer>>,
    settings: Settings,
    special: SpecialTokens,
    /// Ids that plain text must not give.
    reserved: HashSet<u32>,
    /// The largest id.
    last: u32,
}

impl Tokenizer {
    /// Reads one `tokenizer.json`, wherever it is and whatever it is called, and
    /// `tokenizer_config.json` beside it where there is one.
    ///
    /// # Errors
    /// When one of the files cannot be used.
    pub fn from_file(file: &Path) -> Result<Self> {
        let dir = file.parent().unwrap_or(Path::new(""));
        let beside = TokenizerFiles::some_of(dir, &[files::CONFIG, files::MAP, files::TEMPLATE])?;
        let text = disk::read_text(file, files::MAX_JSON)?;
        Self::from_text(&text, Settings::of(&beside, dir)?, file)
    }

    /// From the text of a `tokenizer.json`; errors name `file`.
    fn from_text(json: &str, settings: Settings, file: &Path) -> Result<Self> {
        let read = serde_json::from_str(json).map_err(|e| e.to_string());
        let tokenizer = read.and_then(|json| Self::from_json(json, settings));
        let file = || file.to_path_buf();
        Ok(tokenizer.map_err(|what| TokenizerError::File { file: file(), what })?)
    }

    /// Builds a tokenizer from the content of a `tokenizer.json`, or says what is wrong with it.
    fn from_json(mut json: Value, settings: Settings) -> std::result::Result<Self, String> {
        let object = json.as_object_mut().ok_or("it is not a JSON object")?;
        // A length limit or padding saved with a tokenizer would silently change the text.
        object.insert("truncation".into(), Value::Null);
        object.insert("padding".into(), Value::Null);
        check_merges(object)?;
        let unknown = unknown_token(object);
        let text = json.to_string();
        let inner: tokenizers::Tokenizer =
            guard(|| text.parse().map_err(|e: tokenizers::Error| e.to_string()))?;
        let last = *inner.get_vocab(true).values().max().ok_or("its vocabulary is empty")?;
        let special = settings.special_tokens(&inner);
        let mut reserved: HashSet<u32> = inner
            .get_added_tokens_decoder()
            .iter()
            .filter(|(_, token)| token.special)
            .map(|(&id, _)| id)
            .collect();
        let SpecialTokens { mask, eos, eot, bos, pad } = special;
        reserved.extend([mask, eos, eot, bos, pad].into_iter().flatten());
        if let Some(id) = unknown.and_then(|token| inner.token_to_id(&token)) {
            reserved.remove(&id);
        }
        Ok(Self { inner, plain: OnceLock::new(), settings, special, reserved, last })
    }

    /// The ids of `text`. Special tokens written in the text become their ids; none is added.
    ///
    /// # Errors
    /// When the tokenizer's model refuses the text.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        apply("encode", || Ok(self.inner.encode_fast(text, false)?.get_ids().to_vec()))
    }

    /// [`Tokenizer::encode`] of many texts, on all cores.
    ///
    /// # Errors
    /// When the tokenizer's model refuses one of the texts.
    pub fn encode_batch(&self, texts: Vec<&str>) -> Result<Vec<Vec<u32>>> {
        apply("encode", || {
            let encodings = self.inner.encode_batch_fast(texts, false)?;
            Ok(encodings.iter().map(|e| e.get_ids().to_vec()).collect())
        })
    }

    /// The ids of a text that is not trusted: special tokens written in it are read as the
    /// characters that they consist of.
    ///
    /// # Errors
    /// When the tokenizer's model refuses the text, or would give a special token all the same.
    pub fn encode_plain(&self, text: &str) -> Result<Vec<u32>> {
        let plain = self.plain.get_or_init(|| {
            let mut plain = Box::new(self.inner.clone());
            plain.set_encode_special_tokens(true);
            plain
        });
        let ids: Vec<u32> =
            apply("encode", || Ok(plain.encode_fast(text, false)?.get_ids().to_vec()))?;
        match ids.iter().find(|id| self.reserved.contains(id)) {
            None => Ok(ids),
            Some(&id) => {
                let token = self.inner.id_to_token(id).unwrap_or_default();
                Err(TokenizerError::Special { token }.into())
            }
        }
    }

    /// The text of `ids`; special tokens are written out, or left out with `skip_special`. Ids
    /// that the tokenizer does not know (unused rows of an embedding) give no text.
    ///
    /// # Errors
    /// When the tokenizer's decoder fails.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        apply("decode", || self.inner.decode(ids, skip_special))
    }

    /// One token as readable text, `None` when there is none of that id. A piece of a character
    /// that spans several tokens reads as `�`.
    pub fn token(&self, id: u32) -> Option<String> {
        let piece = self.inner.id_to_token(id)?;
        Some(self.decode(&[id], false).unwrap_or(piece))
    }

    /// The bytes that a token adds to a text, `None` when there is none of that id: those of
    /// [`Tokenizer::token`], or of the piece of a character that it reads as `�`.
    pub fn token_bytes(&self, id: u32) -> Option<Vec<u8>> {
        let text = self.token(id)?;
        let piece = self.inner.id_to_token(id)?;
        let bytes = pieces::byte_level(&piece).or_else(|| pieces::byte_fallback(&piece));
        // Whatever the tokenizer's decoder does: the bytes must read as it reads the token.
        let bytes = bytes.filter(|bytes| String::from_utf8_lossy(bytes) == text.as_str());
        Some(bytes.unwrap_or_else(|| text.into_bytes()))
    }

    /// The text of a token that texts may consist of; `None` of reserved ones, and of those without text, such
    /// as the unknown token.
    pub(crate) fn plain(&self, id: u32) -> Option<String> {
        let text = (!self.is_special(id)).then(|| self.decode(&[id], true).ok()).flatten();
        text.filter(|text| !text.is_empty())
    }

    /// Whether an id has a meaning of its own, which plain text must not give.
    pub fn is_special(&self, id: u32) -> bool {
        self.reserved.contains(&id)
    }

    /// The id of a token, as `tokenizer.json` spells it.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// One more than the largest id: what a model's embedding must have at least.
    pub fn vocab_size(&self) -> usize {
        self.last as usize + 1
    }

    /// The tokens with a meaning: as `tokenizer_config.json` names them, or else by the names that
    /// this family of models gives them.
    pub fn special_tokens(&self) -> SpecialTokens {
        self.special
    }

    /// Checks that the model has an embedding for every id.
    ///
    /// # Errors
    /// When it has not: the tokenizer belongs to another model.
    pub fn check(&self, config: &ModelConfig) -> Result<()> {
        let embedding_size = config.embedding_size;
        if self.vocab_size() <= embedding_size {
            return Ok(());
        }
        let token = self.inner.id_to_token(self.last).unwrap_or_default();
        Err(TokenizerError::Vocabulary { token, id: self.last, embedding_size }.into())
    }

    /// Whether the files beside it state a chat template, as those of a model do that was tuned on
    /// conversations.
    pub fn has_chat_template(&self) -> bool {
        self.settings.chat_templates().is_some()
    }

    /// Writes the tokenizer as a `tokenizer.json`.
    ///
    /// # Errors
    /// When the file cannot be written; the previous one is kept then.
    pub fn save(&self, path: &Path) -> Result<()> {
        let json = self
            .inner
            .to_string(true)
            .map_err(|e| TokenizerError::File { file: path.to_path_buf(), what: e.to_string() })?;
        disk::replace_with(path, json.as_bytes())
    }

    /// Writes `tokenizer.json` and `tokenizer_config.json` into `dir`, as `transformers` reads
    /// them, with the chat template where there is one. Special tokens that were known by their names only are stated.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn save_dir(&self, dir: &Path) -> Result<()> {
        disk::create_dir(dir)?;
        self.save(&dir.join("tokenizer.json"))?;
        let name = |id: Option<u32>| id.and_then(|id| self.inner.id_to_token(id));
        self.settings.stating(self.special, &name).write(dir)
    }
}

impl TokenizerFiles {
    /// The tokenizer that they make, `None` without a `tokenizer.json`. Errors name `origin`, the
    /// file that carries them, or the file in `origin` where that is their folder.
    ///
    /// # Errors
    /// When one of the files cannot be used.
    pub fn tokenizer(&self, origin: &Path) -> Result<Option<Tokenizer>> {
        let Some(json) = self.text(Self::JSON, origin)? else { return Ok(None) };
        let settings = Settings::of(self, origin)?;
        Tokenizer::from_text(json, settings, &files::place(origin, Self::JSON)).map(Some)
    }

    /// The tokenizer that they make.
    ///
    /// # Errors
    /// As [`TokenizerFiles::tokenizer`], and when there is no `tokenizer.json`.
    pub(crate) fn needed(&self, origin: &Path) -> Result<Tokenizer> {
        let missing = || TokenizerError::Missing { dir: origin.to_path_buf() };
        Ok(self.tokenizer(origin)?.ok_or_else(missing)?)
    }
}

/// Runs a function of `tokenizers`, turning its errors and panics into ours.
fn apply<T>(action: &'static str, f: impl FnOnce() -> tokenizers::Result<T>) -> Result<T> {
    guard(|| f().map_err(|e| e.to_string()))
        .map_err(|what| TokenizerError::Apply { action, what }.into())
}

/// `tokenizers` panics on some damaged files that it should refuse; here they become errors.
fn guard<T>(f: impl FnOnce() -> std::result::Result<T, String>) -> std::result::Result<T, String> {
    catch_unwind(AssertUnwindSafe(f))
        .unwrap_or_else(|_| Err("the `tokenizers` library failed on it".into()))
}

/// Checks that every merge of a BPE model gives a token of its vocabulary. `tokenizers` takes this
/// for granted: it cuts prefixes off and joins the parts without looking.
fn check_merges(json: &Map<String, Value>) -> std::result::Result<(), String> {
    let Some(model) = json.get("model") else { return Ok(()) };
    let (Some(merges), Some(vocab)) = (
        model.get("merges").and_then(Value::as_array),
        model.get("vocab").and_then(Value::as_object),
    ) else {
        return Ok(());
    };
    let prefix = model.get("continuing_subword_prefix").and_then(Value::as_str).unwrap_or("");
    for merge in merges {
        let parts = match merge {
            Value::String(line) => line.split_once(' '),
            pair => pair.get(0).and_then(Value::as_str).zip(pair.get(1).and_then(Value::as_str)),
        };
        let joined = parts.and_then(|(a, b)| Some(format!("{a}{}", b.strip_prefix(prefix)?)));
        if !joined.is_some_and(|token| vocab.contains_key(&token)) {
            return Err(format!("the merge {merge} does not give a token of the vocabulary"));
        }
    }
    Ok(())
}

/// The token that stands for characters that the model does not know, where it has one.
fn unknown_token(json: &Map<String, Value>) -> Option<String> {
    let model = json.get("model")?;
    if let Some(token) = model.get("unk_token").and_then(Value::as_str) {
        return Some(token.to_owned());
    }
    let id = model.get("unk_id").and_then(Value::as_u64)?;
    Some(model.get("vocab")?.get(usize::try_from(id).ok()?)?.get(0)?.as_str()?.to_owned())
}

#[cfg(test)]
mod tests;
