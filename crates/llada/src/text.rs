//! Text that a user gives, read with a bound: whatever a path leads to (a device, a pipe without end,
//! the wrong file) cannot fill the memory.

use std::{
    fs::File,
    io::{self, BufRead, Read},
    path::Path,
};

use crate::{Result, io};

/// Longest text that is read as a whole, in bytes: prompts, texts to score or to fill, recipes,
/// conversations.
pub const MOST: u64 = 64 << 20;
/// Longest line of a corpus, in bytes. Corpora as a whole have no bound: they are read line by line.
pub const MOST_OF_A_LINE: u64 = 256 << 20;

/// What some editors put before a text, and is no part of it.
const BYTE_ORDER_MARK: char = '\u{feff}';

/// White space, as Python's strings see it: with four separators of ASCII, which Unicode does not
/// count.
pub(crate) fn is_space(c: char) -> bool {
    c.is_whitespace() || matches!(c, '\x1c'..='\x1f')
}

/// The text of a file, a pipe or a device, without a byte order mark.
///
/// # Errors
/// If it cannot be read, is not UTF-8, or is longer than [`MOST`].
pub fn read(path: &Path) -> Result<String> {
    File::open(path).and_then(read_from).map_err(io("read", path))
}

/// All of the text that `source` gives.
///
/// # Errors
/// As [`read`].
pub fn read_from(source: impl Read) -> io::Result<String> {
    read_at_most(source, MOST)
}

fn read_at_most(source: impl Read, most: u64) -> io::Result<String> {
    let mut text = String::new();
    source.take(most + 1).read_to_string(&mut text)?;
    if text.len() as u64 > most {
        return Err(too_large(format!("it has more than {most} bytes of text")));
    }
    if text.starts_with(BYTE_ORDER_MARK) {
        text.remove(0);
    }
    Ok(text)
}

/// Appends the next line of `source`, its end included, to `line` and gives its length; 0 is the end.
///
/// # Errors
/// If `source` fails, or the line is longer than `most` bytes.
pub fn read_line(source: &mut impl BufRead, line: &mut Vec<u8>, most: u64) -> io::Result<usize> {
    let read = source.take(most.saturating_add(1)).read_until(b'\n', line)?;
    match read as u64 > most {
        true => Err(too_large(format!("a line has more than {most} bytes"))),
        false => Ok(read),
    }
}

/// The failure of text that is larger than its bound.
pub(crate) fn too_large(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::FileTooLarge, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_read_up_to_its_bound() {
        assert_eq!(read_at_most(&b"abc"[..], 3).unwrap(), "abc");
        assert!(read_at_most(&b"abcd"[..], 3).unwrap_err().to_string().contains("more than 3"));
        assert!(read_at_most(io::repeat(b'a'), 1000).is_err());
        assert!(read_at_most(&b"\xff"[..], 3).is_err());
        assert_eq!(read_at_most("\u{feff}a\u{feff}".as_bytes(), 9).unwrap(), "a\u{feff}");
        // A character that the bound cuts is too much text, or no text; it is not cut.
        assert!(read_at_most("日".as_bytes(), 2).is_err());
    }

    #[cfg(unix)]
    #[test]
    fn devices_have_no_end_that_is_waited_for() {
        let error = read(Path::new("/dev/zero")).unwrap_err().to_string();
        assert!(error.contains("/dev/zero") && error.contains("more than"), "{error}");
        assert_eq!(read(Path::new("/dev/null")).unwrap(), "");
    }

    #[test]
    fn lines_are_read_up_to_their_bound() {
        let (mut source, mut line) = (&b"one\ntwo"[..], Vec::new());
        assert_eq!(read_line(&mut source, &mut line, 4).unwrap(), 4);
        assert_eq!(read_line(&mut source, &mut line, 4).unwrap(), 3);
        assert_eq!(read_line(&mut source, &mut line, 4).unwrap(), 0);
        assert_eq!(line, b"one\ntwo");
        let mut endless = io::BufReader::new(io::repeat(b' '));
        assert!(read_line(&mut endless, &mut line, 1000).is_err());
        assert!(line.len() < 2000);
    }
}
