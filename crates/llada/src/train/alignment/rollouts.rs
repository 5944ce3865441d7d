//! The completions that a policy wrote, on which it is trained for some steps.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::{
    Result,
    diffusion::forward::noise_levels,
    diffusion::policy::{
        Versions,
        masks::{self, Response},
    },
    files,
    rng::{Purpose, Stream},
    train::{Algorithm, Recipe, TrainError, recipe::Reward, state::Exact},
};

/// What a checkpoint within a cycle holds of them.
const FILE: &str = "rollouts.json";
/// Those of a large run have some MB.
const MAX_FILE: u64 = 1 << 30;

/// A prompt with what the policy wrote.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Completion {
    /// The tokens of the prompt, and then those of the completion.
    pub(super) tokens: Vec<u32>,
    /// Tokens of the prompt.
    pub(super) prompt: usize,
    /// Tokens of the completion before its end.
    pub(super) useful: usize,
    pub(super) reward: Exact,
}

impl Completion {
    fn response(&self) -> Response<'_> {
        Response { tokens: &self.tokens, prompt: self.prompt }
    }

    /// Tokens of the completion.
    pub(super) fn len(&self) -> usize {
        self.tokens.len() - self.prompt
    }

    /// Its tokens up to its end, that included.
    pub(super) fn counted(&self) -> usize {
        (self.useful + 1).min(self.len())
    }
}

/// The completions of a cycle of steps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Rollouts {
    /// The number of the cycle.
    pub(super) cycle: u64,
    /// The iteration before which they were written.
    pub(super) first: u64,
    pub(super) completions: Vec<Completion>,
    /// log p of the terms of each iteration after the first, by the policy that wrote them.
    pub(super) old: Vec<Vec<Exact>>,
}

impl Rollouts {
    /// Whether they are those of the step after `step` steps, and were written before an earlier one.
    pub(super) fn serves(&self, recipe: &Recipe, step: u64) -> bool {
        let iterations = recipe.reward.as_ref().map_or(1, |reward| reward.iterations);
        step / iterations == self.cycle && step % iterations > self.first
    }

    /// The log p of the terms of an iteration by the policy that wrote the completions; `None` for the
    /// first, whose policy it is.
    pub(super) fn old(&self, iteration: u64) -> Option<Vec<f64>> {
        let at = iteration.checked_sub(self.first + 1)?;
        let terms = self.old.get(at as usize)?;
        Some(terms.iter().map(|x| x.0).collect())
    }

    pub(super) fn rewards(&self) -> Vec<f64> {
        self.completions.iter().map(|completion| completion.reward.0).collect()
    }

    /// The masked versions of an iteration, the same for whoever is asked for them.
    pub(super) fn versions(
        &self,
        recipe: &Recipe,
        settings: &Reward,
        mask: u32,
        iteration: u64,
    ) -> Versions {
        let (seed, count) = (recipe.train.seed, self.completions.len());
        let number = self.cycle * settings.iterations + iteration;
        let mut of = Versions::new(match settings.algorithm {
            Algorithm::Espo => count,
            Algorithm::Gdsd => count * settings.draws,
            Algorithm::DiffuGrpo => self.completions.iter().map(Completion::counted).sum(),
        });
        let stream = |draw: usize, i: usize| {
            let address = (number * settings.draws as u64 + draw as u64) * count as u64 + i as u64;
            Stream::new(seed, Purpose::Masking, address)
        };
        if settings.algorithm == Algorithm::DiffuGrpo {
            let mut first = 0;
            for (i, completion) in self.completions.iter().enumerate() {
                let (mut stream, counted) = (stream(0, i), completion.counted());
                let mut hides = || stream.uniform() < settings.prompt_mask;
                let response = completion.response();
                masks::push_masked_prompt(&mut of, response, mask, counted, first, &mut hides);
                first += counted;
            }
            return of;
        }
        let levels: Vec<Vec<f64>> = (0..settings.draws)
            .map(|draw| number * settings.draws as u64 + draw as u64)
            .map(|address| Stream::new(seed, Purpose::NoiseLevel, address))
            .map(|mut stream| noise_levels(&mut stream, count, true))
            .collect();
        for (i, completion) in self.completions.iter().enumerate() {
            for (draw, levels) in levels.iter().enumerate() {
                let (term, weight): (_, &masks::Weight) = match settings.algorithm {
                    Algorithm::Gdsd => ((i * settings.draws + draw, 1.0), &masks::even),
                    _ => ((i, 1.0 / settings.draws as f64), &masks::bound),
                };
                let response = completion.response();
                let mut stream = stream(draw, i);
                masks::draw_coupled(&mut of, response, mask, levels[i], &mut stream, term, weight);
            }
        }
        of
    }

    pub(super) fn write(&self, dir: &Path) -> Result<()> {
        let text = serde_json::to_vec(self).unwrap_or_default();
        files::replace_with(&dir.join(FILE), &text)
    }

    /// Those of a checkpoint, where it has some.
    pub(super) fn read(dir: &Path) -> Result<Option<Self>> {
        let path = dir.join(FILE);
        if !path.exists() {
            return Ok(None);
        }
        let bytes = files::read_bytes(&path, MAX_FILE)?;
        serde_json::from_slice(&bytes).map(Some).map_err(|error| {
            TrainError::Damaged { path, reason: error.to_string(), previous: None }.into()
        })
    }
}
