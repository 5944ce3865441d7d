//! `meta.json`: what a folder of token shards holds, sealed with a checksum of its own.

use std::path::{Path, PathBuf};

use crate::{
    data::{DataError, Format, Separator},
    files::{self, Marks},
    tokenizer::TokenizerFiles,
};

/// The version of the format that this library writes and reads.
const VERSION: u32 = 2;

/// One of as many parts of the inputs, of documents that follow on each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Part {
    /// Its number, from 1.
    pub number: usize,
    /// How many there are.
    pub of: usize,
}

/// How inputs become shards.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct PrepareOptions {
    /// Format of all inputs; `None` goes by the names.
    pub format: Option<Format>,
    /// How text files are cut into documents.
    pub separator: Separator,
    /// Field of a JSON row, or column of a Parquet file, that holds the text.
    pub field: String,
    /// Fraction of the documents to hold out for validation.
    pub validation: f64,
    /// Seed of the choice of those documents.
    pub seed: u64,
    /// Tokens of a shard, at most.
    pub shard_tokens: u64,
    /// The part of the documents that is tokenised; `None` is all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<Part>,
    /// Whether an existing output folder is replaced.
    #[serde(skip)]
    pub overwrite: bool,
}

impl Default for PrepareOptions {
    fn default() -> Self {
        Self {
            format: None,
            separator: Separator::default(),
            field: "text".into(),
            validation: 0.01,
            seed: 0,
            shard_tokens: 100_000_000,
            part: None,
            overwrite: false,
        }
    }
}

/// How an id is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IdType {
    /// Two bytes, for vocabularies up to 65536.
    U16,
    /// Four bytes.
    U32,
}

impl IdType {
    /// The smallest type for ids below `vocab`.
    pub fn for_vocab(vocab: usize) -> Self {
        if vocab <= 1 << 16 { Self::U16 } else { Self::U32 }
    }

    /// Bytes of an id.
    pub fn size(self) -> usize {
        match self {
            Self::U16 => 2,
            Self::U32 => 4,
        }
    }

    /// The id that these bytes, as many as it has, are.
    pub(super) fn read(self, bytes: &[u8]) -> u32 {
        match self {
            Self::U16 => u32::from(u16::from_le_bytes([bytes[0], bytes[1]])),
            Self::U32 => u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]),
        }
    }
}

/// `meta.json`: what the shards of a folder hold and how they were made. The last thing in the file
/// is a checksum of all that stands before it.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Meta {
    /// Version of the format.
    pub version: u32,
    /// How ids are stored.
    pub dtype: IdType,
    /// Every id is below this.
    pub vocab_size: usize,
    /// The files of the tokenizer that made the ids, copied next to them.
    pub tokenizer: Vec<TokenizerMeta>,
    /// How the inputs were read.
    pub options: PrepareOptions,
    /// The inputs, in the order in which they were read.
    pub inputs: Vec<PathBuf>,
    /// In a part, the checksum of all documents in their order, by which other parts are known to be of the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub documents: Option<u64>,
    /// Documents left out because an equal one came before.
    pub duplicates: u64,
    /// Rows that could not be read.
    pub rejected: u64,
    /// Where the first of them stand, and why.
    pub first_rejected: Vec<String>,
    /// Whether the validation split is the end of the only document, not documents of its own.
    pub tail_held_out: bool,
    /// Training tokens.
    pub train: SplitMeta,
    /// Held-out tokens.
    pub validation: SplitMeta,
}

/// A file of the tokenizer and its checksum.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct TokenizerMeta {
    /// Name in the folder.
    pub file: String,
    /// CRC-32C of its bytes.
    pub crc32c: u32,
}

/// What one split holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SplitMeta {
    /// Documents.
    pub documents: u64,
    /// Tokens, the one that ends each document included.
    pub tokens: u64,
    /// Bytes of the documents' text.
    pub bytes: u64,
    /// Its files, in order.
    pub shards: Vec<ShardMeta>,
}

/// One file of ids.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ShardMeta {
    /// Name in the folder.
    pub file: String,
    /// Ids in it.
    pub tokens: u64,
    /// CRC-32C of its bytes.
    pub crc32c: u32,
}

/// Between the description and its checksum of eight hexadecimal digits.
const SEAL: &str = ",\n  \"crc32c\": \"";
/// After the checksum.
const END: &str = "\"\n}\n";

impl Meta {
    /// The version that this library writes.
    pub(super) const VERSION: u32 = VERSION;

    /// The text of `meta.json`.
    pub(super) fn to_text(&self) -> String {
        let text = serde_json::to_string_pretty(self).unwrap_or_default();
        let body = text.strip_suffix("\n}").unwrap_or(&text);
        format!("{body}{SEAL}{:08x}{END}", crc32c::crc32c(body.as_bytes()))
    }

    /// Reads the text of a `meta.json`, or says what is wrong with it.
    pub(super) fn from_text(text: &str) -> Result<Self, String> {
        let Some(body) = unsealed(text) else {
            let value = serde_json::from_str::<serde_json::Value>(text);
            let version = value.map_err(|e| e.to_string())?["version"].as_u64();
            return Err(match version.filter(|&found| found != u64::from(VERSION)) {
                Some(found) => format!("format {found}, this version reads {VERSION}"),
                None => "it is not as it was written: its checksum differs".into(),
            });
        };
        let meta: Self = serde_json::from_str(&format!("{body}\n}}")).map_err(|e| e.to_string())?;
        if meta.version != VERSION {
            return Err(format!("format {}, this version reads {VERSION}", meta.version));
        }
        if meta.vocab_size == 0 || IdType::for_vocab(meta.vocab_size) != meta.dtype {
            let (dtype, entries) = (meta.dtype, meta.vocab_size);
            return Err(format!("{dtype:?} ids do not fit {entries} entries"));
        }
        Ok(meta)
    }

    /// Whether a folder has a `meta.json` of prepared data, of any version.
    pub(super) fn is_in(dir: &Path) -> bool {
        let text = files::read_text(&dir.join(META), MAX_META).unwrap_or_default();
        let value = serde_json::from_str(&text).unwrap_or(serde_json::Value::Null);
        ["version", "dtype", "vocab_size", "train"].iter().all(|key| value.get(key).is_some())
    }

    /// CRC-32C of `tokenizer.json`.
    pub(crate) fn tokenizer_crc32c(&self) -> u32 {
        let json = self.tokenizer.iter().find(|file| file.file == TokenizerFiles::JSON);
        json.map_or(0, |file| file.crc32c)
    }
}

/// Its name.
pub(crate) const META: &str = "meta.json";
/// A real one has a hundred bytes for each shard.
const MAX_META: u64 = 256 << 20;

/// Reads the `meta.json` at `path`.
pub(super) fn read(path: &Path) -> crate::Result<Meta> {
    let text = files::read_text(path, MAX_META)?;
    let wrong = |reason| DataError::Meta { path: path.to_path_buf(), reason };
    Ok(Meta::from_text(&text).map_err(wrong)?)
}

/// The checksums that a `meta.json`, at `path`, has of the files beside it; or what is wrong with
/// it.
pub(crate) fn marks(path: &Path) -> Result<Marks, String> {
    let Meta { tokenizer, train, validation, .. } = read(path).map_err(|e| e.to_string())?;
    let shards = train.shards.into_iter().chain(validation.shards);
    let tokenizer = tokenizer.into_iter().map(|file| (file.file, file.crc32c));
    Ok(shards.map(|shard| (shard.file, shard.crc32c)).chain(tokenizer).collect())
}

/// What stands before the checksum, if that is right.
fn unsealed(text: &str) -> Option<&str> {
    let text = text.strip_suffix(END)?;
    let (body, digits) = text.split_at_checked(text.len().checked_sub(8)?)?;
    let body = body.strip_suffix(SEAL)?;
    (digits == format!("{:08x}", crc32c::crc32c(body.as_bytes()))).then_some(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta() -> Meta {
        let split = SplitMeta {
            documents: 3,
            tokens: 40,
            bytes: 100,
            shards: vec![ShardMeta { file: "train-00000.bin".into(), tokens: 40, crc32c: 7 }],
        };
        Meta {
            version: VERSION,
            dtype: IdType::U16,
            vocab_size: 10,
            tokenizer: vec![TokenizerMeta { file: TokenizerFiles::JSON.into(), crc32c: 5 }],
            options: PrepareOptions { validation: 0.1 + 0.2, ..PrepareOptions::default() },
            inputs: vec!["a \"b\".txt".into()],
            documents: Some(7),
            duplicates: 0,
            rejected: 1,
            first_rejected: vec!["a:1: no".into()],
            tail_held_out: false,
            train: split,
            validation: SplitMeta::default(),
        }
    }

    #[test]
    fn a_description_comes_back() {
        let read = Meta::from_text(&meta().to_text()).unwrap();
        assert_eq!(read.to_text(), meta().to_text());
        assert_eq!((read.tokenizer_crc32c(), read.train), (5, meta().train));
    }

    #[test]
    fn every_changed_byte_is_found() {
        let text = meta().to_text();
        let mut bytes = text.clone().into_bytes();
        for at in 0..bytes.len() {
            for other in [bytes[at] ^ 1, b'0', b' ', b'\t'] {
                let before = std::mem::replace(&mut bytes[at], other);
                if let Ok(changed) = std::str::from_utf8(&bytes)
                    && changed != text
                {
                    assert!(Meta::from_text(changed).is_err(), "byte {at} as {other:#x}");
                }
                bytes[at] = before;
            }
        }
        for cut in 0..text.len() {
            assert!(Meta::from_text(&text[..cut]).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn another_format_is_named() {
        let old = r#"{"version": 1, "dtype": "u16"}"#;
        assert_eq!(Meta::from_text(old).unwrap_err(), "format 1, this version reads 2");
        let newer = Meta { version: 3, ..meta() }.to_text();
        assert_eq!(Meta::from_text(&newer).unwrap_err(), "format 3, this version reads 2");
    }
}
