//! What a file really holds, told by its first bytes: an archive, a web page or a pointer in the
//! place of text, weights or a tokenizer is named before anything is made of it.

use std::path::Path;

use crate::Error;

/// Bytes that tell what a file is.
pub(crate) const HEAD: usize = 512;

/// Something that a file may hold instead of what is read from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Content {
    /// What it is, to stand after "it is".
    pub(crate) name: &'static str,
    /// What to do about it.
    pub(crate) hint: &'static str,
}

const UNPACK: &str = "unpack it first, and give what was in it";
const CONVERT: &str = "convert it first: text, JSONL and Parquet are read";
const FETCH: &str = "fetch the file itself: `git lfs pull`, or download it from the hub";
const AGAIN: &str = "a download gave this in the place of the file, for want of access perhaps: \
                     fetch it again";
/// What to do about text in another encoding.
pub(crate) const TO_UTF8: &str =
    "give text in UTF-8: `iconv -f ENCODING -t utf-8 FILE` converts others, such as latin1";

const ENCODE: &str = "give text in UTF-8: `iconv -f utf-16 -t utf-8 FILE` converts it";

/// Where the bytes stand, the bytes, and what they begin.
const MAGIC: [(usize, &[u8], &str, &str); 31] = [
    (0, b"\x1f\x8b", GZIP, "unpack it first: `gunzip FILE`"),
    (0, b"\x28\xb5\x2f\xfd", ZSTD, "unpack it first: `zstd -d FILE`"),
    (0, b"BZh", "a bzip2 archive", "unpack it first: `bunzip2 FILE`"),
    (0, b"\xfd7zXZ\0", "an xz archive", "unpack it first: `unxz FILE`"),
    (0, b"\x04\x22\x4d\x18", "an lz4 archive", "unpack it first: `lz4 -d FILE`"),
    (0, b"LZIP", "an lzip archive", UNPACK),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it first: `7z x FILE`"),
    (0, b"Rar!\x1a\x07", "a rar archive", UNPACK),
    // The name of an archive's first file.
    (30, b"[Content_Types].xml", OFFICE, DOCUMENT),
    (30, b"_rels/.rels", OFFICE, DOCUMENT),
    (30, b"word/", OFFICE, DOCUMENT),
    (30, b"mimetypeapplication/", "an OpenDocument file or an e-book", DOCUMENT),
    (0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", OFFICE, DOCUMENT),
    (0, b"{\\rtf", "a document in RTF", DOCUMENT),
    (0, b"PK\x03\x04", "a zip archive", ZIP_HINT),
    (0, b"PK\x05\x06", "an empty zip archive", ZIP_HINT),
    (257, b"ustar", "a tar archive", "unpack it first: `tar -xf FILE`"),
    (0, PARQUET_MAGIC, "a Parquet file", "give it a name that ends in `.parquet`"),
    (0, b"ARROW1", "an Arrow file", CONVERT),
    (0, b"Obj\x01", "an Avro file", CONVERT),
    (0, b"ORC", "an ORC file", CONVERT),
    (0, b"\x89HDF\r\n", "an HDF5 file", CONVERT),
    (0, b"SQLite format 3\0", "an SQLite database", CONVERT),
    (0, b"%PDF-", "a PDF document", DOCUMENT),
    (0, b"\x93NUMPY", "a NumPy array", CONVERT),
    (0, b"GGUF", "a GGUF file", "give it a name that ends in `.gguf`, as a model"),
    (0, b"version https://git-lfs", "a pointer of Git LFS and not the file itself", FETCH),
    (0, b"\xff\xfe\0\0", "text in UTF-32", "give text in UTF-8: `iconv -f utf-32 -t utf-8 FILE`"),
    (0, b"\0\0\xfe\xff", "text in UTF-32", "give text in UTF-8: `iconv -f utf-32 -t utf-8 FILE`"),
    (0, b"\xff\xfe", "text in UTF-16", ENCODE),
    (0, b"\xfe\xff", "text in UTF-16", ENCODE),
];

const OFFICE: &str = "a document of an office program";
const DOCUMENT: &str = "convert it to plain text first: `pdftotext FILE.pdf` does for PDF, `pandoc \
                        FILE -t plain -o FILE.txt` for other documents";
const ZIP_HINT: &str = "unpack it first: `unzip FILE`; one with PyTorch's weights must be saved as \
                        safetensors";
const GZIP: &str = "a gzip archive";
const ZSTD: &str = "a zstd archive";

/// The beginning of a Parquet file.
pub(crate) const PARQUET_MAGIC: &[u8] = b"PAR1";

/// Nothing at all.
pub(crate) const EMPTY: Content =
    Content { name: "empty", hint: "its download was cut short perhaps: fetch it again" };

impl Content {
    /// What a file that begins with these bytes holds, where it is none of text, JSON, safetensors.
    pub(crate) fn of(head: &[u8]) -> Option<Self> {
        let found = MAGIC
            .iter()
            .find(|(at, magic, ..)| head.get(*at..).is_some_and(|rest| rest.starts_with(magic)));
        let known = found.map(|&(_, _, name, hint)| Self { name, hint });
        known.or_else(|| Self::pickle(head)).or_else(|| Self::wide(head))
    }

    /// The same of a file that should hold JSON or a binary format: a web page is known too.
    pub(crate) fn of_data(head: &[u8]) -> Option<Self> {
        let text = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head).trim_ascii_start();
        let begins = |tag: &str| {
            text.get(..tag.len()).is_some_and(|start| start.eq_ignore_ascii_case(tag.as_bytes()))
        };
        if ["<!doctype", "<html", "<head", "<?xml"].into_iter().any(begins) {
            return Some(Self { name: "a web page or an answer in XML", hint: AGAIN });
        }
        Self::of(head)
    }

    /// Whether it is compressed text that can be unpacked while it is read.
    pub(crate) fn codec(self) -> Option<Codec> {
        match self.name {
            GZIP => Some(Codec::Gzip),
            ZSTD => Some(Codec::Zstd),
            _ => None,
        }
    }

    /// Python's pickle from version 2 on: the opcode, the version, and what always follows it.
    fn pickle(head: &[u8]) -> Option<Self> {
        let is_pickle = matches!(head, [0x80, 2..=5, b'}' | b'c' | b']' | b'(' | 0x8a | 0x95, ..]);
        is_pickle.then_some(Self { name: "a Python pickle", hint: WEIGHTS_OF_PYTHON })
    }

    /// UTF-16 without a mark: every other byte of Latin letters is zero.
    fn wide(head: &[u8]) -> Option<Self> {
        let pairs = head.get(..16)?.chunks_exact(2);
        let all =
            |at: usize| pairs.clone().all(|p| p[at] == 0 && p[1 - at].is_ascii() && p[1 - at] > 0);
        (all(0) || all(1)).then_some(Self { name: "text in UTF-16", hint: ENCODE })
    }

    /// The error of reading `path`, which holds this.
    pub(crate) fn error(self, path: &Path) -> Error {
        Error::Content { path: path.to_path_buf(), found: self.name, hint: self.hint }
    }
}

const WEIGHTS_OF_PYTHON: &str =
    "pickles can run code and are not read: save weights as safetensors, and data as JSONL";

/// How text is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Codec {
    Gzip,
    Zstd,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_are_known_by_their_first_bytes() {
        let tar = [&[b'a'; 257][..], b"ustar\0"].concat();
        let docx = [b"PK\x03\x04", &[0; 26][..], b"[Content_Types].xml"].concat();
        let epub = [b"PK\x03\x04", &[0; 26][..], b"mimetypeapplication/epub+zip"].concat();
        let cases: [(&[u8], &str); 21] = [
            (&docx, "office"),
            (&epub, "e-book"),
            (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1\0", "office"),
            (b"{\\rtf1\\ansi", "RTF"),
            (b"\x1f\x8b\x08rest", "gzip"),
            (b"\x28\xb5\x2f\xfdrest", "zstd"),
            (b"BZh91AY", "bzip2"),
            (b"\xfd7zXZ\0\0", "xz"),
            (b"\x04\x22\x4d\x18", "lz4"),
            (b"7z\xbc\xaf\x27\x1c", "7z"),
            (b"PK\x03\x04", "zip"),
            (&tar, "tar"),
            (b"PAR1", "Parquet"),
            (b"version https://git-lfs.github.com/spec/v1\noid sha256:", "Git LFS"),
            (b"\xff\xfeh\0i\0", "UTF-16"),
            (b"\xfe\xff\0h", "UTF-16"),
            (b"\xff\xfe\0\0h\0\0\0", "UTF-32"),
            (b"{\0\"\0t\0e\0x\0t\0\"\0:\0", "UTF-16"),
            (b"\0{\0\"\0t\0e\0x\0t\0\"\0:", "UTF-16"),
            (b"\x80\x02}q\0X", "pickle"),
            (b"%PDF-1.7", "PDF"),
        ];
        for (head, name) in cases {
            let found = Content::of(head).unwrap_or_else(|| panic!("{name}"));
            assert!(found.name.contains(name), "{found:?}");
            assert_eq!(Content::of_data(head), Some(found));
        }
        for page in ["<!DOCTYPE html><html>", "\n <html lang=en>", "\u{feff}<?xml version='1.0'?>"]
        {
            assert_eq!(Content::of(page.as_bytes()), None, "{page}");
            assert!(Content::of_data(page.as_bytes()).unwrap().name.contains("web page"));
        }
        for text in ["", "{}", "{\"a\": 1}", "<|endoftext|>", "über", "version 2", "a\0b"] {
            assert_eq!(Content::of_data(text.as_bytes()), None, "{text}");
        }
        let safetensors = [&[0x80, 2, 0, 0, 0, 0, 0, 0][..], b"{\"a\":"].concat();
        assert_eq!(Content::of_data(&safetensors), None);
    }
}
