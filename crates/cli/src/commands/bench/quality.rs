//! `llada bench quality`: what a way to sample costs, and what it gains.

use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context, Result};
use llada::{
    Session,
    chat::Message,
    diffusion::{
        Preset, Sampler, Settings, Spelling,
        settings::{Group, Key},
    },
    eval::{
        metric::Estimate,
        quality::{self, Difference, Judged, Question},
    },
};
use serde_json::{Value, json};

use crate::{
    args::Quality,
    commands::eval::table,
    error::{Failure, Interrupted},
    interrupt::Flag,
    locate::{self, Shipped},
    session,
    term::{self, Term},
    view::progress,
};

/// The questions of a model are in its folder under this name.
const QUESTIONS: &str = "quality.jsonl";

/// Measures each model, and prints a table or a JSON object for each setting.
pub fn run(args: &Quality, term: &Term) -> Result<()> {
    let given = args.model.model.as_deref();
    let models: Vec<PathBuf> = match given {
        Some(_) => vec![locate::model(given, Shipped::Base)?],
        None => [Shipped::Base, Shipped::Tuned]
            .map(|shipped| locate::model(None, shipped))
            .into_iter()
            .collect::<Result<_>>()?,
    };
    let stop = Flag::listen(term, Some("finishing the answer; press Ctrl-C again to quit now"))?;
    let mut rows = Vec::new();
    for model in &models {
        rows.extend(Bench::open(args, model, &stop, term)?.measure()?);
    }
    match args.json {
        true => rows.iter().try_for_each(|row| term::answer(&row.json().to_string()))?,
        false => term::answer(&table(&rows))?,
    }
    let lost = rows.iter().find(|row| row.difference.is_some_and(|d| d.is_loss()));
    match lost {
        Some(row) if args.gate => {
            let message = format!("`{}` loses quality with `{}`", row.model, row.setting);
            Err(Failure::new(
                message,
                "the table says what; use a setting that unmasks fewer tokens at once",
            )
            .into())
        }
        _ => Ok(()),
    }
}

/// A model with its questions and the settings to compare.
struct Bench<'a> {
    args: &'a Quality,
    session: Session,
    questions: Vec<Question>,
    prompts: Vec<Vec<u32>>,
    /// Their names, and the reference first.
    settings: Vec<(String, Sampler)>,
    stop: &'a Flag,
    term: &'a Term,
}

/// A line of the table.
struct Row {
    model: String,
    setting: String,
    sampler: Sampler,
    questions: usize,
    judged: Judged,
    seconds: f64,
    /// Beside the reference; `None` for itself.
    difference: Option<Difference>,
}

impl<'a> Bench<'a> {
    fn open(args: &'a Quality, model: &Path, stop: &'a Flag, term: &'a Term) -> Result<Self> {
        let machine = args.machine.sampling(&args.sampler.settings);
        let mut session = session::open(Some(model), Shipped::Base, &machine, term)?;
        // The settings are compared as they are, whatever the model proposes.
        session.proposed = Settings::NONE;
        // No way to sample gains from what another was fed.
        session.predictor.retain(0);
        let path = match &args.questions {
            Some(path) => path.clone(),
            None => model.join(QUESTIONS),
        };
        if args.questions.is_none() && !path.is_file() {
            let message = format!("`{}` has no `{QUESTIONS}`", model.display());
            return Err(Failure::new(message, "name a file with `--questions`").into());
        }
        let mut questions = quality::questions(&path)?;
        questions.truncate(args.limit.unwrap_or(usize::MAX));
        let encode = |question: &Question| match question.chat {
            true => session.encode_chat(&[Message::new("user", &question.prompt)]),
            false => session.encode(&question.prompt),
        };
        let prompts = questions.iter().map(encode).collect::<llada::Result<Vec<_>>>()?;
        let settings = settings(args, &session, &prompts)?;
        Ok(Self { args, session, questions, prompts, settings, stop, term })
    }

    /// Answers the questions in every setting.
    fn measure(mut self) -> Result<Vec<Row>> {
        let mut rows: Vec<Row> = Vec::new();
        for (setting, sampler) in std::mem::take(&mut self.settings) {
            let (judged, seconds) = self.judge(&setting, &sampler)?;
            let difference = rows.first().map(|reference| judged.against(&reference.judged));
            rows.push(Row {
                model: self.session.name.clone(),
                setting,
                sampler,
                questions: self.questions.len(),
                judged,
                seconds,
                difference,
            });
        }
        Ok(rows)
    }

    /// The answers of one setting, and the seconds that they took.
    fn judge(&mut self, setting: &str, sampler: &Sampler) -> Result<(Judged, f64)> {
        let Self { args, session, questions, prompts, stop, .. } = self;
        let Session { predictor, codec } = session;
        let (special, tokenizer) = (&codec.special, &codec.tokenizer);
        let bar = progress::steps_bar(self.term, prompts.len() as u64);
        bar.set_message(format!("{}, {setting}", codec.name));
        let mut on_answered = |done| {
            bar.set_position(done as u64);
            if stop.is_set() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let begun = Instant::now();
        let answers = quality::answer(
            predictor,
            special,
            prompts,
            sampler,
            args.batch_size.into(),
            &mut on_answered,
        )?;
        let seconds = begun.elapsed().as_secs_f64();
        bar.set_message(format!("{}, {setting}: likelihood", codec.name));
        let log_likelihoods =
            quality::log_likelihoods(predictor, special, prompts, &answers, args.mc_num as usize)?;
        bar.finish_and_clear();
        if stop.is_set() {
            return Err(Interrupted.into());
        }
        let is_right = |(question, answer): (&Question, &Vec<u32>)| {
            let Some(response) = &question.response else { return Ok(None) };
            let answer = tokenizer.decode(answer, true)?;
            Ok(Some(quality::is_right(&answer, response)))
        };
        let right = questions.iter().zip(&answers.tokens).map(is_right);
        let right = right.collect::<llada::Result<_>>().context("an answer cannot be read")?;
        Ok((Judged { answers, right, log_likelihoods }, seconds))
    }
}

/// The settings that were asked for, or the presets that save something; the reference's sampler for
/// the same responses before them.
fn settings(
    args: &Quality,
    session: &Session,
    prompts: &[Vec<u32>],
) -> Result<Vec<(String, Sampler)>> {
    let mut asked = args.sampler.settings.clone();
    // The noise is the same for all who are compared.
    asked.seed.get_or_insert(0);
    let longest = prompts.iter().map(Vec::len).max().unwrap_or(0);
    let sampler = |asked: &Settings| {
        let sampler = session.sampler(asked, longest);
        sampler.map_err(|error| Failure::sampler(error, Spelling::Flag))
    };
    let mut settings = match asked.preset.is_some() || saves(&asked) {
        true => vec![("as asked".to_owned(), sampler(&asked)?)],
        false => [Preset::Balanced, Preset::Fast]
            .into_iter()
            .map(|preset| {
                let asked = Settings { preset: Some(preset), ..asked.clone() };
                Ok((preset.to_string(), sampler(&asked)?))
            })
            .collect::<Result<_>>()?,
    };
    let reference = settings[0].1.reference();
    reference.check().map_err(llada::Error::from)?;
    settings.insert(0, ("exact".to_owned(), reference));
    Ok(settings)
}

/// Whether any of the settings changes which or how many tokens a pass is fed or unmasks.
fn saves(settings: &Settings) -> bool {
    let choices = ["steps", "remasking", "adaptive_blocks", "variable_length"];
    let does = |key: &Key| key.group == Group::Saving || choices.contains(&key.name);
    settings.only(does) != Settings::NONE
}

impl Row {
    fn json(&self) -> Value {
        let summary = &self.judged.answers.summary;
        let estimate = |e: Option<Estimate>| {
            e.map(|e| json!({ "value": e.value, "standard_error": e.standard_error }))
        };
        json!({
            "model": self.model,
            "setting": self.setting,
            "sampler": self.sampler,
            "questions": self.questions,
            "score": estimate(self.judged.score()),
            "log_likelihood_per_token": estimate(self.judged.log_likelihood()),
            "against_exact": self.difference.map(|d| json!({
                "score": estimate(d.score),
                "log_likelihood_per_token": estimate(d.log_likelihood),
                "agreement": d.agreement,
                "identical": d.identical,
                "is_loss": d.is_loss(),
            })),
            "nfe": summary.sequence_forwards,
            "tokens_per_forward": summary.tokens_per_forward(),
            "useful_tokens": summary.useful_tokens,
            "useful_tokens_per_forward": self.useful_per_forward(),
            "tokens_fed": summary.tokens_fed,
            "seconds": self.seconds,
            "useful_tokens_per_second": self.useful_per_second(),
        })
    }

    fn useful_per_forward(&self) -> f64 {
        let summary = &self.judged.answers.summary;
        summary.useful_tokens as f64 / summary.sequence_forwards.max(1) as f64
    }

    fn useful_per_second(&self) -> f64 {
        self.judged.answers.summary.useful_tokens as f64 / self.seconds.max(1e-9)
    }

    fn cells(&self) -> Vec<String> {
        let estimate = |e: Option<Estimate>, factor: f64, digits: usize| match e {
            None => "–".to_owned(),
            Some(Estimate { value, standard_error, .. }) => {
                let error = factor * standard_error.unwrap_or(0.0);
                format!("{:.digits$} ± {error:.digits$}", factor * value)
            }
        };
        let difference = self.difference;
        let of = |f: fn(Difference) -> String| difference.map_or(String::new(), f);
        let signed = |e: Option<Estimate>, factor: f64, digits: usize| {
            let sign = if e.is_some_and(|e| e.value > 0.0) { "+" } else { "" };
            format!("{sign}{}", estimate(e, factor, digits))
        };
        let summary = &self.judged.answers.summary;
        vec![
            self.model.clone(),
            self.setting.clone(),
            estimate(self.judged.score(), 100.0, 1),
            difference.map_or(String::new(), |d| signed(d.score, 100.0, 1)),
            estimate(self.judged.log_likelihood(), 1.0, 3),
            difference.map_or(String::new(), |d| signed(d.log_likelihood, 1.0, 3)),
            of(|d| format!("{:.1} %", 100.0 * d.agreement)),
            of(|d| if d.is_loss() { "yes" } else { "no" }.to_owned()),
            summary.sequence_forwards.to_string(),
            format!("{:.2}", self.useful_per_forward()),
            summary.tokens_fed.to_string(),
            summary.useful_tokens.to_string(),
            format!("{:.0}", self.useful_per_second()),
        ]
    }
}

fn table(rows: &[Row]) -> String {
    let header = [
        "model",
        "setting",
        "right, %",
        "change",
        "log p/token",
        "change",
        "same tokens",
        "loss",
        "forwards",
        "useful/forward",
        "fed",
        "useful",
        "useful tok/s",
    ];
    let header = header.map(String::from).to_vec();
    let lines: Vec<Vec<String>> =
        std::iter::once(header).chain(rows.iter().map(Row::cells)).collect();
    table::columns(&lines)
}
