//! `llada score --perplexity`: how well a model predicts text.

use std::{ops::Range, time::Instant};

use anyhow::Result;
use llada::{
    Session,
    config::Objective,
    data::RunningText,
    diffusion::likelihood::{Bound, Evidence, EvidenceSettings, Window, spread_evenly, windows},
};
use serde_json::json;

use super::{NAMED, STOPPING};
use crate::{
    args::Score,
    commands::Inputs,
    error::{Failure, Interrupted},
    interrupt::Flag,
    locate::Shipped,
    session,
    term::{self, Term},
    view::{progress, units},
};

/// Scores the text and prints the result.
pub fn run(args: &Score, term: &Term) -> Result<()> {
    let mut session =
        session::open(args.model.model.as_deref(), Shipped::Base, &args.machine, term)?;
    let inputs = Inputs::take(&args.text.perplexity)?;
    let text = RunningText::read(&inputs.paths, &session.tokenizer)?;
    for reason in text.rejected.iter().take(NAMED) {
        term.warn(&format!("left out {reason}"));
    }
    let length = args.text.length.map_or(session.config().max_sequence_length, |n| n as usize);
    let ranges = windows(text.tokens.len(), length, session.objective());
    let settings = EvidenceSettings {
        draws: args.text.draws.into(),
        seed: args.estimate.seed,
        ..EvidenceSettings::default()
    };
    let mut evidence = plan(args, &session, &ranges, settings)?;

    let stop = Flag::listen(term, Some(STOPPING))?;
    let begun = Instant::now();
    let bar = progress::samples_bar(term, evidence.versions() as u64);
    let mut read = |window: Window, out: &mut Vec<u32>| {
        out.extend_from_slice(&text.tokens[ranges[window.number as usize].clone()]);
        Ok(())
    };
    while evidence.advance(&mut session.predictor, &mut read)? {
        bar.set_position(evidence.done() as u64);
        if stop.is_set() {
            bar.finish_and_clear();
            return Err(Interrupted.into());
        }
    }
    bar.finish_and_clear();
    let bound = evidence.bound();
    if !bound.nll.is_finite() {
        let hint = "the weights are damaged or training diverged: try another checkpoint";
        return Err(Failure::new("the model's logits are not finite numbers", hint).into());
    }
    let is_bound = session.objective() == Objective::Diffusion;
    let report = Report { bound: &bound, text: &text, length, settings, is_bound };
    term::answer(&match args.json {
        true => report.json(&session.name).to_string(),
        false => report.table(),
    })?;
    let seconds = units::duration(begun.elapsed().as_secs_f64());
    term.note(&match is_bound {
        true => format!("estimated · seed {} · {seconds}", settings.seed),
        false => format!("exact · {seconds}"),
    });
    if !text.rejected.is_empty() {
        let (n, total) = (text.rejected.len(), text.rejected.len() + text.documents);
        let message = format!("{n} of {total} documents could not be read");
        return Err(Failure::new(message, "mend those named above; the others are scored").into());
    }
    Ok(())
}

fn plan(
    args: &Score,
    session: &Session,
    ranges: &[Range<usize>],
    settings: EvidenceSettings,
) -> Result<Evidence> {
    let count = ranges.len() as u64;
    let sequences = if args.text.sequences == 0 { count } else { args.text.sequences.into() };
    let window = |number: u64| Window { number, length: ranges[number as usize].len(), given: 0 };
    let windows = spread_evenly(count, sequences).map(window).collect();
    Ok(session.evidence(windows, settings)?)
}

/// The result, and what it is of.
struct Report<'a> {
    bound: &'a Bound,
    text: &'a RunningText,
    /// Tokens of a sequence.
    length: usize,
    settings: EvidenceSettings,
    is_bound: bool,
}

impl Report<'_> {
    fn bits_per_byte(&self) -> f64 {
        self.bound.bits_per_byte(self.text.bytes_per_token())
    }

    fn table(&self) -> String {
        let Self { bound, text, length, settings, is_bound } = self;
        let error = bound.standard_error.map_or(String::new(), |e| format!(" ± {e:.4}"));
        let draws = match is_bound {
            true => format!(", {} masked versions each", settings.draws),
            false => String::new(),
        };
        let kind = if *is_bound { " (upper bound)" } else { "" };
        let scored = format!(
            "{} tokens in {} sequences of up to {length}{draws}",
            units::thousands(bound.tokens as u64),
            units::thousands(bound.sequences as u64),
        );
        let text = format!(
            "{} in {} documents, {:.2} bytes/token",
            units::bytes(text.bytes),
            units::thousands(text.documents as u64),
            text.bytes_per_token()
        );
        units::table(&[
            ("nats/token", format!("{:.4}{error}{kind}", bound.nll)),
            ("perplexity", format!("{:.2}{kind}", bound.perplexity())),
            ("bits/byte", format!("{:.4}{kind}", self.bits_per_byte())),
            ("scored", scored),
            ("text", text),
        ])
    }

    fn json(&self, model: &str) -> serde_json::Value {
        let Self { bound, text, length, settings, is_bound } = self;
        json!({
            "model": model,
            "nats_per_token": bound.nll,
            "standard_error": bound.standard_error,
            "perplexity": bound.perplexity(),
            "bits_per_byte": self.bits_per_byte(),
            "is_bound": is_bound,
            "tokens": bound.tokens,
            "sequences": bound.sequences,
            "length": length,
            "draws": is_bound.then_some(settings.draws),
            "seed": is_bound.then_some(settings.seed),
            "documents": text.documents,
            "rejected_documents": text.rejected.len(),
            "bytes": text.bytes,
            "buckets": bound.buckets,
        })
    }
}
