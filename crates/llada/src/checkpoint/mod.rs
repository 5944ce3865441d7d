//! Checkpoints: folders as the Hugging Face hub has them, read and written.
//!
//! A folder has `config.json` and the weights in `model.safetensors`, or in several files that
//! `model.safetensors.index.json` lists. Files are mapped: the weights are read where they lie. A
//! folder of low-rank adapters stands for the model that they make of another. A GGUF file is a
//! whole folder in one: wherever the path of a model is read, both will do.

mod adapter;
mod checksum;
mod error;
mod generation;
pub mod gguf;
mod open;
pub mod safetensors;
mod shards;

use std::{collections::BTreeMap, path::Path};

use llada_kernels::DType;

pub use crate::hub::folder::{GENERATION_CONFIG, is_adapter, missing_file};
pub use adapter::{Merged, save_adapter};
pub use error::CheckpointError;
pub use open::Checkpoint;

use crate::{
    Result,
    config::{ModelConfig, SpecialTokens},
    diffusion::Settings,
    files,
    hub::folder::{CONFIG, INDEX, SINGLE},
    model::{Layout, Model},
    tokenizer::{Tokenizer, TokenizerFiles},
};

/// Reads the model in `dir`, a folder or a GGUF file: [`Checkpoint::load`] of who needs nothing else.
///
/// # Errors
/// As [`Checkpoint::open`] and [`Checkpoint::load`].
pub fn load(dir: &Path) -> Result<Model> {
    Checkpoint::open(dir)?.load()
}

/// Reads the configuration of the model in `dir`: [`Checkpoint::config`] of who needs nothing else.
///
/// # Errors
/// As [`Checkpoint::open`] and [`Checkpoint::config`].
pub fn load_config(dir: &Path) -> Result<ModelConfig> {
    Checkpoint::open(dir)?.config().cloned()
}

/// Reads what the model in `dir` proposes to be sampled with: [`Checkpoint::generation`] of who needs
/// nothing else.
///
/// # Errors
/// As [`Checkpoint::open`] and [`Checkpoint::generation`].
pub fn load_generation_config(dir: &Path) -> Result<Settings> {
    Checkpoint::open(dir)?.generation()
}

/// Writes `model` into `dir` as the reference's Python code loads it: `model.safetensors` with
/// weights of type `dtype` (rounded to nearest even), and `config.json`. Each file is complete or
/// not there; a model may be written over the files that it is mapped from.
///
/// # Errors
/// When the disk refuses, or a weight is not finite in `dtype`; the previous file is kept then.
pub fn save(model: &Model, dir: &Path, dtype: DType) -> Result<()> {
    files::create_dir(dir)?;
    let layout = Layout::new(&model.config);
    let mut tensors: Vec<safetensors::Source<'_>> = Vec::new();
    // Where the tensor is that later parameters are rows of.
    let mut fused: BTreeMap<&str, usize> = BTreeMap::new();
    for (spec, values) in layout.specs().iter().zip(model.tensors.iter()) {
        let name = spec.name.as_str();
        match fused.get(name).filter(|_| !spec.begins_tensor()) {
            Some(&at) => tensors[at].parts.push(values),
            None => {
                fused.extend(spec.fused.map(|_| (name, tensors.len())));
                let (shape, parts) = (spec.stored_shape(), vec![values]);
                tensors.push(safetensors::Source { name, shape, parts, dtype });
            }
        }
    }
    // `transformers` refuses files that do not say which framework's layout they have.
    let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
    safetensors::write(&dir.join(SINGLE), &tensors, &metadata)?;
    let mut config = model.config.to_json();
    config["torch_dtype"] = match dtype {
        // A file of blocks was refused above.
        DType::F32 | DType::Blocks(_) => "float32",
        DType::Bf16 => "bfloat16",
        DType::F16 => "float16",
    }
    .into();
    files::replace_with(&dir.join(CONFIG), format!("{config:#}\n").as_bytes())
}

/// Whether a file of this name is part of a model's folder, and so gives way when another model is
/// written there.
pub fn is_written(name: &str) -> bool {
    is_shard(name) || [SINGLE, INDEX, CONFIG].contains(&name) || TokenizerFiles::names(name)
}

/// Whether a file has the name of one shard of several: `model-00001-of-00004.safetensors`.
fn is_shard(name: &str) -> bool {
    let numbers = name.strip_prefix("model-").and_then(|rest| rest.strip_suffix(".safetensors"));
    let is_number = |n: &str| n.len() >= 5 && n.bytes().all(|b| b.is_ascii_digit());
    numbers.and_then(|n| n.split_once("-of-")).is_some_and(|(n, of)| is_number(n) && is_number(of))
}

/// Whether `dir` is a folder with a model in it: its configuration, and weights.
pub fn is_model(dir: &Path) -> bool {
    let has_weights = || {
        let names = std::fs::read_dir(dir).into_iter().flatten().flatten();
        let mut names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
        names.any(|name| name == SINGLE || is_shard(&name))
    };
    load_config(dir).is_ok() && has_weights()
}

/// The ids with a meaning: those that the config states, and for the rest what the tokenizer
/// knows. Padding is the end of sequence where neither has its own.
pub fn special_tokens(config: &ModelConfig, tokenizer: Option<&Tokenizer>) -> SpecialTokens {
    let stated = config.tokens;
    let found = tokenizer.map(Tokenizer::special_tokens).unwrap_or_default();
    let eos = stated.eos.or(found.eos);
    SpecialTokens {
        mask: stated.mask.or(found.mask),
        eos,
        eot: stated.eot.or(found.eot),
        bos: stated.bos.or(found.bos),
        pad: stated.pad.or(found.pad).or(eos),
    }
}

#[cfg(test)]
pub(crate) mod tests;
