//! The configuration of a model as keys of a GGUF file, under llama.cpp's names.
//!
//! What these keys cannot say lies in `llada.file.config.json`, the text of a `config.json`, which
//! other readers pass over. Where both say something they must agree.

use llada_kernels::{BlockFormat, DType};
use serde_json::json;

use super::{
    container::File,
    names::HEAD,
    value::Value,
    write::{Entry, Setting},
};
use crate::{
    Result,
    checkpoint::{CheckpointError, checksum},
    config::{Family, ModelConfig, Objective, SpecialTokens},
};

/// llama.cpp's name of the architecture.
const LLADA: &str = "llada";

/// Our name where llama.cpp's code for [`LLADA`] would compute something else, so that it refuses
/// the file: a bias or a norm on q and k, scaled logits or embeddings, the causal baseline.
const EXTENDED: &str = "llada-extended";

/// Before the names of the files of a model's folder that travel inside of the GGUF file.
pub(super) const FILE: &str = "llada.file.";

/// The key of the configuration as its folder has it.
const CONFIG: &str = "llada.file.config.json";

/// The key by which a file is one of several.
const SHARDS: &str = "split.count";

/// GGML's version of its block formats.
const QUANTIZATION_VERSION: u32 = 2;

/// The name of the architecture of `config`, which is also the prefix of its keys.
pub(super) fn architecture(config: &ModelConfig) -> &'static str {
    let extended = config.qkv_bias
        || config.qk_norm
        || config.scale_logits
        || config.input_emb_norm
        || config.objective == Objective::Autoregressive;
    if extended { EXTENDED } else { LLADA }
}

/// The keys that say what the model is, and how most of its weights are stored.
pub(super) fn keys(config: &ModelConfig, dtype: DType) -> Vec<Entry> {
    let mut keys = sizes(config);
    keys.insert(0, ("general.architecture".into(), Setting::Text(architecture(config).into())));
    keys.push(("general.type".into(), Setting::Text("model".into())));
    keys.push(("general.file_type".into(), Setting::Number(file_type(dtype))));
    keys.push(("general.quantization_version".into(), Setting::Number(QUANTIZATION_VERSION)));
    keys.push((CONFIG.into(), Setting::Text(format!("{:#}\n", config.to_json()))));
    keys
}

/// llama.cpp's number of a file most of whose matrices have this type.
fn file_type(dtype: DType) -> u32 {
    match dtype {
        DType::F32 => 0,
        DType::F16 => 1,
        DType::Bf16 => 32,
        DType::Blocks(BlockFormat::Q4_0) => 2,
        DType::Blocks(BlockFormat::Q8_0) => 7,
        DType::Blocks(BlockFormat::Q4K) => 14,
        DType::Blocks(BlockFormat::Q6K) => 18,
    }
}

/// The keys that a configuration can be checked against.
fn sizes(config: &ModelConfig) -> Vec<Entry> {
    let prefix = architecture(config);
    let number = |n: usize| Setting::Number(n as u32);
    let keys = [
        ("vocab_size", number(config.embedding_size)),
        ("context_length", number(config.max_sequence_length)),
        ("embedding_length", number(config.d_model)),
        ("block_count", number(config.n_layers)),
        ("feed_forward_length", number(config.mlp_hidden_size)),
        ("attention.head_count", number(config.n_heads)),
        ("attention.head_count_kv", number(config.n_kv_heads)),
        ("attention.layer_norm_rms_epsilon", Setting::Float(config.rms_norm_eps)),
        ("attention.causal", Setting::Bool(config.objective == Objective::Autoregressive)),
        ("rope.dimension_count", number(config.head_dim())),
        ("rope.freq_base", Setting::Float(config.rope_theta as f32)),
    ];
    let mut keys: Vec<Entry> =
        keys.into_iter().map(|(key, value)| (format!("{prefix}.{key}"), value)).collect();
    let shifted = config.objective == Objective::Autoregressive;
    keys.push(("diffusion.shift_logits".into(), Setting::Bool(shifted)));
    keys
}

/// The configuration of the model in `file`.
///
/// # Errors
/// When the architecture is another, a key that is needed is missing or not of its type, or the
/// keys contradict each other.
pub(super) fn config(file: &File) -> Result<ModelConfig> {
    let keys = Keys(file);
    // Only the first of several files has the other keys.
    if file.value(SHARDS).and_then(Value::index).is_some_and(|n| n > 1) {
        return Err(keys.wrong(SHARDS, "is more than one: shards are not read").into());
    }
    if file.value("general.type").and_then(Value::text) == Some("adapter") {
        return Err(keys.wrong("general.type", "is `adapter`, which is no model").into());
    }
    let found = keys.architecture()?;
    let Some(text) = file.value(CONFIG) else {
        return match found == LLADA {
            true => keys.config(),
            false => Err(keys.wrong(CONFIG, "is missing").into()),
        };
    };
    let text = text.text().ok_or_else(|| keys.wrong(CONFIG, "is no text"))?;
    let config = ModelConfig::from_json(text)?;
    if architecture(&config) != found {
        return Err(keys.wrong(CONFIG, &format!("describes no `{found}`")).into());
    }
    for (key, value) in sizes(&config) {
        if file.value(&key).is_some_and(|found| !value.is(found)) {
            return Err(keys.wrong(&key, &format!("is not that of `{CONFIG}`")).into());
        }
    }
    keys.check_the_rest(&config)?;
    Ok(config)
}

/// Whether the value of a key leaves the computation as it is: no flag, no text, a count of 0, a
/// factor of 1.
fn is_nothing(value: Value<'_>) -> bool {
    match value {
        Value::Integer(n) => n == 0 || n == 1,
        Value::Float(x) => x == 0.0 || x == 1.0,
        Value::Bool(flag) => !flag,
        Value::Text(text) => ["", "none"].contains(&text),
        Value::Array(list) => list.is_empty(),
    }
}

/// The keys of a file, with typed look-ups.
struct Keys<'a>(&'a File);

impl Keys<'_> {
    fn wrong(&self, key: &str, what: &str) -> CheckpointError {
        let (file, key, what) = (self.0.path().to_path_buf(), key.to_owned(), what.to_owned());
        CheckpointError::GgufKey { file, key, what }
    }

    fn architecture(&self) -> Result<&'static str> {
        let key = "general.architecture";
        let found = self.0.value(key).and_then(Value::text);
        let found = found.ok_or_else(|| self.wrong(key, "is missing"))?;
        let known = [LLADA, EXTENDED].into_iter().find(|&known| known == found);
        known.ok_or_else(|| {
            let found = found.chars().take(100).collect();
            CheckpointError::GgufArchitecture { file: self.0.path().to_path_buf(), found }.into()
        })
    }

    /// The configuration of a file that another program wrote.
    fn config(&self) -> Result<ModelConfig> {
        let d_model = self.size("embedding_length")?;
        let n_heads = self.size("attention.head_count")?;
        let embedding =
            self.0.tensors().get("token_embd.weight").map(|entry| entry.shape.as_slice());
        let Some(&[embedding_size, _]) = embedding else {
            let (tensor, file) = ("token_embd.weight".to_owned(), self.0.path().to_path_buf());
            return Err(CheckpointError::Missing { tensor, file }.into());
        };
        let config = ModelConfig {
            family: Family::Llada,
            d_model,
            n_layers: self.size("block_count")?,
            n_heads,
            n_kv_heads: self.optional_size("attention.head_count_kv")?.unwrap_or(n_heads),
            mlp_hidden_size: self.size("feed_forward_length")?,
            vocab_size: self.optional_size("vocab_size")?.unwrap_or(embedding_size),
            embedding_size,
            max_sequence_length: self.size("context_length")?,
            // llama.cpp takes this where the key is missing.
            rope_theta: self.number("rope.freq_base")?.unwrap_or(10_000.0),
            rms_norm_eps: self
                .number("attention.layer_norm_rms_epsilon")?
                .ok_or_else(|| self.wrong("llada.attention.layer_norm_rms_epsilon", "is missing"))?
                as f32,
            weight_tying: !self.0.tensors().contains_key(HEAD),
            qkv_bias: false,
            qk_norm: false,
            scale_logits: false,
            input_emb_norm: false,
            objective: Objective::Diffusion,
            tokens: self.tokens()?,
        };
        config.check()?;
        self.check_the_rest(&config)?;
        Ok(config)
    }

    /// Checks the keys that must have one value, where they are there at all, and that those of
    /// the architecture which are not known here ask for nothing.
    fn check_the_rest(&self, config: &ModelConfig) -> Result<()> {
        let (head, causal) = (config.head_dim(), config.objective == Objective::Autoregressive);
        let number = |n: usize| Setting::Number(n as u32);
        let prefix = format!("{}.", architecture(config));
        let of_architecture = [
            ("rope.dimension_count", number(head)),
            ("rope.scaling.original_context_length", number(config.max_sequence_length)),
            ("rope.scaling.type", Setting::Text("none".into())),
            ("attention.key_length", number(head)),
            ("attention.value_length", number(head)),
            ("attention.causal", Setting::Bool(causal)),
        ];
        let of_architecture = of_architecture.map(|(key, value)| (format!("{prefix}{key}"), value));
        let shift = ("diffusion.shift_logits".to_owned(), Setting::Bool(causal));
        for (key, value) in of_architecture.iter().chain([&shift]) {
            if self.0.value(key).is_some_and(|found| !value.is(found)) {
                let what = match value {
                    Setting::Number(n) => format!("is not {n}, which the other keys ask for"),
                    Setting::Text(text) => format!("is not `{text}`, and others are not read"),
                    other => format!("is not {}", json!(*other == Setting::Bool(true))),
                };
                return Err(self.wrong(key, &what).into());
            }
        }
        let read = sizes(config);
        let is_known = |key: &&str| {
            let same = |(known, _): &Entry| known == key;
            let judged = ["attention.layer_norm_epsilon", "rope.scaling.finetuned"];
            let rest = key.strip_prefix(&prefix).unwrap_or_default();
            read.iter().chain(&of_architecture).any(same) || judged.contains(&rest)
        };
        // What this program writes for itself has the same beginning as LLaDA's architecture.
        let is_own = |key: &&str| key.starts_with(FILE) || *key == checksum::KEY;
        let is_other = |key: &&str| key.starts_with(&prefix) && !is_own(key);
        let mut others = self.0.keys().filter(|key| is_other(key) && !is_known(key));
        match others.find(|key| !self.0.value(key).is_none_or(is_nothing)) {
            Some(key) => Err(self.wrong(key, "asks for what is not computed here").into()),
            None => Ok(()),
        }
    }

    fn tokens(&self) -> Result<SpecialTokens> {
        let id = |name: &str| -> Result<Option<u32>> {
            let key = format!("tokenizer.ggml.{name}_token_id");
            let Some(value) = self.0.value(&key) else { return Ok(None) };
            let id = value.index().and_then(|n| u32::try_from(n).ok());
            id.map(Some).ok_or_else(|| self.wrong(&key, "is no token id").into())
        };
        Ok(SpecialTokens {
            mask: id("mask")?,
            eos: id("eos")?,
            eot: id("eot")?,
            bos: id("bos")?,
            pad: id("padding")?,
        })
    }

    fn optional_size(&self, key: &str) -> Result<Option<usize>> {
        let key = format!("{LLADA}.{key}");
        let Some(value) = self.0.value(&key) else { return Ok(None) };
        value.index().map(Some).ok_or_else(|| self.wrong(&key, "is no size").into())
    }

    fn size(&self, key: &str) -> Result<usize> {
        let missing = || self.wrong(&format!("{LLADA}.{key}"), "is missing");
        Ok(self.optional_size(key)?.ok_or_else(missing)?)
    }

    /// A number as the shortest decimal of its 32 bits, which is what was meant.
    fn number(&self, key: &str) -> Result<Option<f64>> {
        let key = format!("{LLADA}.{key}");
        match self.0.value(&key) {
            None => Ok(None),
            Some(Value::Float(x)) => Ok(Some((x as f32).to_string().parse().unwrap_or(x))),
            Some(_) => Err(self.wrong(&key, "is no number").into()),
        }
    }
}
