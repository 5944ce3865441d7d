//! The lines of a text file, of one that is compressed too.

use std::{
    cell::Cell,
    fs::File,
    io::{BufRead, BufReader, Chain, Cursor, Read},
    path::Path,
    rc::Rc,
};

use flate2::read::MultiGzDecoder;

use crate::{
    Error, Result,
    content::{Codec, Content, HEAD},
    io, text,
};

/// What some editors put before a text in UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Takes the number of a line from 1, the line with its end, and the bytes read of the file.
type EachLine<'e> = dyn FnMut(usize, &[u8], u64) -> Result<()> + 'e;

/// What a file of lines is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lines {
    /// Plain text, in which anything may stand.
    Text,
    /// JSON.
    Json,
}

pub(super) fn place(path: &Path, line: usize) -> String {
    format!("{}:{line}", path.display())
}

/// Calls `each` for every line of a text, and gives the bytes of the file.
pub(super) fn lines(path: &Path, each: &mut EachLine<'_>) -> Result<u64> {
    let mut source = Source::open(path, Lines::Text)?;
    let mut line = Vec::new();
    while let Some(number) = source.next_line(&mut line)? {
        each(number, &line, source.bytes())?;
    }
    Ok(source.bytes())
}

/// A file of lines that is read once, from its start on.
pub(super) struct Source<'p> {
    path: &'p Path,
    reader: Box<dyn BufRead>,
    read: Rc<Cell<u64>>,
    line: usize,
}

impl<'p> Source<'p> {
    /// Opens a file. A byte order mark at its start is no part of its text. What gzip or zstd
    /// compressed is unpacked; other archives, and what is no text at all, are errors that say what
    /// the file is.
    pub(super) fn open(path: &'p Path, kind: Lines) -> Result<Self> {
        let read = Rc::new(Cell::new(0));
        let file = File::open(path).map_err(io("read", path))?;
        let reader = open(path, kind, Counted { inner: file, read: read.clone() })?;
        let mut source = Self { path, reader, read, line: 1 };
        // `peek` has put the first bytes into one piece.
        source.take(|head| match head.starts_with(BYTE_ORDER_MARK) {
            true => (BYTE_ORDER_MARK.len(), ()),
            false => (0, ()),
        })?;
        Ok(source)
    }

    /// The number, from 1, of the line in which the next byte stands.
    pub(super) fn line(&self) -> usize {
        self.line
    }

    /// The bytes read of the file.
    pub(super) fn bytes(&self) -> u64 {
        self.read.get()
    }

    /// Puts what is left of a line, with its end, into `line` and gives its number.
    pub(super) fn next_line(&mut self, line: &mut Vec<u8>) -> Result<Option<usize>> {
        line.clear();
        let number = self.line;
        let n = text::read_line(&mut self.reader, line, text::MOST_OF_A_LINE)
            .map_err(|e| self.error(e))?;
        self.line += 1;
        Ok((n > 0).then_some(number))
    }

    /// Shows `take` the bytes that come next, none at the end, and passes over as many as it says.
    pub(super) fn take<T>(&mut self, take: impl FnOnce(&[u8]) -> (usize, T)) -> Result<T> {
        let bytes = self.reader.fill_buf().map_err(io("read", self.path))?;
        let (taken, found) = take(bytes);
        self.line += bytes[..taken].iter().filter(|&&byte| byte == b'\n').count();
        self.reader.consume(taken);
        Ok(found)
    }

    /// The error of reading the file.
    pub(super) fn error(&self, error: std::io::Error) -> Error {
        io("read", self.path)(error)
    }
}

/// A reader of the text in a file.
fn open(path: &Path, kind: Lines, file: Counted) -> Result<Box<dyn BufRead>> {
    let (content, file) = peek(kind, file).map_err(io("read", path))?;
    let Some(content) = content else { return Ok(buffered(file)) };
    let unpacked = match content.codec() {
        Some(Codec::Gzip) => Box::new(MultiGzDecoder::new(file)) as Box<dyn Read>,
        #[cfg(feature = "zstd")]
        Some(Codec::Zstd) => Box::new(zstd::Decoder::new(file).map_err(io("read", path))?),
        _ => return Err(content.error(path)),
    };
    let (inside, unpacked) = peek(kind, Unpacked(unpacked)).map_err(io("read", path))?;
    match inside {
        None => Ok(buffered(unpacked)),
        Some(inside) => Err(inside.error(path)),
    }
}

fn buffered(reader: impl Read + 'static) -> Box<dyn BufRead> {
    Box::new(BufReader::with_capacity(1 << 18, reader))
}

/// A file whose first bytes were read.
type Peeked<R> = Chain<Cursor<Vec<u8>>, R>;

/// What a file holds if it is no text, told by its first bytes, and the whole of it.
fn peek<R: Read>(kind: Lines, mut file: R) -> std::io::Result<(Option<Content>, Peeked<R>)> {
    let mut head = Vec::with_capacity(HEAD);
    file.by_ref().take(HEAD as u64).read_to_end(&mut head)?;
    let content = match kind {
        Lines::Text => Content::of(&head),
        Lines::Json => Content::of_data(&head),
    };
    Ok((content, Cursor::new(head).chain(file)))
}

/// A file, and how much of it was read.
struct Counted {
    inner: File,
    read: Rc<Cell<u64>>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.read.set(self.read.get() + n as u64);
        Ok(n)
    }
}

/// What is unpacked; its errors say that they are of the packed data.
struct Unpacked(Box<dyn Read>);

impl Read for Unpacked {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(buffer).map_err(|e| {
            std::io::Error::other(format!("its compressed data are damaged or cut short ({e})"))
        })
    }
}
