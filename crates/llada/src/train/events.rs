//! TensorBoard's events file: scalars as protocol buffers in TFRecord frames.
//!
//! Only the handful of fields that scalars need are written, by hand: `Event` {1: wall time, 2:
//! step, 3: file version, 5: summary, 7: session log}, `Summary` {1: value}, `Value` {1: tag, 2:
//! simple value}, `SessionLog` {1: status}.

use std::{
    fs::File,
    io::{BufWriter, ErrorKind, Write},
    path::{Path, PathBuf},
};

use crate::{Result, io};

/// An events file, open for appending.
#[derive(Debug)]
pub(super) struct EventsWriter {
    path: PathBuf,
    file: BufWriter<File>,
}

impl EventsWriter {
    /// Starts a new file in `dir` at the time `now`. TensorBoard forgets what files before it say
    /// of the steps after `step`, which a resumed run makes again.
    pub(super) fn create(dir: &Path, step: u64, now: f64) -> Result<Self> {
        let mut second = now.max(0.0) as u64;
        let (path, file) = loop {
            let path = dir.join(format!("events.out.tfevents.{second:010}.llada"));
            match File::create_new(&path) {
                Err(e) if e.kind() == ErrorKind::AlreadyExists => second += 1,
                made => break (path.clone(), made.map_err(io("create", path))?),
            }
        };
        let mut writer = Self { path, file: BufWriter::new(file) };
        let mut version = event(now, 0);
        bytes_field(&mut version, 3, b"brain.Event:2");
        writer.record(&version)?;
        let mut start = event(now, step + 1);
        bytes_field(&mut start, 7, &[1 << 3, 1]);
        writer.record(&start)?;
        Ok(writer)
    }

    /// Appends scalars of one step; those that are not finite are left out.
    pub(super) fn scalars(&mut self, step: u64, now: f64, scalars: &[(&str, f64)]) -> Result<()> {
        let mut summary = Vec::new();
        for (tag, value) in scalars.iter().filter(|(_, value)| value.is_finite()) {
            let mut entry = Vec::new();
            bytes_field(&mut entry, 1, tag.as_bytes());
            entry.push((2 << 3) | 5);
            entry.extend_from_slice(&(*value as f32).to_le_bytes());
            bytes_field(&mut summary, 1, &entry);
        }
        let mut record = event(now, step);
        bytes_field(&mut record, 5, &summary);
        self.record(&record)
    }

    /// Hands what was appended to the system.
    pub(super) fn flush(&mut self) -> Result<()> {
        self.file.flush().map_err(io("write", &self.path))
    }

    /// One TFRecord frame: length, its checksum, data, its checksum.
    fn record(&mut self, data: &[u8]) -> Result<()> {
        let length = (data.len() as u64).to_le_bytes();
        let mut frame = Vec::with_capacity(data.len() + 16);
        frame.extend_from_slice(&length);
        frame.extend_from_slice(&masked_crc(&length).to_le_bytes());
        frame.extend_from_slice(data);
        frame.extend_from_slice(&masked_crc(data).to_le_bytes());
        self.file.write_all(&frame).map_err(io("write", &self.path))
    }
}

/// The CRC-32C of `data`, rotated and shifted as TFRecord asks, so that a checksum of data that
/// holds checksums stays sound.
fn masked_crc(data: &[u8]) -> u32 {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

fn event(now: f64, step: u64) -> Vec<u8> {
    let mut event = vec![(1 << 3) | 1];
    event.extend_from_slice(&now.to_le_bytes());
    event.push(2 << 3);
    varint(&mut event, step);
    event
}

fn bytes_field(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    out.push((field << 3) | 2);
    varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn varint(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_the_standard() {
        // RFC 3720, appendix B.4, then masked as in TensorFlow's crc32c.h.
        assert_eq!(crc32c::crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(
            masked_crc(&[0; 32]),
            0x8a91_36aa_u32.rotate_right(15).wrapping_add(0xa282_ead8)
        );
        // The frame header of the first record of every events file, 24 bytes long.
        assert_eq!(masked_crc(&24u64.to_le_bytes()).to_le_bytes(), [0xa3, 0x7f, 0x4b, 0x22]);
    }

    #[test]
    fn a_file_reads_back_frame_by_frame() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = EventsWriter::create(dir.path(), 300, 1_700_000_000.5).unwrap();
        writer.scalars(301, 1_700_000_001.0, &[("loss", 2.5), ("bad", f64::NAN)]).unwrap();
        writer.flush().unwrap();
        let second = EventsWriter::create(dir.path(), 0, 1_700_000_000.5).unwrap();
        assert_ne!(second.path, writer.path);

        let bytes = std::fs::read(&writer.path).unwrap();
        let mut records = Vec::new();
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
            assert_eq!(rest[8..12], masked_crc(&rest[..8]).to_le_bytes());
            let data = &rest[12..12 + length];
            assert_eq!(rest[12 + length..16 + length], masked_crc(data).to_le_bytes());
            records.push(data.to_vec());
            rest = &rest[16 + length..];
        }
        assert_eq!(records.len(), 3);
        assert!(records[0].ends_with(b"brain.Event:2"));
        assert_eq!(records[1][9..], [0x10, 0xad, 0x02, 0x3a, 2, 8, 1]);
        let scalar = [&[0x2a, 13, 0x0a, 11, 0x0a, 4][..], b"loss", &[0x15, 0, 0, 0x20, 0x40]];
        assert_eq!(records[2][12..], scalar.concat());
    }
}
