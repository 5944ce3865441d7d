//! How to read the golden files.
#![allow(dead_code, unreachable_pub)]

use std::path::Path;

use llada::{checkpoint, config::Objective, model::MaskPredictor};
use llada_kernels::Cpu;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

#[path = "../../../../tests/golden.rs"]
pub mod golden;
pub mod gradients;

use golden::{fixture, has, is_own_set};

/// The model in `folder`, as if it was trained with `objective`, on so many threads.
pub fn predictor(folder: &Path, objective: Objective, threads: usize) -> MaskPredictor {
    let mut model = checkpoint::load(folder).unwrap();
    model.config = model.config.with_objective(objective);
    MaskPredictor::new(model, Cpu::new(threads).unwrap()).unwrap()
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
pub fn sequences(value: &Value) -> Vec<Vec<u32>> {
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
