//! The settings of one run of a task: what the task proposes, changed by what the user asks for.

use serde::Serialize;

use super::{
    EvalError, Task,
    settings::{self, Likelihood, Scoring},
    task::Kind,
};
use crate::{
    Result,
    config::{ModelConfig, Objective, SpecialTokens},
    constraint::Constraint,
    diffusion::{Blocks, Sampler, Settings, blocks::AdaptiveBlocks},
};

/// The seed of all random draws of a task where nobody asks for another.
pub const SEED: u64 = 1234;

/// What the user asks for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Overrides {
    /// By what the best of several answers is found.
    pub scoring: Option<Scoring>,
    /// Monte Carlo samples.
    pub mc_num: Option<usize>,
    /// Samples that share out the mask counts evenly.
    pub mc_batch_size: Option<usize>,
    /// Guidance of likelihoods and of generation.
    pub cfg_scale: Option<f32>,
    /// The sampler.
    pub sampling: Settings,
    /// What responses must be.
    pub constraint: Option<Constraint>,
    /// Wrap prompts in the model's chat template.
    pub chat: bool,
    /// Cut prompts that are too long from the left.
    pub truncate: bool,
    /// Seed of all random draws.
    pub seed: u64,
}

/// The settings of one run of a task.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Plan {
    /// By what the best of several answers is found.
    pub scoring: Scoring,
    /// How likelihoods are estimated.
    pub likelihood: Likelihood,
    /// How responses are generated; `None` where nothing is.
    pub sampler: Option<Sampler>,
    /// What a response must be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub constraint: Option<Constraint>,
    /// Texts before which a response is cut.
    pub stop: Vec<String>,
    /// Whether prompts are wrapped in the model's chat template.
    pub chat: bool,
    /// Whether prompts that are too long are cut from the left.
    pub truncate: bool,
    /// Seed of all random draws.
    pub seed: u64,
}

impl Plan {
    /// The settings of `task` on a model, checked. Adaptive blocks end where `ends` says.
    ///
    /// # Errors
    /// When they contradict each other, the task or the model.
    pub fn new(
        task: &Task,
        asked: &Overrides,
        config: &ModelConfig,
        special: &SpecialTokens,
        ends: &dyn Fn() -> AdaptiveBlocks,
    ) -> Result<Self> {
        let refuse = |what: &str, remedy: &str| EvalError::Setting {
            task: task.name.clone(),
            what: what.into(),
            remedy: remedy.into(),
        };
        let is_causal = config.objective == Objective::Autoregressive;
        let proposed = task.choice.as_ref().map_or(Scoring::Likelihood, |c| c.scoring);
        let scoring = match (task.kind, asked.scoring) {
            (Kind::Choice, asked) => asked.unwrap_or(proposed),
            _ => Scoring::Likelihood,
        };
        if scoring == Scoring::Confidence && is_causal {
            let what = "confidence is that of unmasking, and this model is autoregressive";
            return Err(refuse(what, "use --scoring likelihood").into());
        }
        if scoring == Scoring::Confidence && special.mask.is_none() {
            return Err(crate::diffusion::SamplerError::NoMask.into());
        }
        let Settings { blocks, block_length, steps, cfg_scale, .. } = asked.sampling;
        let guided = asked.cfg_scale.or(cfg_scale).is_some_and(|w| w != 0.0);
        let laid_out = blocks.is_some_and(|b| b != Blocks::Autoregressive);
        if is_causal && (guided || laid_out || block_length.is_some() || steps.is_some()) {
            let what = "an autoregressive model takes one step for each token, without guidance";
            let remedy = "leave out --cfg-scale, --blocks, --block-length and --steps";
            return Err(refuse(what, remedy).into());
        }
        let mut likelihood = task.likelihood;
        likelihood.mc_num = asked.mc_num.unwrap_or(likelihood.mc_num);
        likelihood.batch_size = match asked.mc_batch_size {
            Some(size) => size,
            // The largest that divides the samples.
            None => (1..=likelihood.batch_size.max(1))
                .rev()
                .find(|b| likelihood.mc_num.is_multiple_of(*b))
                .unwrap_or(1),
        };
        let (samples, batch) = (likelihood.mc_num, likelihood.batch_size);
        if samples == 0 || batch == 0 || !samples.is_multiple_of(batch) {
            let what = format!("{samples} samples are no whole number of batches of {batch}");
            return Err(
                refuse(&what, "leave out --mc-batch-size, and use --mc-num 1 or more").into()
            );
        }
        // A causal model knows no guidance: what a task proposes is not asked for.
        let proposed = if is_causal { 0.0 } else { likelihood.cfg_scale };
        likelihood.cfg_scale = asked.cfg_scale.unwrap_or(proposed);

        let mut stop = Vec::new();
        let (mut sampler, mut constraint) = (None, None);
        if let Some(generate) = &task.generate {
            let task = match asked.chat {
                true => settings::over(&generate.chat.sampling, &generate.sampling),
                false => generate.sampling.clone(),
            };
            let mut layers = settings::over(&asked.sampling, &task);
            layers.cfg_scale = asked.cfg_scale.or(layers.cfg_scale);
            let chosen = settings::sampler(&layers, config, asked.seed)?.ending_blocks(ends);
            chosen.check()?;
            chosen.check_model(special, config.attention)?;
            sampler = Some(chosen);
            constraint = asked.constraint.clone().or_else(|| generate.constraint.clone());
            stop = match (asked.chat, &generate.chat.stop) {
                (true, Some(stop)) => stop.clone(),
                _ => generate.stop.clone(),
            };
        }
        let (chat, truncate, seed) = (asked.chat, asked.truncate, asked.seed);
        Ok(Self { scoring, likelihood, sampler, constraint, stop, chat, truncate, seed })
    }
}
