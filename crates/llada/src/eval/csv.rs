//! Comma- and tab-separated values (RFC 4180): quoted fields may hold separators, quotes and line
//! ends.

/// One record, or why it cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    /// Line on which it begins, from 1.
    pub(super) line: usize,
    /// Its fields.
    pub(super) fields: Result<Vec<String>, &'static str>,
}

/// The records of `text` with fields between `separator`s; empty lines are passed over. As Python's
/// `csv` has it, a quote stands for itself within a field that does not begin with one, and what
/// follows a closing quote belongs to the field; but a quote that is never closed is an error.
pub(super) fn records(text: &str, separator: char) -> Vec<Record> {
    let mut reader = Reader { rest: text, line: 1, separator };
    let mut out = Vec::new();
    while !reader.rest.is_empty() {
        let line = reader.line;
        let fields = reader.record();
        let is_empty_line = matches!(&fields, Ok(f) if f.len() == 1 && f[0].is_empty());
        if !is_empty_line {
            out.push(Record { line, fields });
        }
    }
    out
}

struct Reader<'a> {
    rest: &'a str,
    line: usize,
    separator: char,
}

impl Reader<'_> {
    fn record(&mut self) -> Result<Vec<String>, &'static str> {
        let mut fields = Vec::new();
        loop {
            fields.push(match self.rest.starts_with('"') {
                true => self.quoted()?,
                false => self.plain(),
            });
            match self.rest.strip_prefix(self.separator) {
                Some(rest) => self.rest = rest,
                None => break,
            }
        }
        // A carriage return alone ends a record too: were it left, the next would begin on it, empty.
        let end = ["\r\n", "\n", "\r"].iter().find_map(|end| self.rest.strip_prefix(end));
        if let Some(rest) = end {
            self.take(self.rest.len() - rest.len());
        }
        Ok(fields)
    }

    /// Up to a separator or the end of the line.
    fn plain(&mut self) -> String {
        let end = self.rest.find([self.separator, '\n', '\r']).unwrap_or(self.rest.len());
        let field = self.rest[..end].to_owned();
        self.take(end);
        field
    }

    /// Up to the closing quote, and what follows it; a doubled one stands for itself.
    fn quoted(&mut self) -> Result<String, &'static str> {
        let mut field = String::new();
        self.take(1);
        loop {
            let Some(end) = self.rest.find('"') else {
                self.take(self.rest.len());
                return Err("a quote is never closed");
            };
            field.push_str(&self.rest[..end]);
            self.take(end + 1);
            if !self.rest.starts_with('"') {
                break;
            }
            field.push('"');
            self.take(1);
        }
        field.push_str(&self.plain());
        Ok(field)
    }

    fn take(&mut self, n: usize) {
        let (taken, rest) = self.rest.split_at(n);
        let count = |end: &str| taken.matches(end).count();
        self.line += count("\n") + count("\r") - count("\r\n");
        self.rest = rest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Vec<(usize, Vec<String>)> {
        records(text, ',').into_iter().map(|r| (r.line, r.fields.unwrap())).collect()
    }

    #[test]
    fn quotes_commas_and_line_ends() {
        let text = "a,b\r\n\"x, \"\"y\"\"\nz\",2\n\n,\n3,4";
        let expected = [
            (1, vec!["a", "b"]),
            (2, vec!["x, \"y\"\nz", "2"]),
            (5, vec!["", ""]),
            (6, vec!["3", "4"]),
        ];
        let expected = expected.map(|(n, f)| (n, f.into_iter().map(String::from).collect()));
        assert_eq!(read(text), expected);
    }

    #[test]
    fn quotes_that_are_not_around_a_field_are_read_as_python_reads_them() {
        // `csv.reader` of Python 3.11.
        for (line, expected) in [
            ("1,x\"y", vec![vec!["1", "x\"y"]]),
            ("5\" disk,6\"", vec![vec!["5\" disk", "6\""]]),
            ("\"q\"r,1", vec![vec!["qr", "1"]]),
            ("\"q\"r\"s\",1", vec![vec!["qr\"s\"", "1"]]),
            ("\"q\" ,1", vec![vec!["q ", "1"]]),
            ("a \"\"b\"\",c", vec![vec!["a \"\"b\"\"", "c"]]),
            ("\"a\"\"b\"c\"\"d,e", vec![vec!["a\"bc\"\"d", "e"]]),
            (" \"a\",b", vec![vec![" \"a\"", "b"]]),
            ("\"\",x", vec![vec!["", "x"]]),
            ("a\"\r\nb", vec![vec!["a\""], vec!["b"]]),
            ("\"a\"\rb", vec![vec!["a"], vec!["b"]]),
            ("a,b\rc,d", vec![vec!["a", "b"], vec!["c", "d"]]),
        ] {
            let found: Vec<_> = read(line).into_iter().map(|(_, fields)| fields).collect();
            assert_eq!(found, expected, "{line:?}");
        }
        let found = records("a,b\n1,x\"y\n\"q\"r,1\n2,\"open\n3,w\n", ',');
        let lines: Vec<_> = found.iter().map(|r| (r.line, r.fields.is_ok())).collect();
        assert_eq!(lines, [(1, true), (2, true), (3, true), (4, false)]);
        let lines: Vec<_> = read("a,b\r1,2\r\n\"x\r\",3\n4,5").iter().map(|r| r.0).collect();
        assert_eq!(lines, [1, 2, 3, 5]);
    }

    #[test]
    fn tabs_separate_too_and_quotes_within_fields_stand_for_themselves() {
        let found = records("a, b\t5\" disk\n\"x\ty\"\t2\n", '\t');
        let fields: Vec<_> = found.into_iter().map(|r| r.fields.unwrap()).collect();
        assert_eq!(fields, [["a, b", "5\" disk"], ["x\ty", "2"]]);
    }

    proptest! {
        #[test]
        fn any_text_is_read_to_its_end(text in "[a,\"\r\n é]{0,40}") {
            records(&text, ',');
            records(&text, '\t');
        }

        #[test]
        fn what_is_written_is_read(
            rows in prop::collection::vec(prop::collection::vec("[a,\"\r\n é]{0,6}", 2..4), 0..5)
        ) {
            let quote = |f: &String| format!("\"{}\"", f.replace('"', "\"\""));
            let line = |r: &Vec<String>| r.iter().map(quote).collect::<Vec<_>>().join(",") + "\n";
            let text: String = rows.iter().map(line).collect();
            let found: Vec<_> = read(&text).into_iter().map(|(_, fields)| fields).collect();
            prop_assert_eq!(found, rows);
        }
    }
}
