//! Server-sent events: the data of each.

use std::io::{self, BufRead, ErrorKind};

/// Bytes of an event, at most.
const LONGEST: usize = 16 << 20;

/// Reads the data of events from a stream.
pub(super) struct Events<R>(pub(super) R);

impl<R: BufRead> Events<R> {
    /// The next line without its end; `None` at the end of the stream.
    fn line(&mut self) -> io::Result<Option<String>> {
        let mut line = Vec::new();
        let mut part = io::Read::take(&mut self.0, LONGEST as u64);
        if part.read_until(b'\n', &mut line)? == 0 {
            return Ok(None);
        }
        if line.last() != Some(&b'\n') && line.len() == LONGEST {
            return Err(too_long());
        }
        while line.last().is_some_and(|byte| b"\r\n".contains(byte)) {
            line.pop();
        }
        Ok(Some(String::from_utf8_lossy(&line).into_owned()))
    }
}

fn too_long() -> io::Error {
    io::Error::new(ErrorKind::InvalidData, "an event has no end")
}

impl<R: BufRead> Iterator for Events<R> {
    type Item = io::Result<String>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut data: Option<String> = None;
        loop {
            let line = match self.line() {
                Ok(Some(line)) => line,
                // What has no empty line after it was cut off.
                Ok(None) => return None,
                Err(error) => return Some(Err(error)),
            };
            match line.split_once(':') {
                None if line.is_empty() => {
                    if let Some(data) = data {
                        return Some(Ok(data));
                    }
                }
                // llama-server names the data of a failure so.
                Some(("data" | "error", value)) => {
                    let value = value.strip_prefix(' ').unwrap_or(value);
                    let data = data.get_or_insert_default();
                    if !data.is_empty() {
                        data.push('\n');
                    }
                    data.push_str(value);
                    if data.len() > LONGEST {
                        return Some(Err(too_long()));
                    }
                }
                // Comments, and the names of events, which their data repeat.
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_data_of_each_event_are_read() {
        let stream = ": alive\n\ndata: {\"a\": 1}\n\nevent: x\r\ndata:two\r\ndata:  lines\r\nid: 3\r\n\r\n\n\
                      error: {}\n\ndata: [DONE]\n\ndata: cut off";
        let events = Events(stream.as_bytes()).collect::<io::Result<Vec<_>>>().unwrap();
        assert_eq!(events, ["{\"a\": 1}", "two\n lines", "{}", "[DONE]"]);
        assert!(Events(&b""[..]).next().is_none());
    }

    #[test]
    fn events_without_an_end_are_refused() {
        let endless = io::Read::take(io::repeat(b'x'), u64::MAX);
        assert!(Events(io::BufReader::new(endless)).next().unwrap().is_err());
    }
}
