//! An answer as it comes: printed piece by piece, or drawn as the canvas that it is unmasked on.

use std::{collections::HashMap, time::Instant};

use anyhow::Result;
use llada::diffusion::{
    Step,
    trace::{Header, Text},
};
use serde::Deserialize;
use serde_json::Value;

use crate::{
    commands::observer::Pace,
    interrupt::Flag,
    term::{self, Pieces, Term},
    view::{canvas::Painter, scene::Scene},
};

/// Cells of a canvas that is drawn, at most: a server may claim any number.
const MOST_CELLS: usize = 1 << 16;

/// An answer under way.
pub(super) struct Shown {
    text: String,
    /// Bytes of it that were printed.
    given: usize,
    pieces: Pieces,
    drawing: Option<Drawing>,
    pace: Pace,
    term: Term,
}

impl Shown {
    /// Nothing is shown before the first piece.
    pub(super) fn new(pace: Pace, term: Term) -> Self {
        let (text, pieces) = (String::new(), Pieces::default());
        Self { text, given: 0, pieces, drawing: None, pace, term }
    }

    /// Begins to draw the canvas that an event tells of. One that cannot be read is not drawn.
    pub(super) fn open(&mut self, event: &Value) {
        let header = Header::deserialize(&event["header"]).ok();
        self.drawing = header.and_then(|header| Drawing::new(&header, self.pace, self.term));
    }

    /// Draws a step of the canvas.
    pub(super) fn step(&mut self, event: &Value, stop: &Flag) {
        if let (Some(drawing), Ok(step)) = (&mut self.drawing, Step::deserialize(event)) {
            drawing.step(&step, stop);
        }
    }

    /// Takes in more of the text. White space at its ends is not printed.
    pub(super) fn push(&mut self, text: &str) -> Result<()> {
        self.text.push_str(text);
        let begin = self.text.len() - self.text.trim_start().len();
        let (from, to) = (self.given.max(begin), self.text.trim_end().len());
        if self.drawing.is_none() && from < to {
            self.pieces.push(&self.text[from..to])?;
            self.given = to;
        }
        Ok(())
    }

    /// Whether there is a first word.
    pub(super) fn has_words(&self) -> bool {
        !self.text.trim().is_empty()
    }

    /// Ends the line and gives its text; what was drawn gives way to the text if that `is_answer`.
    pub(super) fn end(mut self, is_answer: bool) -> Result<String> {
        let text = self.text.trim().to_owned();
        match self.drawing.take() {
            Some(mut drawing) => {
                drawing.painter.erase();
                if is_answer {
                    term::answer(&text)?;
                }
            }
            None if is_answer || self.given > 0 => self.pieces.push("\n")?,
            None => {}
        }
        Ok(text)
    }
}

/// A canvas that is drawn.
struct Drawing {
    scene: Scene,
    painter: Painter,
    /// Where the response begins.
    first: usize,
    texts: HashMap<u32, Text>,
    committed: usize,
    pace: Pace,
    drawn: Instant,
}

impl Drawing {
    fn new(header: &Header, pace: Pace, term: Term) -> Option<Self> {
        let (first, sampler) = (header.prompt.len(), &header.sampler);
        let length = match sampler.variable_length {
            Some(_) => header.length.min(first + sampler.initial_length()),
            None => header.length,
        };
        if length > MOST_CELLS {
            return None;
        }
        let (scene, painter) = (Scene::response(first, length), Painter::new(term));
        let (texts, committed, drawn) = (HashMap::new(), 0, Instant::now());
        let mut drawing = Self { scene, painter, first, texts, committed, pace, drawn };
        drawing.paint(0);
        Some(drawing)
    }

    fn step(&mut self, step: &Step, stop: &Flag) {
        for commit in &step.committed {
            if let Some(text) = &commit.text {
                self.texts.insert(commit.token, text.clone());
            }
        }
        // An answer that does not end on its canvas goes on with another.
        let ends = step.committed.iter().map(|commit| commit.position.saturating_add(1));
        let length = ends.max().unwrap_or(0).saturating_sub(self.first);
        if length <= MOST_CELLS {
            self.scene.grow(length);
        }
        self.scene.apply(step);
        self.committed =
            (self.committed + step.committed.len()).saturating_sub(step.remasked.len());
        self.paint(step.nfe);
        let least = self.pace.least(step.committed.len(), self.scene.cells.len());
        stop.wait(least.saturating_sub(self.drawn.elapsed()));
        self.drawn = Instant::now();
    }

    fn paint(&mut self, nfe: usize) {
        let texts = self.scene.texts(&|tokens| decode(&self.texts, tokens));
        let rate = self.committed as f64 / nfe.max(1) as f64;
        let status = format!("step {} · {nfe} NFE · {rate:.1} tok/forward", self.scene.step);
        self.painter.paint(&self.scene, &texts, &status);
    }
}

/// The text of tokens whose texts came with them.
fn decode(texts: &HashMap<u32, Text>, tokens: &[u32]) -> String {
    let known = tokens.iter().filter_map(|token| texts.get(token));
    let bytes: Vec<u8> = known.flat_map(|text| text.as_bytes().iter().copied()).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}
