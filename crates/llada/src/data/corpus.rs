//! Documents out of files: plain text, JSON, Parquet. One document is in memory at a time.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use serde_json::Value;

use super::{
    lines::{lines, place},
    rows::rows,
};
use crate::{
    Error, Result,
    content::{Content, HEAD},
    data::DataError,
    io, json, text as bounds,
};

/// Why a document in another encoding is rejected.
pub(super) const NOT_UTF8: &str = "not UTF-8";

/// How a text file is cut into documents.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Separator {
    /// At every occurrence of the tokenizer's end-of-text token, such as `<|endoftext|>`.
    #[default]
    EndOfText,
    /// At empty lines.
    BlankLine,
    /// Nowhere: a file is a document.
    WholeFile,
}

/// What a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// Plain UTF-8 text.
    Text,
    /// JSON: an object on each line, or one list of objects.
    Jsonl,
    /// Apache Parquet.
    Parquet,
}

impl Format {
    /// The format that a file's name tells; of text and JSON that gzip or zstd compressed too.
    pub fn of(path: &Path) -> Option<Self> {
        let ending = |path: &Path| Some(path.extension()?.to_str()?.to_ascii_lowercase());
        if ["gz", "zst"].contains(&ending(path)?.as_str()) {
            return Self::of(&path.with_extension("")).filter(|format| *format != Self::Parquet);
        }
        match ending(path)?.as_str() {
            "txt" | "text" | "md" => Some(Self::Text),
            "jsonl" | "ndjson" | "json" => Some(Self::Jsonl),
            "parquet" => Some(Self::Parquet),
            _ => None,
        }
    }

    /// The same of a file that is found in a folder, where `.json` tells nothing: data sets describe
    /// themselves in such files (`dataset_infos.json`).
    pub(super) fn in_folder(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?.to_ascii_lowercase();
        let is_json = [".json", ".json.gz", ".json.zst"].iter().any(|end| name.ends_with(end));
        Self::of(path).filter(|_| !is_json)
    }
}

/// How inputs are read.
pub(super) struct Corpus<'a> {
    pub(super) inputs: &'a [PathBuf],
    pub(super) format: Option<Format>,
    pub(super) separator: Separator,
    pub(super) end_of_text: &'a str,
    pub(super) field: &'a str,
}

/// One document, or why there is none, and where it stands.
pub(super) struct Document {
    pub(super) text: std::result::Result<String, String>,
    /// `file:line` of its start (`file:row` in Parquet).
    pub(super) place: String,
    /// Bytes of all inputs read so far, as far as is known.
    pub(super) read: u64,
}

type Visit<'v> = dyn FnMut(Document) -> Result<()> + 'v;

impl Corpus<'_> {
    /// The files of the inputs; a folder stands for the files in it whose format is known, in the
    /// order of their names, but not for those that end in `.json`.
    pub(super) fn files(&self) -> Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        for input in self.inputs {
            if !input.is_dir() {
                files.push(input.clone());
                continue;
            }
            let mut inside = Vec::new();
            for entry in std::fs::read_dir(input).map_err(io("read", input))? {
                let path = entry.map_err(io("read", input))?.path();
                if path.is_file() && Format::in_folder(&path).is_some() {
                    inside.push(path);
                }
            }
            inside.sort();
            files.append(&mut inside);
        }
        Ok(files)
    }

    /// Visits the documents of all files in order. Documents of white space only are left out.
    pub(super) fn visit(&self, files: &[PathBuf], visit: &mut Visit<'_>) -> Result<()> {
        let mut before = 0;
        for path in files {
            let mut visit = |mut document: Document| {
                document.read += before;
                match &document.text {
                    Ok(text) if text.trim().is_empty() => Ok(()),
                    _ => visit(document),
                }
            };
            match self.format.or_else(|| Format::of(path)) {
                Some(Format::Text) => self.text(path, &mut visit)?,
                Some(Format::Jsonl) => self.json(path, &mut visit)?,
                #[cfg(feature = "parquet")]
                Some(Format::Parquet) => self.parquet(path, &mut visit)?,
                #[cfg(not(feature = "parquet"))]
                Some(Format::Parquet) => {
                    let cause = super::ParquetCause::NotBuilt;
                    return Err(DataError::Parquet { path: path.clone(), cause }.into());
                }
                None => return Err(unknown(path)),
            }
            before += std::fs::metadata(path).map_err(io("read", path))?.len();
        }
        Ok(())
    }

    fn text(&self, path: &Path, visit: &mut Visit<'_>) -> Result<()> {
        let separator = self.end_of_text.as_bytes();
        let mut document = Vec::new();
        let mut begin = 1;
        let mut end = |document: &mut Vec<u8>, begin: usize, read: u64| {
            let text = String::from_utf8(std::mem::take(document))
                .map(|text| text.trim_matches(['\n', '\r']).to_owned())
                .map_err(|e| format!("{NOT_UTF8} {} bytes into it", e.utf8_error().valid_up_to()));
            visit(Document { text, place: place(path, begin), read })
        };
        let read = lines(path, &mut |number, line, read| {
            let mut line = line;
            match self.separator {
                Separator::WholeFile => {}
                Separator::BlankLine => {
                    if line.iter().all(u8::is_ascii_whitespace) {
                        end(&mut document, begin, read)?;
                        begin = number + 1;
                        return Ok(());
                    }
                }
                Separator::EndOfText => {
                    while let Some(at) = find(line, separator) {
                        document.extend_from_slice(&line[..at]);
                        end(&mut document, begin, read)?;
                        line = &line[at + separator.len()..];
                        begin = number;
                    }
                }
            }
            document.extend_from_slice(line);
            match document.len() as u64 > bounds::MOST_OF_A_LINE {
                true => Err(io("read", path)(too_long(begin))),
                false => Ok(()),
            }
        })?;
        end(&mut document, begin, read)
    }

    fn json(&self, path: &Path, visit: &mut Visit<'_>) -> Result<()> {
        rows(path, &mut |number, row, read| {
            let row = row.and_then(|row| json::parse(row).map_err(|e| format!("not JSON ({e})")));
            let text = row.and_then(|row| text(self.field, row.get(self.field)));
            visit(Document { text, place: place(path, number), read })
        })
    }

    #[cfg(feature = "parquet")]
    fn parquet(&self, path: &Path, visit: &mut Visit<'_>) -> Result<()> {
        super::parquet::rows(path, Some(&[self.field]), &mut |number, row, read| {
            let text = text(self.field, row.get(self.field));
            visit(Document { text, place: place(path, number), read })
        })
    }
}

fn too_long(line: usize) -> std::io::Error {
    let most = bounds::MOST_OF_A_LINE;
    bounds::too_large(format!("the document of line {line} has more than {most} bytes"))
}

/// The text of a row.
fn text(field: &str, value: Option<&Value>) -> std::result::Result<String, String> {
    match value {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(Value::Null) => Err(format!("`{field}` is null or no text")),
        Some(_) => Err(format!("`{field}` is not a string")),
        None => Err(format!("no field `{field}`")),
    }
}

fn find(line: &[u8], separator: &[u8]) -> Option<usize> {
    let first = *separator.first()?;
    let mut from = 0;
    while let Some(at) = line[from..].iter().position(|&b| b == first) {
        if line[from + at..].starts_with(separator) {
            return Some(from + at);
        }
        from += at + 1;
    }
    None
}

/// Why a file whose name tells no format is not read: what it holds, where that is known.
pub(super) fn unknown(path: &Path) -> Error {
    let mut head = Vec::new();
    let read = File::open(path).and_then(|file| file.take(HEAD as u64).read_to_end(&mut head));
    match read.ok().and_then(|_| Content::of(&head)) {
        Some(content) => content.error(path),
        None => DataError::Format { path: path.to_path_buf() }.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, content: &[u8], separator: Separator) -> Vec<(String, String)> {
        try_read(name, content, separator).unwrap()
    }

    fn try_read(name: &str, content: &[u8], separator: Separator) -> Result<Vec<(String, String)>> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        let corpus = Corpus {
            inputs: &[dir.path().to_path_buf()],
            format: None,
            separator,
            end_of_text: "<|end|>",
            field: "text",
        };
        let mut found = Vec::new();
        let files = corpus.files().unwrap();
        corpus
            .visit(&files, &mut |d| {
                let line = d.place.rsplit(':').next().unwrap().to_owned();
                found.push((line, d.text.unwrap_or_else(|e| format!("! {e}"))));
                Ok(())
            })
            .map(|()| found)
    }

    fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|(a, b)| (a.to_string(), b.to_string())).collect()
    }

    #[test]
    fn text_is_cut_as_asked() {
        let text = b"one\ntwo<|end|>x<|end|><|end|>\nthree\n\n\nfour<|en\n";
        let cut = read("a.txt", text, Separator::EndOfText);
        assert_eq!(cut, pairs(&[("1", "one\ntwo"), ("2", "x"), ("2", "three\n\n\nfour<|en")]));
        let cut = read("a.txt", b"a\nb\n \nc", Separator::BlankLine);
        assert_eq!(cut, pairs(&[("1", "a\nb"), ("4", "c")]));
        assert_eq!(read("a.md", b"a\n\nb\n", Separator::WholeFile), pairs(&[("1", "a\n\nb")]));
        assert_eq!(read("a.txt", b"", Separator::EndOfText), vec![]);
    }

    #[test]
    fn bad_rows_are_named_not_dropped() {
        let rows =
            b"{\"text\":\"good\"}\n{\"text\":3}\n\n{\"x\":\"y\"}\n[1\n{\"text\":\"caf\\u00e9\"}";
        let found = read("a.jsonl", rows, Separator::EndOfText);
        assert_eq!(found[0], ("1".into(), "good".into()));
        assert_eq!(found[1], ("2".into(), "! `text` is not a string".into()));
        assert_eq!(found[2], ("4".into(), "! no field `text`".into()));
        assert!(found[3].1.starts_with("! not JSON"), "{found:?}");
        assert_eq!(found[4], ("6".into(), "café".into()));
        let found = read("a.txt", b"ok<|end|>\xff\xfe", Separator::EndOfText);
        assert_eq!(found[1].1, "! not UTF-8 0 bytes into it");
    }

    #[test]
    fn a_list_has_its_rows() {
        let list =
            b"\xef\xbb\xbf [{\"text\": \"a\"},\n {\"x\": 1}, {\"text\":\n \"b\", \"y\": NaN}, 3] x";
        let found = read("a.jsonl", list, Separator::EndOfText);
        let expected = [
            ("1", "a"),
            ("2", "! no field `text`"),
            ("2", "b"),
            ("3", "! no field `text`"),
            ("3", "! it follows the end of the list"),
        ];
        assert_eq!(found, pairs(&expected));
        assert_eq!(read("dataset_infos.json", list, Separator::EndOfText), vec![], "in a folder");
        assert_eq!(Format::of(Path::new("rows.JSON.gz")), Some(Format::Jsonl));
        assert_eq!(Format::in_folder(Path::new("rows.JSON.gz")), None);
    }

    #[test]
    fn compressed_text_is_unpacked_and_archives_are_named() {
        let gzip = |text: &[u8]| {
            let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            std::io::Write::write_all(&mut out, text).unwrap();
            out.finish().unwrap()
        };
        let row = b"{\"text\":\"good\", \"score\": NaN}\n";
        let twice = [gzip(row), gzip(row)].concat();
        let expected = pairs(&[("1", "good"), ("2", "good")]);
        assert_eq!(read("a.jsonl.gz", &twice, Separator::EndOfText), expected);
        assert_eq!(read("a.JSONL", &twice, Separator::EndOfText), expected, "whatever its name");
        assert_eq!(read("a.txt.gz", &gzip(b"a<|end|>b"), Separator::EndOfText).len(), 2);
        #[cfg(feature = "zstd")]
        {
            let packed = zstd::encode_all(&row[..], 1).unwrap();
            assert_eq!(read("a.jsonl.zst", &packed, Separator::EndOfText), expected[..1]);
        }
        let cut = try_read("a.jsonl.gz", &twice[..20], Separator::EndOfText).unwrap_err();
        assert!(cut.to_string().contains("damaged or cut short"), "{cut}");
        let tar = gzip(&[&[b'a'; 257][..], b"ustar\0", &[0; 300]].concat());
        for (name, content, expected) in [
            ("a.jsonl", &b"PK\x03\x04\x14"[..], "zip"),
            ("a.txt", b"BZh91AY&SY", "bzip2"),
            ("a.jsonl.gz", &tar, "tar"),
            ("a.jsonl", b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
            ("a.txt", b"\xff\xfeh\0", "UTF-16"),
            ("a.jsonl", b"<!DOCTYPE html>\n<html>", "web page"),
            ("a.jsonl", b"PAR1\x15\x04", "Parquet"),
        ] {
            let error = try_read(name, content, Separator::EndOfText).unwrap_err();
            assert!(error.to_string().contains(expected), "{name}: {error}");
            assert!(error.hint().is_some());
        }
        let page = read("a.txt", b"<!DOCTYPE html> is text too", Separator::EndOfText);
        assert_eq!(page.len(), 1);
    }

    #[test]
    fn numbers_that_are_none_matter_only_where_they_are_read() {
        let rows = b"{\"text\":\"a\",\"x\":[NaN,-Infinity]}\n{\"text\":NaN}\n{\"text\":null}\n";
        let found = read("a.jsonl", rows, Separator::EndOfText);
        assert_eq!(found[0].1, "a");
        assert_eq!(found[1].1, "! `text` is null or no text");
        assert_eq!(found[2].1, found[1].1);
    }

    #[test]
    fn a_byte_order_mark_is_no_text() {
        let text = "\u{feff}one<|end|>\u{feff}two\n\u{feff}";
        let cut = read("a.txt", text.as_bytes(), Separator::EndOfText);
        assert_eq!(cut, pairs(&[("1", "one"), ("1", "\u{feff}two\n\u{feff}")]));
        let row = "\u{feff}{\"text\":\"good\"}\n";
        assert_eq!(read("a.jsonl", row.as_bytes(), Separator::EndOfText), pairs(&[("1", "good")]));
    }
}
