//! Where the golden files are, and how to read them.
#![allow(dead_code, unreachable_pub)]

use std::path::PathBuf;

use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures");

/// A golden file, below `$LLADA_GOLDEN` or `tests/fixtures`. Of another set only the layout is known:
/// no number of a model or a case, and not which of the optional tensors it has.
pub fn fixture(path: &str) -> PathBuf {
    let root = std::env::var_os("LLADA_GOLDEN").unwrap_or_else(|| FIXTURES.into());
    PathBuf::from(root).join(path)
}

/// A file of the set that is here, for tests that know its sizes.
pub fn own(path: &str) -> PathBuf {
    PathBuf::from(FIXTURES).join(path)
}

/// Whether the golden files are those that are here, of which a test knows how many there are.
pub fn is_own_set() -> bool {
    std::env::var_os("LLADA_GOLDEN").is_none()
}

/// Whether there is such a golden file: another set need not have every family.
pub fn has(path: &str) -> bool {
    assert!(fixture("models").is_dir(), "no golden set is in {}", fixture("").display());
    is_own_set() || fixture(path).exists()
}

/// The bytes of a golden file.
pub fn bytes(path: &str) -> Vec<u8> {
    std::fs::read(fixture(path)).unwrap_or_else(|e| panic!("{}: {e}", fixture(path).display()))
}

/// A golden JSON file.
pub fn json(path: &str) -> Value {
    serde_json::from_slice(&bytes(path)).unwrap()
}

/// The cases of a golden JSON file: `count` in the set that is here, some in others, none where another
/// set has no such file.
pub fn cases(path: &str, count: usize) -> Vec<Value> {
    if !has(path) {
        return Vec::new();
    }
    let cases = json(path).as_array().unwrap().clone();
    let found = cases.len();
    assert!(found == count || !is_own_set() && found > 0, "{path}: {found} cases");
    cases
}

/// A JSON number as an index or a size.
pub fn size(value: &Value) -> usize {
    value.as_u64().unwrap() as usize
}

/// A JSON list of token ids.
pub fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| size(id) as u32).collect()
}

/// A JSON matrix of token ids.
pub fn rows(value: &Value) -> Vec<Vec<u32>> {
    value.as_array().unwrap().iter().map(ids).collect()
}

/// A tensor of numbers as `f64`, with its shape; `None` if the file has none of that name.
pub fn tensor(file: &SafeTensors<'_>, name: &str) -> Option<(Vec<usize>, Vec<f64>)> {
    let view = file.tensor(name).ok()?;
    let data = view.data();
    let values = match view.dtype() {
        Dtype::F32 => {
            data.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap()).into()).collect()
        }
        Dtype::F64 => {
            data.chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect()
        }
        Dtype::I64 => {
            data.chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()) as f64).collect()
        }
        Dtype::BOOL => data.iter().map(|&b| f64::from(b)).collect(),
        other => panic!("{name} is of type {other:?}"),
    };
    Some((view.shape().to_vec(), values))
}

/// A tensor as `f32`, with its shape.
pub fn golden_f32(file: &SafeTensors<'_>, name: &str) -> Option<(Vec<usize>, Vec<f32>)> {
    tensor(file, name).map(|(shape, values)| (shape, values.iter().map(|&x| x as f32).collect()))
}

/// A tensor of token ids or flags, with its shape.
pub fn golden_u32(file: &SafeTensors<'_>, name: &str) -> Option<(Vec<usize>, Vec<u32>)> {
    tensor(file, name).map(|(shape, values)| (shape, values.iter().map(|&x| x as u32).collect()))
}
