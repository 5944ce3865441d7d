//! The trace of a run, written beside its place and put there when it is over: an earlier trace stays
//! as it was until then, and whatever happens to this one costs nobody the answer.

use std::{fs::File, io::Read, path::Path};

use llada::{
    diffusion::{
        Canvas, Step,
        trace::{Header, Text, Writer},
    },
    files::{Output, Replacement},
    tokenizer::Tokenizer,
};

use crate::error::Failure;

type TraceWriter<'a> = Writer<Replacement, Box<dyn FnMut(u32) -> Option<Text> + 'a>>;

/// A trace that is being written, or why it no longer is.
pub(super) struct Recording<'a> {
    path: &'a Path,
    writer: Result<TraceWriter<'a>, Failure>,
    /// Held by this process alone.
    _held: Option<Output>,
}

impl<'a> Recording<'a> {
    /// Begins the trace of `canvas`. What goes wrong is told by [`Recording::finish`].
    pub(super) fn begin(
        path: &'a Path,
        canvas: &Canvas,
        tokenizer: &'a Tokenizer,
        model: &str,
    ) -> Self {
        let header = Header::new(canvas, model);
        let mut held = None;
        let mut begin = || {
            held = Some(Output::lock(path)?);
            let text = move |token| tokenizer.token_bytes(token).map(Text::from);
            let writer = Writer::new(Replacement::create(path)?, &header, Box::new(text) as _);
            writer.map_err(|source| failed(path, source))
        };
        let writer = if is_other(path) {
            let message = format!("there is no trace: `{}` is no trace, and stays", path.display());
            Err(Failure::new(message, "give another file to `--trace`"))
        } else {
            begin().map_err(failure)
        };
        Self { path, writer, _held: held }
    }

    /// Why nothing is written, if nothing is.
    pub(super) fn failure(&self) -> Option<&Failure> {
        self.writer.as_ref().err()
    }

    pub(super) fn step(&mut self, step: &Step) {
        if let Ok(writer) = &mut self.writer
            && let Err(source) = writer.step(step)
        {
            self.writer = Err(failure(failed(self.path, source)));
        }
    }

    /// Puts the trace, as far as it goes, in its place.
    pub(super) fn finish(self) -> Result<(), Failure> {
        self.writer?.into_inner().commit().map_err(failure)
    }
}

/// Whether a file is there that is no text, such as the weights of a model, and so is no trace.
fn is_other(path: &Path) -> bool {
    let mut begin = Vec::new();
    let is_file = path.metadata().is_ok_and(|kind| kind.is_file());
    let read =
        is_file && File::open(path).is_ok_and(|f| f.take(4096).read_to_end(&mut begin).is_ok());
    read && begin.contains(&0)
}

fn failed(path: &Path, source: std::io::Error) -> llada::Error {
    llada::Error::Io { action: "write", path: path.to_owned(), source }
}

fn failure(error: llada::Error) -> Failure {
    let hint = error.hint().unwrap_or_else(|| "give another file to `--trace`".into());
    Failure::new(format!("there is no trace: {error}"), hint)
}
