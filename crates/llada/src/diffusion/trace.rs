//! What happened in each step: the one event that every viewer consumes, and its file format.
//!
//! A trace is JSON Lines. The first line is the [`Header`], each further line a [`Step`]. With the
//! text of the tokens written along, a replay needs neither model nor tokenizer.

use std::io::{self, BufRead, Read, Write};

use serde::{Deserialize, Serialize};

use super::{Canvas, Sampler};

/// Version of the format that is written, and the only one that is read.
pub const VERSION: u32 = 1;
/// Longest line that is read, in bytes.
const MAX_LINE: u64 = 16 << 20;
/// Longest canvas that is read, in tokens.
const MAX_LENGTH: usize = 1 << 22;

/// A token that stopped being a mask.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Commit {
    /// Position in the row.
    pub position: usize,
    /// The token.
    pub token: u32,
    /// Its probability under the model, among the tokens that counted.
    pub confidence: f32,
    /// Its text, in traces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

/// What one step changed in one row.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Forward passes of this row so far, this one included.
    pub nfe: usize,
    /// Index of the step in the schedule; steps that would commit nothing are passed over.
    pub step: usize,
    /// Index of the block.
    pub block: usize,
    /// Tokens that stopped being masks, by position.
    pub committed: Vec<Commit>,
    /// Positions that became masks again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remasked: Vec<usize>,
    /// Positions, in ascending order, of masks that were then put into the row: what stood there
    /// moves on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inserted: Vec<usize>,
    /// How many of the row's first tokens can no longer change.
    pub stable: usize,
}

/// What a trace is about.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// Version of the format.
    pub llada_trace: u32,
    /// Version of the program that wrote it.
    pub program: String,
    /// Name of the model.
    pub model: String,
    /// The settings, seed included.
    pub sampler: Sampler,
    /// The mask token, if the model has one.
    pub mask: Option<u32>,
    /// Tokens of the prompt.
    pub prompt: Vec<u32>,
    /// Their texts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt_text: Option<Vec<String>>,
    /// Length of the row when its response is full: the most that it can have.
    pub length: usize,
}

impl Header {
    /// The header for a fresh `canvas` of the model that goes by the name of `model`.
    pub fn new(canvas: &Canvas, model: &str) -> Self {
        Self {
            llada_trace: VERSION,
            program: concat!("llada ", env!("CARGO_PKG_VERSION")).into(),
            model: model.into(),
            sampler: canvas.sampler().clone(),
            mask: canvas.mask_token(),
            prompt: canvas.prompt().tokens.clone(),
            prompt_text: None,
            length: canvas.length(),
        }
    }
}

/// Why a trace cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TraceError {
    /// The input fails.
    #[error("line {line}: {source}")]
    Io {
        /// Line number from 1.
        line: usize,
        /// The system's reason.
        source: io::Error,
    },
    /// A line is too long to be one of a trace.
    #[error("line {line} is longer than {MAX_LINE} bytes")]
    LineTooLong {
        /// Line number from 1.
        line: usize,
    },
    /// A line is not what the format says.
    #[error("line {line}: {message}")]
    Syntax {
        /// Line number from 1.
        line: usize,
        /// What is wrong with it.
        message: String,
    },
    /// The trace is of a format that this version does not read.
    #[error("the trace has format version {found}; this program reads version {VERSION}")]
    Version {
        /// Version found.
        found: u32,
    },
    /// The row is too long, or shorter than its own prompt.
    #[error("the header gives a row of {length} tokens for a prompt of {prompt}")]
    Length {
        /// Length found.
        length: usize,
        /// Tokens of the prompt.
        prompt: usize,
    },
    /// A step speaks of a position that the row does not have.
    #[error("line {line}: position {position} is outside the row of {length} tokens")]
    Position {
        /// Line number from 1.
        line: usize,
        /// The position.
        position: usize,
        /// Length of the row.
        length: usize,
    },
}

impl TraceError {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Version { .. } => "replay it with the version that wrote it".into(),
            Self::Syntax { line: 1, .. } => "give a file written with --trace".into(),
            _ => return None,
        })
    }
}

/// Writes a trace.
#[derive(Debug)]
pub struct Writer<W, F> {
    out: W,
    text: F,
}

impl<W: Write, F: FnMut(u32) -> Option<String>> Writer<W, F> {
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

    fn line(&mut self, value: &impl Serialize) -> io::Result<()> {
        let mut line = serde_json::to_vec(value)?;
        line.push(b'\n');
        self.out.write_all(&line)?;
        self.out.flush()
    }
}

/// Reads a trace, step by step, up to the first error; nothing in it is trusted.
#[derive(Debug)]
pub struct Reader<R> {
    input: R,
    line: usize,
    header: Header,
    failed: bool,
}

impl<R: BufRead> Reader<R> {
    /// Reads the header.
    ///
    /// # Errors
    /// If the input fails or is no trace of this version.
    pub fn new(mut input: R) -> Result<Self, TraceError> {
        /// Read first, because another version may have other fields.
        #[derive(Deserialize)]
        struct Version {
            llada_trace: u32,
        }
        let text = read_line(&mut input, 1)?.unwrap_or_default();
        let Version { llada_trace: found } = parse(&text, 1)?;
        if found != VERSION {
            return Err(TraceError::Version { found });
        }
        let header: Header = parse(&text, 1)?;
        let (length, prompt) = (header.length, header.prompt.len());
        if length > MAX_LENGTH || prompt > length {
            return Err(TraceError::Length { length, prompt });
        }
        Ok(Self { input, line: 1, header, failed: false })
    }

    /// The header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    fn next_step(&mut self) -> Result<Option<Step>, TraceError> {
        self.line += 1;
        let line = self.line;
        let Some(text) = read_line(&mut self.input, line)? else { return Ok(None) };
        let step: Step = parse(&text, line)?;
        let length = self.header.length;
        let committed = step.committed.iter().map(|commit| commit.position);
        // `stable` counts tokens, so the length itself is within.
        let last_stable = step.stable.saturating_sub(1);
        let positions = committed.chain(step.remasked.iter().chain(&step.inserted).copied());
        let mut positions = positions.chain([last_stable]);
        match positions.find(|&position| position >= length) {
            Some(position) => Err(TraceError::Position { line, position, length }),
            None => Ok(Some(step)),
        }
    }
}

impl<R: BufRead> Iterator for Reader<R> {
    type Item = Result<Step, TraceError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let step = self.next_step();
        self.failed = step.is_err();
        step.transpose()
    }
}

fn parse<'a, T: Deserialize<'a>>(text: &'a [u8], line: usize) -> Result<T, TraceError> {
    serde_json::from_slice(text).map_err(|e| TraceError::Syntax { line, message: e.to_string() })
}

/// The next line, its end included; `None` at the end of the input.
fn read_line(input: &mut impl BufRead, line: usize) -> Result<Option<Vec<u8>>, TraceError> {
    let mut text = Vec::new();
    let limited = &mut input.take(MAX_LINE + 1);
    limited.read_until(b'\n', &mut text).map_err(|source| TraceError::Io { line, source })?;
    if text.len() as u64 > MAX_LINE {
        return Err(TraceError::LineTooLong { line });
    }
    Ok((!text.is_empty()).then_some(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            llada_trace: VERSION,
            program: "llada 0.0.0".into(),
            model: "tiny".into(),
            sampler: Sampler::exact(),
            mask: Some(9),
            prompt: vec![1, 2],
            prompt_text: None,
            length: 5,
        }
    }

    fn step(position: usize) -> Step {
        let commit = Commit { position, token: 7, confidence: 0.25, text: None };
        Step {
            nfe: 1,
            step: 0,
            block: 0,
            committed: vec![commit],
            remasked: vec![],
            inserted: vec![],
            stable: 3,
        }
    }

    fn written(steps: &[Step], text: impl FnMut(u32) -> Option<String>) -> Vec<u8> {
        let mut out = Vec::new();
        let mut writer = Writer::new(&mut out, &header(), text).unwrap();
        steps.iter().for_each(|step| writer.step(step).unwrap());
        out
    }

    /// The first error of reading `steps` after a good header.
    fn complaint(steps: &str) -> String {
        let mut input = written(&[], |_| None);
        input.extend_from_slice(steps.as_bytes());
        let mut reader = Reader::new(&input[..]).unwrap();
        let error = reader.by_ref().find_map(Result::err).expect("an error");
        assert!(reader.next().is_none(), "nothing is read after an error");
        error.to_string()
    }

    #[test]
    fn what_is_written_is_read() {
        let steps = [step(2), Step { remasked: vec![3], inserted: vec![3, 4], ..step(4) }];
        let input = written(&steps, |_| None);
        let reader = Reader::new(&input[..]).unwrap();
        assert_eq!(reader.header(), &header());
        assert_eq!(reader.collect::<Result<Vec<_>, _>>().unwrap(), steps);
    }

    #[test]
    fn texts_travel_along() {
        let input = written(&[step(2)], |token| Some(format!("<{token}>")));
        let mut reader = Reader::new(&input[..]).unwrap();
        assert_eq!(reader.header().prompt_text, Some(vec!["<1>".into(), "<2>".into()]));
        assert_eq!(reader.next().unwrap().unwrap().committed[0].text.as_deref(), Some("<7>"));
        assert!(reader.next().is_none());
    }

    #[test]
    fn a_bad_step_is_named_by_its_line() {
        let good = serde_json::to_string(&step(2)).unwrap();
        let outside = good.replace("\"position\":2", "\"position\":5");
        assert_eq!(
            complaint(&format!("{good}\n{outside}\n")),
            "line 3: position 5 is outside the row of 5 tokens"
        );
        let unstable = good.replace("\"stable\":3", "\"stable\":7");
        assert!(complaint(&unstable).contains("position 6"));
        let remasked = serde_json::to_string(&Step { remasked: vec![5], ..step(2) }).unwrap();
        assert!(complaint(&remasked).contains("position 5"));
        let inserted = serde_json::to_string(&Step { inserted: vec![5], ..step(2) }).unwrap();
        assert!(complaint(&inserted).contains("position 5"));
        assert!(complaint(&good[..20]).starts_with("line 2: "));
        assert!(complaint("\u{0}\u{1}").starts_with("line 2: "));
        assert!(complaint(&"[".repeat(100_000)).starts_with("line 2: "));
        assert!(complaint(&good.replace("\"nfe\":1", "\"nfe\":-1")).starts_with("line 2: "));
    }

    #[test]
    fn a_line_without_end_is_refused_without_reading_it_all() {
        let endless = io::Cursor::new(written(&[], |_| None)).chain(io::repeat(b' '));
        let mut reader = Reader::new(io::BufReader::new(endless)).unwrap();
        let error = reader.next().unwrap().unwrap_err();
        assert!(matches!(error, TraceError::LineTooLong { line: 2 }), "{error}");
    }

    #[test]
    fn a_header_must_be_a_possible_one() {
        let read = |header: &Header| Reader::new(&serde_json::to_vec(header).unwrap()[..]).err();
        let newer = read(&Header { llada_trace: 2, ..header() }).unwrap();
        assert!(matches!(newer, TraceError::Version { found: 2 }), "{newer}");
        let short = read(&Header { length: 1, ..header() }).unwrap();
        assert!(matches!(short, TraceError::Length { length: 1, prompt: 2 }), "{short}");
        assert!(read(&Header { length: usize::MAX, ..header() }).is_some());
        for text in ["", "{}", "hello", "[]"] {
            let error = Reader::new(text.as_bytes()).unwrap_err();
            assert!(error.hint().unwrap().contains("--trace"), "{error}");
        }
    }
}
