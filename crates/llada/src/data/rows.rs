//! Rows of JSON: one on each line, or the elements of one list. One row is in memory at a time.

use std::path::Path;

use super::lines::{Lines, Source};
use crate::{Result, json, text};

/// Why the last row of a list that is cut short is rejected.
const ENDLESS: &str =
    "the list does not end: the file is cut short, or a quote or bracket is missing";
/// Why what stands after a list is rejected.
const AFTER: &str = "it follows the end of the list";

/// Takes the number, from 1, of the line in which a row begins, the row or why there is none, and
/// the bytes read of the file.
type EachRow<'e> = dyn FnMut(usize, std::result::Result<&[u8], String>, u64) -> Result<()> + 'e;

/// Calls `each` for every row of a file. One that begins with `[` is a list, and its rows are the
/// elements; else they are the lines, and so are those after the line in which a list ends. What is
/// blank is no row.
pub(super) fn rows(path: &Path, each: &mut EachRow<'_>) -> Result<()> {
    read(&mut Source::open(path, Lines::Json)?, text::MOST_OF_A_LINE, each)
}

fn read(source: &mut Source<'_>, most: u64, each: &mut EachRow<'_>) -> Result<()> {
    let is_row = |line: &[u8]| !line.iter().all(u8::is_ascii_whitespace);
    let mut line = Vec::new();
    if skip_blank(source)? == Some(b'[') {
        elements(source, most, each)?;
        if let Some(number) = source.next_line(&mut line)?.filter(|_| is_row(&line)) {
            each(number, Err(AFTER.into()), source.bytes())?;
        }
    }
    while let Some(number) = source.next_line(&mut line)? {
        if is_row(&line) {
            each(number, Ok(&line), source.bytes())?;
        }
    }
    Ok(())
}

/// Passes over white space, and gives the byte that comes next.
fn skip_blank(source: &mut Source<'_>) -> Result<Option<u8>> {
    loop {
        let (next, is_end) = source.take(|bytes| {
            let blank = bytes.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
            (blank, (bytes.get(blank).copied(), bytes.is_empty()))
        })?;
        if next.is_some() || is_end {
            return Ok(next);
        }
    }
}

/// Calls `each` for every element of the list that comes next.
fn elements(source: &mut Source<'_>, most: u64, each: &mut EachRow<'_>) -> Result<()> {
    source.take(|_| (1, ()))?;
    let mut element = Vec::new();
    loop {
        skip_blank(source)?;
        let line = source.line();
        let end = take_element(source, &mut element, most)?;
        match end {
            None => {
                // A whole object is a row even where the list's end is missing.
                if json::parse(&element).is_ok_and(|row| row.is_object()) {
                    each(line, Ok(&element), source.bytes())?;
                }
                each(line, Err(ENDLESS.into()), source.bytes())?;
            }
            Some(_) if element.is_empty() => {}
            Some(_) => each(line, Ok(&element), source.bytes())?,
        }
        if end != Some(b',') {
            return Ok(());
        }
    }
}

/// Puts what comes before the end of an element into `element`, and gives the byte that ends it.
fn take_element(source: &mut Source<'_>, element: &mut Vec<u8>, most: u64) -> Result<Option<u8>> {
    element.clear();
    let (line, mut nesting) = (source.line(), Nesting::default());
    loop {
        let (end, is_end) = source.take(|bytes| {
            let end = bytes.iter().position(|&byte| nesting.is_end(byte));
            element.extend_from_slice(&bytes[..end.unwrap_or(bytes.len())]);
            let taken = end.map_or(bytes.len(), |end| end + 1);
            (taken, (end.map(|end| bytes[end]), bytes.is_empty()))
        })?;
        if element.len() as u64 > most {
            let what = format!("the element of line {line} has more than {most} bytes");
            return Err(source.error(text::too_large(what)));
        }
        if end.is_some() || is_end {
            return Ok(end);
        }
    }
}

/// Where the next byte of an element stands.
#[derive(Debug, Default)]
struct Nesting {
    depth: usize,
    in_string: bool,
    is_escaped: bool,
}

impl Nesting {
    /// Whether the element ends before the next byte, which is this one.
    fn is_end(&mut self, byte: u8) -> bool {
        if self.in_string {
            self.in_string = self.is_escaped || byte != b'"';
            self.is_escaped = byte == b'\\' && !self.is_escaped;
            return false;
        }
        match byte {
            b',' | b']' if self.depth == 0 => return true,
            b'"' => self.in_string = true,
            b'[' | b'{' => self.depth += 1,
            b']' | b'}' => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::json;

    /// The line and the text of every row, or `! ` and why there is none.
    fn try_read(name: &str, content: &[u8], most: u64) -> Result<Vec<(usize, String)>> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        let mut found = Vec::new();
        read(&mut Source::open(&path, Lines::Json)?, most, &mut |line, row, _| {
            let row = row.map(|row| String::from_utf8_lossy(row).trim_end().to_owned());
            found.push((line, row.unwrap_or_else(|reason| format!("! {reason}"))));
            Ok(())
        })?;
        Ok(found)
    }

    fn rows_of(content: &str) -> Vec<(usize, String)> {
        try_read("rows", content.as_bytes(), 1 << 20).unwrap()
    }

    fn pairs(list: &[(usize, &str)]) -> Vec<(usize, String)> {
        list.iter().map(|&(line, row)| (line, row.to_owned())).collect()
    }

    #[test]
    fn a_list_is_cut_into_its_elements() {
        for (content, expected) in [
            ("", &[][..]),
            (" \r\n", &[]),
            ("[]", &[]),
            ("\u{feff} \r\n\t[ \r\n ]\r\n \n", &[]),
            (
                r#"[{"a":1},{"b":[2,{}]} , 3]"#,
                &[(1, r#"{"a":1}"#), (1, r#"{"b":[2,{}]}"#), (1, "3")],
            ),
            (
                "\u{feff}\n[\r\n  1,\r\n\r\n  [2,\r\n 3]\r\n,4\r\n]\r\n",
                &[(3, "1"), (5, "[2,\r\n 3]"), (7, "4")],
            ),
            (
                r#"["]", "\\", "\"],[\\\"", {"}{": "[,"}]"#,
                &[(1, r#""]""#), (1, r#""\\""#), (1, r#""\"],[\\\"""#), (1, r#"{"}{": "[,"}"#)],
            ),
            // What is blank is no row, as a blank line is none.
            ("[1,\n,2,\n]", &[(1, "1"), (2, "2")]),
            // Wrong elements are rows, to be rejected, and the next ones are found.
            ("[{\"a\":1}\n{\"b\":2}, }, 3]", &[(1, "{\"a\":1}\n{\"b\":2}"), (2, "}"), (2, "3")]),
        ] {
            assert_eq!(rows_of(content), pairs(expected), "{content}");
        }
    }

    #[test]
    fn what_is_no_whole_list_is_said() {
        let (endless, after) = (format!("! {ENDLESS}"), format!("! {AFTER}"));
        for (content, expected) in [
            ("[", &[(1, &*endless)][..]),
            ("[1,\n 2", &[(1, "1"), (2, &*endless)]),
            ("[1,\n\"2]\n", &[(1, "1"), (2, &*endless)]),
            ("[{\"a\": [1}]\n", &[(1, &*endless)]),
            ("[1,\n{\"a\": 2}\n", &[(1, "1"), (2, "{\"a\": 2}"), (2, &*endless)]),
            ("[1,\n{\"a\": 2", &[(1, "1"), (2, &*endless)]),
            ("[1,\n", &[(1, "1"), (2, &*endless)]),
            ("[1\n] ]\n", &[(1, "1"), (2, &*after)]),
            ("[1], 2", &[(1, "1"), (1, &*after)]),
        ] {
            assert_eq!(rows_of(content), pairs(expected), "{content}");
        }
    }

    #[test]
    fn lines_after_a_list_are_rows() {
        // A file of lines whose first is a list, and two files put together.
        let lines = rows_of("[1]\n{\"a\":\n\n [2]\n");
        assert_eq!(lines, pairs(&[(1, "1"), (2, "{\"a\":"), (4, " [2]")]));
        let lines = rows_of("[1]}\n2\n");
        assert_eq!(lines, pairs(&[(1, "1"), (1, &format!("! {AFTER}")), (2, "2")]));
        // A later line that begins with a bracket begins no list.
        assert_eq!(rows_of("\n1\n[2,\n3]\n"), pairs(&[(2, "1"), (3, "[2,"), (4, "3]")]));
    }

    #[test]
    fn an_element_has_a_bound_and_a_list_has_none() {
        let list = format!("[{}1]", "12345678, ".repeat(100_000));
        let read = |most| try_read("rows.json", list.as_bytes(), most);
        assert_eq!(read(8).unwrap().len(), 100_001);
        let error = read(7).unwrap_err().to_string();
        assert!(error.contains("the element of line 1 has more than 7 bytes"), "{error}");
    }

    #[test]
    fn compressed_lists_are_read() {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut gzip, "\u{feff}[1,\n2]".as_bytes()).unwrap();
        let gzip = gzip.finish().unwrap();
        let expected = pairs(&[(1, "1"), (2, "2")]);
        assert_eq!(try_read("a.json.gz", &gzip, 9).unwrap(), expected);
        #[cfg(feature = "zstd")]
        {
            let packed = zstd::encode_all(&b"[1,\n2]"[..], 1).unwrap();
            assert_eq!(try_read("a.json.zst", &packed, 9).unwrap(), expected);
        }
        let cut = try_read("a.json.gz", &gzip[..gzip.len() - 9], 9).unwrap_err();
        assert!(cut.to_string().contains("damaged or cut short"), "{cut}");
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<i32>().prop_map(Value::from),
            "[\\[\\]{},:\"\\\\ \na-cü]{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[\\[\\]{}\"\\\\,]{0,4}", inner, 0..4)
                    .prop_map(|map| map.into_iter().collect()),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_list_has_the_rows_of_its_lines(list in prop::collection::vec(any_json(), 1..6)) {
            let parsed = |content: String| -> Vec<Value> {
                let rows = rows_of(&content).into_iter();
                rows.map(|(_, row)| json::parse(row.as_bytes()).unwrap()).collect()
            };
            // Another row comes first, since a file that begins with `[` is a list.
            let all: Vec<Value> = [json!({})].into_iter().chain(list).collect();
            let lines: Vec<String> = all.iter().map(Value::to_string).collect();
            prop_assert_eq!(&parsed(lines.join("\n")), &all);
            prop_assert_eq!(&parsed(json!(all).to_string()), &all);
            let pretty = serde_json::to_string_pretty(&all).unwrap();
            prop_assert_eq!(&parsed(pretty.replace('\n', "\r\n")), &all);
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes: Vec<u8>, text in "[\\[\\]{},\"\\\\ \n1a]{0,40}") {
            let _ = try_read("rows", &[b"[", &bytes[..]].concat(), 1 << 20);
            let rows = rows_of(&format!("[{text}"));
            let lines: Vec<usize> = rows.iter().map(|(line, _)| *line).collect();
            prop_assert!(lines.is_sorted());
        }
    }
}
