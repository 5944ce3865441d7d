//! The weight files of one checkpoint, seen as one collection of tensors.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use super::{CheckpointError, safetensors::File};
use crate::{
    Result,
    config::ModelConfig,
    files,
    hub::folder::{INDEX, Index, MAX_INDEX, SINGLE, is_plain_name},
    model::{Layout, Model, Tensor, TensorSpec},
};

/// One or several open files and which of them holds each tensor.
struct Shards {
    files: Vec<File>,
    /// Name → index into `files`.
    holder: BTreeMap<String, usize>,
    /// The file to blame for a tensor that is in none.
    listing: PathBuf,
}

impl Shards {
    /// Opens `model.safetensors`, or else the shards that the index names (the same preference as
    /// the `transformers` library).
    fn open(dir: &Path) -> Result<Self> {
        let (single, index) = (dir.join(SINGLE), dir.join(INDEX));
        if single.exists() {
            Self::collect(vec![File::open(&single)?], single)
        } else if index.exists() {
            Self::open_index(dir, index)
        } else {
            let (dir, instead) = (dir.to_path_buf(), other_weights(dir));
            Err(CheckpointError::NoWeights { dir, instead }.into())
        }
    }

    fn open_index(dir: &Path, index: PathBuf) -> Result<Self> {
        let text = files::read_text(&index, MAX_INDEX)?;
        let Index { weight_map } = serde_json::from_str(&text)
            .map_err(|e| CheckpointError::Index { file: index.clone(), what: e.to_string() })?;
        for (tensor, shard) in &weight_map {
            let refuse = |what| CheckpointError::Shard {
                tensor: tensor.clone(),
                shard: shard.clone(),
                file: index.clone(),
                what,
            };
            if !is_plain_name(shard) {
                return Err(refuse("is not the name of a file in the checkpoint's folder").into());
            }
            if !dir.join(shard).exists() {
                return Err(refuse("is not there").into());
            }
        }
        let names: BTreeSet<&String> = weight_map.values().collect();
        let files = names.iter().map(|name| File::open(&dir.join(name))).collect::<Result<_>>()?;
        let shards = Self::collect(files, index)?;
        for (tensor, shard) in &weight_map {
            let holder = shards.holder.get(tensor).map(|&n| shards.files[n].path());
            let expected = dir.join(shard);
            if holder != Some(&expected) {
                let tensor = tensor.clone();
                return Err(CheckpointError::Missing { tensor, file: expected }.into());
            }
        }
        Ok(shards)
    }

    fn collect(files: Vec<File>, listing: PathBuf) -> Result<Self> {
        let mut holder: BTreeMap<String, usize> = BTreeMap::new();
        for (n, file) in files.iter().enumerate() {
            for tensor in file.entries().keys() {
                if let Some(first) = holder.insert(tensor.clone(), n) {
                    return Err(CheckpointError::Duplicate {
                        tensor: tensor.clone(),
                        file: files[first].path().to_path_buf(),
                        other: file.path().to_path_buf(),
                    }
                    .into());
                }
            }
        }
        Ok(Self { files, holder, listing })
    }

    /// The names of all tensors, each with its file.
    fn tensors(&self) -> impl Iterator<Item = (&str, &Path)> {
        self.holder.iter().map(|(name, &n)| (name.as_str(), self.files[n].path()))
    }

    /// One parameter: a tensor, or some of the rows of one; errors as [`File::tensor`].
    fn parameter(&self, spec: &TensorSpec) -> Result<Tensor> {
        let missing = |file: &Path| {
            let (tensor, file) = (spec.name.clone(), file.to_path_buf());
            CheckpointError::Missing { tensor, file }
        };
        let Some(&n) = self.holder.get(&spec.name) else {
            return Err(missing(&self.listing).into());
        };
        let stored = self.files[n].tensor(&spec.name, &spec.stored_shape())?;
        let Some(fused) = spec.fused else { return Ok(stored) };
        let first = fused.first * spec.shape[1..].iter().product::<usize>();
        let part = stored.part(first..first + spec.len());
        Ok(part.ok_or_else(|| missing(self.files[n].path()))?)
    }
}

/// The model in a folder, whose `config` is read; see [`super::Checkpoint::load`].
pub(super) fn load(dir: &Path, config: &ModelConfig) -> Result<Model> {
    let layout = Layout::new(config);
    let shards = Shards::open(dir)?;
    let known: BTreeSet<&str> = layout.specs().iter().map(|s| s.name.as_str()).collect();
    for (name, file) in shards.tensors() {
        if !known.contains(name) && !is_redundant(name, config) {
            let (tensor, file) = (name.to_owned(), file.to_path_buf());
            return Err(CheckpointError::Unknown { tensor, file }.into());
        }
    }
    let tensors =
        layout.specs().iter().map(|spec| shards.parameter(spec)).collect::<Result<_>>()?;
    Ok(Model { config: config.clone(), tensors })
}

/// Whether a tensor that the model lacks repeats what the model has in another way.
fn is_redundant(name: &str, config: &ModelConfig) -> bool {
    let tied_head = matches!(name, "lm_head.weight" | "model.transformer.ff_out.weight");
    name.ends_with("rotary_emb.inv_freq") || (config.weight_tying && tied_head)
}

/// The first file of a folder that seems to hold weights in another form.
fn other_weights(dir: &Path) -> Option<String> {
    let names =
        std::fs::read_dir(dir).ok()?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut names: Vec<String> = names.collect();
    names.sort();
    // What needs the least to be done about comes first.
    let endings =
        ["gguf", "safetensors", "bin", "pt", "pth", "ckpt", "pkl", "npz", "h5", "msgpack"];
    let is = |name: &&String, ending: &str| {
        let found = Path::new(name).extension();
        found.is_some_and(|e| e.eq_ignore_ascii_case(ending)) && *name != "training_args.bin"
    };
    endings.iter().find_map(|ending| names.iter().find(|name| is(name, ending)).cloned())
}
