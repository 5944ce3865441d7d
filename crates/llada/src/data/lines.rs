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
    Result,
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

/// Calls `each` for every line, blank ones of JSON excepted, and gives the bytes of the file. A byte order mark at the start of
/// the file is no part of its text. What gzip or zstd compressed is unpacked; other archives, and
/// what is no text at all, are errors that say what the file is.
pub(super) fn lines(path: &Path, kind: Lines, each: &mut EachLine<'_>) -> Result<u64> {
    let read = Rc::new(Cell::new(0));
    let file = File::open(path).map_err(io("read", path))?;
    let mut reader = open(path, kind, Counted { inner: file, read: read.clone() })?;
    let (mut line, mut number) = (Vec::new(), 0);
    loop {
        line.clear();
        let n = text::read_line(&mut reader, &mut line, text::MOST_OF_A_LINE)
            .map_err(io("read", path))?;
        if n == 0 {
            return Ok(read.get());
        }
        number += 1;
        let marked = (number == 1).then(|| line.strip_prefix(BYTE_ORDER_MARK)).flatten();
        let text = marked.unwrap_or(&line);
        if kind == Lines::Text || !text.iter().all(u8::is_ascii_whitespace) {
            each(number, text, read.get())?;
        }
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
