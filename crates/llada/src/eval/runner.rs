//! The loop over the rows of a task: ask, judge, record.

use std::{collections::BTreeMap, ops::ControlFlow, sync::Arc};

use serde::Serialize;
use serde_json::{Value as Json, json};

use super::{
    EvalError, Example, Prepared, Request, confidence,
    dataset::BadRow,
    extract,
    judge::{self, Checker, Judged},
    metric::Value,
    plan::Plan,
    record::{Fnv, Record},
};
use crate::{
    Codec, Result,
    chat::Message,
    config::Objective,
    diffusion::{
        Canvas, Sampler, generate,
        likelihood::{self, Pair},
    },
    eval::settings::Scoring,
    model::{MaskPredictor, Model},
    rng::{Purpose, Stream, nth_seed},
};

/// Hears how a run goes, and may end it.
pub trait Observer {
    /// A row is done; `reused` tells that it was done by an earlier run.
    ///
    /// # Errors
    /// If the record cannot be written, which ends the run.
    fn record(&mut self, record: &Record, reused: bool) -> Result<()>;

    /// Whether to end the run; asked between rows, and between the steps of a generation.
    fn is_over(&self) -> bool;
}

/// A model that answers.
pub struct Evaluator<'a> {
    /// The model.
    pub predictor: &'a mut MaskPredictor,
    /// Its tokenizer, template and special tokens.
    pub codec: &'a Codec,
    /// Rows that are generated together.
    pub batch_size: usize,
    /// Runs programs, where that is allowed.
    pub checker: Option<&'a mut dyn Checker>,
}

/// What a run gave.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Outcome {
    /// The rows that are done, in their order.
    pub records: Vec<Record>,
    /// Rows that do not fit the model.
    pub too_long: Vec<BadRow>,
    /// Rows whose prompt was cut to fit.
    pub truncated: usize,
    /// Whether the observer ended it.
    pub interrupted: bool,
}

/// A row whose response is to be generated.
struct Pending<'p> {
    example: &'p Example,
    key: String,
    canvas: Canvas,
}

impl Evaluator<'_> {
    /// Evaluates the rows of `prepared` that are not in `done`. The result of a row does not depend
    /// on the rows around it, `batch_size` or the number of threads.
    ///
    /// # Errors
    /// If the model fails, its settings are impossible, a program cannot be run, or `done` has rows of
    /// another model, other settings or other data.
    pub fn run(
        &mut self,
        prepared: &Prepared,
        plan: &Plan,
        done: &BTreeMap<String, Record>,
        observer: &mut dyn Observer,
    ) -> Result<Outcome> {
        let identity = identity(self.predictor.model(), prepared, plan);
        self.check_done(prepared, plan, identity, done)?;
        let constraint = plan.constraint.as_ref();
        let automaton = constraint.map(|c| self.codec.automaton(c)).transpose()?;
        let mut outcome = Outcome::default();
        let mut pending: Vec<Pending<'_>> = Vec::new();
        for example in &prepared.examples {
            if observer.is_over() {
                outcome.interrupted = true;
                return Ok(outcome);
            }
            let rows = match rows(self.codec, example, plan)? {
                Ok((rows, truncated)) => {
                    outcome.truncated += usize::from(truncated);
                    rows
                }
                Err(bad) => {
                    outcome.too_long.push(bad);
                    continue;
                }
            };
            let key = key(identity, example, &rows);
            if let Some(record) = done.get(&key) {
                observer.record(record, true)?;
                outcome.records.push(record.clone());
                continue;
            }
            if let (Request::Generate { .. }, Some(sampler)) = (&example.request, &plan.sampler) {
                let prompt = rows.into_iter().next().unwrap_or_default().prompt;
                let seed = nth_seed(sampler.seed, example.index as u64);
                let sampler = Sampler { seed, ..sampler.clone() };
                let mut canvas = self.codec.canvas(prompt, &sampler)?;
                if let Some(automaton) = &automaton {
                    canvas.constrain(Arc::clone(automaton))?;
                }
                pending.push(Pending { example, key, canvas });
                if pending.len() >= self.batch_size.max(1) {
                    self.generate(prepared, plan, &mut pending, &mut outcome, observer)?;
                }
                continue;
            }
            let judged = self.score(prepared, plan, example, &rows)?;
            record(prepared, example, key, judged, &mut outcome, observer)?;
        }
        self.generate(prepared, plan, &mut pending, &mut outcome, observer)?;
        outcome.records.sort_by_key(|record| record.doc_id);
        Ok(outcome)
    }

    /// Refuses to go on with rows that another run has left, before anything is added to them.
    fn check_done(
        &self,
        prepared: &Prepared,
        plan: &Plan,
        identity: Fnv,
        done: &BTreeMap<String, Record>,
    ) -> Result<()> {
        let mut keys: BTreeMap<usize, Vec<&str>> = BTreeMap::new();
        for record in done.values() {
            keys.entry(record.doc_id).or_default().push(&record.key);
        }
        for example in prepared.examples.iter().filter(|_| !keys.is_empty()) {
            let Some(found) = keys.get(&example.index) else { continue };
            let own =
                rows(self.codec, example, plan)?.map(|(rows, _)| key(identity, example, &rows));
            if found.iter().any(|found| own.as_deref() != Ok(*found)) {
                let (task, place) = (prepared.task.name.clone(), example.place.clone());
                return Err(EvalError::OtherRun { task, place }.into());
            }
        }
        Ok(())
    }

    /// Scores the texts of a row.
    fn score(
        &mut self,
        prepared: &Prepared,
        plan: &Plan,
        example: &Example,
        pairs: &[Pair],
    ) -> Result<Judged> {
        let tokens: Vec<usize> = pairs.iter().map(|pair| pair.answer.len()).collect();
        let settings = plan.likelihood;
        let attention = self.codec.config().attention;
        let (predictor, special) = (&mut *self.predictor, &self.codec.special);
        if let (Scoring::Confidence, Some(mask)) = (plan.scoring, special.mask) {
            let scores = confidence::score(predictor, mask, attention, pairs, settings.cfg_scale)?;
            let detail = json!({ "scores": scores, "tokens": tokens });
            return Ok((self.judge(prepared, example, &scores, &tokens, None), detail));
        }
        // Every row has draws of its own, so that rows can be taken up one by one.
        let seed = Stream::new(plan.seed, Purpose::Likelihood, example.index as u64).bits();
        let settings = likelihood::Settings {
            mc_num: settings.mc_num,
            batch_size: settings.batch_size,
            cfg_scale: settings.cfg_scale,
            seed,
        };
        let estimates = likelihood::score(predictor, special, pairs, &settings, &mut |_, _| {
            ControlFlow::Continue(())
        })?;
        let greedy = match (&example.request, pairs) {
            (Request::Continuation { .. }, [pair]) => {
                Some(likelihood::is_greedy(predictor, special, pair, settings.cfg_scale)?)
            }
            _ => None,
        };
        let scores: Vec<f64> = estimates.iter().map(|e| e.log_likelihood).collect();
        let errors: Vec<Option<f64>> = estimates.iter().map(|e| e.standard_error).collect();
        let detail = json!({ "log_likelihoods": scores, "standard_errors": errors,
            "tokens": tokens, "is_greedy": greedy });
        Ok((self.judge(prepared, example, &scores, &tokens, greedy), detail))
    }

    fn judge(
        &self,
        prepared: &Prepared,
        example: &Example,
        scores: &[f64],
        tokens: &[usize],
        greedy: Option<bool>,
    ) -> BTreeMap<String, Value> {
        let total: f64 = scores.iter().sum();
        let named = |list: &[(&str, Value)]| {
            list.iter().map(|(name, value)| (format!("{name},none"), *value)).collect()
        };
        match (&example.request, &prepared.task.choice) {
            (Request::Choice { choices, answer, .. }, Some(task)) => {
                judge::choice(&task.metrics, choices, *answer, scores, tokens)
            }
            (Request::Document { words, bytes, .. }, _) => named(&[
                ("word_perplexity", Value::Share(total, *words as f64)),
                ("byte_perplexity", Value::Share(total, *bytes as f64)),
                ("bits_per_byte", Value::Share(total, *bytes as f64)),
            ]),
            _ => named(&[
                ("acc", Value::One(f64::from(greedy.unwrap_or(false)))),
                ("perplexity", Value::One(total)),
            ]),
        }
    }

    /// Writes the pending responses together, and judges them.
    fn generate(
        &mut self,
        prepared: &Prepared,
        plan: &Plan,
        pending: &mut Vec<Pending<'_>>,
        outcome: &mut Outcome,
        observer: &mut dyn Observer,
    ) -> Result<()> {
        let (mut canvases, rows): (Vec<Canvas>, Vec<_>) =
            pending.drain(..).map(|p| (p.canvas, (p.example, p.key))).unzip();
        let summary =
            generate::run(self.predictor, &mut canvases, &mut |_, _| match observer.is_over() {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            })?;
        if summary.interrupted {
            outcome.interrupted = true;
            return Ok(());
        }
        for (canvas, (example, key)) in canvases.iter().zip(rows) {
            let text = self.codec.tokenizer.decode(canvas.useful(), true)?;
            let text = extract::cut(&text, &plan.stop);
            let (metrics, mut detail) =
                judge::response(prepared, example, text, &mut self.checker)?;
            let found = canvas.outcome();
            detail["useful_tokens"] = found.useful_tokens.into();
            detail["nfe"] = found.nfe.into();
            detail["seed"] = canvas.sampler().seed.into();
            record(prepared, example, key, (metrics, detail), outcome, observer)?;
        }
        Ok(())
    }
}

/// The tokens of a row, one pair for each text to be scored (for a generation only a prompt),
/// and whether the prompt was cut; or why they do not fit.
pub(super) fn rows(
    codec: &Codec,
    example: &Example,
    plan: &Plan,
) -> Result<std::result::Result<(Vec<Pair>, bool), BadRow>> {
    let config = codec.config();
    let limit = config.max_sequence_length;
    let is_causal = config.objective == Objective::Autoregressive;
    let context = example.request.context();
    let (mut pairs, response) = match &example.request {
        Request::Document { text, .. } => {
            return Ok(Ok((windows(codec.tokenizer.encode(text)?, limit), false)));
        }
        Request::Continuation { target, .. } => (vec![pair(codec, context, target, plan.chat)?], 0),
        Request::Choice { delimiter, choices, .. } => {
            // After a chat template the harness puts no delimiter.
            let delimiter = if plan.chat { "" } else { delimiter };
            let pair = |choice| pair(codec, context, &format!("{delimiter}{choice}"), plan.chat);
            (choices.iter().map(pair).collect::<Result<_>>()?, 0)
        }
        Request::Generate { .. } => {
            let prompt = match plan.chat {
                true => chat(codec, context)?,
                false => codec.encode(context)?,
            };
            let length = plan.sampler.as_ref().map_or(0, |s| s.gen_length);
            (vec![Pair { prompt, answer: Vec::new() }], length)
        }
    };
    let mut truncated = false;
    for pair in &mut pairs {
        // A causal model that is given nothing begins with an end of text.
        let start = usize::from(is_causal && pair.prompt.is_empty());
        let answer = pair.answer.len() + response + start;
        let found = pair.prompt.len() + answer;
        // One token of the prompt must stay, or there is nothing to answer to.
        if found > limit && !(plan.truncate && answer < limit) {
            let reason = format!("{found} tokens do not fit the model's {limit}");
            return Ok(Err(BadRow { place: example.place.clone(), reason }));
        }
        truncated |= found > limit;
        pair.prompt.drain(..found.saturating_sub(limit));
    }
    Ok(Ok((pairs, truncated)))
}

fn pair(codec: &Codec, context: &str, answer: &str, is_chat: bool) -> Result<Pair> {
    if is_chat {
        let answer = codec.tokenizer.encode(answer)?;
        return Ok(Pair { prompt: chat(codec, context)?, answer });
    }
    likelihood::encode_pair(&codec.tokenizer, context, answer)
}

fn chat(codec: &Codec, context: &str) -> Result<Vec<u32>> {
    let text = codec.template.render(&[Message::new("user", context)], true)?;
    codec.tokenizer.encode(&text)
}

fn record(
    prepared: &Prepared,
    example: &Example,
    key: String,
    (metrics, detail): (BTreeMap<String, Value>, Json),
    outcome: &mut Outcome,
    observer: &mut dyn Observer,
) -> Result<()> {
    let record = Record {
        key,
        task: prepared.task.name.clone(),
        group: example.group.clone(),
        doc_id: example.index,
        place: example.place.clone(),
        metrics,
        detail,
    };
    observer.record(&record, false)?;
    outcome.records.push(record);
    Ok(())
}

/// Windows of a document, each after the last token of the one before; the last one, which is
/// shorter, after as many as fit. The harness rolls them likewise, but its windows are a token
/// longer, because a causal model need not read what it predicts last.
fn windows(tokens: Vec<u32>, limit: usize) -> Vec<Pair> {
    let step = limit.saturating_sub(1).max(1);
    let starts = (0..tokens.len()).step_by(step);
    let window = |start: usize| {
        let end = tokens.len().min(start + step);
        let begin = end.saturating_sub(step + 1);
        Pair { prompt: tokens[begin..start].to_vec(), answer: tokens[start..end].to_vec() }
    };
    starts.map(window).collect()
}

/// Raised whenever the program judges the same answers otherwise, so that rows which an earlier one
/// recorded are not taken for its own.
const JUDGE: u8 = 2;

/// A hash of the model, the settings and how answers are judged. Of each tensor it takes 64
/// numbers, evenly spread, so that a model of 16 GB need not be read through.
fn identity(model: &Model, prepared: &Prepared, plan: &Plan) -> Fnv {
    let mut hash = Fnv::new().add(format!("{:?}", model.config).as_bytes());
    for view in model.tensors.iter() {
        let mut block = vec![0.0f32; view.dtype().block_len()];
        let step = view.len().div_ceil(block.len() * 64).max(1) * block.len();
        for at in (0..view.len()).step_by(step) {
            view.slice(at..at + block.len()).widen(&mut block);
            hash = block.iter().fold(hash, |hash, value| hash.add(&value.to_le_bytes()));
        }
    }
    let task = &prepared.task;
    let rules = (plan, &task.kind, &task.choice, &task.extract, &task.code, &task.cells);
    hash.add(&serde_json::to_vec(&rules).unwrap_or_default()).add(&[JUDGE])
}

/// A hash of all that the result of a row depends on: its tokens tell of the tokenizer and the
/// chat template too.
fn key(identity: Fnv, example: &Example, rows: &[Pair]) -> String {
    let request = serde_json::to_vec(&example.request).unwrap_or_default();
    let mut hash = identity.add(&example.index.to_le_bytes()).add(&request);
    for pair in rows {
        for tokens in [&pair.prompt, &pair.answer] {
            hash = hash.add(&tokens.len().to_le_bytes());
            hash = tokens.iter().fold(hash, |hash, token| hash.add(&token.to_le_bytes()));
        }
    }
    hash.hex()
}

#[cfg(test)]
#[path = "runner_tests.rs"]
mod tests;
