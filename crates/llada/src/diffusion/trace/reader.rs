//! Traces, read: a bound on everything, because nothing in a file is trusted.

use std::io::{BufRead, Read};

use serde::Deserialize;

use super::{Header, Step, Text, TraceError, VERSION, text::MAX_TEXT};

/// Longest trace that is read, in bytes.
pub(super) const MAX_TRACE: u64 = 64 << 20;
/// Longest line that is read, in bytes.
pub(super) const MAX_LINE: u64 = 16 << 20;
/// Longest canvas that is read, in tokens.
pub(super) const MAX_LENGTH: usize = 1 << 17;
/// Tokens that may move, all steps together, because masks are put in before them.
const MAX_MOVES: usize = 1 << 27;

/// Reads a trace, step by step, up to the first error; nothing in it is trusted. A last line that was
/// not written to its end is no error: see [`Reader::is_cut_off`].
#[derive(Debug)]
pub struct Reader<R> {
    input: R,
    line: usize,
    bytes: u64,
    /// Masks put in so far, and tokens that moved for them.
    inserted: usize,
    moves: usize,
    header: Header,
    is_cut_off: bool,
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
        for (&token, text) in header.prompt.iter().zip(header.prompt_text.iter().flatten()) {
            check_text(1, token, text)?;
        }
        let bytes = text.len() as u64;
        Ok(Self {
            input,
            line: 1,
            bytes,
            inserted: 0,
            moves: 0,
            header,
            is_cut_off: false,
            failed: false,
        })
    }

    /// The header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Bytes read so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether the trace ended in the middle of a line, which is left out: whoever wrote it was
    /// stopped, or had no space left.
    pub fn is_cut_off(&self) -> bool {
        self.is_cut_off
    }

    fn next_step(&mut self) -> Result<Option<Step>, TraceError> {
        self.line += 1;
        let line = self.line;
        let Some(text) = read_line(&mut self.input, line)? else { return Ok(None) };
        self.bytes += text.len() as u64;
        if self.bytes > MAX_TRACE {
            return Err(TraceError::TooLong);
        }
        let step: Step = match parse(&text, line) {
            Err(_) if !text.ends_with(b"\n") => {
                self.is_cut_off = true;
                return Ok(None);
            }
            step => step?,
        };
        self.check(&step)?;
        Ok(Some(step))
    }

    fn check(&mut self, step: &Step) -> Result<(), TraceError> {
        let (line, length) = (self.line, self.header.length);
        let committed = step.committed.iter().map(|commit| commit.position);
        // `stable` counts tokens, so the length itself is within.
        let last_stable = step.stable.saturating_sub(1);
        let positions = committed.chain(step.remasked.iter().chain(&step.inserted).copied());
        let mut positions = positions.chain([last_stable]);
        if let Some(position) = positions.find(|&position| position >= length) {
            return Err(TraceError::Position { line, position, length });
        }
        if !step.inserted.is_sorted() {
            let message = "`inserted` is not in ascending order".into();
            return Err(TraceError::Syntax { line, message });
        }
        if !step.inserted.is_empty() {
            self.inserted += step.inserted.len();
            self.moves += length;
        }
        if self.inserted > length || self.moves > MAX_MOVES {
            return Err(TraceError::Insertions { line, length });
        }
        let mut texts = step.committed.iter().filter_map(|c| Some((c.token, c.text.as_ref()?)));
        texts.try_for_each(|(token, text)| check_text(line, token, text))
    }
}

fn check_text(line: usize, token: u32, text: &Text) -> Result<(), TraceError> {
    match text.as_bytes().len() {
        found if found > MAX_TEXT => Err(TraceError::Text { line, token, found }),
        _ => Ok(()),
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
