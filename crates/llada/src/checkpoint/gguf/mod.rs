//! GGUF: a model with its tokenizer in one file, as llama.cpp reads and writes it for its
//! architecture `llada`.

mod container;
mod metadata;
mod names;
mod types;
mod value;
mod vocabulary;
mod write;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
};

use llada_kernels::{Cpu, Mapping};

pub use crate::hub::folder::is_gguf;
pub use container::{Entry, File};
pub(in crate::checkpoint) use metadata::config;
pub use types::TensorType;
pub use value::{Array, Value};
pub(in crate::checkpoint) use vocabulary::files as tokenizer_files;
pub use write::Progress;

pub use crate::model::Formats;

use super::CheckpointError;
use crate::{
    Result,
    config::ModelConfig,
    model::{Layout, Model, Tensor, numbers},
    tokenizer::TokenizerFiles,
};
use names::{Name, names, to_rotary};

/// The model in a file, whose `config` is read; see [`super::Checkpoint::load`].
pub(super) fn load(file: &File, config: &ModelConfig) -> Result<Model> {
    let layout = Layout::new(config);
    let names = names(config, &layout);
    let known: BTreeSet<&str> = names.iter().map(|name| name.name.as_str()).collect();
    if let Some(tensor) = file.tensors().keys().find(|name| !known.contains(name.as_str())) {
        let (tensor, file) = (tensor.clone(), file.path().to_path_buf());
        return Err(CheckpointError::Unknown { tensor, file }.into());
    }
    let specs = names.iter().zip(layout.specs());
    let tensors =
        specs.map(|(name, spec)| tensor(file, name, &spec.shape)).collect::<Result<_>>()?;
    Ok(Model { config: config.clone(), tensors })
}

/// Writes `model` with its tokenizer as one file, as llama.cpp loads it. Weights are converted
/// piece by piece and the file is complete or not there. Gives what other programs will miss, as
/// a sentence, where they will miss something.
///
/// # Errors
/// When the tokenizer does not fit the model, the disk refuses, or a weight is not finite in its
/// format.
pub fn save(
    model: &Model,
    tokenizer: &TokenizerFiles,
    path: &Path,
    formats: &Formats,
    cpu: &Cpu,
) -> Result<Option<String>> {
    save_watched(model, tokenizer, path, formats, cpu, &mut |_, _| ())
}

/// [`save`], which says how far it is: billions of weights take minutes.
///
/// # Errors
/// Those of [`save`].
pub fn save_watched(
    model: &Model,
    tokenizer: &TokenizerFiles,
    path: &Path,
    formats: &Formats,
    cpu: &Cpu,
    progress: &mut Progress<'_>,
) -> Result<Option<String>> {
    let (config, layout) = (&model.config, Layout::new(&model.config));
    let read = tokenizer.tokenizer(path)?;
    if let Some(read) = &read {
        read.check(config)?;
    }
    let special = super::special_tokens(config, read.as_ref());
    let mut metadata = metadata::keys(config, formats.blocks);
    let (keys, missed) = vocabulary::keys(tokenizer, &special, config.embedding_size);
    metadata.extend(keys);
    let dtypes = formats.of_each(&layout);
    let mut tensors: Vec<write::Source<'_>> = Vec::new();
    // Where the tensor is that later experts are stacked on.
    let mut stacks: BTreeMap<String, usize> = BTreeMap::new();
    let named = names(config, &layout).into_iter().zip(layout.specs());
    for ((name, spec), (values, dtype)) in named.zip(model.tensors.iter().zip(dtypes)) {
        match name.stacked.and_then(|_| stacks.get(&name.name)) {
            Some(&at) => tensors[at].parts.push(values),
            None => {
                stacks.extend(name.stacked.map(|_| (name.name.clone(), tensors.len())));
                let count = name.stacked.map(|(_, count)| count);
                let shape = count.into_iter().chain(spec.shape.iter().copied()).collect();
                tensors.push(write::Source { name, shape, parts: vec![values], dtype });
            }
        }
    }
    write::write(cpu, path, &metadata, &tensors, progress)?;
    Ok(missed)
}

/// One tensor of a given shape: mapped, or a copy in LLaDA's order where llama.cpp has another.
fn tensor(file: &File, name: &Name, shape: &[usize]) -> Result<Tensor> {
    let (tensor, path) = (name.name.clone(), file.path().to_path_buf());
    let Some(entry) = file.tensors().get(&name.name) else {
        return Err(CheckpointError::Missing { tensor, file: path }.into());
    };
    let Some(dtype) = entry.kind.dtype() else {
        let dtype = entry.kind.name.to_owned();
        return Err(CheckpointError::DType { tensor, file: path, dtype }.into());
    };
    let count = name.stacked.map(|(_, count)| count);
    let stored: Vec<usize> = count.into_iter().chain(shape.iter().copied()).collect();
    if entry.shape != stored {
        let (found, expected) = (entry.shape.clone(), stored);
        return Err(CheckpointError::Shape { tensor, file: path, found, expected }.into());
    }
    let bytes = match name.stacked {
        None => entry.bytes.clone(),
        Some((number, count)) => {
            let each = entry.bytes.len() / count.max(1);
            let start = entry.bytes.start + number * each;
            start..start + each
        }
    };
    let (mapping, bytes) = match name.rotary {
        None => (file.mapping().clone(), bytes),
        Some(head) => {
            let copy = reordered(&file.mapping()[entry.bytes.clone()], shape[0], head)?;
            file.mapping().release(entry.bytes.clone());
            (Arc::new(copy), 0..entry.bytes.len())
        }
    };
    let Some(read) = Tensor::mapped(mapping, bytes, dtype) else {
        let what = "has bytes outside of the file".into();
        return Err(CheckpointError::Entry { tensor, file: path, what }.into());
    };
    if let Some(index) = numbers::first_non_finite(read.view()) {
        return Err(CheckpointError::NonFinite { tensor, file: path, index }.into());
    }
    Ok(read)
}

/// The rows of a tensor in LLaDA's order.
fn reordered(bytes: &[u8], rows: usize, head: usize) -> Result<Mapping> {
    let width = bytes.len() / rows;
    Ok(Mapping::filled(bytes.len(), |out| {
        for (row, out) in out.chunks_exact_mut(width).enumerate() {
            out.copy_from_slice(&bytes[to_rotary(row, head) * width..][..width]);
        }
    })?)
}

#[cfg(test)]
mod tests;
