//! Follows a generation step by step: the drawn canvas or the status line, and the trace.

mod recording;

use std::{
    cell::RefCell,
    collections::HashMap,
    ops::ControlFlow,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Result;
use llada::{
    diffusion::{
        Canvas, Step,
        generate::{self, Summary},
    },
    model::MaskPredictor,
    tokenizer::Tokenizer,
};

use crate::{
    args::WatchArgs,
    error::Failure,
    interrupt::Flag,
    keys::Silence,
    term::{Level, Term},
    view::{
        canvas::Painter,
        progress::{self, Generation},
        scene::Scene,
    },
};
use recording::Recording;

/// Everything that looks on.
pub struct Observer<'a> {
    texts: Texts<'a>,
    /// The canvas and its painter, when it is watched.
    picture: Option<(Scene, Painter)>,
    status: progress::Bar,
    trace: Option<Recording<'a>>,
    progress: Vec<Progress>,
    begun: Instant,
    pace: Pace,
    /// Tokens of the response that is drawn.
    length: usize,
    /// When it was last drawn.
    drawn: Instant,
    /// How long it was waited in all, so that people see what is drawn.
    waited: Duration,
    /// Nobody's keys are written over what is drawn.
    _silence: Option<Silence>,
}

/// What is to be looked at.
#[derive(Debug, Clone, Copy)]
pub struct Look<'a> {
    /// Draw the canvas of the first sequence.
    pub watch: bool,
    /// Leave out its prompt.
    pub response_only: bool,
    /// How long what is drawn stays.
    pub pace: Pace,
    /// Record the first sequence in this file. That it cannot be written is told, and stops nothing.
    pub trace: Option<&'a Path>,
}

impl<'a> Look<'a> {
    /// What flags ask for, over whole sequences.
    pub fn of(flags: &'a WatchArgs) -> Self {
        let trace = flags.trace.as_deref();
        Self { watch: flags.watch, response_only: false, pace: Pace::of(flags.delay), trace }
    }
}

/// How long a drawn step stays at least. Where nothing is drawn, nothing waits.
#[derive(Debug, Clone, Copy)]
pub enum Pace {
    /// Each step as long.
    Step(Duration),
    /// As many tokens, as long: this is the time of a whole response.
    Response(Duration),
}

impl Pace {
    /// So many milliseconds for each step; without them, long enough in all to be watched.
    pub fn of(delay: Option<u32>) -> Self {
        match delay {
            Some(delay) => Self::Step(Duration::from_millis(delay.into())),
            None => Self::Response(Duration::from_secs(3)),
        }
    }

    /// The least time of a step that commits `tokens` of a response of `length`.
    pub fn least(self, tokens: usize, length: usize) -> Duration {
        match self {
            Self::Step(time) => time,
            Self::Response(time) => time.mul_f64(tokens.min(length) as f64 / length.max(1) as f64),
        }
    }
}

/// How far one sequence is.
#[derive(Clone)]
struct Progress {
    steps_per_block: usize,
    blocks: usize,
    last: Generation,
}

impl<'a> Observer<'a> {
    /// Looks at `canvases` before the first step.
    pub fn new(
        look: Look<'a>,
        canvases: &[Canvas],
        tokenizer: &'a Tokenizer,
        model: &str,
        term: &Term,
    ) -> Self {
        let first = &canvases[0];
        let begin = |path| Recording::begin(path, first, tokenizer, model);
        let trace = look.trace.map(begin);
        if let Some(failure) = trace.as_ref().and_then(Recording::failure) {
            term.warn(&failure.to_string());
        }
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
            progress: canvases.iter().map(Progress::new).collect(),
            begun,
            pace: look.pace,
            length: first.length().saturating_sub(prompt.len()),
            drawn: begun,
            waited: Duration::ZERO,
            _silence: (term.interactive && term.level > Level::Quiet).then(Silence::new),
        };
        observer.show();
        observer
    }

    /// Generates and looks on, until the canvases are done or `stop` is set; `also` is told of every
    /// step as well.
    pub fn follow(
        &mut self,
        predictor: &mut MaskPredictor,
        canvases: &mut [Canvas],
        stop: &Flag,
        mut also: impl FnMut(&Step),
    ) -> Result<Summary> {
        let summary = generate::run(predictor, canvases, &mut |sequence, step| {
            also(step);
            self.step(sequence, step);
            if sequence == 0 {
                self.pause(step.committed.len(), stop);
            }
            match stop.is_set() {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        });
        Ok(summary?)
    }

    /// Takes in one step of one sequence.
    fn step(&mut self, sequence: usize, step: &Step) {
        let elapsed = self.elapsed();
        self.progress[sequence].advance(step, elapsed);
        if sequence > 0 {
            return;
        }
        if let Some(trace) = &mut self.trace {
            trace.step(step);
        }
        if let Some((scene, _)) = &mut self.picture {
            scene.apply(step);
        }
        self.show();
    }

    /// The time since the first step began, without that for which people were waited for.
    pub fn elapsed(&self) -> Duration {
        self.begun.elapsed().saturating_sub(self.waited)
    }

    /// Lets people look at what was drawn.
    fn pause(&mut self, tokens: usize, stop: &Flag) {
        if self.picture.is_some() {
            let least = self.pace.least(tokens, self.length);
            let begun = Instant::now();
            stop.wait(least.saturating_sub(self.drawn.elapsed()));
            self.waited += begun.elapsed();
            self.drawn = Instant::now();
        }
    }

    /// Takes the status line away, and puts the trace in its place; the failure is that of the
    /// trace. The last drawing stays, unless the answer is printed to the same terminal.
    pub fn finish(mut self, term: &Term) -> Result<(), Failure> {
        if term.shows_answers() {
            self.clear();
        }
        self.end()
    }

    /// Takes everything away, and finishes.
    pub fn erase(mut self) -> Result<(), Failure> {
        self.clear();
        self.end()
    }

    fn clear(&mut self) {
        if let Some((_, painter)) = &mut self.picture {
            painter.erase();
        }
    }

    fn end(self) -> Result<(), Failure> {
        self.status.finish_and_clear();
        self.trace.map_or(Ok(()), Recording::finish)
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
    fn new(canvas: &Canvas) -> Self {
        let (steps_per_block, blocks) = (canvas.steps_per_block(), canvas.block_count());
        let last = Generation {
            step: (0, steps_per_block * blocks),
            block: (1, blocks),
            nfe: 0,
            committed: 0,
            elapsed: Duration::ZERO,
        };
        Self { steps_per_block, blocks, last }
    }

    fn advance(&mut self, step: &Step, elapsed: Duration) {
        self.last = Generation {
            step: (step.step + 1, self.steps_per_block * self.blocks),
            block: (step.block + 1, self.blocks),
            nfe: step.nfe,
            committed: (self.last.committed + step.committed.len())
                .saturating_sub(step.remasked.len()),
            elapsed,
        };
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_response_takes_its_time_whatever_its_steps() {
        let second = Duration::from_secs(1);
        for tokens in [1, 5, 25] {
            let steps = 100 / tokens;
            let whole = Pace::Response(second).least(tokens, 100) * steps as u32;
            assert_eq!(whole, second);
        }
        assert_eq!(Pace::Step(second).least(7, 100), second);
        assert_eq!(Pace::Response(second).least(7, 0), Duration::ZERO);
        assert!(matches!(Pace::of(Some(4)), Pace::Step(d) if d.as_millis() == 4));
    }
}
