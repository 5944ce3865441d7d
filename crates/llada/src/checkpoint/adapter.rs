//! Low-rank adapters on disk, as the Python library PEFT has them: `adapter_config.json`, and
//! `adapter_model.safetensors` with `base_model.model.MODULE.lora_A.weight` [r, in] and
//! `….lora_B.weight` [out, r]. The folder stands for the model that it adapts.

mod peft;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use llada_kernels::{Cpu, DType, WeightView};
use serde_json::{Map, Value, json};

use super::{CheckpointError, safetensors};
use crate::{
    Result, files,
    hub::{
        Cache, Reference,
        folder::{self, ADAPTER, ADAPTER_CONFIG},
    },
    json,
    model::{Adapter, Arena, Layout, LowRank, Model, lora},
};
use peft::Settings;

/// What older versions of PEFT wrote instead.
const PICKLED: &str = "adapter_model.bin";

/// A real one has 1 kB.
const MAX_CONFIG: u64 = 16 << 20;

/// The folder or GGUF file of the model that the adapters in `dir` belong to, which their
/// configuration names: a path from the adapters' folder, or else from the working folder, or else a
/// model in the hub's cache.
///
/// # Errors
/// When there is no such folder, or it holds adapters itself.
pub(super) fn base(dir: &Path, config: &Map<String, Value>) -> Result<PathBuf> {
    let named = config.get("base_model_name_or_path").and_then(Value::as_str).unwrap_or_default();
    let candidates = [Some(dir.join(named)), Some(PathBuf::from(named)), in_hub_cache(named)];
    let is_model = |base: &PathBuf| {
        base.join(folder::CONFIG).is_file() || (folder::is_gguf(base) && base.is_file())
    };
    let base = candidates.into_iter().flatten().find(is_model);
    match base.filter(|_| !named.is_empty()) {
        Some(base) => Ok(base),
        None => {
            let (file, base) = (dir.join(ADAPTER_CONFIG), named.to_owned());
            Err(CheckpointError::NoBase { file, base }.into())
        }
    }
}

/// The model of that name in the cache of the hub: PEFT names models so.
fn in_hub_cache(named: &str) -> Option<PathBuf> {
    let reference: Reference = named.parse().ok()?;
    Some(Cache::from_env().ok()?.find(&reference).ok()?.path)
}

/// The adapters in `dir`, whose `config` is read, for a model with this layout; and the names of
/// tensors that belong to none of them.
pub(super) fn read(
    dir: &Path,
    config: &Map<String, Value>,
    layout: &Layout,
) -> Result<(Adapter, Vec<String>)> {
    let file = dir.join(ADAPTER_CONFIG);
    let wrong = |what: String| CheckpointError::Adapter { file: file.clone(), what };
    let settings = Settings::read(config).map_err(wrong)?;
    check_others(&settings, layout).map_err(wrong)?;

    let weights = open_weights(dir)?;
    let mut unread: BTreeSet<String> = weights.entries().keys().cloned().collect();
    let (mut matrices, mut factors) = (Vec::new(), Arena::default());
    let (mut left_out, mut targeted) = (Vec::new(), false);
    for tensor in lora::in_blocks(layout).chain(layout.head) {
        let spec = &layout.specs()[tensor];
        let (path, names) = (path(&spec.name), names(&spec.name));
        let found: Vec<String> = names.iter().filter_map(|name| unread.take(name)).collect();
        if !settings.adapts(path, Some(tensor) != layout.head).map_err(wrong)? {
            left_out.extend(found);
            continue;
        }
        targeted = true;
        if found.is_empty() && !settings.starts_random {
            continue;
        }
        let (rank, alpha) = settings.of(path).map_err(wrong)?;
        let (outputs, inputs) = (spec.shape[0], spec.shape[1]);
        factors.push(weights.tensor(&names[0], &[rank, inputs])?.to_f32());
        factors.push(weights.tensor(&names[1], &[outputs, rank])?.to_f32());
        matrices.push(LowRank { tensor, rank, alpha });
    }
    if let Some(tensor) = unread.into_iter().next() {
        let file = weights.path().to_path_buf();
        return Err(CheckpointError::NotAdapted { tensor, file }.into());
    }
    if !targeted {
        return Err(wrong("`target_modules` fits no matrix of the model".into()).into());
    }
    if matrices.is_empty() {
        return Err(wrong("there is no adapter of what `target_modules` fits".into()).into());
    }
    let rank_stabilized = settings.rank_stabilized;
    Ok((Adapter { rank_stabilized, matrices, factors }, left_out))
}

/// Refuses adapters of what is no matrix of its own: the embedding, and a head tied to it.
fn check_others(settings: &Settings, layout: &Layout) -> std::result::Result<(), String> {
    let embedding = path(&layout.specs()[layout.wte].name);
    let tied = layout.head.is_none().then_some("lm_head");
    for path in [Some(embedding), tied].into_iter().flatten() {
        if settings.adapts(path, false)? {
            return Err(format!("`target_modules` adapts `{path}`, which is not supported"));
        }
    }
    Ok(())
}

/// A model with its adapters added.
#[derive(Debug)]
pub struct Merged {
    /// The model.
    pub model: Model,
    /// Names of tensors among the adapters that their configuration does not target, which PEFT
    /// leaves out too.
    pub left_out: Vec<String>,
}

/// `model` with the adapters in `dir` added.
pub(super) fn merge(dir: &Path, config: &Map<String, Value>, mut model: Model) -> Result<Merged> {
    let (adapter, left_out) = read(dir, config, &Layout::new(&model.config))?;
    let tensors = model.tensors.clone();
    adapter.merge(&Cpu::new(0)?, &tensors, &mut model)?;
    Ok(Merged { model, left_out })
}

/// The weights beside a configuration.
fn open_weights(dir: &Path) -> Result<safetensors::File> {
    let pickled = dir.join(PICKLED);
    if !dir.join(ADAPTER).exists() && pickled.is_file() {
        return Err(CheckpointError::Pickled { file: pickled }.into());
    }
    safetensors::File::open(&dir.join(ADAPTER))
}

/// Writes the adapters of `base` to `dir`, in `f32`.
///
/// # Errors
/// When the disk refuses, or a number is not finite.
pub fn save_adapter(adapter: &Adapter, layout: &Layout, base: &Path, dir: &Path) -> Result<()> {
    files::create_dir(dir)?;
    let mut named = Vec::new();
    for (matrix, a, b) in adapter.iter() {
        let spec = &layout.specs()[matrix.tensor];
        let [name_of_a, name_of_b] = names(&spec.name);
        named.push((name_of_a, [matrix.rank, spec.shape[1]], a));
        named.push((name_of_b, [spec.shape[0], matrix.rank], b));
    }
    let sources: Vec<_> = named
        .iter()
        .map(|(name, shape, values)| {
            let (parts, dtype) = (vec![WeightView::F32(values)], DType::F32);
            safetensors::Source { name, shape: shape.to_vec(), parts, dtype }
        })
        .collect();
    let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
    safetensors::write(&dir.join(ADAPTER), &sources, &metadata)?;

    // Whole paths, because PEFT would take `ff_out` for the LM head of that name too.
    let path = |matrix: &LowRank| path(&layout.specs()[matrix.tensor].name).to_owned();
    let (rank, alpha) =
        adapter.matrices.first().map_or((1, 1.0), |first| (first.rank, first.alpha));
    let others = |is_other: fn(&LowRank, usize, f64) -> bool, value: fn(&LowRank) -> Value| {
        let others = adapter.matrices.iter().filter(|m| is_other(m, rank, alpha));
        others.map(|m| (path(m), value(m))).collect::<Map<_, _>>()
    };
    let config = json!({
        "peft_type": "LORA",
        "task_type": null,
        "base_model_name_or_path": base,
        "r": rank,
        "rank_pattern": others(|m, rank, _| m.rank != rank, |m| m.rank.into()),
        "lora_alpha": number(alpha),
        "alpha_pattern": others(|m, _, alpha| m.alpha != alpha, |m| number(m.alpha)),
        "lora_dropout": 0.0,
        "target_modules": adapter.matrices.iter().map(path).collect::<Vec<_>>(),
        "bias": "none",
        "fan_in_fan_out": false,
        "inference_mode": true,
        "init_lora_weights": true,
        "modules_to_save": null,
        "use_dora": false,
        "use_rslora": adapter.rank_stabilized,
    });
    files::replace_with(&dir.join(ADAPTER_CONFIG), format!("{config:#}\n").as_bytes())
}

/// A whole number without a point, as PEFT wants alpha.
fn number(x: f64) -> Value {
    if x.fract() == 0.0 { json!(x as i64) } else { json!(x) }
}

/// What `adapter_config.json` says.
pub(super) fn read_config(file: &Path) -> Result<Map<String, Value>> {
    let text = files::read_text(file, MAX_CONFIG)?;
    json::parse_object(text.as_bytes()).map_err(|e| {
        let (file, what) = (file.to_path_buf(), e.to_string());
        CheckpointError::Adapter { file, what }.into()
    })
}

/// The module of a weight.
fn path(weight: &str) -> &str {
    weight.strip_suffix(".weight").unwrap_or(weight)
}

/// The names of A and B of a weight.
fn names(weight: &str) -> [String; 2] {
    ["A", "B"].map(|factor| format!("base_model.model.{}.lora_{factor}.weight", path(weight)))
}
