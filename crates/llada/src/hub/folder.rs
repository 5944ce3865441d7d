//! The files of a model: their names in a folder as the hub has it, and which of them are missing.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Component, Path},
};

use crate::files;

/// The configuration of a model.
pub(crate) const CONFIG: &str = "config.json";
/// How a model proposes to be sampled.
pub const GENERATION_CONFIG: &str = "generation_config.json";
/// The single weight file.
pub(crate) const SINGLE: &str = "model.safetensors";
/// The index of weights in several files.
pub(crate) const INDEX: &str = "model.safetensors.index.json";
/// The file that makes a folder one of adapters.
pub(crate) const ADAPTER_CONFIG: &str = "adapter_config.json";
/// The weights of adapters.
pub(crate) const ADAPTER: &str = "adapter_model.safetensors";

/// An 8B model's index has 25 kB.
pub(crate) const MAX_INDEX: u64 = 64 << 20;

/// What an index says.
#[derive(serde::Deserialize)]
pub(crate) struct Index {
    /// The file of each tensor.
    pub(crate) weight_map: BTreeMap<String, String>,
}

/// Whether `path` names a GGUF file: a file of that ending, in whatever case.
pub fn is_gguf(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("gguf")) && !path.is_dir()
}

/// Whether `dir` holds adapters and not a whole model.
pub fn is_adapter(dir: &Path) -> bool {
    dir.join(ADAPTER_CONFIG).is_file() && !dir.join(CONFIG).is_file()
}

/// The first file that a folder lacks to be loaded: `config.json`, weights, or one of the shards
/// that its index lists. `None` where it has all, and where what it has is damaged, of which
/// loading says more; `None` too for what is no folder.
pub fn missing_file(dir: &Path) -> Option<String> {
    if !dir.is_dir() {
        return None;
    }
    let absent = |name: &str| (!dir.join(name).exists()).then(|| name.to_owned());
    if dir.join(ADAPTER_CONFIG).exists() && !dir.join(CONFIG).exists() {
        return absent(ADAPTER);
    }
    if let Some(missing) = absent(CONFIG) {
        return Some(missing);
    }
    if dir.join(SINGLE).exists() {
        return None;
    }
    if !dir.join(INDEX).exists() {
        return Some(SINGLE.to_owned());
    }
    let text = files::read_text(&dir.join(INDEX), MAX_INDEX).ok()?;
    let Index { weight_map } = serde_json::from_str(&text).ok()?;
    let shards: BTreeSet<&String> = weight_map.values().collect();
    shards.into_iter().find(|name| is_plain_name(name) && !dir.join(name).exists()).cloned()
}

/// Whether `name` is one file name and no path, so that an index cannot reach out of its folder.
pub(crate) fn is_plain_name(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    let single = matches!(parts.next(), Some(Component::Normal(part)) if part == name);
    single && parts.next().is_none() && !name.contains(['/', '\\', '\0'])
}
