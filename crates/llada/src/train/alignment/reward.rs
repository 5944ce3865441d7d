//! Reinforcement learning: completions of the policy itself, judged and compared with each other.

use std::{fmt::Debug, ops::ControlFlow, sync::atomic::Ordering};

use super::{
    Alignment, Step, log_probabilities,
    rollouts::{Completion, Rollouts},
};
use crate::{
    Result,
    chat::{Message, Template},
    config::{ModelConfig, SpecialTokens},
    data::{conversations::Report, shuffled},
    diffusion::{
        Blocks, Canvas, Prompt, Sampler, generate,
        likelihood::spread_evenly,
        policy::{Clip, LogProbabilities, Loss, advantages, diffu_grpo, espo, gdsd},
    },
    ranks::Shares,
    rng::{Purpose, Stream},
    tokenizer::Tokenizer,
    train::{
        Algorithm, Recipe, TrainError,
        recipe::Reward,
        source::{Prompts, Source},
        state::Exact,
        update::{Measured, Weighted},
    },
};

/// Validation has noise of its own, the same every time.
const SEED: u64 = 0;
/// How many prompts that cannot be used are named.
const NAMED: usize = 5;

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RewardPrompt {
    /// The text, before any chat template.
    pub text: String,
    /// Whether it is validated on, and not trained on.
    pub held_out: bool,
}

/// What completions are worth. The caller of a run brings one.
pub trait RewardFunction: Debug {
    /// What is asked, in an order that stays.
    fn prompts(&self) -> Vec<RewardPrompt>;

    /// The reward of a completion of prompt number `prompt`; more is better.
    ///
    /// # Errors
    /// If it cannot be judged; a completion that is wrong has a reward.
    fn reward(&mut self, prompt: usize, completion: &str) -> Result<f64>;
}

/// The prompts of a run as tokens, those left out that leave no room for a completion.
pub(in crate::train) fn read_prompts(
    asked: &[RewardPrompt],
    settings: &Reward,
    longest: usize,
    tokenizer: &Tokenizer,
    template: Option<&Template>,
) -> Result<Prompts> {
    let (mut prompts, mut report) = (Prompts::default(), Report::default());
    for (number, prompt) in asked.iter().enumerate() {
        let tokens = match template {
            Some(template) => {
                template.encode(tokenizer, &[Message::new("user", &prompt.text)], true)?
            }
            None => tokenizer.encode(&prompt.text)?,
        };
        let found = tokens.len() + settings.gen_length;
        if found > longest {
            report.rejected += 1;
            if report.first_rejected.len() < NAMED {
                report.first_rejected.push(format!(
                    "prompt {number}: {found} tokens with its completion, longer than \
                     `data.sequence_length`, {longest}"
                ));
            }
            continue;
        }
        let numbered = (number, tokens);
        match prompt.held_out {
            true => prompts.held_out.push(numbered),
            false => prompts.train.push(numbered),
        }
    }
    if prompts.train.is_empty() {
        let first = report.first_rejected.first().cloned();
        return Err(TrainError::NoPrompts { first: first.unwrap_or_default() }.into());
    }
    (report.train, report.validation) = (prompts.train.len(), prompts.held_out.len());
    prompts.report = report;
    Ok(prompts)
}

/// How completions are sampled.
fn sampler(settings: &Reward) -> Sampler {
    let Reward { gen_length, steps, block_length, temperature, .. } = *settings;
    let whole = block_length == 0 || block_length >= gen_length;
    Sampler {
        gen_length,
        steps: if steps == 0 { gen_length } else { steps },
        block_length: if whole { gen_length } else { block_length },
        blocks: if whole { Blocks::Pure } else { Blocks::SemiAutoregressive },
        temperature,
        ..Sampler::default()
    }
}

/// Fails where completions cannot be sampled so.
pub(in crate::train) fn check_sampler(
    settings: &Reward,
    special: &SpecialTokens,
    config: &ModelConfig,
) -> Result<()> {
    let prompt = Prompt::from(special.eos.map_or(Vec::new(), |eos| vec![eos]));
    Ok(Canvas::new(prompt, &sampler(settings), special, config.attention).map(|_| ())?)
}

impl Alignment {
    pub(super) fn reinforce(&mut self, mut step: Step<'_>) -> Result<Option<Weighted>> {
        let Some(settings) = &step.recipe.reward else { return Ok(None) };
        let (cycle, iteration) = (step.step / settings.iterations, step.step % settings.iterations);
        if self.rollouts.as_ref().is_none_or(|rollouts| rollouts.cycle != cycle) {
            self.rollouts = self.roll_out(&mut step, settings, cycle, iteration)?;
        }
        let Some(rollouts) = &self.rollouts else { return Ok(None) };
        let versions = rollouts.versions(step.recipe, settings, step.mask, iteration);
        let policy =
            log_probabilities(step.ranks, step.predictor, &versions, step.recipe, step.stop)?;
        let Some(policy) = policy else { return Ok(None) };
        let (rewards, old) = (rollouts.rewards(), rollouts.old(iteration));
        let lengths: Vec<usize> = rollouts.completions.iter().map(Completion::len).collect();
        let counted: Vec<usize> = rollouts.completions.iter().map(Completion::counted).collect();
        let Some(reference) = self.reference(&versions, &step)? else { return Ok(None) };
        let old = old.unwrap_or_else(|| policy.clone());
        let of = LogProbabilities { policy: &policy, old: &old, reference: &reference };
        let found = loss(settings, of, &rewards, &lengths, &counted);
        let count = rewards.len().max(1) as f64;
        let measured = Measured::from([
            ("reward", rewards.iter().sum::<f64>() / count),
            ("flat_groups", advantages::flat_share(&rewards, settings.completions)),
            ("completion_tokens", counted.iter().sum::<usize>() as f64 / count),
            ("clipped", found.clipped),
            ("kl", found.kl),
        ]);
        let shift = step.predictor.model().config.shift;
        Ok(Some(Weighted::new(&versions, (found.value, &found.slopes), shift, measured)))
    }

    /// The completions of a cycle, with what the policy says of them in the iterations after `first`.
    fn roll_out(
        &mut self,
        step: &mut Step<'_>,
        settings: &Reward,
        cycle: u64,
        first: u64,
    ) -> Result<Option<Rollouts>> {
        let Source::Prompts { prompts, .. } = step.source else { return Ok(None) };
        let (seed, batch) = (step.recipe.train.seed, step.recipe.train.batch_size as u64);
        let (count, each) = (prompts.train.len() as u64, settings.completions as u64);
        let asked: Vec<_> = (cycle * batch..(cycle + 1) * batch)
            .map(|n| {
                let at = shuffled(n / each, count, seed);
                (&prompts.train[at as usize], Stream::new(seed, Purpose::Rollout, n).bits() >> 11)
            })
            .collect();
        let Some(completions) = self.complete(step, settings, &asked)? else { return Ok(None) };
        let mut rollouts = Rollouts { cycle, first, completions, old: Vec::new() };
        for iteration in first + 1..settings.iterations {
            let versions = rollouts.versions(step.recipe, settings, step.mask, iteration);
            let old =
                log_probabilities(step.ranks, step.predictor, &versions, step.recipe, step.stop)?;
            let Some(old) = old else { return Ok(None) };
            rollouts.old.push(old.into_iter().map(Exact).collect());
        }
        Ok(Some(rollouts))
    }

    /// What the policy writes after some prompts, each with its seed, and what it is worth; each rank asks
    /// a share of them.
    fn complete(
        &mut self,
        step: &mut Step<'_>,
        settings: &Reward,
        asked: &[(&(usize, Vec<u32>), u64)],
    ) -> Result<Option<Vec<Completion>>> {
        let ranks = step.ranks;
        let own = &asked[Shares::even(asked.len(), ranks.world()).of(ranks.rank())];
        let completions = ranks.agree(self.complete_share(step, settings, own))?;
        let all = ranks.gather_all(&completions)?;
        Ok(all.into_iter().collect::<Option<Vec<_>>>().map(|all| all.concat()))
    }

    fn complete_share(
        &mut self,
        step: &mut Step<'_>,
        settings: &Reward,
        asked: &[(&(usize, Vec<u32>), u64)],
    ) -> Result<Option<Vec<Completion>>> {
        let attention = step.predictor.model().config.attention;
        let mut completions = Vec::with_capacity(asked.len());
        for part in asked.chunks(step.recipe.micro_batch()) {
            let canvas = |((_, prompt), seed): &(&(usize, Vec<u32>), u64)| {
                let sampler = Sampler { seed: *seed, ..sampler(settings) };
                Canvas::new(Prompt::from(prompt.clone()), &sampler, step.special, attention)
            };
            let mut canvases =
                part.iter().map(canvas).collect::<std::result::Result<Vec<_>, _>>()?;
            let summary = generate::run(step.predictor, &mut canvases, &mut |_, _| match step
                .stop
                .load(Ordering::Relaxed)
            {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            })?;
            if summary.interrupted {
                return Ok(None);
            }
            for (canvas, ((number, prompt), _)) in canvases.iter().zip(part) {
                // Its log-probability is that of nothing.
                if canvas.response().contains(&step.mask) {
                    return Err(TrainError::MaskedCompletion { step: step.step }.into());
                }
                let text = step.tokenizer.decode(canvas.useful(), true)?;
                let Some(function) = &mut self.function else {
                    return Err(TrainError::NoReward.into());
                };
                completions.push(Completion {
                    tokens: canvas.tokens().to_vec(),
                    prompt: prompt.len(),
                    useful: canvas.useful().len(),
                    reward: Exact(function.reward(*number, &text)?),
                });
            }
        }
        Ok(Some(completions))
    }

    /// The mean reward of the prompts held out, `eval.draws` completions each.
    pub(super) fn measure_reward(&mut self, mut step: Step<'_>) -> Result<Measured> {
        let (Some(settings), Source::Prompts { prompts, .. }) = (&step.recipe.reward, step.source)
        else {
            return Ok(Measured::new());
        };
        let Recipe { eval, .. } = step.recipe;
        let numbers = spread_evenly(prompts.held_out.len() as u64, eval.sequences as u64);
        let asked: Vec<_> = numbers
            .flat_map(|n| (0..eval.draws as u64).map(move |draw| (n, draw)))
            .map(|(n, draw)| {
                let seed = Stream::new(SEED, Purpose::Rollout, (n << 16) | draw).bits() >> 11;
                (&prompts.held_out[n as usize], seed)
            })
            .collect();
        let Some(found) = self.complete(&mut step, settings, &asked)? else {
            return Ok(Measured::new());
        };
        let count = found.len().max(1) as f64;
        let rewards: f64 = found.iter().map(|completion| completion.reward.0).sum();
        let tokens: usize = found.iter().map(Completion::counted).sum();
        Ok(Measured::from([
            ("reward", rewards / count),
            ("completion_tokens", tokens as f64 / count),
        ]))
    }
}

/// The loss of the algorithm.
fn loss(
    settings: &Reward,
    of: LogProbabilities<'_>,
    rewards: &[f64],
    lengths: &[usize],
    counted: &[usize],
) -> Loss {
    let Reward { beta, psi, completions, .. } = *settings;
    let clip = Clip { low: settings.clip_low, high: settings.clip_high };
    match settings.algorithm {
        Algorithm::Espo => {
            espo::loss(of, &advantages::leave_one_out(rewards, completions), lengths, clip, beta)
        }
        Algorithm::Gdsd => {
            let advantages = advantages::leave_one_out(rewards, completions);
            gdsd::loss(of, &advantages, lengths, gdsd::Settings { clip, psi, beta })
        }
        Algorithm::DiffuGrpo => {
            let advantages = advantages::group_mean(rewards, completions);
            let of_tokens = advantages.iter().zip(counted);
            let of_tokens: Vec<f64> =
                of_tokens.flat_map(|(&a, &n)| std::iter::repeat_n(a, n)).collect();
            diffu_grpo::loss(of, &of_tokens, clip, beta)
        }
    }
}
