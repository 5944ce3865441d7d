//! The training loop.

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use llada_kernels::{Cpu, DType, grad_norm};

use super::{
    Recipe, Skip, Start, StepMetrics, TrainError, Validation, batch::StepRows, learning_rate,
    optimizer::Optimizer, run_log::RunLog, state::State, step_flops, store::Store, validation,
};
use crate::{
    Result, checkpoint,
    config::{ModelConfig, Objective},
    data::{Shards, Windows},
    diffusion::loss,
    io,
    model::{Gradients, MaskPredictor, Model, Tensor},
    tokenizer::Tokenizer,
};

/// What happens during a run, as it happens.
#[derive(Debug)]
pub enum Event<'a> {
    /// A step was done.
    Step(&'a StepMetrics),
    /// The held-out loss was measured.
    Validation(&'a Validation),
    /// A sample was written.
    Sample {
        /// Steps done.
        step: u64,
        /// The text.
        text: &'a str,
    },
    /// A checkpoint was written.
    Checkpoint {
        /// Steps done.
        step: u64,
        /// Its folder.
        path: &'a Path,
    },
}

/// Makes a text with the model as it is.
pub type Sampling<'a> = dyn FnMut(&mut MaskPredictor) -> Result<String> + 'a;

/// What the caller lends to a run. The library has no clock and prints nothing.
pub struct Hooks<'a> {
    /// Seconds since 1970.
    pub clock: &'a dyn Fn() -> f64,
    /// When set, the step under way is finished, a checkpoint written, and the run stopped.
    pub stop: &'a AtomicBool,
    /// Hears of everything.
    pub event: &'a mut dyn FnMut(&Event<'_>),
    /// Writes samples.
    pub sample: Option<&'a mut Sampling<'a>>,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All steps are done.
    Finished,
    /// It was asked to stop, and can be resumed.
    Stopped,
}

/// A run that can go on: model, optimiser, data, and its folder.
#[derive(Debug)]
pub struct Trainer {
    recipe: Recipe,
    store: Store,
    shards: Shards,
    predictor: MaskPredictor,
    gradients: Gradients,
    optimizer: Optimizer,
    state: State,
    /// The mask token; the autoregressive objective does not use it.
    mask: u32,
}

impl Trainer {
    /// Prepares a run of `recipe` in the folder `run_dir`. When resuming, weights come from
    /// the checkpoint, whose sizes the recipe must repeat; the rest of the recipe is taken as given, so that a run can be
    /// lengthened or its learning rate changed.
    pub fn new(recipe: Recipe, run_dir: &Path, start: Start, cpu: Cpu) -> Result<Self> {
        let shards = Shards::open(&recipe.data.path)?;
        let store = Store::open(run_dir)?;
        let found = store.find(start)?;
        let tokenizer = Tokenizer::from_dir(shards.dir())?;
        let mut model = match (&found, &recipe.model.init_from) {
            (Some((_, dir)), _) => checkpoint::load(dir)?,
            (None, Some(dir)) => initial(&recipe, dir, &tokenizer)?,
            (None, None) => {
                let tokens = tokenizer.special_tokens();
                let config = recipe.model_config(tokenizer.vocab_size(), tokens)?;
                Model::init(config, recipe.train.seed)?
            }
        };
        for tensor in &mut model.tensors {
            *tensor = Tensor::Owned(tensor.to_f32());
        }
        let mut optimizer = Optimizer::new(&recipe.optim, &model);
        let state = match found {
            Some((state, dir)) => {
                state.check_data(shards.dir(), shards.meta())?;
                check_sizes(&recipe, &model.config)?;
                optimizer.load(&model, &dir.join("optimizer.safetensors"))?;
                state
            }
            None => State::new(shards.meta()),
        };
        let special = checkpoint::special_tokens(&model.config, Some(&tokenizer));
        let mask = match recipe.train.objective {
            Objective::Diffusion => special.mask.ok_or(TrainError::NoMask)?,
            Objective::Autoregressive => 0,
        };
        check(&recipe, &model, &shards)?;
        let gradients = Gradients::zeros(&model);
        let predictor = MaskPredictor::new(model, cpu)?;
        Ok(Self { recipe, store, shards, predictor, gradients, optimizer, state, mask })
    }

    /// The recipe.
    pub fn recipe(&self) -> &Recipe {
        &self.recipe
    }

    /// Steps done.
    pub fn step(&self) -> u64 {
        self.state.step
    }

    /// The model as it is.
    pub fn predictor(&self) -> &MaskPredictor {
        &self.predictor
    }

    /// Algorithm 1: trains to the last step of the recipe, or until it is asked to stop.
    pub fn run(&mut self, hooks: &mut Hooks<'_>) -> Result<Outcome> {
        let (every, steps) = (self.recipe.clone(), self.recipe.train.steps);
        if self.step() >= steps {
            return Ok(Outcome::Finished);
        }
        let mut log = RunLog::open(self.store.dir(), &self.recipe, self.step(), (hooks.clock)())?;
        let (first, started) = (self.step(), (hooks.clock)());
        while self.step() < steps {
            let begun = (hooks.clock)();
            let mut metrics = self.train_step()?;
            let now = (hooks.clock)();
            metrics.seconds = (now - begun).max(1e-9);
            metrics.tokens_per_second = metrics.tokens as f64 / metrics.seconds;
            let done = metrics.step - first;
            metrics.seconds_left = (now - started) / done as f64 * (steps - metrics.step) as f64;
            let last = metrics.step == steps;
            if last || metrics.step.is_multiple_of(every.log.every) || metrics.skipped.is_some() {
                log.step(&metrics, now)?;
            }
            (hooks.event)(&Event::Step(&metrics));
            self.check_finite()?;

            let stop = hooks.stop.load(Ordering::Relaxed);
            let due = |n: u64| n > 0 && (last || metrics.step.is_multiple_of(n));
            if due(every.eval.every) && !stop {
                self.validate(&mut log, hooks)?;
            }
            if due(every.log.sample_every) && !stop {
                self.sample(&mut log, hooks)?;
            }
            if last || stop || due(every.train.checkpoint_every) {
                self.checkpoint(&mut log, hooks)?;
            }
            if stop && !last {
                return Ok(Outcome::Stopped);
            }
        }
        Ok(Outcome::Finished)
    }

    /// One step: noisy rows, loss and gradient, and the update unless they forbid it.
    fn train_step(&mut self) -> Result<StepMetrics> {
        let Recipe { train, optim, data, .. } = &self.recipe;
        let step = self.state.step;
        let windows = Windows::new(self.shards.train(), data.sequence_length, train.seed)?;
        let windows = match data.unique_tokens {
            0 => windows,
            tokens => windows.first(tokens),
        };
        let rows = StepRows::new(&self.recipe, windows, self.mask, step);
        let (mut total, mut predicted, mut nll) = (0.0, 0, Vec::new());
        self.gradients.clear();
        for start in (0..train.batch_size).step_by(self.recipe.micro_batch()) {
            let end = train.batch_size.min(start + self.recipe.micro_batch());
            let micro = rows.micro_batch(start..end)?;
            self.predictor.nll_and_gradient(
                &micro.batch(),
                &micro.targets(),
                train.recompute,
                &mut nll,
                &mut self.gradients,
            )?;
            total += loss::value(&micro.noised.weights, &nll);
            predicted += nll.len();
        }

        let gradients: Vec<&[f32]> = self.gradients.0.iter().map(Vec::as_slice).collect();
        let norm = grad_norm::forward(self.predictor.cpu(), &gradients)?;
        let rate = learning_rate(optim, step, train.steps);
        let skipped = if !(total.is_finite() && norm.is_finite()) {
            Some(Skip::NotFinite)
        } else if self.state.is_spike(norm, train.spike_factor) {
            Some(Skip::Spike)
        } else {
            let clip = optim.clip_norm > 0.0 && norm > optim.clip_norm;
            let scale = if clip { (optim.clip_norm / norm) as f32 } else { 1.0 };
            self.state.updates += 1;
            let update = self.state.updates;
            self.optimizer.update(&mut self.predictor, &self.gradients, update, rate, scale)?;
            None
        };

        let tokens = (train.batch_size * rows.length) as u64;
        self.state.step += 1;
        self.state.tokens += tokens;
        self.state.skipped += u64::from(skipped.is_some());
        self.state.not_finite =
            if skipped == Some(Skip::NotFinite) { self.state.not_finite + 1 } else { 0 };
        self.state.add_loss(total);
        let config = &self.predictor.model().config;
        Ok(StepMetrics {
            step: self.state.step,
            steps: train.steps,
            loss: total,
            loss_ema: self.state.loss_ema(),
            learning_rate: rate,
            grad_norm: norm,
            skipped,
            length: rows.length,
            tokens,
            total_tokens: self.state.tokens,
            seconds: 0.0,
            tokens_per_second: 0.0,
            flops: step_flops(config, train.batch_size, rows.length, predicted),
            seconds_left: 0.0,
        })
    }

    /// Stops a run that only skips: its weights no longer change.
    fn check_finite(&self) -> Result<()> {
        if self.state.not_finite < self.recipe.train.max_skipped {
            return Ok(());
        }
        let last = self.store.checkpoints()?.pop().map(|(_, path)| path);
        let (step, times) = (self.state.step, self.state.not_finite);
        Err(TrainError::Diverged { step, times, last }.into())
    }

    /// The loss on held-out text, now.
    pub fn measure(&mut self) -> Result<Validation> {
        let Recipe { data, train, .. } = &self.recipe;
        let held_out = self.shards.validation();
        let windows = Windows::new(held_out, data.sequence_length, train.seed)?;
        let (bytes, step) = (held_out.bytes_per_token(), self.state.step);
        validation::measure(&mut self.predictor, &self.recipe, &windows, self.mask, bytes, step)
    }

    fn validate(&mut self, log: &mut RunLog, hooks: &mut Hooks<'_>) -> Result<()> {
        let found = self.measure()?;
        log.validation(&found, (hooks.clock)())?;
        (hooks.event)(&Event::Validation(&found));
        Ok(())
    }

    fn sample(&mut self, log: &mut RunLog, hooks: &mut Hooks<'_>) -> Result<()> {
        if let Some(sample) = &mut hooks.sample {
            let (step, text) = (self.state.step, sample(&mut self.predictor)?);
            log.sample(step, &text)?;
            (hooks.event)(&Event::Sample { step, text: &text });
        }
        Ok(())
    }

    fn checkpoint(&mut self, log: &mut RunLog, hooks: &mut Hooks<'_>) -> Result<PathBuf> {
        // Lines that a checkpoint counts as written must be on the disk before it is.
        log.flush()?;
        let model = self.predictor.model();
        let (optimizer, data) = (&self.optimizer, self.shards.dir());
        let path = self.store.save(&mut self.state, self.recipe.train.keep, |dir| {
            checkpoint::save(model, dir, DType::F32)?;
            optimizer.save(model, &dir.join("optimizer.safetensors"))?;
            copy_tokenizer(data, dir)
        })?;
        log.report(&self.recipe)?;
        (hooks.event)(&Event::Checkpoint { step: self.state.step, path: &path });
        Ok(path)
    }
}

/// Checks that the recipe, the model and the data can go together, before any time is spent.
fn check(recipe: &Recipe, model: &Model, shards: &Shards) -> Result<()> {
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
    Windows::new(shards.train(), length, recipe.train.seed)?;
    if recipe.eval.every > 0 {
        Windows::new(shards.validation(), length, recipe.train.seed)?;
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

/// The model of `init_from`, for this tokenizer and objective.
fn initial(recipe: &Recipe, dir: &Path, tokenizer: &Tokenizer) -> Result<Model> {
    let mut model = checkpoint::load(dir)?;
    let wrong = |reason| TrainError::InitFrom { path: dir.to_path_buf(), reason };
    let (entries, vocab) = (model.config.embedding_size, tokenizer.vocab_size());
    if vocab > entries {
        return Err(wrong(format!("{entries} embeddings for a tokenizer of {vocab}")).into());
    }
    let (stated, found) = (model.config.tokens.mask, tokenizer.special_tokens().mask);
    if stated.is_some() && found.is_some() && stated != found {
        return Err(wrong("the mask token has another id in the data's tokenizer".into()).into());
    }
    model.config.objective = recipe.train.objective;
    Ok(model)
}

/// Copies the files that make a folder's tokenizer.
fn copy_tokenizer(from: &Path, to: &Path) -> Result<()> {
    let names = [
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "chat_template.jinja",
    ];
    for name in names {
        let source = from.join(name);
        if source.is_file() {
            let bytes = std::fs::read(&source).map_err(io("read", &source))?;
            checkpoint::files::replace_with(&to.join(name), &bytes)?;
        }
    }
    Ok(())
}
