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
    config::{
        AttentionMask, Experts, Family, LogitShift, MOST_LAYERS, ModelConfig, PublishedSampler,
        QkNorm, Router, SpecialTokens,
    },
};

/// Our name where llama.cpp has none, or its code for that would compute something else, so that it
/// refuses the file: a bias or a norm on q and k, scaled logits or embeddings, the causal baseline,
/// block-causal attention.
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
    config.family.gguf(config).unwrap_or(EXTENDED)
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
    let experts = config.experts.as_ref();
    let feed_forward = match (config.mlp_hidden_size, experts) {
        // llama.cpp wants one also where no layer is dense.
        (0, Some(experts)) => experts.hidden_size * experts.per_token,
        (width, _) => width,
    };
    let mut keys = vec![
        ("vocab_size", number(config.embedding_size)),
        ("context_length", number(config.max_sequence_length)),
        ("embedding_length", number(config.d_model)),
        ("block_count", number(config.n_layers)),
        ("feed_forward_length", number(feed_forward)),
        ("attention.head_count", number(config.n_heads)),
        ("attention.head_count_kv", number(config.n_kv_heads)),
        ("attention.layer_norm_rms_epsilon", Setting::Float(config.rms_norm_eps)),
        ("attention.causal", Setting::Bool(config.attention == AttentionMask::Causal)),
        ("rope.dimension_count", number(config.rotary_dim)),
        ("rope.freq_base", Setting::Float(config.rope_theta as f32)),
    ];
    if config.q_dim() != config.d_model {
        keys.push(("attention.key_length", number(config.head_dim)));
        keys.push(("attention.value_length", number(config.head_dim)));
    }
    if let Some(experts) = experts {
        keys.push(("expert_count", number(experts.count)));
        keys.push(("expert_used_count", number(experts.per_token)));
        keys.push(("expert_feed_forward_length", number(experts.hidden_size)));
    }
    let mut keys: Vec<Entry> =
        keys.into_iter().map(|(key, value)| (format!("{prefix}.{key}"), value)).collect();
    let shifted = config.shift == LogitShift::Next;
    keys.push(("diffusion.shift_logits".into(), Setting::Bool(shifted)));
    keys
}

/// The configuration of the model in `file`.
///
/// # Errors
/// When the architecture is another, a key that is needed is missing or not of its type, or the
/// keys contradict each other.
pub(in crate::checkpoint) fn config(file: &File) -> Result<ModelConfig> {
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
        return match Family::of_gguf(&found) {
            Some(family) => keys.config(family, &found),
            None => Err(keys.wrong(CONFIG, "is missing").into()),
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

    fn architecture(&self) -> Result<String> {
        let key = "general.architecture";
        let found = self.0.value(key).and_then(Value::text);
        let found = found.ok_or_else(|| self.wrong(key, "is missing"))?;
        match found == EXTENDED || Family::of_gguf(found).is_some() {
            true => Ok(found.to_owned()),
            false => {
                let (file, found) =
                    (self.0.path().to_path_buf(), found.chars().take(100).collect());
                Err(CheckpointError::GgufArchitecture { file, found }.into())
            }
        }
    }

    /// The configuration of a file that another program wrote for llama.cpp's `architecture`.
    fn config(&self, family: Family, architecture: &str) -> Result<ModelConfig> {
        let keys = Sized { keys: self, architecture };
        let (d_model, n_layers) = (keys.size("embedding_length")?, keys.size("block_count")?);
        let n_heads = keys.size("attention.head_count")?;
        let embedding_size = self.embedding_size()?;
        let vocab_size = keys.optional_size("vocab_size")?.unwrap_or(embedding_size);
        let experts = keys.experts(n_layers)?;
        let mlp = if experts.is_some() { 0 } else { keys.size("feed_forward_length")? };
        let plain = ModelConfig::llada(d_model, n_layers, n_heads, mlp, vocab_size);
        let head_dim = keys.optional_size("attention.key_length")?.unwrap_or(plain.head_dim);
        // What llama.cpp has no keys for is part of the architecture.
        let is_dream = family.sampler() == PublishedSampler::Dream;
        let config = ModelConfig {
            family,
            n_kv_heads: keys.optional_size("attention.head_count_kv")?.unwrap_or(n_heads),
            head_dim,
            rotary_dim: head_dim,
            embedding_size,
            max_sequence_length: keys.size("context_length")?,
            // llama.cpp takes this where the key is missing.
            rope_theta: keys.optional_number("rope.freq_base")?.unwrap_or(10_000.0),
            rms_norm_eps: keys.number("attention.layer_norm_rms_epsilon")? as f32,
            weight_tying: !self.0.tensors().contains_key(HEAD),
            qkv_bias: is_dream,
            shift: if is_dream { LogitShift::Next } else { LogitShift::Same },
            qk_norm: if experts.is_some() { QkNorm::PerHead } else { QkNorm::None },
            experts,
            tokens: self.tokens()?,
            ..plain
        };
        config.check()?;
        self.check_the_rest(&config)?;
        Ok(config)
    }

    /// Rows of the embedding, which no key states.
    fn embedding_size(&self) -> Result<usize> {
        let name = "token_embd.weight";
        match self.0.tensors().get(name).map(|entry| entry.shape.as_slice()) {
            Some(&[rows, _]) => Ok(rows),
            _ => {
                let (tensor, file) = (name.to_owned(), self.0.path().to_path_buf());
                Err(CheckpointError::Missing { tensor, file }.into())
            }
        }
    }

    /// Checks the keys that must have one value, where they are there at all, and that those of
    /// the architecture which are not known here ask for nothing.
    fn check_the_rest(&self, config: &ModelConfig) -> Result<()> {
        let (head, causal) = (config.head_dim, config.attention == AttentionMask::Causal);
        let number = |n: usize| Setting::Number(n as u32);
        let prefix = format!("{}.", architecture(config));
        let of_architecture = [
            ("rope.dimension_count", number(config.rotary_dim)),
            ("rope.scaling.original_context_length", number(config.max_sequence_length)),
            ("rope.scaling.type", Setting::Text("none".into())),
            ("attention.key_length", number(head)),
            ("attention.value_length", number(head)),
            ("attention.causal", Setting::Bool(causal)),
        ];
        let of_architecture = of_architecture.map(|(key, value)| (format!("{prefix}{key}"), value));
        let shifted = Setting::Bool(config.shift == LogitShift::Next);
        let shift = ("diffusion.shift_logits".to_owned(), shifted);
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
}

/// Keys of one architecture, by what follows its name.
struct Sized<'a> {
    keys: &'a Keys<'a>,
    architecture: &'a str,
}

impl Sized<'_> {
    fn optional_size(&self, key: &str) -> Result<Option<usize>> {
        let key = format!("{}.{key}", self.architecture);
        let Some(value) = self.keys.0.value(&key) else { return Ok(None) };
        value.index().map(Some).ok_or_else(|| self.keys.wrong(&key, "is no size").into())
    }

    fn size(&self, key: &str) -> Result<usize> {
        let missing = || self.keys.wrong(&format!("{}.{key}", self.architecture), "is missing");
        Ok(self.optional_size(key)?.ok_or_else(missing)?)
    }

    /// A number as the shortest decimal of its 32 bits, which is what was meant.
    fn optional_number(&self, key: &str) -> Result<Option<f64>> {
        let key = format!("{}.{key}", self.architecture);
        match self.keys.0.value(&key) {
            None => Ok(None),
            Some(Value::Float(x)) => Ok(Some((x as f32).to_string().parse().unwrap_or(x))),
            Some(_) => Err(self.keys.wrong(&key, "is no number").into()),
        }
    }

    fn number(&self, key: &str) -> Result<f64> {
        let missing = || self.keys.wrong(&format!("{}.{key}", self.architecture), "is missing");
        Ok(self.optional_number(key)?.ok_or_else(missing)?)
    }

    /// The experts of an architecture that has some in every block, as its name says.
    fn experts(&self, n_layers: usize) -> Result<Option<Experts>> {
        if !self.architecture.ends_with("-moe") {
            return Ok(None);
        }
        Ok(Some(Experts {
            count: self.size("expert_count")?,
            per_token: self.size("expert_used_count")?,
            hidden_size: self.size("expert_feed_forward_length")?,
            shared_hidden_size: 0,
            router: Router::SOFTMAX,
            layers: vec![true; n_layers.min(MOST_LAYERS)],
        }))
    }
}
