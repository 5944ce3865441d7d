//! Follows a generation step by step: the drawn canvas or the status line, and the trace.

use std::{
    cell::RefCell, collections::HashMap, fs::File, io::BufWriter, ops::ControlFlow, path::Path,
    time::Instant,
};

use anyhow::{Context, Result};
use llada::{
    diffusion::{
        Canvas, Step,
        generate::{self, Summary},
        trace::{Header, Writer},
    },
    model::MaskPredictor,
    tokenizer::Tokenizer,
};

use crate::{
    interrupt::Flag,
    term::{Level, Term},
    view::{
        canvas::Painter,
        progress::{self, Generation},
        scene::Scene,
    },
};

/// Everything that looks on.
pub struct Observer<'a> {
    texts: Texts<'a>,
    /// The canvas and its painter, when it is watched.
    picture: Option<(Scene, Painter)>,
    status: progress::Bar,
    trace: Option<Trace<'a>>,
    progress: Vec<Progress>,
    begun: Instant,
}

/// What is to be looked at.
#[derive(Debug, Clone, Copy)]
pub struct Look<'a> {
    /// Draw the canvas of the first row.
    pub watch: bool,
    /// Leave out its prompt.
    pub response_only: bool,
    /// Record the first row in this file.
    pub trace: Option<&'a Path>,
}

/// How far one row is.
#[derive(Clone)]
struct Progress {
    steps_per_block: usize,
    blocks: usize,
    last: Generation,
}

type Text<'a> = Box<dyn FnMut(u32) -> Option<String> + 'a>;

struct Trace<'a> {
    path: &'a Path,
    writer: Writer<BufWriter<File>, Text<'a>>,
}

impl<'a> Observer<'a> {
    /// Looks at `canvases` before the first step.
    pub fn new(
        look: Look<'a>,
        canvases: &[Canvas],
        tokenizer: &'a Tokenizer,
        model: &str,
        term: &Term,
    ) -> Result<Self> {
        let first = &canvases[0];
        let trace = match look.trace {
            Some(path) => Some(Trace::create(path, first, tokenizer, model)?),
            None => None,
        };
        let is_drawn = look.watch && term.interactive && term.level > Level::Quiet;
        if look.watch && !term.interactive {
            term.warn("stderr is not a terminal, so `--watch` draws nothing");
        }
        let prompt = &first.prompt().tokens;
        let length = match first.sampler().variable_length {
            Some(_) => first.tokens().len(),
            None => first.length(),
        };
        let scene = match look.response_only {
            true => Scene::response(prompt.len(), length),
            false => Scene::new(prompt, length, first.mask_token()),
        };
        let begun = Instant::now();
        let mut observer = Self {
            texts: Texts { tokenizer, memo: RefCell::default() },
            picture: is_drawn.then(|| (scene, Painter::new(*term))),
            status: if is_drawn { progress::Bar::hidden() } else { progress::status_line(term) },
            trace,
            progress: canvases.iter().map(|canvas| Progress::new(canvas, begun)).collect(),
            begun,
        };
        observer.show();
        Ok(observer)
    }

    /// Generates and looks on, until the canvases are done or `stop` is set; `also` is told of every
    /// step as well. What went wrong with looking on stops the run and is its failure.
    pub fn follow(
        &mut self,
        predictor: &mut MaskPredictor,
        canvases: &mut [Canvas],
        stop: &Flag,
        mut also: impl FnMut(&Step),
    ) -> Result<Summary> {
        let mut failure = None;
        let summary = generate::run(predictor, canvases, &mut |row, step| {
            also(step);
            failure = self.step(row, step).err();
            match stop.is_set() || failure.is_some() {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        });
        match failure {
            Some(failure) => Err(failure),
            None => Ok(summary?),
        }
    }

    /// Takes in one step of one row.
    fn step(&mut self, row: usize, step: &Step) -> Result<()> {
        self.progress[row].advance(step, self.begun);
        if row > 0 {
            return Ok(());
        }
        if let Some(trace) = &mut self.trace {
            trace.step(step)?;
        }
        if let Some((scene, _)) = &mut self.picture {
            scene.apply(step);
        }
        self.show();
        Ok(())
    }

    /// Leaves the last drawing on the terminal, and takes the status line away.
    pub fn finish(self) {
        self.status.finish_and_clear();
    }

    /// Takes everything away.
    pub fn erase(mut self) {
        if let Some((_, painter)) = &mut self.picture {
            painter.erase();
        }
        self.finish();
    }

    fn show(&mut self) {
        let status = progress::generation_line(&self.progress[0].last);
        match &mut self.picture {
            Some((scene, painter)) => {
                let texts = scene.texts(&|tokens| self.texts.decode(tokens));
                painter.paint(scene, &texts, &status);
            }
            None => self.status.set_message(status),
        }
    }
}

impl Progress {
    fn new(canvas: &Canvas, begun: Instant) -> Self {
        let (steps_per_block, blocks) = (canvas.steps_per_block(), canvas.block_count());
        let last = Generation {
            step: (0, steps_per_block * blocks),
            block: (1, blocks),
            nfe: 0,
            committed: 0,
            elapsed: begun.elapsed(),
        };
        Self { steps_per_block, blocks, last }
    }

    fn advance(&mut self, step: &Step, begun: Instant) {
        self.last = Generation {
            step: (step.step + 1, self.steps_per_block * self.blocks),
            block: (step.block + 1, self.blocks),
            nfe: step.nfe,
            committed: (self.last.committed + step.committed.len())
                .saturating_sub(step.remasked.len()),
            elapsed: begun.elapsed(),
        };
    }
}

impl<'a> Trace<'a> {
    fn create(
        path: &'a Path,
        canvas: &Canvas,
        tokenizer: &'a Tokenizer,
        model: &str,
    ) -> Result<Self> {
        let failed = || format!("cannot write `{}`", path.display());
        let out = BufWriter::new(File::create(path).with_context(failed)?);
        let text: Text<'a> = Box::new(|token| tokenizer.token(token));
        let writer = Writer::new(out, &Header::new(canvas, model), text).with_context(failed)?;
        Ok(Self { path, writer })
    }

    fn step(&mut self, step: &Step) -> Result<()> {
        let failed = || format!("cannot write `{}`", self.path.display());
        self.writer.step(step).with_context(failed)
    }
}

/// Texts of tokens; single ones are decoded once.
struct Texts<'a> {
    tokenizer: &'a Tokenizer,
    memo: RefCell<HashMap<u32, String>>,
}

impl Texts<'_> {
    fn decode(&self, tokens: &[u32]) -> String {
        let decoded = || self.tokenizer.decode(tokens, false).unwrap_or_default();
        match tokens {
            [token] => self.memo.borrow_mut().entry(*token).or_insert_with(decoded).clone(),
            _ => decoded(),
        }
    }
}
