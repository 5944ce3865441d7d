//! Token shards: files of little-endian ids, `u16` where the vocabulary allows it, else `u32`,
//! described by a `meta.json` and read through memory maps.

use std::{
    fs::File,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

use llada_kernels::Mapping;

use crate::{
    Result,
    data::{DataError, PrepareOptions},
    files, io,
    tokenizer::MAX_TOKENIZER,
};

/// The version of the format that this library writes and reads.
const VERSION: u32 = 1;

/// One of a terabyte of text has 2 MB.
const MAX_META: u64 = 256 << 20;

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
}

/// `meta.json`: what the shards of a folder hold and how they were made.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Meta {
    /// Version of the format.
    pub version: u32,
    /// How ids are stored.
    pub dtype: IdType,
    /// Every id is below this.
    pub vocab_size: usize,
    /// The tokenizer that made the ids, copied next to them.
    pub tokenizer: TokenizerMeta,
    /// How the inputs were read.
    pub options: PrepareOptions,
    /// The inputs, in the order in which they were read.
    pub inputs: Vec<PathBuf>,
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

/// A tokenizer file and its checksum.
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

/// A prepared folder, mapped.
#[derive(Debug)]
pub struct Shards {
    dir: PathBuf,
    meta: Meta,
    train: Split,
    validation: Split,
}

impl Shards {
    /// Opens a folder that `prepare` wrote. The sizes of all shards are checked, their bytes are
    /// not: [`Shards::verify`] reads them all.
    pub fn open(dir: &Path) -> Result<Self> {
        files::restore(dir);
        let path = dir.join("meta.json");
        let text = files::read_text(&path, MAX_META)?;
        let wrong = |reason: String| DataError::Meta { path: path.clone(), reason };
        let meta: Meta = serde_json::from_str(&text).map_err(|e| wrong(e.to_string()))?;
        if meta.version != VERSION {
            let found = meta.version;
            return Err(wrong(format!("format {found}, this version reads {VERSION}")).into());
        }
        if meta.vocab_size == 0 || IdType::for_vocab(meta.vocab_size) != meta.dtype {
            let reason = format!("{:?} ids do not fit {} entries", meta.dtype, meta.vocab_size);
            return Err(wrong(reason).into());
        }
        let train = Split::open(dir, &meta, "train", &meta.train)?;
        let validation = Split::open(dir, &meta, "validation", &meta.validation)?;
        Ok(Self { dir: dir.to_path_buf(), train, validation, meta })
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What it holds.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// Training tokens.
    pub fn train(&self) -> &Split {
        &self.train
    }

    /// Held-out tokens.
    pub fn validation(&self) -> &Split {
        &self.validation
    }

    /// Reads every byte, and fails at the first shard or tokenizer that is not as it was written.
    pub fn verify(&self) -> Result<()> {
        let tokenizer = self.dir.join(&self.meta.tokenizer.file);
        let bytes = files::read_bytes(&tokenizer, MAX_TOKENIZER)?;
        if crc32c::crc32c(&bytes) != self.meta.tokenizer.crc32c {
            return Err(damaged(tokenizer, "its checksum differs".into()));
        }
        for (split, meta) in
            [(&self.train, &self.meta.train), (&self.validation, &self.meta.validation)]
        {
            for (part, shard) in split.parts.iter().zip(&meta.shards) {
                if crc32c::crc32c(&part.map) != shard.crc32c {
                    return Err(damaged(part.path.clone(), "its checksum differs".into()));
                }
                let count = part.tokens as usize;
                (0..count).try_for_each(|at| split.id(part, at).map(drop))?;
            }
        }
        Ok(())
    }
}

/// The ids of one split, as one stream.
#[derive(Debug)]
pub struct Split {
    name: &'static str,
    dtype: IdType,
    vocab: u32,
    tokens: u64,
    bytes: u64,
    parts: Vec<Part>,
}

#[derive(Debug)]
struct Part {
    path: PathBuf,
    map: Mapping,
    tokens: u64,
}

impl Split {
    fn open(dir: &Path, meta: &Meta, name: &'static str, split: &SplitMeta) -> Result<Self> {
        let mut parts = Vec::new();
        let mut tokens = 0u64;
        for shard in &split.shards {
            let path = dir.join(&shard.file);
            if Path::new(&shard.file).components().count() != 1 {
                return Err(damaged(path, "its name leaves the folder".into()));
            }
            let expected = shard.tokens.saturating_mul(meta.dtype.size() as u64);
            let found = std::fs::metadata(&path).map_err(io("read", &path))?.len();
            if found != expected {
                return Err(damaged(
                    path,
                    format!("{found} bytes, it was written with {expected}"),
                ));
            }
            if expected == 0 {
                continue;
            }
            let map = Mapping::open(&path)?;
            tokens = tokens.saturating_add(shard.tokens);
            parts.push(Part { path, map, tokens: shard.tokens });
        }
        if tokens != split.tokens {
            let reason = format!("{name}: {} tokens, its shards hold {tokens}", split.tokens);
            return Err(DataError::Meta { path: dir.join("meta.json"), reason }.into());
        }
        let vocab = u32::try_from(meta.vocab_size).unwrap_or(u32::MAX);
        Ok(Self { name, dtype: meta.dtype, vocab, tokens, bytes: split.bytes, parts })
    }

    /// `train` or `validation`.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Tokens of the split.
    pub fn tokens(&self) -> u64 {
        self.tokens
    }

    /// Bytes of text for each token, on average; what turns nats per token into bits per byte.
    pub fn bytes_per_token(&self) -> f64 {
        self.bytes as f64 / self.tokens.max(1) as f64
    }

    /// Appends `count` ids from `start` on to `out`. Fails when they reach past the end, or when
    /// an id is not in the vocabulary.
    pub fn read(&self, start: u64, count: usize, out: &mut Vec<u32>) -> Result<()> {
        let mut from = start;
        let mut left = count as u64;
        for part in &self.parts {
            if left > 0 && from < part.tokens {
                let take = left.min(part.tokens - from);
                for at in from..from + take {
                    out.push(self.id(part, at as usize)?);
                }
                left -= take;
                from += take;
            }
            from = from.saturating_sub(part.tokens);
        }
        if left > 0 {
            let (split, tokens) = (self.name, self.tokens);
            return Err(DataError::TooShort { split, tokens, length: count }.into());
        }
        Ok(())
    }

    fn id(&self, part: &Part, at: usize) -> Result<u32> {
        let bytes = &part.map[at * self.dtype.size()..];
        let id = match self.dtype {
            IdType::U16 => u32::from(u16::from_le_bytes([bytes[0], bytes[1]])),
            IdType::U32 => u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]),
        };
        if id >= self.vocab {
            let reason =
                format!("id {id} at token {at} is outside the vocabulary of {}", self.vocab);
            return Err(damaged(part.path.clone(), reason));
        }
        Ok(id)
    }
}

fn damaged(path: PathBuf, reason: String) -> crate::Error {
    DataError::Shard { path, reason }.into()
}

/// Writes the ids of one split into files of at most `limit` ids.
pub(super) struct ShardWriter<'a> {
    dir: &'a Path,
    prefix: &'static str,
    dtype: IdType,
    limit: u64,
    open: Option<(BufWriter<File>, PathBuf, ShardMeta)>,
    meta: SplitMeta,
}

impl<'a> ShardWriter<'a> {
    pub(super) fn new(dir: &'a Path, prefix: &'static str, dtype: IdType, limit: u64) -> Self {
        Self { dir, prefix, dtype, limit, open: None, meta: SplitMeta::default() }
    }

    /// Adds (a part of) a document: its ids and the bytes of its text.
    pub(super) fn push(&mut self, ids: &[u32], bytes: usize) -> Result<()> {
        self.meta.documents += 1;
        self.meta.tokens += ids.len() as u64;
        self.meta.bytes += bytes as u64;
        let mut rest = ids;
        while !rest.is_empty() {
            let room = match &self.open {
                Some((_, _, shard)) => self.limit - shard.tokens,
                None => self.limit,
            };
            let (now, later) = rest.split_at(rest.len().min(room as usize));
            self.write(now)?;
            rest = later;
        }
        Ok(())
    }

    fn write(&mut self, ids: &[u32]) -> Result<()> {
        let (file, path, shard) = match &mut self.open {
            Some(open) => open,
            None => {
                let name = format!("{}-{:05}.bin", self.prefix, self.meta.shards.len());
                let path = self.dir.join(&name);
                let file = File::create(&path).map_err(io("create", &path))?;
                let shard = ShardMeta { file: name, tokens: 0, crc32c: 0 };
                self.open.insert((BufWriter::with_capacity(1 << 18, file), path, shard))
            }
        };
        let bytes: Vec<u8> = match self.dtype {
            IdType::U16 => ids.iter().flat_map(|&id| (id as u16).to_le_bytes()).collect(),
            IdType::U32 => ids.iter().flat_map(|id| id.to_le_bytes()).collect(),
        };
        file.write_all(&bytes).map_err(io("write", &*path))?;
        shard.tokens += ids.len() as u64;
        shard.crc32c = crc32c::crc32c_append(shard.crc32c, &bytes);
        if shard.tokens == self.limit { self.close() } else { Ok(()) }
    }

    fn close(&mut self) -> Result<()> {
        if let Some((file, path, shard)) = self.open.take() {
            let file = file.into_inner().map_err(|e| e.into_error()).map_err(io("write", &path))?;
            file.sync_all().map_err(io("write", &path))?;
            self.meta.shards.push(shard);
        }
        Ok(())
    }

    /// Syncs the last file.
    pub(super) fn finish(mut self) -> Result<SplitMeta> {
        self.close()?;
        Ok(self.meta)
    }
}

impl Meta {
    /// The version that this library writes.
    pub(super) const VERSION: u32 = VERSION;
}
