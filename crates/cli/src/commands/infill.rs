//! `llada infill`: a text with holes in, the same text without holes on stdout.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use llada::{
    Codec, Session, data,
    diffusion::{
        Sampler, Spelling, generate,
        infill::{Template, length},
    },
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    argument_or_stdin, constraint,
    observer::{Look, Observer},
    read_text,
};
use crate::{
    args::Infill,
    error::{Failure, Interrupted},
    interrupt::Flag,
    locate::Shipped,
    session,
    term::{self, Term},
    view::units,
};

/// Fills the holes, and prints the text and, on stderr, the summary.
pub fn run(args: Infill, term: &Term) -> Result<()> {
    let words = [&args.first, &args.second].into_iter().flatten().cloned().collect();
    let (model, mut texts) = args.model.or_first(words, usize::from(args.file.is_none()))?;
    let templates = match &args.file {
        Some(file) => rows(file)?,
        None => {
            let text = argument_or_stdin(texts.pop(), "text with holes")?;
            vec![(text.parse().map_err(llada::Error::from)?, None)]
        }
    };
    let constraint = constraint::read(&args.constraint.0)?;
    let sampler = Codec::infill_sampler(&args.sampler.settings);
    let sampler = sampler.map_err(|error| Failure::sampler(error, Spelling::Flag))?;
    let machine = args.machine.sampling(&args.sampler.settings);
    let mut session = session::open(model.as_deref(), Shipped::Base, &machine, term)?;
    let automaton = constraint.map(|c| session.automaton(&c)).transpose()?;
    let message = "finishing the step; press Ctrl-C again to quit now";
    let stop = Flag::listen(term, (!args.watching.watch).then_some(message))?;

    let mut total = Total::default();
    let begun = Instant::now();
    for (row, (template, seed)) in templates.iter().enumerate() {
        let started = Instant::now();
        let sampler = Sampler { seed: seed.unwrap_or(sampler.seed), ..sampler.clone() };
        let at_row = || format!("row {}", row + 1);
        let mut frame = session.frame(template)?;
        if args.whole {
            let eos = session.special.eos.ok_or_else(|| {
                Failure::new("this model has no end of text", "leave out `--whole`")
            })?;
            frame = frame.ended(eos);
        }
        if let Some(automaton) = &automaton {
            frame = frame.constrained(Arc::clone(automaton));
        }
        let longest = args.max_hole.into();
        let lengths = session.hole_lengths(&frame, &sampler, longest, &mut || stop.is_set());
        let lengths = match args.file {
            Some(_) => lengths.with_context(at_row)?,
            None => lengths?,
        };
        let Some(lengths) = lengths else { return Err(Interrupted.into()) };
        let mut canvases = [session.infill(&frame, &lengths.lengths, &sampler)?];
        let Session { predictor, codec } = &mut session;
        let (name, tokenizer) = (&codec.name, &codec.tokenizer);
        let look = Look::of(&args.watching);
        let mut observer = Observer::new(look, &canvases, tokenizer, name, term);
        // How sure the model was of each token of the sequence that it filled.
        let mut confidence = vec![0.0; canvases[0].tokens().len()];
        let summary = observer.follow(predictor, &mut canvases, &stop, |step| {
            step.committed.iter().for_each(|c| confidence[c.position] = c.confidence);
        });
        let traced = observer.finish(term);
        let summary = summary?;
        if summary.interrupted {
            traced.unwrap_or_else(|failure| term.warn(&failure.to_string()));
            return Err(Interrupted.into());
        }

        let tokens = canvases[0].tokens();
        let fills = frame.fills(tokenizer, tokens, &lengths.lengths)?;
        let text = template.fill(&fills);
        total.add(&summary, &lengths);
        if !args.json && args.file.is_none() {
            term::answer(&text)?;
            traced?;
            continue;
        }
        let places = frame.places(&lengths.lengths);
        let fills = fills.iter().zip(places).map(|(text, place)| {
            let sum: f64 = confidence[place.clone()].iter().map(|&c| f64::from(c)).sum();
            json!({
                "text": text,
                "tokens": tokens[place.clone()],
                "length": place.len(),
                "confidence": sum / place.len().max(1) as f64,
            })
        });
        let answer = json!({
            "text": text,
            "fills": fills.collect::<Vec<Value>>(),
            "summary": {
                "model": name,
                "template": template.to_string(),
                "nfe": summary.nfe,
                "search_nfe": lengths.nfe,
                "search_sequence_forwards": lengths.sequence_forwards,
                "seconds": started.elapsed().as_secs_f64(),
                "seed": sampler.seed,
                "sampler": canvases[0].sampler(),
            },
        });
        term::answer(&answer.to_string())?;
        traced?;
    }
    total.report(begun.elapsed(), &sampler, term);
    Ok(())
}

/// A row of the file; other fields are passed over.
#[derive(Deserialize)]
struct Row {
    text: String,
    /// The seed of its draws, if not that of the run.
    seed: Option<u64>,
}

/// The texts of a file and their seeds, one JSON object on each line.
fn rows(file: &Path) -> Result<Vec<(Template, Option<u64>)>> {
    let source = read_text(file)?;
    let mut templates = Vec::new();
    for (i, line) in source.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let at_line = || format!("`{}`, line {}", file.display(), i + 1);
        let row: Row = data::parse_json(line.as_bytes())
            .and_then(serde_json::from_value)
            .map_err(|e| Failure::new(e.to_string(), r#"write `{"text": "..."}` on each line"#))
            .with_context(at_line)?;
        let template = row.text.parse().map_err(llada::Error::from).with_context(at_line)?;
        templates.push((template, row.seed));
    }
    if templates.is_empty() {
        let message = format!("`{}` has no rows", file.display());
        return Err(Failure::new(message, r#"write `{"text": "..."}` on each line"#).into());
    }
    Ok(templates)
}

/// What all rows took.
#[derive(Default)]
struct Total {
    nfe: usize,
    search_nfe: usize,
    search_sequence_forwards: usize,
    tokens: usize,
}

impl Total {
    fn add(&mut self, summary: &generate::Summary, lengths: &length::Lengths) {
        self.nfe += summary.nfe;
        self.search_nfe += lengths.nfe;
        self.search_sequence_forwards += lengths.sequence_forwards;
        self.tokens += summary.committed;
    }

    fn report(&self, elapsed: Duration, sampler: &Sampler, term: &Term) {
        let mut line = format!("{} tokens in {} NFE", self.tokens, self.nfe);
        if self.search_nfe > 0 {
            line += &format!(
                " · lengths chosen in {} NFE of {} sequences",
                self.search_nfe, self.search_sequence_forwards
            );
        }
        let elapsed = units::duration(elapsed.as_secs_f64());
        term.note(&format!("{line} · {elapsed} · seed {}", sampler.seed));
    }
}
