//! `llada score`: how probable a model finds answers, or a text.

mod input;
mod output;
mod perplexity;

use std::{ops::ControlFlow, time::Instant};

use anyhow::Result;
use llada::{
    Session,
    chat::Message,
    config::Objective,
    diffusion::likelihood::{Alike, Event, Pair, Settings},
};

use super::argument_or_stdin;
use crate::{
    args::{self, Score},
    error::{Failure, Interrupted},
    interrupt::Flag,
    locate::{self, Shipped},
    session,
    term::{self, Term},
    view::{progress, units},
};
use input::Row;
use output::Scored;

/// What Ctrl-C says first.
const STOPPING: &str = "stopping after this forward pass; press Ctrl-C again to quit now";
/// Samples that are scored before their rows are printed: enough to fill forward passes.
const SAMPLES: usize = 1024;
/// How many bad rows are named.
const NAMED: usize = 10;

/// Scores what the command line asks for.
pub fn run(mut args: Score, term: &Term) -> Result<()> {
    let words = operands(&mut args)?;
    if !args.text.perplexity.is_empty() {
        return perplexity::run(&args, term);
    }
    let settings = settings(&args.estimate);
    let input = match (&args.file, words.split_first()) {
        (Some(file), _) => input::read(file)?,
        (None, Some((prompt, answers))) => {
            let prompt = argument_or_stdin(Some(prompt.clone()), "prompt")?;
            input::Input::of(Row { line: None, prompt, answers: answers.to_vec() })
        }
        (None, None) => {
            let hint = "give a prompt and answers, `--file FILE`, or `--perplexity FILE`";
            return Err(Failure::usage("there is nothing to score", hint).into());
        }
    };
    let session = session::open(
        args.model.model.as_deref(),
        Shipped::for_chat(args.chat),
        &args.machine,
        term,
    )?;
    let stop = Flag::listen(term, Some(STOPPING))?;
    let input::Input { mut rows, mut bad } = input;
    if let Some(shard) = args.shard {
        rows = shard.take(rows);
    }
    let total = rows.len() + bad.len();
    let encoded = encode(rows, &session, args.chat, &mut bad)?;
    for reason in bad.iter().take(NAMED) {
        term.warn(reason);
    }
    let mut job = Job { args: &args, settings, session, stop, term };
    job.score(&encoded)?;
    match bad.len() {
        0 => Ok(()),
        n => {
            let message = format!("{n} of {total} rows could not be scored");
            Err(Failure::new(message, "mend the rows named above; the others are scored").into())
        }
    }
}

/// The prompt and its answers, none where a file is scored; a model before them is taken out.
fn operands(args: &mut Score) -> Result<Vec<String>, Failure> {
    let mut words = std::mem::take(&mut args.words);
    let is_of_file = args.file.is_some() || !args.text.perplexity.is_empty();
    let is_model = |word: &String| locate::looks_like_model(word);
    if words.first().is_some_and(is_model) && (is_of_file || words.len() > 2) {
        args.model.model = Some(args.model.or_word(&words.remove(0))?);
    }
    match (is_of_file, words.len()) {
        (true, 0) | (false, 0 | 2..) => Ok(words),
        (true, _) => Err(Failure::usage(
            format!("`{}` is given beside a file to score", words[0]),
            "score the one or the other",
        )),
        (false, 1) => Err(Failure::usage(
            format!("there is no answer to score after `{}`", words[0]),
            "give the prompt and, after it, one answer or several",
        )),
    }
}

fn settings(args: &args::Estimate) -> Settings {
    let default = Settings::default();
    let mc_num = args.mc_num.map_or(default.mc_num, |n| n as usize);
    let chosen = Settings::with_samples(mc_num);
    Settings {
        batch_size: args.batch_size.map_or(chosen.batch_size, |n| n as usize),
        cfg_scale: args.cfg_scale.unwrap_or(default.cfg_scale),
        seed: args.seed,
        ..chosen
    }
}

/// A row with the tokens of its answers.
type Encoded = (Row, Vec<Pair>);

/// The rows as tokens. Of a file, those that cannot be scored are left out and added to `bad`.
fn encode(
    rows: Vec<Row>,
    session: &Session,
    chat: bool,
    bad: &mut Vec<String>,
) -> Result<Vec<Encoded>> {
    let mut encoded = Vec::with_capacity(rows.len());
    for row in rows {
        match (pairs(&row, session, chat), row.line) {
            (Ok(pairs), _) => encoded.push((row, pairs)),
            (Err(error), None) => return Err(error.into()),
            (Err(error), Some(line)) => bad.push(format!("line {line}: {error}")),
        }
    }
    Ok(encoded)
}

fn pairs(row: &Row, session: &Session, chat: bool) -> llada::Result<Vec<Pair>> {
    let pair = |answer: &String| match chat {
        true => session.chat_pair(&[Message::new("user", &row.prompt)], answer),
        false => session.pair(&row.prompt, answer),
    };
    row.answers.iter().map(pair).collect()
}

/// Scoring under way.
struct Job<'a> {
    args: &'a Score,
    settings: Settings,
    session: Session,
    stop: Flag,
    term: &'a Term,
}

impl Job<'_> {
    /// Scores the rows and prints each as soon as it is known.
    fn score(&mut self, rows: &[Encoded]) -> Result<()> {
        let begun = Instant::now();
        let is_bound = self.session.objective() == Objective::Diffusion;
        let samples = if is_bound { self.settings.mc_num } else { 1 };
        let pairs: usize = rows.iter().map(|(_, pairs)| pairs.len()).sum();
        let bar = progress::samples_bar(self.term, (pairs * samples) as u64);
        let mut done = 0;
        for part in parts(rows, SAMPLES.div_ceil(samples.max(1))) {
            let scored = self.part(part, done * samples, &bar);
            if scored.is_err() {
                bar.finish_and_clear();
            }
            for ((row, pairs), answers) in part.iter().zip(scored?) {
                done += pairs.len();
                let text = match self.args.json {
                    true => {
                        let settings = is_bound.then_some(&self.settings);
                        output::json(row, &answers, &self.session.name, settings).to_string()
                    }
                    false => output::table(row, &answers),
                };
                term::answer(&text)?;
            }
        }
        bar.finish_and_clear();
        let seconds = units::duration(begun.elapsed().as_secs_f64());
        let Settings { mc_num, batch_size, seed, .. } = self.settings;
        self.term.note(&match is_bound {
            true => format!(
                "a lower bound of log p, estimated (ELBO) · mc-num {mc_num} · batch-size \
                 {batch_size} · seed {seed} · {seconds}"
            ),
            false => format!("log p, exact · {seconds}"),
        });
        Ok(())
    }

    /// Scores the answers of some rows, each as if it were alone; `done` samples were scored before.
    fn part(
        &mut self,
        rows: &[Encoded],
        done: usize,
        bar: &progress::Bar,
    ) -> Result<Vec<Vec<Scored>>> {
        let Self { args, settings, session, stop, .. } = self;
        let pairs: Vec<Pair> = rows.iter().flat_map(|(_, pairs)| pairs.clone()).collect();
        let mut draws = Alike { seed: settings.seed };
        let mut on_event = |event| {
            if let Event::Forward { samples } = event {
                bar.set_position((done + samples) as u64);
            }
            if stop.is_set() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let estimates = session.score_with(&pairs, settings, &mut draws, &mut on_event)?;
        let mut scored = Vec::with_capacity(pairs.len());
        for (pair, estimate) in pairs.iter().zip(estimates) {
            if stop.is_set() {
                break;
            }
            let greedy = match args.greedy {
                true => Some(session.is_greedy(pair, settings.cfg_scale)?),
                false => None,
            };
            scored.push(Scored { estimate, greedy });
        }
        if scored.len() < pairs.len() {
            return Err(Interrupted.into());
        }
        let mut scored = scored.into_iter();
        Ok(rows.iter().map(|(_, pairs)| scored.by_ref().take(pairs.len()).collect()).collect())
    }
}

/// Cuts rows into parts of at least `pairs` pairs each, but for the last.
fn parts(mut rows: &[Encoded], pairs: usize) -> impl Iterator<Item = &[Encoded]> {
    std::iter::from_fn(move || {
        let mut found = 0;
        let enough = rows.iter().position(|(_, answers)| {
            found += answers.len();
            found >= pairs
        });
        let (part, rest) = rows.split_at(enough.map_or(rows.len(), |last| last + 1));
        rows = rest;
        (!part.is_empty()).then_some(part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_hold_whole_rows() {
        let row = |answers| {
            let row = Row { line: None, prompt: String::new(), answers: Vec::new() };
            (row, vec![Pair::default(); answers])
        };
        let rows = [row(2), row(1), row(5), row(1), row(1)];
        let sizes = |pairs| parts(&rows, pairs).map(<[_]>::len).collect::<Vec<_>>();
        assert_eq!(sizes(3), [2, 1, 2]);
        assert_eq!(sizes(1), [1; 5]);
        assert_eq!(sizes(100), [5]);
    }
}
