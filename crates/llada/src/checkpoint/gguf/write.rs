//! Writing a file: header, metadata, then tensor after tensor.

use std::{collections::BTreeSet, io::Write, path::Path};

use llada_kernels::{Cpu, DType, WeightView};

use super::{
    container::{ALIGNMENT, MAGIC, VERSION},
    names::{Name, from_rotary},
    types::{Kind, TensorType},
    value::Value,
};
use crate::{
    Result,
    checkpoint::{CheckpointError, checksum},
    io,
    model::numbers,
};

/// Elements that are converted at a time.
const PIECE: usize = 1 << 20;

/// A value to write.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Setting {
    Number(u32),
    Float(f32),
    Bool(bool),
    Text(String),
    Texts(Vec<String>),
    Signed(Vec<i32>),
}

/// A key and its value.
pub(super) type Entry = (String, Setting);

/// One tensor to write.
pub(super) struct Source<'a> {
    /// Its name, and the order in which its rows are stored.
    pub(super) name: Name,
    /// Row-major shape.
    pub(super) shape: Vec<usize>,
    /// Its numbers, rows in LLaDA's order: one part, or experts of one size that it is a stack of.
    pub(super) parts: Vec<WeightView<'a>>,
    /// How they are stored.
    pub(super) dtype: DType,
}

impl Setting {
    /// Whether a file that was read has this value.
    pub(super) fn is(&self, found: Value<'_>) -> bool {
        match (self, found) {
            (Self::Number(n), Value::Integer(found)) => i128::from(*n) == found,
            (Self::Float(x), Value::Float(found)) => *x == found as f32,
            (Self::Bool(b), Value::Bool(found)) => *b == found,
            (Self::Text(text), Value::Text(found)) => text == found,
            _ => false,
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        let mut kind = |kind: Kind| out.extend(kind.id().to_le_bytes());
        match self {
            Self::Number(n) => {
                kind(Kind::U32);
                out.extend(n.to_le_bytes());
            }
            Self::Float(x) => {
                kind(Kind::F32);
                out.extend(x.to_le_bytes());
            }
            Self::Bool(b) => {
                kind(Kind::Bool);
                out.push(u8::from(*b));
            }
            Self::Text(text) => {
                kind(Kind::Text);
                write_text(out, text);
            }
            Self::Texts(texts) => {
                kind(Kind::Array);
                kind(Kind::Text);
                out.extend((texts.len() as u64).to_le_bytes());
                texts.iter().for_each(|text| write_text(out, text));
            }
            Self::Signed(numbers) => {
                kind(Kind::Array);
                kind(Kind::I32);
                out.extend((numbers.len() as u64).to_le_bytes());
                numbers.iter().for_each(|n| out.extend(n.to_le_bytes()));
            }
        }
    }
}

fn write_text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

/// Takes how many bytes of weights are written, and how many there are, after each tensor.
pub type Progress<'p> = dyn FnMut(usize, usize) + 'p;

/// Writes a file and puts it at `path` when it is complete.
///
/// # Errors
/// When the disk refuses, when a key or a name is given twice, when a shape does not fit its
/// numbers or a width its format, or when a number is not finite in its storage type.
pub(super) fn write(
    cpu: &Cpu,
    path: &Path,
    metadata: &[Entry],
    tensors: &[Source<'_>],
    progress: &mut Progress<'_>,
) -> Result<()> {
    let all = tensors.iter().filter_map(Source::size).sum();
    let mut written = 0;
    checksum::write(path, |out, carries| {
        let failed = || io("write", path);
        let (header, digits) = header(path, metadata, tensors, carries)?;
        out.write_all(&header).map_err(failed())?;
        for tensor in tensors {
            let size = write_tensor(cpu, path, tensor, out)?;
            out.write_all(&vec![0; padding(size)]).map_err(failed())?;
            written += size;
            progress(written, all);
        }
        Ok(digits)
    })
}

/// The header, and where in it the digits of the checksum are if it `carries` one.
fn header(
    path: &Path,
    metadata: &[Entry],
    tensors: &[Source<'_>],
    carries: bool,
) -> Result<(Vec<u8>, Option<u64>)> {
    let mut header = MAGIC.to_vec();
    header.extend(VERSION.to_le_bytes());
    header.extend((tensors.len() as u64).to_le_bytes());
    let own = (checksum::KEY.to_owned(), Setting::Text(checksum::BLANK.into()));
    let metadata = || metadata.iter().chain(carries.then_some(&own));
    header.extend((metadata().count() as u64).to_le_bytes());
    let mut seen = BTreeSet::new();
    for (key, value) in metadata() {
        if !seen.insert(key) {
            let what = format!("the key `{key}` is given twice");
            return Err(CheckpointError::Gguf { file: path.to_path_buf(), what }.into());
        }
        write_text(&mut header, key);
        value.write(&mut header);
    }
    // The last value ends here.
    let digits = carries.then_some((header.len() - checksum::BLANK.len()) as u64);
    let (mut seen, mut offset) = (BTreeSet::new(), 0);
    for tensor in tensors {
        let wrong = |what: &str| CheckpointError::Entry {
            tensor: tensor.name.name.clone(),
            file: path.to_path_buf(),
            what: what.into(),
        };
        if !seen.insert(&tensor.name.name) {
            return Err(wrong("is given twice").into());
        }
        let size = tensor.size().ok_or_else(|| wrong("has numbers that do not fit its shape"))?;
        write_text(&mut header, &tensor.name.name);
        header.extend((tensor.shape.len() as u32).to_le_bytes());
        tensor.shape.iter().rev().for_each(|&n| header.extend((n as u64).to_le_bytes()));
        header.extend(TensorType::of(tensor.dtype).id.to_le_bytes());
        header.extend((offset as u64).to_le_bytes());
        offset += size + padding(size);
    }
    header.resize(header.len() + padding(header.len()), 0);
    Ok((header, digits))
}

/// Bytes that are missing to the place where the next tensor may start.
fn padding(size: usize) -> usize {
    size.next_multiple_of(ALIGNMENT) - size
}

impl Source<'_> {
    /// Rows, and elements of each. Those of a vector are single when their order matters.
    fn rows(&self) -> (usize, usize) {
        match self.shape.as_slice() {
            [n] if self.name.rotary.is_some() => (*n, 1),
            [rows @ .., width] => (rows.iter().product(), *width),
            [] => (1, 1),
        }
    }

    /// Bytes in its storage type; `None` when its shape does not fit.
    fn size(&self) -> Option<usize> {
        let (rows, width) = self.rows();
        let found: usize = self.parts.iter().map(WeightView::len).sum();
        let each = self.parts.first()?.len();
        let fits = rows.checked_mul(width)? == found
            && self.parts.iter().all(|part| part.len() == each)
            && each.is_multiple_of(width.max(1));
        let bytes = TensorType::of(self.dtype).row_bytes(width)?;
        fits.then(|| rows.checked_mul(bytes))?
    }
}

/// Writes the bytes of one tensor, piece by piece, and gives their number.
fn write_tensor(cpu: &Cpu, path: &Path, tensor: &Source<'_>, out: &mut dyn Write) -> Result<usize> {
    let (rows, width) = tensor.rows();
    let order = |row| tensor.name.rotary.map_or(row, |head| from_rotary(row, head));
    let non_finite = |index| CheckpointError::NonFinite {
        tensor: tensor.name.name.clone(),
        file: path.to_path_buf(),
        index,
    };
    let (mut size, mut bytes, mut wide) = (0, Vec::new(), Vec::new());
    let mut put = |bytes: &[u8]| {
        size += bytes.len();
        out.write_all(bytes).map_err(io("write", path))
    };
    let at_once = (PIECE / width.max(1)).max(1);
    for first in (0..rows).step_by(at_once) {
        let piece = first..(first + at_once).min(rows);
        let each = (rows / tensor.parts.len().max(1)).max(1);
        let row = |row| {
            let (part, row) = (order(row) / each, order(row) % each);
            tensor.parts[part].slice(row * width..(row + 1) * width)
        };
        let is_stored = |part: &WeightView<'_>| part.dtype() == tensor.dtype;
        let format = match tensor.dtype {
            DType::Blocks(format) if !tensor.parts.iter().all(is_stored) => Some(format),
            _ => None,
        };
        let Some(format) = format else {
            for n in piece {
                let encoded = numbers::encode(row(n), tensor.dtype, &mut bytes);
                encoded.map_err(|offset| non_finite(order(n) * width + offset))?;
                put(&bytes)?;
            }
            continue;
        };
        wide.resize(piece.len() * width, 0.0);
        for (n, wide) in piece.zip(wide.chunks_exact_mut(width)) {
            row(n).widen(wide);
            if let Some(offset) = numbers::first_non_finite(WeightView::F32(wide)) {
                return Err(non_finite(order(n) * width + offset).into());
            }
        }
        bytes.resize(wide.len() / format.block_len() * format.block_bytes(), 0);
        format.quantize(cpu, &wide, &mut bytes)?;
        put(&bytes)?;
    }
    Ok(size)
}
