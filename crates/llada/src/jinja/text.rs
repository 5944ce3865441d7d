//! Values as Python's `str` and `repr` write them.

use std::fmt::Write;

use minijinja::{Error, State, Value, value::ValueKind};

use super::{
    Limits,
    characters::is_printable,
    fail,
    order::sorted_keys,
    values::{Group, View, is_named, is_plain_map},
};

/// A text that cannot become longer than the fuel that is left pays for.
pub(super) struct Writer<'a, 'b, 'c> {
    pub(super) state: &'a State<'b, 'c>,
    pub(super) out: String,
    charged: usize,
    depth: usize,
    /// Whether the keys of dictionaries are sorted.
    sorted: bool,
}

impl<'a, 'b, 'c> Writer<'a, 'b, 'c> {
    pub(super) fn new(state: &'a State<'b, 'c>) -> Self {
        Self { state, out: String::new(), charged: 0, depth: 0, sorted: false }
    }

    /// One that sorts the keys of dictionaries.
    pub(super) fn sorted(state: &'a State<'b, 'c>) -> Self {
        Self { sorted: true, ..Self::new(state) }
    }

    /// Writes `text`, and pays for it.
    pub(super) fn push(&mut self, text: &str) -> Result<(), Error> {
        if self.out.len() + text.len() >= self.charged + 4096 {
            let fuel = (self.out.len() + text.len() - self.charged) / 16;
            self.state.consume_fuel(fuel as u64)?;
            self.charged = self.out.len() + text.len();
        }
        self.out.push_str(text);
        Ok(())
    }

    /// Runs `inside` one level deeper.
    pub(super) fn deeper(
        &mut self,
        inside: impl FnOnce(&mut Self) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.depth += 1;
        if self.depth > Limits::DEPTH + 130 {
            return fail("values that are nested too deeply");
        }
        inside(self)?;
        self.depth -= 1;
        Ok(())
    }

    /// Writes `items` between `open` and `close`, with commas.
    fn list(
        &mut self,
        [open, close]: [&str; 2],
        items: impl Iterator<Item = Value>,
    ) -> Result<usize, Error> {
        self.push(open)?;
        let mut n = 0;
        for item in items {
            if n > 0 {
                self.push(", ")?;
            }
            n += 1;
            self.deeper(|writer| writer.repr(&item))?;
        }
        if open == "(" && n == 1 {
            self.push(",")?;
        }
        self.push(close)?;
        Ok(n)
    }

    /// Writes what `repr` gives.
    pub(super) fn repr(&mut self, value: &Value) -> Result<(), Error> {
        match value.kind() {
            ValueKind::String => {
                let text = quoted(value.as_str().unwrap_or_default());
                match value.is_safe() {
                    true => self.push(&format!("Markup({text})")),
                    false => self.push(&text),
                }
            }
            ValueKind::Undefined => self.push("Undefined"),
            _ => self.str(value),
        }
    }

    /// Writes what `str` gives.
    pub(super) fn str(&mut self, value: &Value) -> Result<(), Error> {
        match value.kind() {
            ValueKind::Undefined => Ok(()),
            ValueKind::None => self.push("None"),
            ValueKind::Bool => self.push(if value.is_true() { "True" } else { "False" }),
            ValueKind::Number if !value.is_integer() => {
                let text = float(f64::try_from(value.clone())?);
                self.push(&text)
            }
            ValueKind::String => self.push(value.as_str().unwrap_or_default()),
            ValueKind::Seq | ValueKind::Iterable => self.sequence(value),
            ValueKind::Map if is_plain_map(value) => self.map(value),
            ValueKind::Map if is_named(value, "Namespace") => {
                self.push("<Namespace ")?;
                self.unsorted(|writer| writer.map(value))?;
                self.push(">")
            }
            _ => self.push(&value.to_string()),
        }
    }

    /// Writes what has a `repr` of its own, which knows nothing of an order.
    fn unsorted(
        &mut self,
        inside: impl FnOnce(&mut Self) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let sorted = std::mem::take(&mut self.sorted);
        inside(self)?;
        self.sorted = sorted;
        Ok(())
    }

    fn map(&mut self, value: &Value) -> Result<(), Error> {
        self.push("{")?;
        let keys = match self.sorted {
            true => sorted_keys(self.state, value)?,
            false => value.try_iter()?.collect(),
        };
        for (n, key) in keys.into_iter().enumerate() {
            if n > 0 {
                self.push(", ")?;
            }
            self.deeper(|writer| writer.repr(&key))?;
            self.push(": ")?;
            let item = value.get_item(&key)?;
            self.deeper(|writer| writer.repr(&item))?;
        }
        self.push("}")
    }

    fn sequence(&mut self, value: &Value) -> Result<(), Error> {
        if value.len().is_none() {
            return self.push("<generator object>");
        }
        if let Some(view) = value.downcast_object_ref::<View>() {
            let items = view.items().to_vec();
            return match view.name() {
                name if view.is_sequence() => self.push(name),
                name => {
                    self.push(name)?;
                    self.list(["([", "])"], items.into_iter()).map(|_| ())
                }
            };
        }
        if value.downcast_object_ref::<Group>().is_some() {
            return self.unsorted(|writer| writer.list(["(", ")"], value.try_iter()?).map(|_| ()));
        }
        let marks = if value.is_tuple() { ["(", ")"] } else { ["[", "]"] };
        self.list(marks, value.try_iter()?).map(|_| ())
    }
}

/// What `str(value)` gives.
pub(crate) fn text(state: &State<'_, '_>, value: &Value) -> Result<String, Error> {
    if value.kind() == ValueKind::String {
        return Ok(value.as_str().unwrap_or_default().to_owned());
    }
    let mut writer = Writer::new(state);
    writer.str(value)?;
    Ok(writer.out)
}

/// The text of a value that a filter for strings is given.
pub(super) fn soft(state: &State<'_, '_>, value: Option<Value>) -> Result<String, Error> {
    text(state, &value.unwrap_or_default())
}

/// What `repr(value)` gives.
pub(super) fn repr(state: &State<'_, '_>, value: &Value) -> Result<String, Error> {
    let mut writer = Writer::new(state);
    writer.repr(value)?;
    Ok(writer.out)
}

/// What `repr` of a float gives.
pub(super) fn float(x: f64) -> String {
    if x.is_nan() {
        return "nan".into();
    }
    if x.is_infinite() {
        return if x > 0.0 { "inf" } else { "-inf" }.into();
    }
    if x == 0.0 || (1e-4..1e16).contains(&x.abs()) {
        let plain = format!("{x}");
        return if plain.contains('.') { plain } else { plain + ".0" };
    }
    let written = format!("{x:e}");
    let (digits, exponent) = written.split_once('e').unwrap_or((&written, "0"));
    let (sign, exponent) = match exponent.strip_prefix('-') {
        Some(exponent) => ('-', exponent),
        None => ('+', exponent),
    };
    format!("{digits}e{sign}{exponent:0>2}")
}

/// What `repr` of a string gives.
pub(super) fn quoted(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut out = String::with_capacity(text.len() + 2);
    out.push(quote);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote => out.extend(['\\', c]),
            c if is_printable(c) => out.push(c),
            // Writing to a string does not fail.
            c => {
                _ = match c as u32 {
                    code @ ..=0xff => write!(out, "\\x{code:02x}"),
                    code @ ..=0xffff => write!(out, "\\u{code:04x}"),
                    code => write!(out, "\\U{code:08x}"),
                }
            }
        }
    }
    out.push(quote);
    out
}
