//! The safetensors format: a JSON header with names, types, shapes and offsets, then the bytes.
//!
//! The header is parsed here, and not by the `safetensors` crate, because its errors do not name
//! the tensor. What the crate checks is checked too: the tensors must cover the data without
//! overlap or gap.

use std::{
    collections::BTreeMap,
    fmt,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use llada_kernels::{DType, Mapping, WeightView};
use serde::{Deserialize, Deserializer, de};

use super::{CheckpointError, checksum};
use crate::{
    Error, Result,
    content::{Content, HEAD},
    files, io,
    model::{Tensor, numbers},
};

/// The format's own bound on the header.
const MAX_HEADER: u64 = 100_000_000;

/// Elements converted at a time when a file is written.
const CHUNK: usize = 1 << 16;

/// An open safetensors file, mapped into memory.
#[derive(Debug)]
pub struct File {
    path: PathBuf,
    mapping: Arc<Mapping>,
    metadata: BTreeMap<String, String>,
    entries: BTreeMap<String, Entry>,
}

/// What the header says of one tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Storage type, as the format names it: `F32`, `BF16`, `I64`, …
    pub dtype: String,
    /// Row-major shape.
    pub shape: Vec<usize>,
    /// Its bytes in the file.
    pub bytes: Range<usize>,
}

impl File {
    /// Maps a file and checks its header.
    ///
    /// # Errors
    /// When it cannot be opened, is truncated, has an unreadable or overlong header, or when
    /// tensors overlap, leave gaps or have bytes that do not fit their shape.
    pub fn open(path: &Path) -> Result<Self> {
        // An empty file cannot be mapped.
        if files::regular_len(path)? == 0 {
            let what = "it is empty, it has only 0 bytes".into();
            return Err(CheckpointError::File { file: path.to_path_buf(), what }.into());
        }
        let mapping = Mapping::open(path)?;
        let (metadata, entries) = parse(&mapping, path).map_err(|error| {
            // What is no safetensors file at all is better said by what it is.
            let found = Content::of_data(&mapping[..mapping.len().min(HEAD)]);
            found.map_or_else(|| Error::from(error), |content| content.error(path))
        })?;
        Ok(Self { path: path.to_path_buf(), mapping: Arc::new(mapping), metadata, entries })
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The free text that goes with the tensors (`__metadata__`).
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// Whether the file is as it was written, every byte of it; `None` when it carries no checksum.
    pub fn is_intact(&self) -> Option<bool> {
        self.metadata.get(checksum::KEY)?;
        let header = self.entries.values().map(|entry| entry.bytes.start).min();
        let header = &self.mapping[..header.unwrap_or(self.mapping.len())];
        Some(digits(header).is_some_and(|at| checksum::is_right(&self.mapping, at)))
    }

    /// Every tensor, by name.
    pub fn entries(&self) -> &BTreeMap<String, Entry> {
        &self.entries
    }

    /// One tensor, mapped and not copied, of the shape that it must have.
    ///
    /// # Errors
    /// When it is missing, has another shape or a type that is not a float of 32 or 16 bits, or
    /// when one of its values is not finite.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let (tensor, file) = (name.to_owned(), self.path.clone());
        let Some(entry) = self.entries.get(name) else {
            return Err(CheckpointError::Missing { tensor, file }.into());
        };
        let Some(dtype) = float(&entry.dtype) else {
            return Err(CheckpointError::DType { tensor, file, dtype: entry.dtype.clone() }.into());
        };
        if entry.shape != shape {
            let (found, expected) = (entry.shape.clone(), shape.to_vec());
            return Err(CheckpointError::Shape { tensor, file, found, expected }.into());
        }
        let Some(mapped) = Tensor::mapped(self.mapping.clone(), entry.bytes.clone(), dtype) else {
            let what = "has bytes outside of the file".into();
            return Err(CheckpointError::Entry { tensor, file, what }.into());
        };
        if let Some(index) = numbers::first_non_finite(mapped.view()) {
            return Err(CheckpointError::NonFinite { tensor, file, index }.into());
        }
        Ok(mapped)
    }
}

/// One tensor to write.
#[derive(Debug, Clone)]
pub struct Source<'a> {
    /// Its name.
    pub name: &'a str,
    /// Row-major shape.
    pub shape: Vec<usize>,
    /// Its numbers, perhaps in several parts that follow on each other.
    pub parts: Vec<WeightView<'a>>,
    /// How to store them; rounded to nearest even where this is narrower.
    pub dtype: DType,
}

/// Writes a file of tensors, converting piece by piece, and puts it at `path` when it is complete.
///
/// # Errors
/// When the disk refuses, when a shape does not fit its numbers, or when a number is not finite in
/// its storage type: a file that cannot be loaded is not written.
pub fn write(
    path: &Path,
    tensors: &[Source<'_>],
    metadata: &BTreeMap<String, String>,
) -> Result<()> {
    let mut tensors = tensors.to_vec();
    // Wide types first keeps every tensor aligned for its type.
    tensors.sort_by_key(|t| std::cmp::Reverse(t.dtype.align()));
    checksum::write(path, |out, carries| {
        let mut metadata = metadata.clone();
        if carries {
            metadata.insert(checksum::KEY.into(), checksum::BLANK.into());
        }
        let header = header(path, &tensors, &metadata)?;
        out.write_all(&header).map_err(io("write", path))?;
        let mut bytes = Vec::new();
        for tensor in &tensors {
            let mut before = 0;
            for part in &tensor.parts {
                for start in (0..part.len()).step_by(CHUNK) {
                    let piece = part.slice(start..part.len().min(start + CHUNK));
                    numbers::encode(piece, tensor.dtype, &mut bytes).map_err(|offset| {
                        CheckpointError::NonFinite {
                            tensor: tensor.name.to_owned(),
                            file: path.to_path_buf(),
                            index: before + start + offset,
                        }
                    })?;
                    out.write_all(&bytes).map_err(io("write", path))?;
                }
                before += part.len();
            }
        }
        Ok(digits(&header).filter(|_| carries).map(|at| at as u64))
    })
}

/// Where in a header the digits of the checksum are.
fn digits(header: &[u8]) -> Option<usize> {
    let before = format!("\"{}\":\"", checksum::KEY);
    let at = header.windows(before.len()).position(|window| window == before.as_bytes())?;
    Some(at + before.len())
}

/// The header, its length before it.
fn header(
    path: &Path,
    tensors: &[Source<'_>],
    metadata: &BTreeMap<String, String>,
) -> Result<Vec<u8>> {
    let mut json = serde_json::Map::new();
    if !metadata.is_empty() {
        json.insert("__metadata__".into(), serde_json::json!(metadata));
    }
    let mut offset = 0;
    for t in tensors {
        let entry = |what: &str| CheckpointError::Entry {
            tensor: t.name.to_owned(),
            file: path.to_path_buf(),
            what: what.into(),
        };
        let elements = t.parts.iter().map(WeightView::len).sum();
        if t.shape.iter().product::<usize>() != elements {
            return Err(entry("has numbers that do not fit its shape").into());
        }
        let (DType::F32 | DType::Bf16 | DType::F16) = t.dtype else {
            let (tensor, file) = (t.name.to_owned(), path.to_path_buf());
            let dtype = name(t.dtype).to_owned();
            return Err(CheckpointError::DType { tensor, file, dtype }.into());
        };
        let bytes = t.dtype.bytes(elements);
        let end = offset + bytes.ok_or_else(|| entry("has more bytes than memory"))?;
        let value = serde_json::json!({
            "dtype": name(t.dtype), "shape": t.shape, "data_offsets": [offset, end],
        });
        if json.insert(t.name.to_owned(), value).is_some() {
            return Err(entry("is given twice").into());
        }
        offset = end;
    }
    let json = serde_json::Value::Object(json).to_string();
    let length = json.len().next_multiple_of(8);
    let mut header = (length as u64).to_le_bytes().to_vec();
    header.extend(json.bytes());
    header.resize(8 + length, b' ');
    Ok(header)
}

fn name(dtype: DType) -> &'static str {
    match dtype {
        DType::F32 => "F32",
        DType::Bf16 => "BF16",
        DType::F16 => "F16",
        DType::Blocks(format) => format.name(),
    }
}

fn float(dtype: &str) -> Option<DType> {
    [DType::F32, DType::Bf16, DType::F16].into_iter().find(|&d| name(d) == dtype)
}

/// Bytes of one element of every type of the format that is a whole number of bytes.
fn element_size(dtype: &str) -> Option<usize> {
    match dtype {
        "BOOL" | "U8" | "I8" | "F8_E4M3" | "F8_E5M2" | "F8_E8M0" => Some(1),
        "U16" | "I16" | "F16" | "BF16" => Some(2),
        "U32" | "I32" | "F32" => Some(4),
        "U64" | "I64" | "F64" | "C64" => Some(8),
        _ => None,
    }
}

/// The header as it is written, duplicates included.
#[derive(Default)]
struct Header {
    metadata: BTreeMap<String, String>,
    entries: Vec<(String, RawEntry)>,
}

#[derive(Deserialize)]
struct RawEntry {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: (usize, usize),
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Header;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<A: de::MapAccess<'de>>(
                self,
                mut map: A,
            ) -> std::result::Result<Header, A::Error> {
                let mut header = Header::default();
                while let Some(name) = map.next_key::<String>()? {
                    let named = |e| de::Error::custom(format!("`{name}`: {e}"));
                    if name == "__metadata__" {
                        header.metadata = map
                            .next_value::<Option<BTreeMap<_, _>>>()
                            .map_err(named)?
                            .unwrap_or_default();
                    } else {
                        let entry = map.next_value().map_err(named)?;
                        header.entries.push((name, entry));
                    }
                }
                Ok(header)
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}

type Parsed = (BTreeMap<String, String>, BTreeMap<String, Entry>);

fn parse(file: &[u8], path: &Path) -> std::result::Result<Parsed, CheckpointError> {
    let damaged = |what: String| CheckpointError::File { file: path.to_path_buf(), what };
    let Some((length, rest)) = file.split_first_chunk::<8>() else {
        return Err(damaged(format!("it has only {} bytes", file.len())));
    };
    let length = u64::from_le_bytes(*length);
    if length > MAX_HEADER || length > rest.len() as u64 {
        return Err(damaged(format!("its header should have {length} bytes")));
    }
    let (json, data) = rest.split_at(length as usize);
    let header: Header =
        serde_json::from_slice(json).map_err(|e| damaged(format!("its header: {e}")))?;
    let entries = layout(header.entries, data.len(), file.len() - data.len(), path)?;
    Ok((header.metadata, entries))
}

/// Checks that the tensors cover `size` bytes of data, each byte once, in pieces that fit their
/// shapes; the data start at `base` in the file.
fn layout(
    mut raw: Vec<(String, RawEntry)>,
    size: usize,
    base: usize,
    path: &Path,
) -> std::result::Result<BTreeMap<String, Entry>, CheckpointError> {
    raw.sort_by(|a, b| (a.1.data_offsets, &a.0).cmp(&(b.1.data_offsets, &b.0)));
    let mut entries = BTreeMap::new();
    let mut covered = 0;
    for (tensor, RawEntry { dtype, shape, data_offsets: (start, end) }) in raw {
        let wrong = |what: String| CheckpointError::Entry {
            tensor: tensor.clone(),
            file: path.to_path_buf(),
            what,
        };
        if end < start {
            return Err(wrong(format!("ends at {end}, before it starts at {start}")));
        }
        if end > size {
            return Err(wrong(format!("ends at byte {end} of the data, but they are only {size}")));
        }
        if start < covered {
            return Err(wrong(format!(
                "starts at {start} and so overlaps another that ends at {covered}"
            )));
        }
        if start > covered {
            return Err(wrong(format!("starts at {start} and leaves a gap after {covered}")));
        }
        let bytes = shape
            .iter()
            .try_fold(element_size(&dtype).unwrap_or(0), |n, &dim| n.checked_mul(dim))
            .ok_or_else(|| wrong(format!("has a shape too large to be true: {shape:?}")))?;
        if element_size(&dtype).is_some() && bytes != end - start {
            let held = end - start;
            return Err(wrong(format!("has {held} bytes, its shape {shape:?} needs {bytes}")));
        }
        covered = end;
        let entry = Entry { dtype, shape, bytes: base + start..base + end };
        if entries.insert(tensor.clone(), entry).is_some() {
            return Err(wrong("is described twice".into()));
        }
    }
    if covered != size {
        let what = format!("{} bytes after the last tensor belong to none", size - covered);
        return Err(CheckpointError::File { file: path.to_path_buf(), what });
    }
    Ok(entries)
}

#[cfg(test)]
mod tests;
