//! What an `adapter_config.json` asks for, as PEFT understands it: which modules are adapted, with
//! which rank and alpha. Whatever would make W₀ + s·B·A another model than PEFT's is refused.

use fancy_regex::Regex;
use serde_json::{Map, Value};

use crate::json::is_nothing;

/// What is wrong with a configuration.
type Wrong = String;

/// The settings of the adapters of one model.
#[derive(Debug)]
pub(super) struct Settings {
    rank: usize,
    alpha: f64,
    /// Whether the products count alpha/√r times.
    pub(super) rank_stabilized: bool,
    /// Whether adapters that the files lack are random, and not without effect.
    pub(super) starts_random: bool,
    targets: Modules,
    excluded: Option<Modules>,
    layers: Option<Layers>,
    ranks: Vec<(Regex, usize)>,
    alphas: Vec<(Regex, f64)>,
}

/// Modules, as PEFT names them.
#[derive(Debug)]
enum Modules {
    /// All linear ones but the LM head.
    AllLinear,
    /// Those whose whole path matches.
    Pattern(Regex),
    /// Those whose path is one of these, or ends with one after a dot.
    Names(Vec<String>),
}

/// The layers whose modules are adapted.
#[derive(Debug)]
struct Layers {
    indices: Vec<u64>,
    /// Each finds the index in the path of a module.
    patterns: Vec<Regex>,
}

/// Keys that are read, or that change nothing in trained adapters. The sub-configurations belong to
/// initialisations that are judged by `init_lora_weights`.
const JUDGED: [&str; 26] = [
    "peft_type",
    "r",
    "lora_alpha",
    "use_rslora",
    "rank_pattern",
    "alpha_pattern",
    "target_modules",
    "exclude_modules",
    "layers_to_transform",
    "layers_pattern",
    "init_lora_weights",
    "base_model_name_or_path",
    "revision",
    "task_type",
    "auto_mapping",
    "peft_version",
    "inference_mode",
    "lora_dropout",
    "megatron_core",
    "qalora_group_size",
    "runtime_config",
    "loftq_config",
    "eva_config",
    "corda_config",
    "lora_ga_config",
    "velora_config",
];

/// Initialisations that leave the model under the adapters as it is.
const STARTS: [&str; 4] = ["gaussian", "eva", "orthogonal", "mica"];

impl Settings {
    /// Reads a configuration.
    pub(super) fn read(config: &Map<String, Value>) -> Result<Self, Wrong> {
        let kind = config.get("peft_type").unwrap_or(&Value::Null);
        if kind != "LORA" {
            return Err(format!("`peft_type` is {kind}, only `LORA` can be used"));
        }
        let other = |(key, value): &(&String, &Value)| {
            !JUDGED.contains(&key.as_str()) && !is_nothing(value)
        };
        if let Some((key, value)) = config.iter().find(other) {
            return Err(format!("`{key}` is {value}, which is not supported"));
        }
        let (patterned, layers) = (config.get("target_modules"), Layers::read(config)?);
        if patterned.is_some_and(Value::is_string) && layers.is_some() {
            return Err("`layers_to_transform` needs `target_modules` to be a list".into());
        }
        Ok(Self {
            rank: rank("r", config.get("r").unwrap_or(&Value::Null))?,
            alpha: alpha("lora_alpha", config.get("lora_alpha").unwrap_or(&Value::Null))?,
            rank_stabilized: flag(config, "use_rslora")?,
            starts_random: check_start(config.get("init_lora_weights"))?,
            targets: Modules::read(config, "target_modules")?
                .ok_or("`target_modules` is not given, and this model has no usual ones")?,
            excluded: Modules::read(config, "exclude_modules")?,
            layers,
            ranks: patterns(config, "rank_pattern", rank)?,
            alphas: patterns(config, "alpha_pattern", alpha)?,
        })
    }

    /// Whether the module at `path`, in a block or not, gets an adapter.
    pub(super) fn adapts(&self, path: &str, in_block: bool) -> Result<bool, Wrong> {
        if let Some(excluded) = &self.excluded
            && excluded.contain(path, in_block)?
        {
            return Ok(false);
        }
        let found = self.targets.contain(path, in_block)?;
        match (&self.layers, &self.targets) {
            // A whole path is taken as it stands, whatever its layer.
            (Some(layers), Modules::Names(names)) if found && !names.iter().any(|n| n == path) => {
                layers.contain(path)
            }
            _ => Ok(found),
        }
    }

    /// Rank and alpha of the module at `path`: those of the first pattern that fits.
    pub(super) fn of(&self, path: &str) -> Result<(usize, f64), Wrong> {
        Ok((first(&self.ranks, path, self.rank)?, first(&self.alphas, path, self.alpha)?))
    }
}

impl Modules {
    fn read(config: &Map<String, Value>, key: &str) -> Result<Option<Self>, Wrong> {
        match config.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) if key == "exclude_modules" && text.is_empty() => Ok(None),
            Some(Value::String(text))
                if key == "target_modules" && text.eq_ignore_ascii_case("all-linear") =>
            {
                Ok(Some(Self::AllLinear))
            }
            Some(Value::String(text)) => Ok(Some(Self::Pattern(regex(key, "", text, r"\z")?))),
            Some(list) => strings(key, list).map(|names| Some(Self::Names(names))),
        }
    }

    fn contain(&self, path: &str, in_block: bool) -> Result<bool, Wrong> {
        match self {
            Self::AllLinear => Ok(in_block),
            Self::Pattern(pattern) => is_match(pattern, path),
            Self::Names(names) => Ok(names.iter().any(|name| {
                let before = path.strip_suffix(name.as_str());
                before.is_some_and(|before| before.is_empty() || before.ends_with('.'))
            })),
        }
    }
}

impl Layers {
    fn read(config: &Map<String, Value>) -> Result<Option<Self>, Wrong> {
        let names = match config.get("layers_pattern") {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::String(name)) if name.is_empty() => Vec::new(),
            Some(Value::String(name)) => vec![name.clone()],
            Some(list) => strings("layers_pattern", list)?,
        };
        let is_index = || "`layers_to_transform` is no list of layers".to_owned();
        let indices = match config.get("layers_to_transform") {
            None | Some(Value::Null) if names.is_empty() => return Ok(None),
            None | Some(Value::Null) => {
                return Err("`layers_pattern` needs `layers_to_transform`".into());
            }
            Some(Value::Array(list)) if list.is_empty() => return Ok(None),
            Some(Value::Array(list)) => list.iter().map(Value::as_u64).collect(),
            Some(one) => one.as_u64().map(|index| vec![index]),
        };
        // The first number on the path is that of the layer.
        const INDEX: &str = r"\.(?P<layer>\d+)\.";
        let find = |name: &String| regex("layers_pattern", r"(?:.*?\.)?", name, INDEX);
        let patterns = match names.is_empty() {
            true => vec![regex("layers_pattern", r".*?\.", "[^.]*", INDEX)?],
            false => names.iter().map(find).collect::<Result<_, _>>()?,
        };
        Ok(Some(Self { indices: indices.ok_or_else(is_index)?, patterns }))
    }

    fn contain(&self, path: &str) -> Result<bool, Wrong> {
        for pattern in &self.patterns {
            let found = pattern.captures(path).map_err(|e| format!("`layers_pattern`: {e}"))?;
            if let Some(index) = found.as_ref().and_then(|found| found.name("layer")) {
                return Ok(index.as_str().parse().is_ok_and(|n: u64| self.indices.contains(&n)));
            }
        }
        Ok(false)
    }
}

/// The value of the first pattern that the end of a path fits, or else `otherwise`.
fn first<T: Copy>(patterns: &[(Regex, T)], path: &str, otherwise: T) -> Result<T, Wrong> {
    for (pattern, value) in patterns {
        if is_match(pattern, path)? {
            return Ok(*value);
        }
    }
    Ok(otherwise)
}

fn patterns<T>(
    config: &Map<String, Value>,
    key: &str,
    read: impl Fn(&str, &Value) -> Result<T, Wrong>,
) -> Result<Vec<(Regex, T)>, Wrong> {
    match config.get(key) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Object(map)) => map
            .iter()
            .map(|(name, value)| {
                let pattern = regex(key, r"(?:.*\.)?", name, r"\z")?;
                Ok((pattern, read(&format!("{key}.{name}"), value)?))
            })
            .collect(),
        Some(other) => Err(format!("`{key}` is {other}, which is no object")),
    }
}

/// Refuses what starts from other weights than those of the model that the configuration names.
/// Gives whether adapters start with an effect.
fn check_start(start: Option<&Value>) -> Result<bool, Wrong> {
    match start {
        None | Some(Value::Bool(true)) => Ok(false),
        Some(Value::Null | Value::Bool(false)) => Ok(true),
        Some(Value::String(name)) if STARTS.contains(&name.to_lowercase().as_str()) => Ok(false),
        Some(other) => {
            Err(format!("`init_lora_weights` is {other}, which changes the model under it"))
        }
    }
}

fn rank(key: &str, value: &Value) -> Result<usize, Wrong> {
    let rank = value.as_u64().filter(|rank| *rank > 0 && *rank < 1 << 20);
    rank.map(|rank| rank as usize).ok_or_else(|| format!("`{key}` is {value}, which is no rank"))
}

fn alpha(key: &str, value: &Value) -> Result<f64, Wrong> {
    let alpha = value.as_f64().filter(|alpha| alpha.is_finite());
    alpha.ok_or_else(|| format!("`{key}` is {value}, which is no number"))
}

fn flag(config: &Map<String, Value>, key: &str) -> Result<bool, Wrong> {
    match config.get(key) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(flag)) => Ok(*flag),
        Some(other) => Err(format!("`{key}` is {other}, neither true nor false")),
    }
}

fn strings(key: &str, list: &Value) -> Result<Vec<String>, Wrong> {
    let list = list.as_array().ok_or_else(|| format!("`{key}` is {list}, which is no list"))?;
    let texts = list.iter().map(|name| name.as_str().map(str::to_owned));
    texts.collect::<Option<_>>().ok_or_else(|| format!("`{key}` lists something else than names"))
}

/// What a configuration gives as a pattern in Python's syntax, lookaround included, between what
/// PEFT puts before and after it.
fn regex(key: &str, before: &str, given: &str, after: &str) -> Result<Regex, Wrong> {
    let build = |pattern: &str| {
        Regex::new(pattern).map_err(|e| format!("`{key}` is no regex that can be used: {e}"))
    };
    build(given)?;
    build(&format!(r"\A{before}(?:{given}){after}"))
}

fn is_match(pattern: &Regex, path: &str) -> Result<bool, Wrong> {
    pattern.is_match(path).map_err(|e| format!("`{}` cannot be matched: {e}", pattern.as_str()))
}

#[cfg(test)]
mod tests;
