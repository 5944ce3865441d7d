//! The container: a header with metadata and the places of the tensors, then their bytes.
//!
//! Versions 2 and 3, little-endian; the two differ only in that 3 may be big-endian. The format is
//! specified in the documentation of the `ggml` library.

use std::{
    collections::BTreeMap,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use llada_kernels::Mapping;

use super::{
    types::TensorType,
    value::{Cursor, Read, Value},
};
use crate::{
    Result,
    checkpoint::{CheckpointError, checksum},
    content::{Content, HEAD},
    files,
};

/// The first bytes of every file.
pub(super) const MAGIC: &[u8; 4] = b"GGUF";

/// The version that is written.
pub(super) const VERSION: u32 = 3;

/// Where tensors start, unless the file says otherwise.
pub(super) const ALIGNMENT: usize = 32;

/// The key by which it would.
const ALIGNMENT_KEY: &str = "general.alignment";

/// A real file has less than a hundred keys, and an 8B model 291 tensors.
const MAX_ENTRIES: u64 = 1 << 16;

/// The format's bound on dimensions.
const MAX_DIMENSIONS: u32 = 4;

/// An open GGUF file, mapped into memory.
#[derive(Debug)]
pub struct File {
    path: PathBuf,
    mapping: Arc<Mapping>,
    /// Where the value of each key lies, its type included.
    metadata: BTreeMap<String, usize>,
    tensors: BTreeMap<String, Entry>,
}

/// What the header says of one tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// How it is stored.
    pub kind: TensorType,
    /// Row-major shape: the width last, where GGUF puts it first.
    pub shape: Vec<usize>,
    /// Its bytes in the file.
    pub bytes: Range<usize>,
}

impl File {
    /// Maps a file and checks its header.
    ///
    /// # Errors
    /// When it cannot be opened or is not a GGUF file of a known version, when its header is cut
    /// short, contradicts itself or has a name twice, and when tensors overlap, are of an unknown
    /// type or lie outside of the file.
    pub fn open(path: &Path) -> Result<Self> {
        let len = files::regular_len(path)?;
        // An empty file cannot be mapped.
        if len < MAGIC.len() as u64 {
            let what = format!("it has only {len} bytes");
            return Err(CheckpointError::Gguf { file: path.to_path_buf(), what }.into());
        }
        let mapping = Arc::new(Mapping::open(path)?);
        let head = &mapping[..mapping.len().min(HEAD)];
        if let Some(content) = Content::of_data(head).filter(|_| !head.starts_with(MAGIC)) {
            return Err(content.error(path));
        }
        let Header { metadata, tensors, data } = Header::read(&mapping)
            .map_err(|what| CheckpointError::Gguf { file: path.to_path_buf(), what })?;
        let tensors = places(tensors, data, mapping.len(), path)?;
        Ok(Self { path: path.to_path_buf(), mapping, metadata, tensors })
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The mapped bytes.
    pub(super) fn mapping(&self) -> &Arc<Mapping> {
        &self.mapping
    }

    /// The value of a key.
    pub fn value(&self, key: &str) -> Option<Value<'_>> {
        let start = *self.metadata.get(key)?;
        Cursor::new(&self.mapping[start..]).value().ok()
    }

    /// Whether the file is as it was written, every byte of it; `None` when it carries no checksum.
    pub fn is_intact(&self) -> Option<bool> {
        let start = *self.metadata.get(checksum::KEY)?;
        let is_text = matches!(self.value(checksum::KEY), Some(Value::Text(text))
            if text.len() == checksum::BLANK.len());
        // Before the text are its type and its length.
        Some(is_text && checksum::is_right(&self.mapping, start + 12))
    }

    /// All keys, in alphabetical order.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.metadata.keys().map(String::as_str)
    }

    /// Every tensor, by name.
    pub fn tensors(&self) -> &BTreeMap<String, Entry> {
        &self.tensors
    }
}

/// The header, with the tensors as it lists them.
struct Header {
    metadata: BTreeMap<String, usize>,
    tensors: Vec<Listed>,
    /// Where the data begin.
    data: usize,
}

struct Listed {
    name: String,
    /// The width first, as GGUF has it.
    dimensions: Vec<u64>,
    kind: u32,
    /// From the beginning of the data.
    offset: u64,
}

impl Header {
    fn read(file: &[u8]) -> Read<Self> {
        let Some(rest) = file.strip_prefix(MAGIC) else {
            return Err("it does not begin with `GGUF`".into());
        };
        let mut cursor = Cursor::new(rest);
        match cursor.u32()? {
            2 | 3 => {}
            swapped if matches!(swapped.swap_bytes(), 2 | 3) => {
                return Err("it is big-endian, which is not read".into());
            }
            other => return Err(format!("it is of version {other}; versions 2 and 3 are read")),
        }
        let (tensors, keys) = (cursor.u64()?, cursor.u64()?);
        if tensors > MAX_ENTRIES || keys > MAX_ENTRIES {
            return Err(format!("{tensors} tensors and {keys} keys are too many to be true"));
        }
        let metadata = read_metadata(&mut cursor, keys)?;
        let value =
            |key: &str| metadata.get(key).and_then(|&at| Cursor::new(&file[at..]).value().ok());
        let alignment = match value(ALIGNMENT_KEY) {
            None => ALIGNMENT,
            Some(value) => value
                .index()
                .filter(|n| n.is_power_of_two() && *n <= 1 << 20)
                .ok_or(format!("its `{ALIGNMENT_KEY}` is no small power of two"))?,
        };
        let tensors = (0..tensors).map(|_| Listed::read(&mut cursor)).collect::<Read<_>>()?;
        let data = (MAGIC.len() + cursor.at()).next_multiple_of(alignment);
        let header = Self { metadata, tensors, data };
        let loose = |t: &&Listed| !t.offset.is_multiple_of(alignment as u64);
        match header.tensors.iter().find(loose) {
            Some(t) => {
                Err(format!("tensor `{}` does not start at a multiple of {alignment}", t.name))
            }
            None => Ok(header),
        }
    }
}

/// Reads `keys` keys; gives the place of each value in the file.
fn read_metadata(cursor: &mut Cursor<'_>, keys: u64) -> Read<BTreeMap<String, usize>> {
    let mut metadata = BTreeMap::new();
    for _ in 0..keys {
        let key = cursor.text()?.to_owned();
        let at = MAGIC.len() + cursor.at();
        cursor.value().map_err(|what| format!("at key `{}`: {what}", short(&key)))?;
        if metadata.contains_key(&key) {
            return Err(format!("it has the key `{}` twice", short(&key)));
        }
        metadata.insert(key, at);
    }
    Ok(metadata)
}

impl Listed {
    fn read(cursor: &mut Cursor<'_>) -> Read<Self> {
        let name = cursor.text()?.to_owned();
        let count = cursor.u32()?;
        if count > MAX_DIMENSIONS {
            return Err(format!("tensor `{}` has {count} dimensions", short(&name)));
        }
        let dimensions = (0..count).map(|_| cursor.u64()).collect::<Read<_>>()?;
        Ok(Self { name, dimensions, kind: cursor.u32()?, offset: cursor.u64()? })
    }
}

/// Checks that every tensor lies within the file, has bytes that fit its shape, and shares none.
fn places(
    listed: Vec<Listed>,
    data: usize,
    end: usize,
    path: &Path,
) -> std::result::Result<BTreeMap<String, Entry>, CheckpointError> {
    let mut tensors = BTreeMap::new();
    for Listed { name, dimensions, kind, offset } in listed {
        let tensor = short(&name).to_owned();
        let file = path.to_path_buf();
        let wrong = |what: String| CheckpointError::Entry { tensor, file, what };
        if tensors.contains_key(&name) {
            return Err(wrong("is described twice".into()));
        }
        let Some(kind) = TensorType::new(kind) else {
            return Err(wrong(format!("is of type {kind}, which GGML does not have")));
        };
        let whole = dimensions.iter().rev().map(|&n| usize::try_from(n).ok()).collect();
        let shape: Option<Vec<usize>> = whole;
        let size = shape.as_deref().and_then(|shape| {
            let (width, rows) = shape.split_last().unwrap_or((&1, &[]));
            rows.iter().try_fold(kind.row_bytes(*width)?, |n, &rows| n.checked_mul(rows))
        });
        let (Some(shape), Some(size)) = (shape, size) else {
            return Err(wrong(format!("cannot have the shape {dimensions:?} in {}", kind.name)));
        };
        let start = usize::try_from(offset).ok().and_then(|offset| data.checked_add(offset));
        let bytes = start.and_then(|start| Some(start..start.checked_add(size)?));
        match bytes.filter(|bytes| bytes.end <= end) {
            Some(bytes) => tensors.insert(name, Entry { kind, shape, bytes }),
            None => {
                return Err(wrong(format!("should have {size} bytes, which are not in the file")));
            }
        };
    }
    let mut order: Vec<(&String, &Entry)> = tensors.iter().collect();
    order.sort_by_key(|(_, entry)| (entry.bytes.start, entry.bytes.end));
    for pair in order.windows(2) {
        if pair[1].1.bytes.start < pair[0].1.bytes.end {
            return Err(CheckpointError::Entry {
                tensor: short(pair[1].0).to_owned(),
                file: path.to_path_buf(),
                what: format!("overlaps `{}`", short(pair[0].0)),
            });
        }
    }
    Ok(tensors)
}

/// The beginning of a name, which a hostile file can make as long as itself.
fn short(name: &str) -> &str {
    let end = (0..=name.len().min(100)).rev().find(|&i| name.is_char_boundary(i));
    &name[..end.unwrap_or(0)]
}

#[cfg(test)]
mod tests;
