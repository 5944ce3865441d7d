//! The filter `pprint`: values as `pprint.pformat` of Python lays them out.

use minijinja::{Error, State, Value, value::ValueKind};

use super::{
    arguments::bind,
    charge,
    methods::lines,
    order::sorted_keys,
    text::{Writer, quoted},
    values::{Group, is_list, is_plain_map, items},
};
use crate::text::is_space;

/// Characters of a line.
const WIDTH: usize = 80;

/// The filter.
pub(super) fn pprint(state: &mut State<'_, '_>, args: Vec<Value>) -> Result<Value, Error> {
    let [value] = bind(args, 1, ["value"])?;
    let mut printer = Printer { out: Writer::sorted(state) };
    printer.format(&value.unwrap_or_default(), Place { indent: 0, allowance: 0, level: 1 })?;
    Ok(Value::from(printer.out.out))
}

/// Where a value is written.
#[derive(Clone, Copy)]
struct Place {
    /// The column of its lines.
    indent: usize,
    /// Characters that come after it on its last line.
    allowance: usize,
    /// 1 for the value itself, more for what is in it.
    level: usize,
}

/// Python's `PrettyPrinter`, function by function.
struct Printer<'a, 'b, 'c> {
    out: Writer<'a, 'b, 'c>,
}

impl Printer<'_, '_, '_> {
    fn format(&mut self, value: &Value, place: Place) -> Result<(), Error> {
        let written = self.repr(value)?;
        let Place { indent, allowance, level } = place;
        let fits = written.chars().count() + indent + allowance <= WIDTH;
        let inside = Place { indent: indent + 1, allowance: allowance + 1, level: level + 1 };
        match value.kind() {
            _ if fits => self.out.push(&written),
            ValueKind::String if written.len() > 2 => {
                self.string(value.as_str().unwrap_or_default(), place)
            }
            ValueKind::Map if is_plain_map(value) => self.dictionary(value, inside),
            _ if is_list(value) && value.downcast_object_ref::<Group>().is_none() => {
                let all = items(self.out.state, value)?;
                let [open, close] = match (value.is_tuple(), all.len()) {
                    (true, 1) => ["(", ",)"],
                    (true, _) => ["(", ")"],
                    (false, _) => ["[", "]"],
                };
                self.out.push(open)?;
                self.list(&all, Place { allowance: allowance + close.len(), ..inside })?;
                self.out.push(close)
            }
            _ => self.out.push(&written),
        }
    }

    fn repr(&mut self, value: &Value) -> Result<String, Error> {
        self.out.state.consume_fuel(1)?;
        let mut writer = Writer::sorted(self.out.state);
        writer.repr(value)?;
        charge(self.out.state, writer.out.len())?;
        Ok(writer.out)
    }

    fn list(&mut self, all: &[Value], place: Place) -> Result<(), Error> {
        for (at, item) in all.iter().enumerate() {
            let allowance = self.begin(at, all.len(), place)?;
            self.format(item, Place { allowance, ..place })?;
        }
        Ok(())
    }

    fn dictionary(&mut self, value: &Value, place: Place) -> Result<(), Error> {
        self.out.push("{")?;
        let keys = sorted_keys(self.out.state, value)?;
        for (at, key) in keys.iter().enumerate() {
            let allowance = self.begin(at, keys.len(), place)?;
            let written = self.repr(key)?;
            self.out.push(&written)?;
            self.out.push(": ")?;
            let indent = place.indent + written.chars().count() + 2;
            self.format(&value.get_item(key)?, Place { indent, allowance, ..place })?;
        }
        self.out.push("}")
    }

    /// Goes to the place of an entry; what comes after it on its line.
    fn begin(&mut self, at: usize, len: usize, place: Place) -> Result<usize, Error> {
        if at > 0 {
            self.out.push(",")?;
            self.newline(place.indent)?;
        }
        Ok(if at + 1 == len { place.allowance } else { 1 })
    }

    fn newline(&mut self, indent: usize) -> Result<(), Error> {
        self.out.push(&format!("\n{}", " ".repeat(indent)))
    }

    /// A text that is too long for its line, cut after lines and words.
    fn string(&mut self, text: &str, place: Place) -> Result<(), Error> {
        let Place { mut indent, mut allowance, level } = place;
        if level == 1 {
            indent += 1;
            allowance += 1;
        }
        let width = WIDTH.saturating_sub(indent);
        let is_short = |text: &str, room: usize| quoted(text).chars().count() <= room;
        let mut chunks: Vec<String> = Vec::new();
        let all = lines(text, true);
        for (i, line) in all.iter().enumerate() {
            let is_last = i + 1 == all.len();
            let room = |is_end: bool| width.saturating_sub(if is_end { allowance } else { 0 });
            if is_short(line, room(is_last)) {
                chunks.push(quoted(line));
                continue;
            }
            let parts = words(line);
            let mut current = String::new();
            for (j, part) in parts.iter().enumerate() {
                charge(self.out.state, current.len() + part.len())?;
                let candidate = format!("{current}{part}");
                if is_short(&candidate, room(is_last && j + 1 == parts.len())) {
                    current = candidate;
                    continue;
                }
                if !current.is_empty() {
                    chunks.push(quoted(&current));
                }
                current = (*part).to_owned();
            }
            if !current.is_empty() {
                chunks.push(quoted(&current));
            }
        }
        let is_one = chunks.len() == 1;
        if level == 1 && !is_one {
            self.out.push("(")?;
        }
        for (at, chunk) in chunks.iter().enumerate() {
            if at > 0 {
                self.newline(indent)?;
            }
            self.out.push(chunk)?;
        }
        if level == 1 && !is_one { self.out.push(")") } else { Ok(()) }
    }
}

/// Words with the white space that follows them.
fn words(line: &str) -> Vec<&str> {
    let (mut words, mut rest) = (Vec::new(), line);
    while !rest.is_empty() {
        let word = rest.find(is_space).unwrap_or(rest.len());
        let space = rest[word..].find(|c| !is_space(c)).unwrap_or(rest.len() - word);
        let (first, after) = rest.split_at(word + space);
        words.push(first);
        rest = after;
    }
    words
}
