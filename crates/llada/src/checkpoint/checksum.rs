//! The checksum that a file of weights carries in its metadata: CRC-32C of the whole file, with zeros
//! in the place of the checksum itself.

use std::{io::Write, path::Path};

use llada_kernels::Mapping;

use crate::{Result, files::Replacement, io};

/// Its key.
pub(in crate::checkpoint) const KEY: &str = "llada.crc32c";
/// What stands in its place while it is not known: as many hexadecimal digits.
pub(super) const BLANK: &str = "00000000";

/// Bytes that are looked at before their memory is given back.
const PIECE: usize = 64 << 20;

/// Writes a file that `write` writes to the end, with the digits at the place that it gives, and puts
/// it at `path` when it is complete. `write` is told whether there can be a checksum: where bytes
/// are written as they come, as to a pipe, there is none.
pub(super) fn write(
    path: &Path,
    write: impl FnOnce(&mut dyn Write, bool) -> Result<Option<u64>>,
) -> Result<()> {
    let replacement = Replacement::create(path)?;
    let carries = replacement.can_patch();
    let mut out = Summed { replacement, crc32c: 0 };
    let digits = write(&mut out, carries)?;
    let Summed { mut replacement, crc32c } = out;
    if let Some(at) = digits {
        let digits = format!("{crc32c:08x}");
        replacement.patch(at, digits.as_bytes()).map_err(io("write", path))?;
    }
    replacement.commit()
}

/// A file, with the checksum of what was written.
struct Summed {
    replacement: Replacement,
    crc32c: u32,
}

impl Write for Summed {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let n = self.replacement.write(bytes)?;
        self.crc32c = crc32c::crc32c_append(self.crc32c, &bytes[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.replacement.flush()
    }
}

/// Whether the digits at `at` are the checksum of the file.
pub(super) fn is_right(file: &Mapping, at: usize) -> bool {
    let end = at + BLANK.len();
    let Some(digits) = file.get(at..end) else { return false };
    let mut crc32c = 0;
    for (range, blank) in [(0..at, BLANK), (end..file.len(), "")] {
        for start in range.clone().step_by(PIECE) {
            let piece = start..range.end.min(start + PIECE);
            crc32c = crc32c::crc32c_append(crc32c, &file[piece.clone()]);
            file.release(piece);
        }
        crc32c = crc32c::crc32c_append(crc32c, blank.as_bytes());
    }
    digits == format!("{crc32c:08x}").as_bytes()
}
