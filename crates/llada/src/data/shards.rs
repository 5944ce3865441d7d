//! Token shards: files of little-endian ids, `u16` where the vocabulary allows it, else `u32`,
//! described by a `meta.json` and read through memory maps.

use std::{
    fs::File,
    io::{BufWriter, Write},
    ops::Range,
    path::{Path, PathBuf},
};

use llada_kernels::{Cpu, Mapping};

use super::meta::{self, IdType, META, Meta, ShardMeta, SplitMeta};
use crate::{
    Result,
    data::DataError,
    files, io,
    tokenizer::{Tokenizer, TokenizerFiles},
};

/// Bytes that a thread checks at a time; ids lie within one piece.
const PIECE: usize = 8 << 20;

/// A prepared folder, mapped.
#[derive(Debug)]
pub struct Shards {
    dir: PathBuf,
    meta: Meta,
    train: Split,
    validation: Split,
}

impl Shards {
    /// Opens a folder that `prepare` wrote and checks it: the description, the tokenizer, and on
    /// all threads of `cpu` every byte and every id of the shards.
    ///
    /// # Errors
    /// When a file cannot be read, is not as it was written, or has an id outside of the
    /// vocabulary.
    pub fn open(dir: &Path, cpu: &Cpu) -> Result<Self> {
        files::restore(dir);
        let meta = meta::read(&dir.join(META))?;
        check_tokenizer(dir, &meta)?;
        let train = Split::open(dir, &meta, "train", &meta.train, cpu)?;
        let validation = Split::open(dir, &meta, "validation", &meta.validation, cpu)?;
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

    /// The largest id.
    pub fn largest(&self) -> Option<u32> {
        self.train.largest.max(self.validation.largest)
    }
}

/// Fails when a file of the tokenizer is not as it was written, or makes other ids than the shards
/// have.
fn check_tokenizer(dir: &Path, meta: &Meta) -> Result<()> {
    let found = TokenizerFiles::in_folder(dir)?;
    for mark in &meta.tokenizer {
        let reason = match found.get(&mark.file) {
            None => "it is not there",
            Some(bytes) if crc32c::crc32c(bytes) != mark.crc32c => "its checksum differs",
            Some(_) => continue,
        };
        let (path, reason) = (dir.join(&mark.file), reason.into());
        return Err(DataError::Tokenizer { path, reason }.into());
    }
    let entries = found.tokenizer(dir)?.as_ref().map_or(0, Tokenizer::vocab_size);
    if entries != meta.vocab_size {
        let path = dir.join(TokenizerFiles::JSON);
        let reason = format!("{entries} entries, the shards are of {}", meta.vocab_size);
        return Err(DataError::Tokenizer { path, reason }.into());
    }
    Ok(())
}

/// The ids of one split, as one stream.
#[derive(Debug)]
pub struct Split {
    name: &'static str,
    dtype: IdType,
    vocab: u32,
    tokens: u64,
    bytes: u64,
    largest: Option<u32>,
    parts: Vec<Part>,
}

#[derive(Debug)]
struct Part {
    path: PathBuf,
    map: Mapping,
    tokens: u64,
}

impl Split {
    fn open(
        dir: &Path,
        meta: &Meta,
        name: &'static str,
        split: &SplitMeta,
        cpu: &Cpu,
    ) -> Result<Self> {
        let mut parts = Vec::new();
        let (mut tokens, mut largest) = (0u64, None);
        let vocab = u32::try_from(meta.vocab_size).unwrap_or(u32::MAX);
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
            let part = Part { path, map, tokens: shard.tokens };
            largest = largest.max(Some(part.check(shard.crc32c, meta.dtype, vocab, cpu)?));
            parts.push(part);
        }
        if tokens != split.tokens {
            let reason = format!("{name}: {} tokens, its shards hold {tokens}", split.tokens);
            return Err(DataError::Meta { path: dir.join(META), reason }.into());
        }
        let (dtype, bytes) = (meta.dtype, split.bytes);
        Ok(Self { name, dtype, vocab, tokens, bytes, largest, parts })
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
        let size = self.dtype.size();
        let id = self.dtype.read(&part.map[at * size..(at + 1) * size]);
        if id < self.vocab { Ok(id) } else { Err(part.foreign(id, at, self.vocab)) }
    }
}

impl Part {
    /// Reads every byte, and gives the largest id.
    fn check(&self, crc32c: u32, dtype: IdType, vocab: u32, cpu: &Cpu) -> Result<u32> {
        let bounds = |n: usize| n * PIECE..self.map.len().min((n + 1) * PIECE);
        let mut pieces = vec![Piece::default(); self.map.len().div_ceil(PIECE)];
        cpu.chunks(&mut pieces, 1, |n, piece| piece.fill(self.piece(bounds(n), dtype)));
        let found = pieces.iter().fold(0, |crc, p| crc32c::crc32c_combine(crc, p.crc32c, p.bytes));
        if found != crc32c {
            return Err(damaged(self.path.clone(), "its checksum differs".into()));
        }
        let largest = pieces.iter().map(|piece| piece.largest).max().unwrap_or(0);
        if largest >= vocab {
            let ids = self.map.chunks_exact(dtype.size()).map(|bytes| dtype.read(bytes));
            let (at, id) = ids.enumerate().find(|&(_, id)| id >= vocab).unwrap_or((0, largest));
            return Err(self.foreign(id, at, vocab));
        }
        Ok(largest)
    }

    fn piece(&self, range: Range<usize>, dtype: IdType) -> Piece {
        let bytes = &self.map[range.clone()];
        let ids = bytes.chunks_exact(dtype.size());
        let largest = match dtype {
            IdType::U16 => ids.map(|b| u16::from_le_bytes([b[0], b[1]])).max().map(u32::from),
            IdType::U32 => ids.map(|b| dtype.read(b)).max(),
        };
        let piece = Piece {
            crc32c: crc32c::crc32c(bytes),
            bytes: bytes.len(),
            largest: largest.unwrap_or(0),
        };
        // A run that reads some sequences does not need all of a large file in memory.
        self.map.release(range);
        piece
    }

    fn foreign(&self, id: u32, at: usize, vocab: u32) -> crate::Error {
        let reason = format!("id {id} at token {at} is outside the vocabulary of {vocab}");
        damaged(self.path.clone(), reason)
    }
}

/// What a part of a file holds.
#[derive(Debug, Clone, Copy, Default)]
struct Piece {
    crc32c: u32,
    bytes: usize,
    largest: u32,
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
        self.meta.bytes += bytes as u64;
        self.append(ids)
    }

    /// Adds all documents of a split, which has `documents` of them.
    pub(super) fn push_split(&mut self, split: &Split, documents: u64) -> Result<()> {
        const PIECE: u64 = 1 << 20;
        self.meta.documents += documents;
        self.meta.bytes += split.bytes;
        let mut ids = Vec::new();
        for start in (0..split.tokens).step_by(PIECE as usize) {
            ids.clear();
            split.read(start, PIECE.min(split.tokens - start) as usize, &mut ids)?;
            self.append(&ids)?;
        }
        Ok(())
    }

    fn append(&mut self, ids: &[u32]) -> Result<()> {
        self.meta.tokens += ids.len() as u64;
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
