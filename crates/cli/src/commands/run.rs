//! `llada run`: a prompt in, the answer on stdout.

mod observer;
mod settings;

use std::{
    ops::ControlFlow,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use llada::{
    chat::{Message, Template},
    checkpoint,
    config::SpecialTokens,
    diffusion::{Canvas, Prompt, Sampler, generate},
    model::MaskPredictor,
    tokenizer::Tokenizer,
};
use llada_kernels::Cpu;
use serde_json::{Value, json};

use super::argument_or_stdin;
use crate::{
    args::Run,
    error::{Failure, Interrupted},
    interrupt::Flag,
    locate,
    term::{self, Term},
    view::units,
};
use observer::Observer;

/// Generates, and prints the answer and, on stderr, the summary.
pub fn run(args: Run, term: &Term) -> Result<()> {
    let prompts = match &args.prompts {
        Some(file) => lines(file)?,
        None => vec![argument_or_stdin(args.prompt.clone(), "prompt")?],
    };
    let mut session = Session::open(&args, term)?;
    let rows = prompts.iter().map(|p| session.encode(p, args.chat)).collect::<Result<Vec<_>>>()?;
    let sampler = settings::sampler(&args.sampler, &session.predictor.model().config, &rows)?;
    term.detail(&format!("sampler {}", serde_json::to_string(&sampler)?));
    let mut canvases = session.canvases(rows, &sampler)?;

    let message = "finishing the step; press Ctrl-C again to quit now";
    let stop = Flag::listen(term, (!args.watch).then_some(message))?;
    let begun = Instant::now();
    let (predictor, tokenizer) = (&mut session.predictor, &session.tokenizer);
    let mut observer = Observer::new(&args, &canvases, tokenizer, &session.name, term)?;
    let mut failure = None;
    let summary = generate::run(predictor, &mut canvases, &mut |row, step| {
        failure = observer.step(row, step).err();
        match stop.is_set() || failure.is_some() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    });
    observer.finish();
    if let Some(failure) = failure {
        return Err(failure);
    }
    let summary = summary?;
    if summary.interrupted {
        return Err(Interrupted.into());
    }
    let seconds = begun.elapsed();

    for (canvas, prompt) in canvases.iter().zip(&prompts) {
        let text = session.text(canvas)?;
        if args.json {
            term::answer(&session.json(prompt, &text, canvas, seconds).to_string())?;
        } else {
            term::answer(&text)?;
        }
    }
    report(&summary, seconds, &sampler, term);
    Ok(())
}

/// The prompts of a file, one on each line.
fn lines(file: &Path) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("cannot read `{}`", file.display()))?;
    let prompts: Vec<String> = text.lines().map(str::to_owned).collect();
    if prompts.is_empty() {
        let message = format!("`{}` has no prompts", file.display());
        return Err(Failure::new(message, "write one prompt on each line").into());
    }
    Ok(prompts)
}

/// A model ready to answer.
struct Session {
    name: String,
    tokenizer: Tokenizer,
    template: Option<Template>,
    special: SpecialTokens,
    predictor: MaskPredictor,
}

impl Session {
    fn open(args: &Run, term: &Term) -> Result<Self> {
        let dir = locate::model(args.model.model.as_deref())?;
        let tokenizer = Tokenizer::from_dir(&dir)?;
        let template = match args.chat {
            true => Some(Template::from_dir(&dir)?),
            false => None,
        };
        let begun = Instant::now();
        let model = checkpoint::load(&dir)?;
        tokenizer.check(&model.config)?;
        let special = checkpoint::special_tokens(&model.config, Some(&tokenizer));
        let cpu = Cpu::new(args.threads.threads.into())?;
        term.detail(&format!(
            "{}: {} parameters, loaded in {}; kernels {}, {} threads",
            dir.display(),
            units::count(model.config.parameters() as u64),
            units::duration(begun.elapsed().as_secs_f64()),
            cpu.isa(),
            cpu.threads()
        ));
        let name = dir.canonicalize().unwrap_or(dir);
        let name = name.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
        let predictor = MaskPredictor::new(model, cpu)?;
        Ok(Self { name, tokenizer, template, special, predictor })
    }

    /// The tokens that the response follows. A base model continues the text as it is; an empty
    /// text is the beginning of a document, where training has an end of text.
    fn encode(&self, prompt: &str, chat: bool) -> Result<Vec<u32>> {
        match &self.template {
            Some(template) if chat => {
                let text = template.render(&[Message::new("user", prompt)], true)?;
                Ok(self.tokenizer.encode(&text)?)
            }
            _ if prompt.is_empty() => Ok(self.special.eos.into_iter().collect()),
            _ => Ok(self.tokenizer.encode(prompt)?),
        }
    }

    fn canvases(&self, rows: Vec<Vec<u32>>, sampler: &Sampler) -> Result<Vec<Canvas>> {
        let objective = self.predictor.model().config.objective;
        let canvas = |(row, tokens): (usize, Vec<u32>)| {
            Ok(Canvas::new(Prompt::from(tokens), sampler, &self.special, objective, row as u64)
                .map_err(llada::Error::from)?)
        };
        rows.into_iter().enumerate().map(canvas).collect()
    }

    /// The answer. A prompt with masks in it is a template to fill: the answer is the whole of it.
    fn text(&self, canvas: &Canvas) -> Result<String> {
        let mask = canvas.mask_token();
        let is_template = canvas.prompt().tokens.iter().any(|&t| Some(t) == mask);
        let filled = match is_template {
            true => &canvas.tokens()[..canvas.prompt().tokens.len()],
            false => &[],
        };
        let tokens: Vec<u32> = filled.iter().chain(canvas.useful()).copied().collect();
        Ok(self.tokenizer.decode(&tokens, true)?)
    }

    fn json(&self, prompt: &str, text: &str, canvas: &Canvas, seconds: Duration) -> Value {
        let outcome = canvas.outcome();
        json!({
            "text": text,
            "tokens": canvas.useful(),
            "summary": {
                "model": self.name,
                "prompt": prompt,
                "prompt_tokens": canvas.prompt().tokens.len(),
                "useful_tokens": outcome.useful_tokens,
                "canvas_tokens": outcome.canvas_tokens,
                "masks_left": outcome.masks_left,
                "nfe": outcome.nfe,
                "tokens_per_forward": outcome.committed as f64 / outcome.nfe.max(1) as f64,
                "seconds": seconds.as_secs_f64(),
                "useful_tokens_per_second": outcome.useful_tokens as f64 / seconds.as_secs_f64(),
                "sampler": canvas.sampler(),
            },
        })
    }
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
            true => "; the model predicted the mask itself, which `--preset default` forbids",
            false => "",
        };
        term.warn(&format!("{} positions are still masked{cause}", summary.masks_left));
    }
}
