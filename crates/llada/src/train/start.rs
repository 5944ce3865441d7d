//! How a run starts: model, data and optimiser, fresh or from a checkpoint, checked against each
//! other before any time is spent.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use llada_kernels::Cpu;

use super::{
    Change, Recipe, RewardFunction, SftTemplate, Stage, Start, TrainError, Trainer,
    alignment::{self, Alignment},
    average::{Average, TRAINED},
    changes::changes,
    initial::{check, check_sizes, check_vocabulary, initial, starting_model},
    memory,
    optimizer::Optimizer,
    reduction::Reduction,
    run_log, saved,
    source::{Reader, Source},
    state::State,
    store::{Found, Store},
    trainable::Trainable,
};
use crate::{
    Compute, Error, Result, chat,
    checkpoint::{self, Checkpoint},
    config::{ModelConfig, Objective},
    files,
    model::{Gradients, MaskPredictor},
    ranks::{Alone, Collective},
    tokenizer::Tokenizer,
};

/// A real recipe has 2 kB.
const MAX_RECIPE: u64 = 16 << 20;

impl Trainer {
    /// Prepares a run of `recipe` in the folder `run_dir`: of fine-tuning when it has `[sft]`, of
    /// preference optimisation when it has `[preference]`, else of pre-training. A run that is resumed
    /// goes on with its own settings, which the recipe must repeat but for those that may change
    /// ([`Trainer::changes`] has them); [`recipe_of`] gives them. A branch goes on from a checkpoint of
    /// another run with the recipe as it is, as long as the model is the same.
    ///
    /// # Errors
    /// When the recipe, the model and the data do not go together, the recipe is not that of the
    /// run, or a file cannot be read or is damaged. The folder is as it was then.
    pub fn new(recipe: Recipe, run_dir: &Path, start: Start, cpu: Cpu) -> Result<Self> {
        Self::start(recipe, run_dir, start, cpu, Arc::new(Alone), None)
    }

    /// As [`Trainer::new`], for a run that `ranks` share, each of which calls this with the same
    /// arguments but for its own `cpu`. A step, its loss and its decisions are those of one machine: each
    /// rank computes the gradients of some of its sequences, and moves a share of the weights, of which it
    /// has the optimiser. The folder is one that all ranks see.
    ///
    /// # Errors
    /// As [`Trainer::new`]; on ranks where all is well, that another [could not go
    /// on](crate::ranks::RankError::Elsewhere).
    pub fn on_ranks(
        recipe: Recipe,
        run_dir: &Path,
        start: Start,
        cpu: Cpu,
        ranks: Arc<dyn Collective>,
    ) -> Result<Self> {
        Self::start(recipe, run_dir, start, cpu, ranks, None)
    }

    /// As [`Trainer::on_ranks`] for a run of reinforcement learning, whose recipe has `[reward]`:
    /// `function` asks and judges, the same on every rank.
    ///
    /// # Errors
    /// Those of [`Trainer::on_ranks`].
    pub fn with_reward(
        recipe: Recipe,
        run_dir: &Path,
        start: Start,
        cpu: Cpu,
        ranks: Arc<dyn Collective>,
        function: Box<dyn RewardFunction>,
    ) -> Result<Self> {
        Self::start(recipe, run_dir, start, cpu, ranks, Some(function))
    }

    fn start(
        mut recipe: Recipe,
        run_dir: &Path,
        start: Start,
        cpu: Cpu,
        ranks: Arc<dyn Collective>,
        function: Option<Box<dyn RewardFunction>>,
    ) -> Result<Self> {
        let mut store = None;
        let (found, compute) = ranks.first(|| {
            let store = store.insert(Store::open(run_dir)?);
            let found = store.find(&start)?;
            // Ranks on different processors would find different things.
            let compute = match &found {
                None if ranks.world() > 1 => recipe.train.compute.settled(&cpu),
                _ => recipe.train.compute,
            };
            Ok((found, compute))
        })?;
        recipe.train.compute = compute;
        let store = store.unwrap_or_else(|| Store::of_first(run_dir));
        let prepared = Self::prepare(recipe, store, found, start, cpu, ranks.clone(), function);
        let trainer = ranks.agree(prepared)?;
        ranks.same("recipe", trainer.recipe.to_toml().as_bytes())?;
        ranks.same("state or data", &trainer.state.digest())?;
        Ok(trainer)
    }

    fn prepare(
        mut recipe: Recipe,
        store: Store,
        found: Option<Found>,
        start: Start,
        cpu: Cpu,
        ranks: Arc<dyn Collective>,
        function: Option<Box<dyn RewardFunction>>,
    ) -> Result<Self> {
        let run_dir = &store.dir().to_path_buf();
        let is_branch = matches!(start, Start::Branch(_));
        let run = match &found {
            Some(found) => settings(&found.state, saved::run_of(&found.path))?,
            None => None,
        };
        let run = run.map(|mut run| {
            // Runs from before there was a choice computed in `f32`.
            if run.train.compute == Compute::Auto {
                run.train.compute = Compute::F32;
            }
            run
        });
        if recipe.train.compute == Compute::Auto {
            // A run goes on as it has begun, and so do its branches.
            recipe.train.compute = match &run {
                Some(run) => run.train.compute,
                None => Compute::Auto.settled(&cpu),
            };
        }
        let cpu = recipe.train.compute.on(cpu);
        if let (Some(run), Some(found)) = (&run, &found) {
            check_settings(run, &recipe, run_dir, found, is_branch)?;
        }
        let found_dir = found.as_ref().map(|found| found.path.as_path());

        let pretraining = match recipe.stage() {
            Stage::Pretraining => Some(Source::shards(&recipe, &cpu)?),
            _ => None,
        };
        let tokenizer_dir = tokenizer_dir(&recipe, pretraining.as_ref(), found_dir)?;
        let opened = Checkpoint::open(&tokenizer_dir)?;
        let tokenizer = opened.tokenizer()?;
        // Held in memory, because the checkpoint that they are from may be removed during the run.
        let mut tokenizer_files = opened.tokenizer_files()?.clone();
        if recipe.template() == Some(SftTemplate::Chat) {
            tokenizer_files.or_chat_template(chat::LLADA);
        }
        let (mut model, trainable) =
            starting_model(&recipe, &cpu, &opened, &tokenizer, found_dir, ranks.world())?;
        if recipe.lora.rank == 0 {
            let last = found.as_ref().map_or(0, |found| found.state.step.saturating_sub(1));
            model.config = recipe.with_blocks(model.config, last);
        }
        let special = checkpoint::special_tokens(&model.config, Some(&tokenizer));
        let mask = match recipe.train.objective {
            Objective::Diffusion => special.mask.ok_or(TrainError::NoMask)?,
            Objective::Autoregressive => 0,
        };
        check(&recipe, &model)?;
        let (checkpoint, files) = (&opened, &tokenizer_files);
        let reader = Reader { checkpoint, tokenizer: &tokenizer, files, special: &special };
        let source = match pretraining {
            Some(mut source) => {
                // What ended the documents, whatever the model takes for an end.
                source.split_documents(&recipe, tokenizer.special_tokens().eos)?;
                source
            }
            None => source(&recipe, reader, &model.config, function.as_deref())?,
        };
        let alignment = alignment(&recipe, &opened, &tokenizer, &cpu, function)?;
        source.check(&recipe)?;
        memory::check(&recipe, &model.config, source.sequence_length(&recipe), ranks.world())?;
        check_vocabulary(&source, &tokenizer, &model.config, &tokenizer_dir)?;
        recipe.resolve_epochs(&source)?;

        let mut trainable = match trainable {
            Some(trainable) => trainable,
            None => Trainable::weights(&mut model),
        };
        let mut fingerprint = source.fingerprint();
        let reference = || alignment.as_ref().and_then(Alignment::reference_crc32c);
        fingerprint.base_crc32c = trainable.base_crc32c().or_else(reference);
        let parameters = trainable.parameters(&model);
        let lengths = parameters.iter().map(|parameter| parameter.shape.iter().product());
        let reduction = Reduction::new(&recipe, lengths, ranks.rank(), ranks.world())?;
        let mut optimizer = Optimizer::new(&recipe.optim, parameters, reduction.share());
        let mut changed = Vec::new();
        let continues = found.is_some() && !is_branch;
        let trained = found.as_ref().map(|found| found.path.join(TRAINED));
        let trained = trained.filter(|path| path.exists());
        let mut alignment = alignment;
        let (state, later) = match found {
            None => (State::new(fingerprint), Vec::new()),
            Some(found) => {
                check_sizes(&recipe, &model.config)?;
                if let Some(run) = &run {
                    check_settings(run, &recipe, run_dir, &found, is_branch)?;
                    changed = changes(run, &recipe);
                }
                optimizer.load(&saved::optimizers(&found.path, &found.state))?;
                if let Some(alignment) = alignment.as_mut().filter(|_| !is_branch) {
                    alignment.load(&found.path)?;
                }
                let Found { mut state, path, later } = found;
                let data = source.path(&recipe);
                match is_branch {
                    true => state = state.branch(&path, &data, fingerprint)?,
                    false => state.check_data(&data, &fingerprint)?,
                }
                // What was not finite then does not count now.
                state.not_finite = 0;
                (state, later)
            }
        };
        let least = state.step + u64::from(is_branch);
        if recipe.train.steps < least {
            let (key, found) = ("train.steps".into(), recipe.train.steps.to_string());
            let expected = format!("at least {least}: {} steps are done", state.step);
            return Err(TrainError::Value { key, found, expected }.into());
        }
        let average = match recipe.optim.ema {
            0.0 => None,
            decay => {
                let values = trainable.values(&mut model).clone();
                let mut average = Average::new(decay, values);
                if let Some(path) = trained {
                    average.load(&trainable.parameters(&model), &path)?;
                    average.exchange(&cpu, &mut model, &mut trainable)?;
                }
                Some(average)
            }
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
            average,
            alignment,
            state,
            mask,
            changes: changed,
            continues,
            later,
            ranks,
            reduction,
        })
    }
}

/// The settings of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunRecipe {
    /// The recipe, as TOML.
    pub text: String,
    /// Where it is from: the run's `config.toml`, or the `state.json` of a checkpoint where the run
    /// has none.
    pub from: PathBuf,
}

/// The recipe of a run: that of the run folder `path`, or of a checkpoint at `path` or `RUN/step-N`.
///
/// # Errors
/// When there is neither a run nor a checkpoint, or it cannot be read.
pub fn recipe_of(path: &Path) -> Result<RunRecipe> {
    if let Some((text, _)) = written(path)? {
        return Ok(RunRecipe { text, from: path.join(run_log::CONFIG) });
    }
    let checkpoint = saved::locate(path)?;
    let state = State::read(&checkpoint.join(saved::STATE), None)?;
    let run = saved::run_of(&checkpoint);
    let recipe = settings(&state, run)?
        .ok_or_else(|| TrainError::NoCheckpoint { path: path.to_path_buf(), step: None })?;
    let config = run.map(|run| run.join(run_log::CONFIG)).filter(|config| config.exists());
    let from = config.unwrap_or_else(|| checkpoint.join(saved::STATE));
    Ok(RunRecipe { text: recipe.to_toml(), from })
}

/// The settings of the run in the folder `run` that `state` is of: those that led to it, with what
/// the run's `config.toml` has changed since. `None` where there are neither.
fn settings(state: &State, run: Option<&Path>) -> Result<Option<Recipe>> {
    let none: [&str; 0] = [];
    let led = state.recipe.as_deref().map(|text| Recipe::parse(text, &none)).transpose()?;
    let written = run.map(written).transpose()?.flatten().map(|(_, recipe)| recipe);
    Ok(match (led, written) {
        (Some(led), Some(written)) if changes(&led, &written).iter().all(Change::is_allowed) => {
            Some(written)
        }
        (Some(led), _) => Some(led),
        (None, written) => written,
    })
}

/// The `config.toml` of the run folder `run`, where it has one. One that is damaged is not made up
/// for: it may have had settings that are nowhere else.
fn written(run: &Path) -> Result<Option<(String, Recipe)>> {
    let path = run.join(run_log::CONFIG);
    if fs::symlink_metadata(&path).is_err() {
        return Ok(None);
    }
    let read = files::read_text(&path, MAX_RECIPE).and_then(|text| {
        if text.trim().is_empty() {
            return Err(TrainError::Recipe("it is empty".into()).into());
        }
        let recipe = Recipe::parse(&text, &[""; 0])?;
        Ok((text, recipe))
    });
    read.map(Some).map_err(|error| {
        let reason = match error {
            Error::Io { source, .. } => source.to_string(),
            error => error.to_string(),
        };
        TrainError::Settings { path, reason }.into()
    })
}

/// Refuses to resume a run with settings that may not change. Those that depend on the data are
/// looked at once it is read.
fn check_settings(
    run: &Recipe,
    asked: &Recipe,
    run_dir: &Path,
    found: &Found,
    is_branch: bool,
) -> Result<()> {
    if is_branch {
        let stage = run.stage();
        return match stage == asked.stage() {
            true => Ok(()),
            false => Err(TrainError::OtherStage { path: found.path.clone(), stage }.into()),
        };
    }
    let waits = asked.epochs().filter(|(_, epochs)| *epochs > 0.0);
    let mut refused = changes(run, asked);
    let is_settled_later = |c: &Change| waits.is_some_and(|(key, _)| c.key == key);
    refused.retain(|c| !(c.is_allowed() || is_settled_later(c)));
    if refused.is_empty() {
        return Ok(());
    }
    Err(TrainError::OtherSettings { path: run_dir.to_path_buf(), changes: refused }.into())
}

/// The data of a run that is not pre-training, as the model of `reader` reads it.
fn source(
    recipe: &Recipe,
    reader: Reader<'_>,
    config: &ModelConfig,
    function: Option<&dyn RewardFunction>,
) -> Result<Source> {
    if let Some(settings) = &recipe.preference {
        return Source::preferences(recipe, settings, reader);
    }
    let Some(settings) = &recipe.reward else {
        return Source::conversations(recipe, &recipe.sft.clone().unwrap_or_default(), reader);
    };
    alignment::check_sampler(settings, reader.special, config)?;
    let asked = function.ok_or(TrainError::NoReward)?.prompts();
    let template = reader.template(settings.template)?;
    let longest = recipe.data.sequence_length;
    let prompts =
        alignment::read_prompts(&asked, settings, longest, reader.tokenizer, template.as_ref())?;
    Ok(Source::Prompts { prompts, tokenizer_crc32c: reader.files.crc32c() })
}

/// What a run by preferences or rewards has besides: the model that it started from, read where it lies.
fn alignment(
    recipe: &Recipe,
    opened: &Checkpoint,
    tokenizer: &Tokenizer,
    cpu: &Cpu,
    function: Option<Box<dyn RewardFunction>>,
) -> Result<Option<Alignment>> {
    let compares = match recipe.stage() {
        Stage::Pretraining | Stage::FineTuning => return Ok(None),
        Stage::Preference => true,
        Stage::Reward => recipe.reward.as_ref().is_some_and(|reward| reward.beta > 0.0),
    };
    let reference = match (compares, &recipe.model.init_from) {
        (false, _) => None,
        (true, Some(base)) => {
            let model = initial(recipe, base, opened, tokenizer)?;
            Some(MaskPredictor::new(model, cpu.clone())?)
        }
        (true, None) => return Err(TrainError::NoModel.into()),
    };
    Ok(Some(Alignment::new(reference, function)))
}

/// The folder with the tokenizer of the run: that of the shards, or of the model to fine-tune.
fn tokenizer_dir(
    recipe: &Recipe,
    source: Option<&Source>,
    found: Option<&Path>,
) -> Result<PathBuf> {
    match (source, found, recipe.model.init_from.as_deref()) {
        (Some(Source::Shards { shards, .. }), _, _) => Ok(shards.dir().to_path_buf()),
        (_, Some(dir), _) | (_, None, Some(dir)) => Ok(dir.to_path_buf()),
        (_, None, None) => Err(TrainError::NoModel.into()),
    }
}
