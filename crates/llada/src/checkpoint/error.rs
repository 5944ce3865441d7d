//! What can go wrong with a checkpoint: each variant names the tensor and the file.

use std::path::PathBuf;

use crate::{
    diffusion::{SamplerError, Spelling},
    hub::Reference,
};

/// Why a checkpoint cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The folder has neither `model.safetensors` nor `model.safetensors.index.json`.
    #[error(
        "`{dir}` has no `model.safetensors` and no `model.safetensors.index.json`{}",
        instead.as_ref().map(|name| format!(", only `{name}`")).unwrap_or_default()
    )]
    NoWeights {
        /// The folder.
        dir: PathBuf,
        /// Weights that it has instead.
        instead: Option<String>,
    },
    /// A file is not a safetensors file, or is damaged as a whole.
    #[error("`{file}` is not a valid safetensors file: {what}")]
    File {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// A file is not a GGUF file, or is damaged as a whole.
    #[error("`{file}` is not a valid GGUF file: {what}")]
    Gguf {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The metadata of a GGUF file do not describe a model that can be read.
    #[error("`{key}` in `{file}` {what}")]
    GgufKey {
        /// The file.
        file: PathBuf,
        /// The key.
        key: String,
        /// What is wrong with its value.
        what: String,
    },
    /// A GGUF file of a model of another architecture.
    #[error("`{file}` holds a model of the architecture `{found}`, which is not `llada`")]
    GgufArchitecture {
        /// The file.
        file: PathBuf,
        /// Its architecture.
        found: String,
    },
    /// The header describes one tensor wrongly.
    #[error("tensor `{tensor}` in `{file}` {what}")]
    Entry {
        /// The tensor.
        tensor: String,
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The index of the shards is not usable.
    #[error("index `{file}`: {what}")]
    Index {
        /// The index.
        file: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The index sends a tensor to a file that cannot be one of the shards.
    #[error("index `{file}`: the shard `{shard}` of tensor `{tensor}` {what}")]
    Shard {
        /// The tensor.
        tensor: String,
        /// Its shard, as the index names it.
        shard: String,
        /// The index.
        file: PathBuf,
        /// Why not.
        what: &'static str,
    },
    /// A tensor that the model needs is not there.
    #[error("tensor `{tensor}` is missing from `{file}`")]
    Missing {
        /// The tensor.
        tensor: String,
        /// Where it should be.
        file: PathBuf,
    },
    /// Two files hold the same tensor.
    #[error("tensor `{tensor}` is in `{file}` and again in `{other}`")]
    Duplicate {
        /// The tensor.
        tensor: String,
        /// One file.
        file: PathBuf,
        /// The other file.
        other: PathBuf,
    },
    /// A tensor that the model of the configuration does not have.
    #[error(
        "tensor `{tensor}` in `{file}` is not part of the model that its configuration describes"
    )]
    Unknown {
        /// The tensor.
        tensor: String,
        /// The file.
        file: PathBuf,
    },
    /// A tensor of another shape than the model's.
    #[error("tensor `{tensor}` in `{file}` has shape {found:?}, the model needs {expected:?}")]
    Shape {
        /// The tensor.
        tensor: String,
        /// The file.
        file: PathBuf,
        /// Its shape.
        found: Vec<usize>,
        /// The shape it should have.
        expected: Vec<usize>,
    },
    /// A weight of a storage type that is not read.
    #[error("tensor `{tensor}` in `{file}` is stored as `{dtype}`, which is not read")]
    DType {
        /// The tensor.
        tensor: String,
        /// The file.
        file: PathBuf,
        /// How it is stored.
        dtype: String,
    },
    /// A weight is NaN or infinite, or would be in the storage type asked for.
    #[error("tensor `{tensor}` in `{file}` is not finite at element {index}")]
    NonFinite {
        /// The tensor.
        tensor: String,
        /// The file read, or that was to be written.
        file: PathBuf,
        /// The first such element, in row-major order.
        index: usize,
    },
    /// `generation_config.json` is not JSON, or no object.
    #[error("`{file}` is not a JSON object: {what}")]
    GenerationJson {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// `generation_config.json` gives a setting of the sampler a value that it cannot have.
    #[error("`{file}`: {source}")]
    Generation {
        /// The file.
        file: PathBuf,
        /// The setting, and what it may be.
        source: SamplerError,
    },
    /// Adapters that cannot be used.
    #[error("adapters `{file}`: {what}")]
    Adapter {
        /// Their configuration.
        file: PathBuf,
        /// Why not.
        what: String,
    },
    /// Weights as Python pickles them, which run whatever code is in them.
    #[error("`{file}` holds pickled weights, which are not read")]
    Pickled {
        /// The file.
        file: PathBuf,
    },
    /// The model that adapters belong to is not there.
    #[error("adapters `{file}`: their model `{base}` is not a folder with a `config.json`")]
    NoBase {
        /// Their configuration.
        file: PathBuf,
        /// The folder that it names.
        base: String,
    },
    /// A tensor among adapters that adapts no matrix of the model's blocks.
    #[error("tensor `{tensor}` in `{file}` adapts no matrix in the blocks of the model")]
    NotAdapted {
        /// The tensor.
        tensor: String,
        /// The file.
        file: PathBuf,
    },
}

impl CheckpointError {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::NoWeights { instead: None, .. } => "give the folder of a Hugging Face checkpoint",
            Self::NoWeights { instead: Some(name), .. } if name.ends_with(".gguf") => {
                "give the GGUF file itself as the model"
            }
            Self::NoWeights { instead: Some(name), .. } if name.ends_with(".safetensors") => {
                "fetch `model.safetensors.index.json` too, which says what each shard holds; a \
                 single file must be called `model.safetensors`"
            }
            Self::NoWeights { instead: Some(_), .. } => {
                "load the model in `transformers` and save it again: `save_pretrained` writes \
                 safetensors; pickled weights can run code and are not read"
            }
            Self::File { .. } | Self::Gguf { .. } | Self::Entry { .. } => {
                "the file is damaged or its download was cut short: fetch it again"
            }
            Self::Index { .. } | Self::Shard { .. } | Self::Missing { .. } => {
                "fetch the whole checkpoint again, every shard of it"
            }
            Self::Duplicate { .. } => "remove the shards that belong to another checkpoint",
            Self::GgufKey { key, .. } if key == "split.count" => {
                "join the shards with llama.cpp: `llama-gguf-split --merge FIRST OUT`"
            }
            Self::GgufKey { key, .. } if key == "general.type" => {
                "add it to its model with llama.cpp: `llama-export-lora`"
            }
            Self::GgufKey { .. } => {
                "convert the model again, with `llada convert` or a recent llama.cpp, from the \
                 folder that it came from"
            }
            Self::GgufArchitecture { .. } => {
                "LLaDA, LLaDA-1.5 and iLLaDA can be read; llama.cpp runs models of other families"
            }
            Self::Unknown { .. } | Self::Shape { .. } => {
                "check that `config.json` and the weights belong to the same checkpoint"
            }
            Self::DType { file, .. } if super::gguf::is_gguf(file) => {
                "F32, F16, BF16, Q8_0, Q6_K, Q4_K and Q4_0 are read: quantise the original model with \
                 `llada quantize`"
            }
            Self::DType { .. } => {
                "convert the checkpoint to bf16; quantised weights are read from GGUF files only"
            }
            Self::NonFinite { .. } => {
                "the run that wrote these weights diverged; when saving as f16, try bf16 or f32"
            }
            Self::Adapter { .. } => {
                "LoRA and rsLoRA of matrices can be used; merge others in Python, with PEFT's \
                 `merge_and_unload`, and give the model that it saves"
            }
            Self::Pickled { file } if file.ends_with("adapter_model.bin") => {
                "load the adapters in PEFT and save them again: `save_pretrained` writes \
                 `adapter_model.safetensors`"
            }
            Self::Pickled { .. } => {
                "load the model in `transformers` and save it again: `save_pretrained` writes \
                 safetensors"
            }
            Self::GenerationJson { .. } => {
                "write an object such as `{\"temperature\": 0.7}`, or remove the file"
            }
            Self::Generation { source, .. } => return source.hint_for(Spelling::Key),
            Self::NoBase { base, .. } if base.parse::<Reference>().is_ok() => {
                return Some(format!(
                    "`llada pull {base}` fetches it; or give its folder to `llada merge` as \
                     `--base DIR`"
                ));
            }
            Self::NoBase { .. } => {
                "fetch that model and set `base_model_name_or_path` to its folder, or give it to \
                 `llada merge` as `--base DIR`"
            }
            Self::NotAdapted { .. } => {
                "check that the adapters were made for this model, and for its blocks only"
            }
        };
        Some(hint.into())
    }
}
