//! How a run starts: model, data and optimiser, fresh or from a checkpoint, checked against each
//! other before any time is spent.

use std::path::{Path, PathBuf};

use llada_kernels::Cpu;

use super::{
    Recipe, SftTemplate, Start, TrainError, Trainer,
    optimizer::Optimizer,
    source::{Reader, Source},
    state::State,
    store::Store,
    trainable::Trainable,
};
use crate::{
    Result, checkpoint,
    config::{ModelConfig, Objective},
    model::{Gradients, MaskPredictor, Model},
    tokenizer::{Tokenizer, TokenizerFiles},
};

impl Trainer {
    /// Prepares a run of `recipe` in the folder `run_dir`: of fine-tuning when it has `[sft]`, else
    /// of pre-training. When resuming, weights come from the checkpoint, whose sizes the recipe must
    /// repeat; the rest of the recipe is taken as given, so that a run can be lengthened or its
    /// learning rate changed.
    ///
    /// # Errors
    /// When the recipe, the model and the data do not go together, or a file cannot be read. The
    /// folder is as it was then.
    pub fn new(mut recipe: Recipe, run_dir: &Path, start: Start, cpu: Cpu) -> Result<Self> {
        let pretraining = match recipe.sft {
            None => Some(Source::shards(&recipe)?),
            Some(_) => None,
        };
        let store = Store::open(run_dir)?;
        let (state, found) = store.find(start)?.unzip();
        let tokenizer_dir = tokenizer_dir(&recipe, pretraining.as_ref(), found.as_deref())?;
        let tokenizer = Tokenizer::from_dir(&tokenizer_dir)?;
        // Kept, because the checkpoint that they are from may be removed during the run.
        let mut tokenizer_files = TokenizerFiles::read(&tokenizer_dir)?;
        if recipe.sft.as_ref().is_some_and(|sft| sft.template == SftTemplate::Chat) {
            tokenizer_files.state_chat_template();
        }
        let (mut model, trainable) = starting_model(&recipe, &cpu, &tokenizer, found.as_deref())?;
        let special = checkpoint::special_tokens(&model.config, Some(&tokenizer));
        let mask = match recipe.train.objective {
            Objective::Diffusion => special.mask.ok_or(TrainError::NoMask)?,
            Objective::Autoregressive => 0,
        };
        check(&recipe, &model)?;
        let source = match (pretraining, &recipe.sft) {
            (Some(source), _) => source,
            (None, sft) => {
                let (dir, files) = (tokenizer_dir.as_path(), &tokenizer_files);
                let reader = Reader { dir, tokenizer: &tokenizer, files, special: &special };
                Source::conversations(&recipe, &sft.clone().unwrap_or_default(), reader)?
            }
        };
        source.check(&recipe)?;
        recipe.resolve_epochs(&source)?;

        let trainable = match trainable {
            Some(trainable) => trainable,
            None => Trainable::weights(&mut model),
        };
        let mut fingerprint = source.fingerprint();
        fingerprint.base_crc32c = trainable.base_crc32c();
        let mut optimizer = Optimizer::new(&recipe.optim, trainable.parameters(&model));
        let state = match (state, &found) {
            (Some(mut state), Some(dir)) => {
                state.check_data(&source.path(&recipe), &fingerprint)?;
                check_sizes(&recipe, &model.config)?;
                optimizer.load(&dir.join("optimizer.safetensors"))?;
                // The recipe may have changed to mend what made the steps before it not finite.
                state.not_finite = 0;
                state
            }
            _ => State::new(fingerprint),
        };
        let gradients = Gradients::zeros(&model);
        let predictor = MaskPredictor::new(model, cpu)?;
        Ok(Self {
            recipe,
            store,
            source,
            tokenizer,
            tokenizer_files,
            predictor,
            gradients,
            trainable,
            optimizer,
            state,
            mask,
        })
    }
}

/// The folder with the tokenizer of the run: that of the shards, or of the model to fine-tune.
fn tokenizer_dir(
    recipe: &Recipe,
    source: Option<&Source>,
    found: Option<&Path>,
) -> Result<PathBuf> {
    match (source, found, recipe.model.init_from.as_deref()) {
        (Some(Source::Shards(shards)), _, _) => Ok(shards.dir().to_path_buf()),
        (_, Some(dir), _) | (_, None, Some(dir)) => Ok(dir.to_path_buf()),
        (_, None, None) => Err(TrainError::NoModel.into()),
    }
}

/// The model at the start of the run, and its adapters where the recipe wants some.
fn starting_model(
    recipe: &Recipe,
    cpu: &Cpu,
    tokenizer: &Tokenizer,
    found: Option<&Path>,
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
            let mut model = initial(recipe, base, tokenizer)?;
            let trainable = Trainable::adapter(recipe, cpu, &mut model, base, found)?;
            Ok((model, Some(trainable)))
        }
        (Some(dir), _) => Ok((checkpoint::load(dir)?, None)),
        (None, Some(dir)) => Ok((initial(recipe, dir, tokenizer)?, None)),
        (None, None) => {
            let tokens = tokenizer.special_tokens();
            let config = recipe.model_config(tokenizer.vocab_size(), tokens)?;
            Ok((Model::init(config, recipe.train.seed)?, None))
        }
    }
}

/// The model of `init_from`, for this tokenizer and objective.
fn initial(recipe: &Recipe, dir: &Path, tokenizer: &Tokenizer) -> Result<Model> {
    let wrong = |reason| TrainError::InitFrom { path: dir.to_path_buf(), reason };
    let adapts = recipe.lora.rank > 0;
    if adapts && checkpoint::is_adapter(dir) {
        return Err(TrainError::Adapted { path: dir.to_path_buf() }.into());
    }
    let mut model = checkpoint::load(dir)?;
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
        model.config.objective = recipe.train.objective;
    }
    Ok(model)
}

/// Checks that the recipe and the model can go together.
fn check(recipe: &Recipe, model: &Model) -> Result<()> {
    let (length, longest) = (recipe.data.sequence_length, model.config.max_sequence_length);
    if length > longest {
        let (key, found) = ("data.sequence_length".into(), length.to_string());
        let expected = format!("at most the {longest} tokens of the model");
        return Err(TrainError::Value { key, found, expected }.into());
    }
    if recipe.train.objective != model.config.objective {
        let found = format!("{:?}", recipe.train.objective).to_lowercase();
        let expected = format!("{:?} as in the checkpoint", model.config.objective).to_lowercase();
        return Err(TrainError::Value { key: "train.objective".into(), found, expected }.into());
    }
    Ok(())
}

/// Refuses to resume a checkpoint of other sizes than the recipe asks for. A model that was
/// continued from another checkpoint has that one's sizes, whatever the recipe says.
fn check_sizes(recipe: &Recipe, model: &ModelConfig) -> Result<()> {
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
            ("model.weight_tying", c.weight_tying.to_string()),
            ("model.rope_theta", c.rope_theta.to_string()),
            ("model.rms_norm_eps", c.rms_norm_eps.to_string()),
            ("model.qkv_bias", c.qkv_bias.to_string()),
            ("model.qk_norm", c.qk_norm.to_string()),
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
