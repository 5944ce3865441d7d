use super::*;
use crate::Error;

/// A file in the making, byte by byte as the format has it.
struct Raw {
    version: u32,
    counts: Option<(u64, u64)>,
    keys: Vec<(String, Vec<u8>)>,
    tensors: Vec<(String, Vec<u64>, u32, u64)>,
    data: usize,
}

impl Raw {
    /// Two tensors: a matrix of 3 rows and 4 columns, and a vector in blocks.
    fn new() -> Self {
        let tensors = vec![("m".to_owned(), vec![4, 3], 0, 0), ("v".to_owned(), vec![64], 8, 64)];
        Self { version: 3, counts: None, keys: Vec::new(), tensors, data: 64 + 68 }
    }

    fn key(mut self, key: &str, kind: u32, value: &[u8]) -> Self {
        let value = [&kind.to_le_bytes()[..], value].concat();
        self.keys.push((key.to_owned(), value));
        self
    }

    fn header(&self) -> Vec<u8> {
        let mut file = b"GGUF".to_vec();
        file.extend(self.version.to_le_bytes());
        let (tensors, keys) =
            self.counts.unwrap_or((self.tensors.len() as u64, self.keys.len() as u64));
        file.extend(tensors.to_le_bytes());
        file.extend(keys.to_le_bytes());
        let text = |file: &mut Vec<u8>, text: &str| {
            file.extend((text.len() as u64).to_le_bytes());
            file.extend(text.as_bytes());
        };
        for (key, value) in &self.keys {
            text(&mut file, key);
            file.extend(value);
        }
        for (name, dimensions, kind, offset) in &self.tensors {
            text(&mut file, name);
            file.extend((dimensions.len() as u32).to_le_bytes());
            dimensions.iter().for_each(|n| file.extend(n.to_le_bytes()));
            file.extend(kind.to_le_bytes());
            file.extend(offset.to_le_bytes());
        }
        file
    }

    fn bytes(&self, alignment: usize) -> Vec<u8> {
        let mut file = self.header();
        file.resize(file.len().next_multiple_of(alignment) + self.data, 0);
        file
    }

    fn open(&self) -> Result<File> {
        open(&self.bytes(32))
    }
}

/// Opens a file of these bytes.
fn open(bytes: &[u8]) -> Result<File> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.gguf");
    std::fs::write(&path, bytes).unwrap();
    File::open(&path)
}

fn message(result: Result<File>) -> String {
    let error = result.unwrap_err();
    assert!(matches!(error, Error::Checkpoint(_)), "{error}");
    assert!(error.hint().is_some(), "{error}");
    error.to_string()
}

#[test]
fn both_versions_are_read() {
    for version in [2, 3] {
        let file = Raw { version, ..Raw::new() }.open().unwrap();
        let m = &file.tensors()["m"];
        assert_eq!((m.shape.as_slice(), m.kind.name, m.bytes.len()), (&[3, 4][..], "F32", 48));
        let v = &file.tensors()["v"];
        assert_eq!((v.shape.as_slice(), v.kind.name, v.bytes.len()), (&[64][..], "Q8_0", 68));
        assert_eq!(v.bytes.start - m.bytes.start, 64);
        assert_eq!(m.bytes.start % 32, 0);
    }
}

#[test]
fn values_of_every_type_are_read() {
    let text = |s: &str| [&(s.len() as u64).to_le_bytes()[..], s.as_bytes()].concat();
    let array =
        |kind: u32, n: u64, rest: &[u8]| [&kind.to_le_bytes()[..], &n.to_le_bytes(), rest].concat();
    let file = Raw::new()
        .key("u8", 0, &[200])
        .key("i8", 1, &[200])
        .key("u16", 2, &[0, 128])
        .key("i16", 3, &[0, 128])
        .key("u32", 4, &[0, 0, 0, 128])
        .key("i32", 5, &[0, 0, 0, 128])
        .key("f32", 6, &0.1f32.to_le_bytes())
        .key("bool", 7, &[1])
        .key("text", 8, &text("日本"))
        .key("u64", 10, &u64::MAX.to_le_bytes())
        .key("i64", 11, &u64::MAX.to_le_bytes())
        .key("f64", 12, &0.1f64.to_le_bytes())
        .key("texts", 9, &array(8, 2, &[text("a"), text("")].concat()))
        .key("numbers", 9, &array(5, 2, &[1, 0, 0, 0, 255, 255, 255, 255]))
        .key("none", 9, &array(12, 0, &[]))
        .open()
        .unwrap();
    let integers = [("u8", 200), ("i8", -56), ("u16", 32768), ("i16", -32768), ("i64", -1)];
    for (key, expected) in integers {
        assert_eq!(file.value(key), Some(Value::Integer(expected)), "{key}");
    }
    assert_eq!(file.value("u32").unwrap().index(), Some(1 << 31));
    assert_eq!(file.value("i32").unwrap().index(), None);
    assert_eq!(file.value("u64"), Some(Value::Integer(u64::MAX.into())));
    assert_eq!(file.value("f32"), Some(Value::Float(0.1f32.into())));
    assert_eq!(file.value("f64"), Some(Value::Float(0.1)));
    assert_eq!(file.value("bool"), Some(Value::Bool(true)));
    assert_eq!(file.value("text").unwrap().text(), Some("日本"));
    assert_eq!(file.value("absent"), None);
    let texts = file.value("texts").unwrap().array().unwrap();
    assert_eq!(texts.iter().map(|v| v.text().unwrap()).collect::<Vec<_>>(), ["a", ""]);
    let numbers = file.value("numbers").unwrap().array().unwrap();
    assert_eq!(numbers.iter().collect::<Vec<_>>(), [Value::Integer(1), Value::Integer(-1)]);
    assert!(file.value("none").unwrap().array().unwrap().is_empty());
    assert_eq!(file.keys().count(), 15);
}

#[test]
fn the_alignment_of_the_file_is_kept() {
    for alignment in [1usize, 8, 64, 256] {
        let mut raw = Raw::new().key("general.alignment", 4, &(alignment as u32).to_le_bytes());
        raw.tensors[1].3 = 256;
        raw.data = 256 + 68;
        let start = raw.header().len().next_multiple_of(alignment);
        let file = open(&raw.bytes(alignment)).unwrap();
        assert_eq!(file.tensors()["m"].bytes.start, start);
        assert_eq!(file.tensors()["v"].bytes, start + 256..start + 256 + 68);
    }
    for wrong in [0u32, 3, 1 << 30] {
        let raw = Raw::new().key("general.alignment", 4, &wrong.to_le_bytes());
        assert!(message(raw.open()).contains("no small power of two"));
    }
    let raw = Raw::new().key("general.alignment", 6, &32f32.to_le_bytes());
    assert!(message(raw.open()).contains("no small power of two"));
}

#[test]
fn what_is_no_such_file_is_said() {
    for (bytes, expected) in [
        (&b""[..], "only 0 bytes"),
        (b"GGU", "only 3 bytes"),
        (b"GGML\x03\0\0\0", "does not begin with `GGUF`"),
        (b"GGUF\x03\0", "ends within its header"),
        (b"GGUF\x01\0\0\0", "of version 1"),
        (b"GGUF\x04\0\0\0", "of version 4"),
        (b"GGUF\0\0\0\x03", "big-endian"),
    ] {
        assert!(message(open(bytes)).contains(expected), "{expected}");
    }
    let dir = tempfile::tempdir().unwrap();
    assert!(File::open(dir.path()).unwrap_err().to_string().contains("is a directory"));
    assert!(File::open(&dir.path().join("none.gguf")).is_err());
}

#[test]
fn a_file_may_end_nowhere_but_at_its_end() {
    let text = [&5u64.to_le_bytes()[..], b"value"].concat();
    let raw = Raw::new().key("key", 8, &text).key("other", 9, &[0; 12]);
    let whole = raw.bytes(32);
    assert!(open(&whole).is_ok());
    for end in 0..whole.len() {
        assert!(open(&whole[..end]).is_err(), "{end} of {} bytes", whole.len());
    }
}

#[test]
fn what_a_header_claims_is_not_believed() {
    let huge = u64::MAX.to_le_bytes();
    let claim = |kind: u32, n: u64| [&kind.to_le_bytes()[..], &n.to_le_bytes()].concat();
    for (raw, expected) in [
        (Raw { counts: Some((u64::MAX, 0)), ..Raw::new() }, "too many to be true"),
        (Raw { counts: Some((0, 1 << 40)), ..Raw::new() }, "too many to be true"),
        (Raw { counts: Some((60_000, 0)), ..Raw::new() }, "ends within its header"),
        (Raw::new().key("k", 8, &huge), "at key `k`"),
        (Raw::new().key("k", 8, &(1u64 << 40).to_le_bytes()), "at key `k`: it ends within"),
        (Raw::new().key("k", 9, &claim(0, 1 << 40)), "at key `k`: it ends within"),
        (Raw::new().key("k", 9, &claim(12, u64::MAX)), "too large"),
        (Raw::new().key("k", 9, &claim(8, u64::MAX)), "at key `k`"),
        (Raw::new().key("k", 9, &claim(7, 1 << 50)), "at key `k`"),
        (Raw::new().key("k", 9, &claim(9, 1)), "arrays within arrays"),
        (Raw::new().key("k", 9, &claim(13, 1)), "no type of value 13"),
        (Raw::new().key("k", 77, &[]), "no type of value 77"),
        (Raw::new().key("k", 7, &[2]), "neither true"),
        (Raw::new().key("k", 8, &[1, 0, 0, 0, 0, 0, 0, 0, 255]), "not UTF-8"),
        (Raw::new().key("k", 0, &[1]).key("k", 0, &[1]), "the key `k` twice"),
    ] {
        let found = message(raw.open());
        assert!(found.contains(expected), "{expected}: {found}");
    }
}

#[test]
fn tensors_must_have_places_of_their_own_in_the_file() {
    let with = |change: &dyn Fn(&mut Raw)| {
        let mut raw = Raw::new();
        change(&mut raw);
        message(raw.open())
    };
    for (found, expected) in [
        (with(&|r| r.tensors[1].0 = "m".into()), "is described twice"),
        (with(&|r| r.tensors[1].3 = 32), "tensor `v` in"),
        (with(&|r| r.tensors[1].3 = 32), "overlaps `m`"),
        (with(&|r| r.tensors[1].3 = 65), "a multiple of 32"),
        (with(&|r| r.tensors[1].3 = 1 << 40), "not in the file"),
        (with(&|r| r.tensors[1].3 = !31), "not in the file"),
        (with(&|r| r.tensors[1].1 = vec![65]), "cannot have the shape [65] in Q8_0"),
        (with(&|r| r.tensors[0].1 = vec![u64::MAX, 2]), "cannot have the shape"),
        (with(&|r| r.tensors[0].1 = vec![1 << 31, 1 << 31, 2]), "cannot have the shape"),
        (with(&|r| r.tensors[0].1 = vec![1; 5]), "has 5 dimensions"),
        (with(&|r| r.tensors[0].1 = vec![1 << 20]), "not in the file"),
        (with(&|r| r.tensors[0].2 = 4), "of type 4, which GGML does not have"),
        (with(&|r| r.tensors[0].2 = 1000), "of type 1000"),
        (with(&|r| r.data -= 1), "not in the file"),
    ] {
        assert!(found.contains(expected), "{expected}: {found}");
    }
    // A name that is as long as a file can be is not repeated at full length.
    let long = with(&|r| {
        r.tensors[1].0 = "é".repeat(5000);
        r.tensors[1].2 = 4;
    });
    assert!(long.len() < 400, "{long}");
}
