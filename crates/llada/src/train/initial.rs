//! The model that a run starts from, and whether the recipe and the data go with it.

use std::path::Path;

use llada_kernels::Cpu;

use super::{Recipe, TrainError, memory, source::Source, trainable::Trainable};
use crate::{
    Result,
    checkpoint::{self, Checkpoint},
    config::{ModelConfig, QkNorm},
    model::Model,
    tokenizer::Tokenizer,
};

/// The model at the start of the run, and its adapters where the recipe wants some. The checkpoint
/// of the tokenizer, which is `opened`, is often that of the model.
pub(super) fn starting_model(
    recipe: &Recipe,
    cpu: &Cpu,
    opened: &Checkpoint,
    tokenizer: &Tokenizer,
    found: Option<&Path>,
    ranks: usize,
) -> Result<(Model, Option<Trainable>)> {
    let adapts = recipe.lora.rank > 0;
    if let Some(dir) = found
        && checkpoint::is_adapter(dir) != adapts
    {
        let (key, found) = ("lora.rank", recipe.lora.rank.to_string());
        let expected = if adapts { "0" } else { "a rank above 0" }.to_owned();
        return Err(TrainError::OtherModel { key, found, expected }.into());
    }
    match (found, &recipe.model.init_from) {
        (_, Some(base)) if adapts => {
            let mut model = initial(recipe, base, opened, tokenizer)?;
            let trainable = Trainable::adapter(recipe, cpu, &mut model, base, found)?;
            Ok((model, Some(trainable)))
        }
        (Some(dir), _) => Ok((load(dir, opened)?, None)),
        (None, Some(dir)) => Ok((initial(recipe, dir, opened, tokenizer)?, None)),
        (None, None) => {
            let tokens = tokenizer.special_tokens();
            let config = recipe.model_config(tokenizer.vocab_size(), tokens)?;
            memory::check(recipe, &config, recipe.data.sequence_length, ranks)?;
            Ok((Model::init(config, recipe.train.seed)?, None))
        }
    }
}

/// The model in `dir`, which may be `opened` already.
fn load(dir: &Path, opened: &Checkpoint) -> Result<Model> {
    if dir == opened.path() { opened.load() } else { checkpoint::load(dir) }
}

/// The model of `init_from`, for this tokenizer and objective.
pub(super) fn initial(
    recipe: &Recipe,
    dir: &Path,
    opened: &Checkpoint,
    tokenizer: &Tokenizer,
) -> Result<Model> {
    let wrong = |reason| TrainError::InitFrom { path: dir.to_path_buf(), reason };
    let adapts = recipe.lora.rank > 0;
    if adapts && checkpoint::is_adapter(dir) {
        return Err(TrainError::Adapted { path: dir.to_path_buf() }.into());
    }
    let mut model = load(dir, opened)?;
    let (entries, vocab) = (model.config.embedding_size, tokenizer.vocab_size());
    if vocab > entries {
        return Err(wrong(format!("{entries} embeddings for a tokenizer of {vocab}")).into());
    }
    let (stated, found) = (model.config.tokens.mask, tokenizer.special_tokens().mask);
    if stated.is_some() && found.is_some() && stated != found {
        return Err(wrong("the mask token has another id in the data's tokenizer".into()).into());
    }
    // Adapters have no configuration of their own that could say what they were trained for.
    if !adapts {
        model.config = model.config.with_objective(recipe.train.objective);
    }
    Ok(model)
}

/// Checks that the recipe and the model can go together.
pub(super) fn check(recipe: &Recipe, model: &Model) -> Result<()> {
    let (length, longest) = (recipe.data.sequence_length, model.config.max_sequence_length);
    if length > longest {
        let (key, found) = ("data.sequence_length".into(), length.to_string());
        let expected = format!("at most the {longest} tokens of the model");
        return Err(TrainError::Value { key, found, expected }.into());
    }
    let blocks = model.config.attention.block_length();
    match &recipe.block {
        None if blocks.is_some() => return Err(TrainError::ByBlocks.into()),
        Some(block) if recipe.lora.rank > 0 => {
            let found = block.last_length().min(longest);
            if blocks != Some(found) {
                return Err(TrainError::AdaptedBlocks { found, blocks }.into());
            }
        }
        _ => {}
    }
    if recipe.train.objective != model.config.objective {
        let found = format!("{:?}", recipe.train.objective).to_lowercase();
        let expected = format!("{:?} as in the checkpoint", model.config.objective).to_lowercase();
        return Err(TrainError::Value { key: "train.objective".into(), found, expected }.into());
    }
    Ok(())
}

/// Checks that the model has an embedding for every id that can come up: those of the sequences, and
/// those of the tokenizer in `dir`.
pub(super) fn check_vocabulary(
    source: &Source,
    tokenizer: &Tokenizer,
    config: &ModelConfig,
    dir: &Path,
) -> Result<()> {
    tokenizer.check(config)?;
    let entries = config.embedding_size;
    match source.largest() {
        Some(id) if id as usize >= entries => {
            let reason = format!("the data has the id {id}, the model {entries} embeddings");
            Err(TrainError::InitFrom { path: dir.to_path_buf(), reason }.into())
        }
        _ => Ok(()),
    }
}

/// Refuses to resume a checkpoint of other sizes than the recipe asks for. A model that was
/// continued from another checkpoint has that one's sizes, whatever the recipe says.
pub(super) fn check_sizes(recipe: &Recipe, model: &ModelConfig) -> Result<()> {
    if recipe.model.init_from.is_some() {
        return Ok(());
    }
    let asked = recipe.model_config(model.vocab_size, model.tokens)?;
    let sizes = |c: &ModelConfig| {
        [
            ("model.d_model", c.d_model.to_string()),
            ("model.n_layers", c.n_layers.to_string()),
            ("model.n_heads", c.n_heads.to_string()),
            ("model.n_kv_heads", c.n_kv_heads.to_string()),
            ("model.mlp_hidden_size", c.mlp_hidden_size.to_string()),
            ("model.experts", c.experts.as_ref().map_or(0, |e| e.count).to_string()),
            ("model.weight_tying", c.weight_tying.to_string()),
            ("model.rope_theta", c.rope_theta.to_string()),
            ("model.rms_norm_eps", c.rms_norm_eps.to_string()),
            ("model.qkv_bias", c.qkv_bias.to_string()),
            ("model.qk_norm", (c.qk_norm != QkNorm::None).to_string()),
            ("model.scale_logits", c.scale_logits.to_string()),
            ("model.input_emb_norm", c.input_emb_norm.to_string()),
        ]
    };
    for ((key, found), (_, expected)) in sizes(&asked).into_iter().zip(sizes(model)) {
        if found != expected {
            return Err(TrainError::OtherModel { key, found, expected }.into());
        }
    }
    Ok(())
}
