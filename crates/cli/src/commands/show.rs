//! `llada show`: what a model is, without running it.

mod training;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use llada::{
    checkpoint::{self, Checkpoint, gguf::Formats},
    config::{
        AttentionMask, Experts, LogitShift, ModelConfig, Objective, QkNorm, SpecialTokens,
        family::{Parameter, Part},
    },
    diffusion::{
        Blocks, Preset, Sampler, Settings,
        footprint::{Footprint, Weights},
    },
    model::{Layout, Model},
    tokenizer::{Tokenizer, TokenizerFiles},
};
use llada_kernels::{BlockFormat, Cpu, DType};
use serde_json::{Map, Value, json};

use crate::{
    args::{Generation, Show},
    commands::{convert, verify},
    error::Failure,
    locate::{self, Shipped},
    term::{self, Term},
    view::units,
};

/// Prints the description as text, or as JSON.
pub fn run(args: Show, term: &Term) -> Result<()> {
    if args.verify {
        return verify::run(args.model.get()?, args.json, term);
    }
    if let Some(recipe) = &args.train {
        if args.model.named()?.is_some() {
            let hint = "give the recipe alone: the model is in it";
            return Err(Failure::usage("a recipe and a model were given", hint).into());
        }
        return training::show(recipe, args.ranks as usize, args.json);
    }
    let dir = match args.model.get()? {
        Some(given) => locate::described(given)?,
        None => locate::model(None, Shipped::Base)?,
    };
    let opened = Checkpoint::open(&dir)?;
    let has_tokenizer = opened.tokenizer_files()?.get(TokenizerFiles::JSON).is_some();
    let tokenizer = if has_tokenizer { Some(opened.tokenizer()?) } else { None };
    let program = super::doctor::own_memory().unwrap_or(0);
    let model = match checkpoint::missing_file(&dir) {
        Some(_) => None,
        None => Some(opened.load()?),
    };
    let config = match &model {
        Some(model) => model.config.clone(),
        None => opened.config()?.clone(),
    };
    let weights = model.as_ref().map(Weights::of);
    let memory = memory(&config, weights, program, &args.generation)?;
    let mut facts = facts(&dir, &config, model.as_ref(), tokenizer.as_ref(), memory)?;
    let proposed = opened.generation()?;
    let listed = proposed.list().into_iter().map(|(name, value)| (name.to_owned(), value.into()));
    facts["generation"] = Value::Object(listed.collect());
    facts["chat_template"] = tokenizer.as_ref().is_some_and(Tokenizer::has_chat_template).into();
    if args.json {
        return term::answer(&serde_json::to_string_pretty(&facts)?);
    }
    term::answer(&text(&facts))
}

fn facts(
    dir: &Path,
    config: &ModelConfig,
    model: Option<&Model>,
    tokenizer: Option<&Tokenizer>,
    memory: Value,
) -> Result<Value> {
    let layout = Layout::new(config);
    let embedding =
        layout.specs()[layout.wte].len() + layout.head.map_or(0, |h| layout.specs()[h].len());
    let special = checkpoint::special_tokens(config, tokenizer);
    Ok(json!({
        "folder": dir,
        "family": config.family.word(),
        "objective": config.objective,
        "attention": attention(config.attention),
        "logits": match config.shift { LogitShift::Same => "same", LogitShift::Next => "next" },
        "d_model": config.d_model,
        "n_layers": config.n_layers,
        "n_heads": config.n_heads,
        "n_kv_heads": config.n_kv_heads,
        "head_dim": config.head_dim,
        "rotary_dim": config.rotary_dim,
        "mlp_hidden_size": config.mlp_hidden_size,
        "vocab_size": config.vocab_size,
        "embedding_size": config.embedding_size,
        "max_sequence_length": config.max_sequence_length,
        "rope_theta": config.rope_theta,
        "weight_tying": config.weight_tying,
        "qkv_bias": config.qkv_bias,
        "qk_norm": match config.qk_norm {
            QkNorm::None => Value::Null,
            QkNorm::Whole => "whole".into(),
            QkNorm::PerHead => "per-head".into(),
        },
        "experts": config.experts.as_ref().map(experts),
        "parameters": config.parameters(),
        "active_parameters": config.active_parameters(),
        "non_embedding_parameters": config.parameters() - embedding,
        "recommended": recommended(config),
        "tokens": tokens(&special, tokenizer),
        "tokenizer_size": tokenizer.map(Tokenizer::vocab_size),
        "files": files(dir)?,
        "missing": checkpoint::missing_file(dir),
        "storage": model.map(storage),
        "groups": model.map(|model| groups(model, &layout)),
        "weight_bytes": model.map(|model| Weights::of(model).bytes),
        "memory": memory,
    }))
}

/// Which tokens a token attends to.
fn attention(mask: AttentionMask) -> Value {
    match mask {
        AttentionMask::Bidirectional => json!({"mask": "bidirectional"}),
        AttentionMask::Causal => json!({"mask": "causal"}),
        AttentionMask::BlockCausal { block_length } => {
            json!({"mask": "block-causal", "block_length": block_length})
        }
    }
}

/// What the default preset makes of the family's best rule, and where that is from.
fn recommended(config: &ModelConfig) -> Value {
    const TOLD: [&str; 7] = [
        "blocks",
        "block_length",
        "sub_block_length",
        "remasking",
        "transfer",
        "cache",
        "cache_refresh",
    ];
    let preset = Preset::default();
    let told =
        |sampler: &Sampler| Settings::of(sampler).only(|key| TOLD.contains(&key.name)).list();
    let (usual, is_causal) = (told(&Sampler::default()), config.attention == AttentionMask::Causal);
    let settings: Map<String, Value> = told(&preset.sampler_for(config))
        .into_iter()
        .filter(|pair| !usual.contains(pair) && (!is_causal || pair.0 == "blocks"))
        .map(|(name, value)| (name.to_owned(), value.into()))
        .collect();
    let source = config.published_sampler().source();
    let source = if is_causal { Value::Null } else { source.into() };
    json!({"preset": preset.name(), "settings": settings, "source": source})
}

/// The mixture of experts.
fn experts(experts: &Experts) -> Value {
    json!({
        "count": experts.count,
        "per_token": experts.per_token,
        "hidden_size": experts.hidden_size,
        "shared_hidden_size": experts.shared_hidden_size,
        "layers": experts.layer_count(),
    })
}

/// Each token with a meaning: id and text.
fn tokens(special: &SpecialTokens, tokenizer: Option<&Tokenizer>) -> Value {
    let ids = [
        ("mask", special.mask),
        ("eos", special.eos),
        ("eot", special.eot),
        ("bos", special.bos),
        ("pad", special.pad),
    ];
    let describe = |id: u32| json!({"id": id, "text": tokenizer.and_then(|t| t.token(id))});
    ids.iter().map(|(name, id)| ((*name).to_owned(), id.map_or(Value::Null, describe))).collect()
}

/// The files of the folder and their sizes, or the one file that the model is.
fn files(dir: &Path) -> Result<Vec<Value>> {
    let unreadable = || format!("cannot list `{}`", dir.display());
    let paths: Vec<PathBuf> = match dir.is_file() {
        true => vec![dir.to_path_buf()],
        false => {
            let entries = std::fs::read_dir(dir).with_context(unreadable)?;
            entries.filter_map(|entry| Some(entry.ok()?.path())).collect()
        }
    };
    let mut files: Vec<(PathBuf, u64)> = paths
        .into_iter()
        .filter_map(|path| {
            let data = std::fs::metadata(&path).ok()?;
            data.is_file().then_some((path, data.len()))
        })
        .collect();
    files.sort();
    let name = |path: &Path| path.file_name().map(|n| n.to_string_lossy().into_owned());
    Ok(files.iter().map(|(path, bytes)| json!({"name": name(path), "bytes": bytes})).collect())
}

/// Number of tensors in each storage type.
fn storage(model: &Model) -> BTreeMap<&'static str, usize> {
    let mut counts = BTreeMap::new();
    for tensor in model.tensors.iter() {
        *counts.entry(convert::name(tensor.dtype())).or_default() += 1;
    }
    counts
}

/// What each part of the model is stored as: format, tensors, bytes.
fn groups(model: &Model, layout: &Layout) -> Value {
    let group = |id: usize| match layout.specs()[id].parameter {
        Parameter::Embedding => "embedding",
        Parameter::Head => "head",
        Parameter::Block(_, Part::Weight(_) | Part::AttnOut) => "attention",
        Parameter::Block(_, Part::Dense(_) | Part::Shared(_)) => "feed-forward",
        Parameter::Block(_, Part::Expert(..)) => "experts",
        Parameter::Block(_, Part::Router) => "routers",
        Parameter::Block(..) | Parameter::FinalNorm => "norms and biases",
    };
    let mut groups: BTreeMap<&str, BTreeMap<&str, (u64, u64)>> = BTreeMap::new();
    for (id, tensor) in model.tensors.iter().enumerate() {
        let formats = groups.entry(group(id)).or_default();
        let (tensors, bytes) = formats.entry(convert::name(tensor.dtype())).or_default();
        *tensors += 1;
        *bytes += tensor.bytes() as u64;
    }
    let format = |(format, (tensors, bytes)): (&&str, &(u64, u64))| json!({"format": format, "tensors": tensors, "bytes": bytes});
    let listed = groups.iter().map(|(group, formats)| {
        ((*group).to_owned(), Value::Array(formats.iter().map(format).collect()))
    });
    Value::Object(listed.collect())
}

/// The memory of a generation: its parts in bytes, and what it is for. The `program` has taken its own
/// before it loads a model: that of its code and the tokenizer.
fn memory(
    config: &ModelConfig,
    weights: Option<Weights>,
    program: u64,
    generation: &Generation,
) -> Result<Value> {
    let length = generation.length.unwrap_or(config.max_sequence_length);
    let gen_length = generation.gen_length.unwrap_or(length.min(Sampler::default().gen_length));
    let Some(prompt) = length.checked_sub(gen_length) else {
        let message =
            format!("a response of {gen_length} tokens is longer than its sequence of {length}");
        return Err(Failure::usage(message, "raise `--length`, or lower `--gen-length`").into());
    };
    let blocks = match config.attention {
        AttentionMask::Causal => Blocks::Autoregressive,
        AttentionMask::Bidirectional => Blocks::SemiAutoregressive,
        AttentionMask::BlockCausal { .. } => Blocks::BlockDiffusion,
    };
    let block_length = generation.block_length.or(config.attention.block_length());
    let sampler = Sampler {
        gen_length,
        steps: gen_length,
        block_length: block_length.unwrap_or(gen_length),
        blocks,
        cache: generation.cache,
        cache_type: generation.cache_type,
        ..Sampler::default()
    };
    // Which tokens are special plays no part, so that a model without any is described too.
    let special = SpecialTokens { mask: Some(0), ..SpecialTokens::default() };
    let checked = sampler.check().and_then(|()| sampler.check_model(&special, config.attention));
    checked.map_err(llada::Error::from)?;
    let threads = Cpu::new(generation.threads.threads.into())?.threads();
    let available = super::doctor::memory("MemAvailable");
    let needs = |weights| Footprint::planned(config, weights, &sampler, prompt, threads);
    let planned = FORMATS.iter().map(|&dtype| {
        let weights = Weights::stored(config, &Formats::usual(dtype));
        let total = needs(weights)?.total() as u64 + program;
        Ok(json!({
            "format": convert::name(dtype),
            "weights": weights.bytes,
            "total": total,
            "fits": available.map(|available| total <= available),
        }))
    });
    let planned = planned.collect::<Result<Vec<Value>>>()?;
    let parts = weights.map(needs).transpose()?;
    Ok(json!({
        "length": length,
        "gen_length": gen_length,
        "weights": parts.map(|parts| parts.weights),
        "cache": parts.map(|parts| parts.cache),
        "scratch": parts.map(|parts| parts.scratch),
        "program": program,
        "total": parts.map(|parts| parts.total() as u64 + program),
        "available": available,
        "formats": planned,
    }))
}

/// The formats whose memory is told.
const FORMATS: [DType; 6] = [
    DType::F32,
    DType::Bf16,
    DType::Blocks(BlockFormat::Q8_0),
    DType::Blocks(BlockFormat::Q6K),
    DType::Blocks(BlockFormat::Q4K),
    DType::Blocks(BlockFormat::Q4_0),
];

/// Bytes of the weights of a model in each format.
#[cfg_attr(not(feature = "hub"), allow(dead_code))]
pub fn weights_in(config: &ModelConfig, dtype: DType) -> u64 {
    Weights::stored(config, &Formats::usual(dtype)).bytes as u64
}

/// How one group of tensors is stored: `q8_0 1.2 MiB`.
fn stored(formats: &Value) -> String {
    let one = |f: &Value| {
        let bytes = units::bytes(f["bytes"].as_u64().unwrap_or(0));
        format!("{} {bytes}", f["format"].as_str().unwrap_or("?"))
    };
    let formats = formats.as_array().into_iter().flatten();
    formats.map(one).collect::<Vec<_>>().join(" + ")
}

/// The size of the model in each format, and the memory to run it.
fn planned(memory: &Value) -> Vec<(&'static str, String)> {
    let line = |(i, format): (usize, &Value)| {
        let size = |key: &str| units::bytes(format[key].as_u64().unwrap_or(0));
        let fits = match format["fits"].as_bool() {
            Some(true) => ": fits this machine",
            Some(false) => ": more than this machine has available",
            None => "",
        };
        let name = format["format"].as_str().unwrap_or("?");
        let (weights, total) = (size("weights"), size("total"));
        let title = if i == 0 { "if stored in" } else { "" };
        (title, format!("{name:<4}  {weights:>9}, runs in about {total:>9}{fits}"))
    };
    let formats = memory["formats"].as_array().into_iter().flatten();
    formats.enumerate().map(line).collect()
}

fn text(facts: &Value) -> String {
    let plain = |key: &str| match &facts[key] {
        Value::String(s) => s.clone(),
        other => other.to_string(),
    };
    let number = |key: &str| facts[key].as_u64().unwrap_or(0);
    let autoregressive = facts["objective"] == json!(Objective::Autoregressive);
    let objective = if autoregressive { "autoregressive" } else { "masked diffusion" };
    let heads = match number("n_heads") == number("n_kv_heads") {
        true => format!("{} heads", plain("n_heads")),
        false => format!("{} heads, {} for keys and values", plain("n_heads"), plain("n_kv_heads")),
    };
    let attention = match &facts["attention"] {
        of if of["mask"] == "block-causal" => {
            format!("block-causal, blocks of {} tokens", of["block_length"])
        }
        of => of["mask"].as_str().unwrap_or_default().to_owned(),
    };
    let attention = match facts["logits"] == "next" {
        true => format!("{attention}; row i of the logits predicts token i + 1"),
        false => attention,
    };
    let dense = format!("{} (SwiGLU)", plain("mlp_hidden_size"));
    let feed_forward = match &facts["experts"] {
        Value::Null => dense,
        e => {
            let shared = match e["shared_hidden_size"].as_u64() {
                Some(0) | None => String::new(),
                Some(width) => format!(" and a shared one of {width}"),
            };
            let others =
                facts["n_layers"].as_u64().unwrap_or(0) - e["layers"].as_u64().unwrap_or(0);
            let others =
                if others > 0 { format!("; {others} dense: {dense}") } else { String::new() };
            let (count, each) = (&e["count"], &e["per_token"]);
            format!("{count} experts of {}, {each} a token{shared}{others}", e["hidden_size"])
        }
    };
    let listed = |key: &str, show: &dyn Fn(&String, &Value) -> Option<String>| {
        let entries = facts[key].as_object().into_iter().flatten();
        entries.filter_map(|(k, v)| show(k, v)).collect::<Vec<_>>().join(", ")
    };
    let token = |name: &String, token: &Value| {
        let text = token["text"].as_str().map(|t| format!(" {t}")).unwrap_or_default();
        token["id"].as_u64().map(|id| format!("{name} {id}{text}"))
    };
    let memory = &facts["memory"];
    let size = |key: &str| memory[key].as_u64().map_or("?".to_owned(), units::bytes);
    let available = memory["available"].as_u64();
    let available = available.map_or(String::new(), |b| format!("; {} available", units::bytes(b)));
    let active = match number("active_parameters") {
        n if n == number("parameters") => String::new(),
        n => format!("; {} for each token", units::count(n)),
    };
    let mut rows = vec![
        ("folder", plain("folder")),
        ("model", format!("{} ({objective})", plain("family"))),
        (
            "parameters",
            format!(
                "{} ({} without embedding and head{active})",
                units::count(number("parameters")),
                units::count(number("non_embedding_parameters"))
            ),
        ),
        ("blocks", format!("{} of width {}, {heads}", plain("n_layers"), plain("d_model"))),
        ("attention", attention),
        ("feed-forward", feed_forward),
        (
            "vocabulary",
            format!("{}, {} rows of embedding", plain("vocab_size"), plain("embedding_size")),
        ),
        ("longest sequence", format!("{} tokens", plain("max_sequence_length"))),
        ("tokens", listed("tokens", &token)),
    ];
    if let Some(missing) = facts["missing"].as_str() {
        let said = format!("not here: `{}` is missing", term::visible_controls(missing));
        rows.push(("weights", said));
    } else {
        let tensors = listed("storage", &|dtype, n| Some(format!("{n} tensors in {dtype}")));
        rows.push(("storage", tensors));
        let formats =
            |group: &String, formats: &Value| Some(format!("{group} {}", stored(formats)));
        rows.push(("", listed("groups", &formats)));
        rows.push((
            "memory",
            format!(
                "about {} for a sequence of {} tokens: weights {}, cache {}, scratch {}, program \
                 {}{available}",
                size("total"),
                memory["length"],
                size("weights"),
                size("cache"),
                size("scratch"),
                size("program")
            ),
        ));
    }
    rows.extend(planned(memory));
    let recommended = &facts["recommended"];
    let settings = recommended["settings"].as_object().into_iter().flatten();
    let settings: Vec<String> =
        settings.map(|(name, v)| format!("{name} {}", v.as_str().unwrap_or("?"))).collect();
    let source = recommended["source"].as_str().map(|source| format!(" ({source})"));
    let preset = recommended["preset"].as_str().unwrap_or("?");
    let said = format!("preset {preset}: {}{}", settings.join(", "), source.unwrap_or_default());
    rows.push(("recommended", said));
    let proposed = listed("generation", &|name, value| Some(format!("{name} {}", value.as_str()?)));
    if !proposed.is_empty() {
        rows.push(("generation", proposed));
    }
    for (i, file) in facts["files"].as_array().into_iter().flatten().enumerate() {
        let name = file["name"].as_str().unwrap_or("?");
        let size = units::bytes(file["bytes"].as_u64().unwrap_or(0));
        rows.push((if i == 0 { "files" } else { "" }, format!("{name}  {size}")));
    }
    units::table(&rows)
}
