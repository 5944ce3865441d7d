//! Low-rank adapters on disk, as the Python library PEFT has them: `adapter_config.json`, and
//! `adapter_model.safetensors` with `base_model.model.MODULE.lora_A.weight` [r, in] and
//! `….lora_B.weight` [out, r]. The folder stands for the model that it adapts.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use llada_kernels::{Cpu, DType, WeightView};
use serde_json::{Map, Value, json};

use super::{CheckpointError, files, gguf, safetensors};
use crate::{
    Result,
    hub::{Cache, Reference},
    model::{Adapter, Layout, LowRank, Model, lora},
};

/// The file that makes a folder one of adapters.
pub(super) const CONFIG: &str = "adapter_config.json";
pub(super) const WEIGHTS: &str = "adapter_model.safetensors";

/// A real one has 1 kB.
const MAX_CONFIG: u64 = 16 << 20;

/// Whether `dir` holds adapters and not a whole model.
pub fn is_adapter(dir: &Path) -> bool {
    dir.join(CONFIG).is_file() && !dir.join("config.json").is_file()
}

/// The folder or GGUF file of the model that the adapters in `dir` belong to, which their
/// configuration names: a path from the adapters' folder, or else from the working folder, or else a
/// model in the hub's cache.
///
/// # Errors
/// When there is no such folder, or it holds adapters itself.
pub fn base_of(dir: &Path) -> Result<PathBuf> {
    let file = dir.join(CONFIG);
    let named = read_config(&file)?;
    let named = named.get("base_model_name_or_path").and_then(Value::as_str).unwrap_or_default();
    let candidates = [Some(dir.join(named)), Some(PathBuf::from(named)), in_hub_cache(named)];
    let is_model = |base: &PathBuf| {
        base.join("config.json").is_file() || (gguf::is_gguf(base) && base.is_file())
    };
    let base = candidates.into_iter().flatten().find(is_model);
    match base.filter(|_| !named.is_empty()) {
        Some(base) => Ok(base),
        None => Err(CheckpointError::NoBase { file, base: named.to_owned() }.into()),
    }
}

/// The model of that name in the cache of the hub: PEFT names models so.
fn in_hub_cache(named: &str) -> Option<PathBuf> {
    let reference: Reference = named.parse().ok()?;
    Some(Cache::from_env().ok()?.find(&reference).ok()?.path)
}

/// Reads the adapters in `dir` for a model with this layout.
///
/// # Errors
/// When the files are not those of plain LoRA, or do not fit the model.
pub fn load_adapter(dir: &Path, layout: &Layout) -> Result<Adapter> {
    let file = dir.join(CONFIG);
    let config = read_config(&file)?;
    let wrong = |what: String| CheckpointError::Adapter { file: file.clone(), what };
    check_plain(&config).map_err(wrong)?;
    let rank = config.get("r").and_then(Value::as_u64).filter(|r| *r > 0 && *r < 1 << 20);
    let rank = rank.ok_or_else(|| wrong("`r` is not a rank".into()))? as usize;
    let alpha = config.get("lora_alpha").and_then(Value::as_f64).filter(|a| a.is_finite());
    let alpha = alpha.ok_or_else(|| wrong("`lora_alpha` is not a number".into()))?;

    let weights = safetensors::File::open(&dir.join(WEIGHTS))?;
    let mut matrices = Vec::new();
    for tensor in lora::in_blocks(layout) {
        let spec = &layout.specs()[tensor];
        let [a, b] = names(&spec.name);
        if !weights.entries().contains_key(&a) && !weights.entries().contains_key(&b) {
            continue;
        }
        let (outputs, inputs) = (spec.shape[0], spec.shape[1]);
        let a = weights.tensor(&a, &[rank, inputs])?.to_f32();
        let b = weights.tensor(&b, &[outputs, rank])?.to_f32();
        matrices.push(LowRank { tensor, a, b });
    }
    if 2 * matrices.len() != weights.entries().len() {
        let used = |name: &&String| {
            matrices.iter().any(|m| names(&layout.specs()[m.tensor].name).contains(name))
        };
        let tensor = weights.entries().keys().find(|name| !used(name)).cloned().unwrap_or_default();
        let file = weights.path().to_path_buf();
        return Err(CheckpointError::NotAdapted { tensor, file }.into());
    }
    Ok(Adapter { rank, alpha, matrices })
}

/// The model of the adapters in `dir`: that of `base`, or of the folder which they name, with every
/// adapter added to its matrix.
///
/// # Errors
/// As [`super::load`], [`base_of`] and [`load_adapter`].
pub fn load_merged(dir: &Path, base: Option<&Path>) -> Result<Model> {
    let base = base.map_or_else(|| base_of(dir), |base| Ok(base.to_path_buf()))?;
    let mut model = super::load_plain(&base)?;
    let adapter = load_adapter(dir, &Layout::new(&model.config))?;
    let tensors = model.tensors.clone();
    adapter.merge(&Cpu::new(0)?, &tensors, &mut model)?;
    Ok(model)
}

/// Writes the adapters of `base` to `dir`, in `f32`.
///
/// # Errors
/// When the disk refuses, or a number is not finite.
pub fn save_adapter(adapter: &Adapter, layout: &Layout, base: &Path, dir: &Path) -> Result<()> {
    files::create_dir(dir)?;
    let mut named = Vec::new();
    for matrix in &adapter.matrices {
        let spec = &layout.specs()[matrix.tensor];
        let [a, b] = names(&spec.name);
        named.push((a, [adapter.rank, spec.shape[1]], &matrix.a));
        named.push((b, [spec.shape[0], adapter.rank], &matrix.b));
    }
    let sources: Vec<_> = named
        .iter()
        .map(|(name, shape, values)| {
            let (values, dtype) = (WeightView::F32(values), DType::F32);
            safetensors::Source { name, shape, values, dtype }
        })
        .collect();
    let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
    safetensors::write(&dir.join(WEIGHTS), &sources, &metadata)?;

    // Whole paths, because PEFT would take `ff_out` for the LM head of that name too.
    let modules = adapter.matrices.iter().map(|m| path(&layout.specs()[m.tensor].name));
    let alpha = adapter.alpha;
    let config = json!({
        "peft_type": "LORA",
        "task_type": null,
        "base_model_name_or_path": base,
        "r": adapter.rank,
        "lora_alpha": if alpha.fract() == 0.0 { json!(alpha as i64) } else { json!(alpha) },
        "lora_dropout": 0.0,
        "target_modules": modules.collect::<Vec<_>>(),
        "bias": "none",
        "fan_in_fan_out": false,
        "inference_mode": true,
        "init_lora_weights": true,
        "modules_to_save": null,
        "use_dora": false,
        "use_rslora": false,
    });
    files::replace_with(&dir.join(CONFIG), format!("{config:#}\n").as_bytes())
}

fn read_config(file: &Path) -> Result<Map<String, Value>> {
    let text = files::read_text(file, MAX_CONFIG)?;
    serde_json::from_str(&text).map_err(|e| {
        let (file, what) = (file.to_path_buf(), e.to_string());
        CheckpointError::Adapter { file, what }.into()
    })
}

/// Refuses what is more than W₀ + (alpha/r)·B·A with one rank and one alpha.
fn check_plain(config: &Map<String, Value>) -> std::result::Result<(), String> {
    let kind = config.get("peft_type").and_then(Value::as_str).unwrap_or("?");
    if kind != "LORA" {
        return Err(format!("`peft_type` is `{kind}`, only `LORA` can be used"));
    }
    let is_unset = |value: &Value| match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::String(text) => text == "none",
        _ => false,
    };
    let more = [
        "use_rslora",
        "use_dora",
        "rank_pattern",
        "alpha_pattern",
        "modules_to_save",
        "bias",
        "lora_bias",
        "fan_in_fan_out",
    ];
    // These start from other weights than those of the folder that the configuration names.
    let starts = ["pissa", "olora", "loftq", "corda"];
    let start = config.get("init_lora_weights").and_then(Value::as_str).unwrap_or_default();
    if starts.iter().any(|name| start.starts_with(name)) {
        return Err(format!("`init_lora_weights` is `{start}`, which changes the model under it"));
    }
    match more.iter().find(|key| config.get(**key).is_some_and(|value| !is_unset(value))) {
        Some(key) => Err(format!("`{key}` is {}, which is not supported", config[*key])),
        None => Ok(()),
    }
}

/// The module of a weight.
fn path(weight: &str) -> &str {
    weight.strip_suffix(".weight").unwrap_or(weight)
}

/// The names of A and B of a weight.
fn names(weight: &str) -> [String; 2] {
    ["A", "B"].map(|factor| format!("base_model.model.{}.lora_{factor}.weight", path(weight)))
}
