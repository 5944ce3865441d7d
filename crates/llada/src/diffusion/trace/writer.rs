//! Traces, written.

use std::io::{self, Write};

use serde::Serialize;

use super::{Header, Step, Text};

/// Writes a trace.
#[derive(Debug)]
pub struct Writer<W, F> {
    out: W,
    text: F,
}

impl<W: Write, F: FnMut(u32) -> Option<Text>> Writer<W, F> {
    /// Begins a trace. `text` gives the text of a token; `|_| None` leaves texts out.
    ///
    /// # Errors
    /// If `out` fails.
    pub fn new(out: W, header: &Header, text: F) -> io::Result<Self> {
        let mut writer = Self { out, text };
        let mut header = header.clone();
        if header.prompt_text.is_none() {
            header.prompt_text = header.prompt.iter().map(|&t| (writer.text)(t)).collect();
        }
        writer.line(&header)?;
        Ok(writer)
    }

    /// Writes one step and flushes, so that a trace can be watched and survives an interruption.
    ///
    /// # Errors
    /// If `out` fails.
    pub fn step(&mut self, step: &Step) -> io::Result<()> {
        let mut step = step.clone();
        for commit in step.committed.iter_mut().filter(|commit| commit.text.is_none()) {
            commit.text = (self.text)(commit.token);
        }
        self.line(&step)
    }

    /// What was written to, at the end of the trace.
    pub fn into_inner(self) -> W {
        self.out
    }

    fn line(&mut self, value: &impl Serialize) -> io::Result<()> {
        let mut line = serde_json::to_vec(value)?;
        line.push(b'\n');
        self.out.write_all(&line)?;
        self.out.flush()
    }
}
