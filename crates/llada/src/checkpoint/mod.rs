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
pub(crate) mod numbers;
pub mod safetensors;
mod shards;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use llada_kernels::DType;

pub use adapter::{
    Merged, base_of, is_adapter, load_adapter, load_merged, merge, save_adapter, tokenizer_dir,
};
pub use error::CheckpointError;
pub use generation::{GENERATION_CONFIG, load_generation_config};
pub use shards::missing_file;

use crate::{
    Result,
    config::{ModelConfig, SpecialTokens},
    files,
    model::{Layout, Model},
    tokenizer::{Tokenizer, TokenizerFiles},
};

/// A real `config.json` has 2 kB.
const MAX_CONFIG: u64 = 16 << 20;

/// Reads the model in `dir`, a folder or a GGUF file. Weights stay in the mapped files, in their storage type (`f32`, `bf16`
/// or `f16`); every one is checked to be finite. Tensors that carry nothing of their own (rotary
/// tables, a head stored although it is tied) are passed over. Of adapters it gives the merged
/// model, as [`load_merged`].
///
/// # Errors
/// When the architecture is unknown, and when a tensor is missing, misshapen, not finite, of
/// another type, stored twice, or not part of the model: the error names tensor and file.
pub fn load(dir: &Path) -> Result<Model> {
    if is_adapter(dir) { load_merged(dir, None) } else { load_plain(dir) }
}

fn load_plain(dir: &Path) -> Result<Model> {
    if gguf::is_gguf(dir) {
        return gguf::load(dir);
    }
    let config = load_config(dir)?;
    let layout = Layout::new(&config);
    let shards = shards::Shards::open(dir)?;
    let known: BTreeSet<&str> = layout.specs().iter().map(|s| s.name.as_str()).collect();
    for (name, file) in shards.tensors() {
        if !known.contains(name) && !is_redundant(name, &config) {
            let (tensor, file) = (name.to_owned(), file.to_path_buf());
            return Err(CheckpointError::Unknown { tensor, file }.into());
        }
    }
    let tensors =
        layout.specs().iter().map(|spec| shards.parameter(spec)).collect::<Result<_>>()?;
    Ok(Model { config, tensors })
}

/// Reads `config.json` in `dir`, or of the model that the adapters in `dir` belong to; of a GGUF
/// file, what stands for it.
///
/// # Errors
/// When it cannot be read or is damaged, or as [`ModelConfig::from_json`].
pub fn load_config(dir: &Path) -> Result<ModelConfig> {
    let base = if is_adapter(dir) { base_of(dir)? } else { dir.to_path_buf() };
    if gguf::is_gguf(&base) {
        return gguf::load_config(&base);
    }
    let text = files::read_text(&base.join("config.json"), MAX_CONFIG)?;
    Ok(ModelConfig::from_json(&text)?)
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
    for (spec, tensor) in layout.specs().iter().zip(&model.tensors) {
        let (shape, values) = (spec.stored_shape(), tensor.view());
        match tensors.iter_mut().rfind(|source| source.name == spec.name) {
            Some(source) if !spec.begins_tensor() => source.parts.push(values),
            _ => tensors.push(safetensors::Source {
                name: &spec.name,
                shape,
                parts: vec![values],
                dtype,
            }),
        }
    }
    // `transformers` refuses files that do not say which framework's layout they have.
    let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
    safetensors::write(&dir.join(shards::SINGLE), &tensors, &metadata)?;
    let mut config = model.config.to_json();
    config["torch_dtype"] = match dtype {
        // A file of blocks was refused above.
        DType::F32 | DType::Blocks(_) => "float32",
        DType::Bf16 => "bfloat16",
        DType::F16 => "float16",
    }
    .into();
    files::replace_with(&dir.join("config.json"), format!("{config:#}\n").as_bytes())
}

/// Whether a file of this name is part of a model's folder, and so gives way when another model is
/// written there.
pub fn is_written(name: &str) -> bool {
    is_shard(name)
        || [shards::SINGLE, shards::INDEX, "config.json"].contains(&name)
        || TokenizerFiles::names(name)
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
        names.any(|name| name == shards::SINGLE || is_shard(&name))
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

/// Whether a tensor that the model lacks repeats what the model has in another way.
fn is_redundant(name: &str, config: &ModelConfig) -> bool {
    let tied_head = matches!(name, "lm_head.weight" | "model.transformer.ff_out.weight");
    name.ends_with("rotary_emb.inv_freq") || (config.weight_tying && tied_head)
}

#[cfg(test)]
pub(crate) mod tests;
