//! `llada run`: a prompt in, the answer on stdout.

pub(super) mod observer;
mod prompts;
mod recording;
pub(super) mod settings;

use std::time::{Duration, Instant};

use anyhow::Result;
use llada::{
    chat::Message,
    diffusion::{Canvas, Sampler, generate},
    tokenizer::Tokenizer,
};
use serde_json::{Value, json};

use super::argument_or_stdin;
use crate::{
    args::Run,
    error::Interrupted,
    interrupt::Flag,
    locate::Shipped,
    session::Session,
    term::{self, Term},
    view::units,
};
use observer::{Look, Observer};
use prompts::Ask;

/// Generates, and prints the answer and, on stderr, the summary.
pub fn run(mut args: Run, term: &Term) -> Result<()> {
    let prompts = match &args.prompts {
        Some(file) => prompts::read(file)?,
        None => vec![Ask::from(argument_or_stdin(args.prompt.clone(), "prompt")?)],
    };
    let mut session = Session::open(
        args.model.model.as_deref(),
        Shipped::for_chat(args.chat),
        args.threads.threads.into(),
        term,
    )?;
    let system = args.system.as_ref().map(|text| Message::new("system", text));
    let encode = |ask: &Ask| match args.chat {
        true => {
            let user = Message::new("user", &ask.prompt);
            session.encode_chat(&system.iter().cloned().chain([user]).collect::<Vec<_>>())
        }
        false => session.encode(&ask.prompt),
    };
    let rows = prompts.iter().map(encode).collect::<Result<Vec<_>>>()?;
    if args.chat {
        session.note_base_model(term)?;
    }
    args.sampler.delimiters = session.delimiters(&args.sampler);
    let sampler = settings::sampler(&args.sampler, &session.predictor.model().config, &rows)?;
    term.detail(&format!("sampler {}", serde_json::to_string(&sampler)?));
    let canvas = |(tokens, ask): (Vec<u32>, &Ask)| {
        let seed = ask.seed.unwrap_or(sampler.seed);
        session.canvas(tokens, &Sampler { seed, ..sampler.clone() })
    };
    let mut canvases = rows.into_iter().zip(&prompts).map(canvas).collect::<Result<Vec<_>>>()?;

    let message = "finishing the step; press Ctrl-C again to quit now";
    let stop = Flag::listen(term, (!args.watch).then_some(message))?;
    let begun = Instant::now();
    let (predictor, tokenizer) = (&mut session.predictor, &session.tokenizer);
    let look = Look { watch: args.watch, response_only: false, trace: args.trace.as_deref() };
    let mut observer = Observer::new(look, &canvases, tokenizer, &session.name, term)?;
    let summary = observer.follow(predictor, &mut canvases, &stop, |_| {});
    let traced = observer.finish();
    let summary = summary?;
    if summary.interrupted {
        traced.unwrap_or_else(|failure| term.warn(&failure.to_string()));
        return Err(Interrupted.into());
    }
    let seconds = begun.elapsed();

    for (canvas, Ask { prompt, .. }) in canvases.iter().zip(&prompts) {
        let text = text(canvas, &session.tokenizer)?;
        if args.json {
            term::answer(&json(&session.name, prompt, &text, canvas, seconds).to_string())?;
        } else {
            term::answer(&text)?;
        }
    }
    report(&summary, seconds, &sampler, term);
    Ok(traced?)
}

/// The answer. A prompt with masks in it is a template to fill: the answer is the whole of it.
fn text(canvas: &Canvas, tokenizer: &Tokenizer) -> Result<String> {
    let mask = canvas.mask_token();
    let is_template = canvas.prompt().tokens.iter().any(|&t| Some(t) == mask);
    let filled = match is_template {
        true => &canvas.tokens()[..canvas.prompt().tokens.len()],
        false => &[],
    };
    let tokens: Vec<u32> = filled.iter().chain(canvas.useful()).copied().collect();
    Ok(tokenizer.decode(&tokens, true)?)
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
