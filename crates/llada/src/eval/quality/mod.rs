//! What a way to sample costs: its answers beside those of the reference's sampler.
//!
//! Both answer the same [`Question`]s. Compared are the right answers, how probable the model finds
//! what was written ([`likelihood`], one and the same estimate for both), and the tokens themselves.
//! The differences are paired by question, so that their error is that of what changed.

mod questions;
#[cfg(test)]
mod tests;

use std::ops::ControlFlow;

use super::metric::{Estimate, Value, aggregate};
use crate::{
    Result,
    config::SpecialTokens,
    diffusion::{
        Canvas, Prompt, Sampler, generate,
        likelihood::{self, Pair, Settings},
    },
    model::MaskPredictor,
    rng::nth_seed,
};

pub use questions::{Question, is_right, questions};

/// What a sampler wrote.
#[derive(Debug, Clone, Default)]
pub struct Answers {
    /// The useful tokens of each answer and, where it has one, its end of text.
    pub tokens: Vec<Vec<u32>>,
    /// Forward passes and tokens of all of them together.
    pub summary: generate::Summary,
}

/// Answers the prompts, `batch_size` of them at a time; `on_answered` is called with how many are
/// done and may break off, which leaves the rest out. An answer does not depend on `batch_size`.
///
/// # Errors
/// If the sampler does not fit the model or a prompt, or the model fails.
pub fn answer(
    predictor: &mut MaskPredictor,
    special: &SpecialTokens,
    prompts: &[Vec<u32>],
    sampler: &Sampler,
    batch_size: usize,
    on_answered: &mut dyn FnMut(usize) -> ControlFlow<()>,
) -> Result<Answers> {
    let attention = predictor.model().config.attention;
    let mut answers = Answers::default();
    for prompts in prompts.chunks(batch_size.max(1)) {
        let first = answers.tokens.len();
        let canvas = |(i, prompt): (usize, &Vec<u32>)| {
            let prompt = Prompt::from(prompt.clone());
            let seed = nth_seed(sampler.seed, (first + i) as u64);
            Canvas::new(prompt, &Sampler { seed, ..sampler.clone() }, special, attention)
        };
        let mut canvases: Vec<Canvas> =
            prompts.iter().enumerate().map(canvas).collect::<std::result::Result<_, _>>()?;
        let mut go_on = |_: usize, _: &_| ControlFlow::Continue(());
        answers.summary += generate::run(predictor, &mut canvases, &mut go_on)?;
        answers.tokens.extend(canvases.iter().map(|canvas| written(canvas, special)));
        if on_answered(answers.tokens.len()).is_break() {
            break;
        }
    }
    Ok(answers)
}

/// The useful tokens with the token that ended them. Masks that an exact sampler left are not text.
fn written(canvas: &Canvas, special: &SpecialTokens) -> Vec<u32> {
    let useful = canvas.useful();
    let response = &canvas.tokens()[canvas.prompt().tokens.len()..];
    let end =
        response.get(useful.len()).filter(|&&t| [special.eos, special.eot].contains(&Some(t)));
    let tokens = useful.iter().chain(end).copied();
    tokens.filter(|&t| Some(t) != special.mask).collect()
}

/// log p of each answer, in nats per token, under the model as it is: what was cached or left out to
/// write it plays no part. `None` where nothing was written.
///
/// # Errors
/// If the model fails.
pub fn log_likelihoods(
    predictor: &mut MaskPredictor,
    special: &SpecialTokens,
    prompts: &[Vec<u32>],
    answers: &Answers,
    mc_num: usize,
) -> Result<Vec<Option<f64>>> {
    let pair = |(prompt, answer): (&Vec<u32>, &Vec<u32>)| Pair {
        prompt: prompt.clone(),
        answer: answer.clone(),
    };
    let written = |pair: &Pair| !pair.answer.is_empty();
    let pairs: Vec<Pair> = prompts.iter().zip(&answers.tokens).map(pair).filter(written).collect();
    let settings = Settings::with_samples(mc_num);
    let mut go_on = |_: usize, _: &_| ControlFlow::Continue(());
    let scored = likelihood::score(predictor, special, &pairs, &settings, &mut go_on)?;
    let mut scored = scored.iter().map(likelihood::Estimate::per_token);
    let of = |answer: &Vec<u32>| if answer.is_empty() { None } else { scored.next() };
    Ok(answers.tokens.iter().map(of).collect())
}

/// What was found of a way to sample, question by question.
#[derive(Debug, Clone, Default)]
pub struct Judged {
    /// Its answers.
    pub answers: Answers,
    /// Whether each is right; `None` where any would do.
    pub right: Vec<Option<bool>>,
    /// As [`log_likelihoods`] gives them.
    pub log_likelihoods: Vec<Option<f64>>,
}

impl Judged {
    /// Share of right answers among those that can be; `None` where there are none.
    pub fn score(&self) -> Option<Estimate> {
        mean(self.right.iter().flatten().map(|&right| f64::from(right)))
    }

    /// log p of an answer, in nats per token, on average.
    pub fn log_likelihood(&self) -> Option<Estimate> {
        mean(self.log_likelihoods.iter().flatten().copied())
    }

    /// What this one changed, beside `reference`.
    pub fn against(&self, reference: &Self) -> Difference {
        let right = self.right.iter().zip(&reference.right);
        let score = right.filter_map(|(a, b)| Some(f64::from((*a)?) - f64::from((*b)?)));
        let nats = self.log_likelihoods.iter().zip(&reference.log_likelihoods);
        let nats = nats.filter_map(|(a, b)| Some((*a)? - (*b)?));
        let answers = self.answers.tokens.iter().zip(&reference.answers.tokens);
        let (mut same, mut all, mut identical) = (0, 0, 0);
        for (ours, theirs) in answers.clone() {
            same += ours.iter().zip(theirs).filter(|(a, b)| a == b).count();
            all += ours.len().max(theirs.len());
            identical += usize::from(ours == theirs);
        }
        Difference {
            score: mean(score),
            log_likelihood: mean(nats),
            agreement: same as f64 / all.max(1) as f64,
            identical: identical as f64 / answers.len().max(1) as f64,
        }
    }
}

/// A way to sample beside the reference.
#[derive(Debug, Clone, Copy)]
pub struct Difference {
    /// Of the share of right answers.
    pub score: Option<Estimate>,
    /// Of log p, in nats per token.
    pub log_likelihood: Option<Estimate>,
    /// Share of the tokens that are the same at the same place.
    pub agreement: f64,
    /// Share of the answers that are the same.
    pub identical: f64,
}

impl Difference {
    /// Whether something measurable is lost: right answers or likelihood, by more than two standard
    /// errors.
    pub fn is_loss(&self) -> bool {
        let lost = |estimate: &Estimate| {
            // Of one question nothing is known but its difference.
            estimate.value < -2.0 * estimate.standard_error.unwrap_or(0.0)
        };
        [self.score, self.log_likelihood].iter().flatten().any(lost)
    }
}

fn mean(values: impl Iterator<Item = f64>) -> Option<Estimate> {
    let values: Vec<Value> = values.map(Value::One).collect();
    (!values.is_empty()).then(|| aggregate("mean", &values))
}
