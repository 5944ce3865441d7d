//! `llada run`: a prompt in, the answer on stdout.

mod prompts;

use std::{
    io::{self, IsTerminal},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use anyhow::Result;
use llada::{
    Session,
    chat::Message,
    diffusion::{Canvas, Sampler, Spelling, generate},
};
use serde_json::{Value, json};

use super::{
    argument_or_stdin, chat, constraint,
    observer::{Look, Observer},
};
use crate::{
    args::Run,
    error::{Failure, Interrupted},
    interrupt::Flag,
    locate::Shipped,
    session,
    term::{self, Term},
    view::units,
};
use prompts::Ask;

/// Generates, and prints the answer and, on stderr, the summary. Without a prompt, a terminal is
/// for a chat.
pub fn run(args: Run, term: &Term) -> Result<()> {
    let (model, prompt) = operands(&args)?;
    let is_alone = !(args.raw || args.json || args.watching.trace.is_some());
    if prompt.is_none() && args.prompts.is_none() && is_alone && io::stdin().is_terminal() {
        return chat::start(model.as_deref(), args.into(), term);
    }
    let constraint = constraint::read(&args.constraint.0)?;
    let prompts = match &args.prompts {
        Some(file) => prompts::read(file)?,
        None => vec![Ask::from(argument_or_stdin(prompt, "prompt")?)],
    };
    let machine = args.machine.sampling(&args.sampler.settings);
    let mut session =
        session::open(model.as_deref(), Shipped::for_chat(args.chat), &machine, term)?;
    let is_chat = is_chat(&args, &session, term)?;
    let system = args.system.as_ref().map(|text| Message::new("system", text));
    let encode = |ask: &Ask| match is_chat {
        true => {
            let user = Message::new("user", &ask.prompt);
            session.encode_chat(&system.iter().cloned().chain([user]).collect::<Vec<_>>())
        }
        false => session.encode(&ask.prompt),
    };
    let sequences = prompts.iter().map(encode).collect::<llada::Result<Vec<_>>>()?;
    let longest = sequences.iter().map(Vec::len).max().unwrap_or(0);
    let sampler = session.sampler(&args.sampler.settings, longest);
    let sampler = sampler.map_err(|error| Failure::sampler(error, Spelling::Flag))?;
    term.detail(&format!("sampler {}", serde_json::to_string(&sampler)?));
    let automaton = constraint.map(|c| session.automaton(&c)).transpose()?;
    let canvas = |(tokens, ask): (Vec<u32>, &Ask)| -> llada::Result<Canvas> {
        let seed = ask.seed.unwrap_or(sampler.seed);
        let mut canvas = session.canvas(tokens, &Sampler { seed, ..sampler.clone() })?;
        if let Some(automaton) = &automaton {
            canvas.constrain(Arc::clone(automaton))?;
        }
        Ok(canvas)
    };
    let canvases = sequences.into_iter().zip(&prompts).map(canvas);
    let mut canvases = canvases.collect::<llada::Result<Vec<_>>>()?;

    let message = "finishing the step; press Ctrl-C again to quit now";
    let stop = Flag::listen(term, (!args.watching.watch).then_some(message))?;
    let Session { predictor, codec } = &mut session;
    let look = Look::of(&args.watching);
    let mut observer = Observer::new(look, &canvases, &codec.tokenizer, &codec.name, term);
    let summary = observer.follow(predictor, &mut canvases, &stop, |_| {});
    let seconds = observer.elapsed();
    let traced = observer.finish(term);
    let summary = summary?;
    if summary.interrupted {
        traced.unwrap_or_else(|failure| term.warn(&failure.to_string()));
        return Err(Interrupted.into());
    }

    for (canvas, Ask { prompt, .. }) in canvases.iter().zip(&prompts) {
        let text = session.text(canvas)?;
        if args.json || args.prompts.is_some() {
            term::answer(&json(&session.name, prompt, &text, canvas, seconds).to_string())?;
        } else {
            term::answer(&text)?;
        }
    }
    report(&summary, seconds, &sampler, term);
    Ok(traced?)
}

/// The model and the prompt that were given, as arguments or as flags.
fn operands(args: &Run) -> Result<(Option<PathBuf>, Option<String>)> {
    let words = [&args.first, &args.second].into_iter().flatten().cloned().collect();
    let is_given = args.prompt.is_some() || args.prompts.is_some();
    let (model, mut texts) = args.model.or_first(words, usize::from(!is_given))?;
    let text = texts.pop();
    if is_given && text.is_some() {
        let message = "two prompts were given";
        return Err(Failure::usage(message, "give one: as an argument or as a flag").into());
    }
    Ok((model, args.prompt.clone().or(text)))
}

/// Whether the prompt is sent as a message: where that was asked for, or the model was tuned for it.
fn is_chat(args: &Run, session: &Session, term: &Term) -> Result<bool> {
    if args.chat {
        session::note_base_model(session, term)?;
        return Ok(true);
    }
    let is_chat = !args.raw && session.is_for_chat()?;
    if is_chat {
        term.note(&format!(
            "`{}` has a chat template: the prompt is sent as a message; `--raw` continues it",
            session.name
        ));
    } else if args.system.is_some() {
        let message =
            format!("`{}` has no chat template, and so no place for `--system`", session.name);
        return Err(Failure::usage(message, "add `--chat` to use LLaDA's template").into());
    }
    Ok(is_chat)
}

fn json(model: &str, prompt: &str, text: &str, canvas: &Canvas, seconds: Duration) -> Value {
    let outcome = canvas.outcome();
    json!({
        "text": text,
        "tokens": canvas.useful(),
        "summary": {
            "model": model,
            "prompt": prompt,
            "prompt_tokens": canvas.prompt().tokens.len(),
            "useful_tokens": outcome.useful_tokens,
            "canvas_tokens": outcome.canvas_tokens,
            "masks_left": outcome.masks_left,
            "nfe": outcome.nfe,
            "tokens_per_forward": outcome.committed as f64 / outcome.nfe.max(1) as f64,
            "seconds": seconds.as_secs_f64(),
            "useful_tokens_per_second": outcome.useful_tokens as f64 / seconds.as_secs_f64(),
            "seed": canvas.sampler().seed,
            "sampler": canvas.sampler(),
        },
    })
}

/// The summary line, and a warning when the answer has holes.
fn report(summary: &generate::Summary, seconds: Duration, sampler: &Sampler, term: &Term) {
    let seconds = seconds.as_secs_f64();
    term.note(&format!(
        "{} NFE · {:.1} tok/forward · {} useful of {} canvas tokens · {} · {:.1} useful tok/s · seed {}",
        summary.nfe,
        summary.tokens_per_forward(),
        summary.useful_tokens,
        summary.canvas_tokens,
        units::duration(seconds),
        summary.useful_tokens as f64 / seconds.max(1e-9),
        sampler.seed,
    ));
    if summary.masks_left > 0 {
        let cause = match sampler.exact {
            true => "; the model predicted the mask itself, which `--preset balanced` forbids",
            false => "",
        };
        term.warn(&format!("{} positions are still masked{cause}", summary.masks_left));
    }
}
