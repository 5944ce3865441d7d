//! `json.dumps` of Python.

use std::fmt::Write;

use minijinja::{Error, State, Value, value::ValueKind};

use super::{
    arguments::{bind, truth, whole},
    fail,
    order::sort,
    text::{Writer, float},
    values::{is_plain_map, kind},
};

/// How JSON is written.
struct Style {
    ascii: bool,
    sorted: bool,
    indent: Option<String>,
    between: String,
    colon: String,
}

/// The filter `tojson` of `transformers`.
pub(super) fn tojson(state: &mut State<'_, '_>, arguments: Vec<Value>) -> Result<Value, Error> {
    let names = ["value", "ensure_ascii", "indent", "separators", "sort_keys"];
    let [value, ascii, indent, separators, sorted] = bind(arguments, 1, names)?;
    let indent = match indent.filter(|i| !i.is_none()) {
        None => None,
        Some(indent) if indent.kind() == ValueKind::String => indent.as_str().map(str::to_owned),
        Some(indent) => {
            let width = usize::try_from(whole(&indent)?).unwrap_or(0);
            super::charge(state, width)?;
            Some(" ".repeat(width))
        }
    };
    let separators = match separators.filter(|s| !s.is_none()) {
        Some(pair) => pair
            .try_iter()?
            .map(|separator| Ok(super::arguments::string(&separator)?.to_owned()))
            .collect::<Result<Vec<_>, Error>>()?,
        None => vec![if indent.is_some() { "," } else { ", " }.into(), ": ".into()],
    };
    let [between, colon] =
        separators.try_into().or_else(|_| fail("`separators` are not two strings"))?;
    let style = Style {
        ascii: truth(ascii.as_ref()),
        sorted: truth(sorted.as_ref()),
        indent,
        between,
        colon,
    };
    let mut writer = Writer::new(state);
    write(&mut writer, &style, &value.unwrap_or_default(), 0)?;
    Ok(Value::from(writer.out))
}

fn write(
    writer: &mut Writer<'_, '_, '_>,
    style: &Style,
    value: &Value,
    level: usize,
) -> Result<(), Error> {
    match value.kind() {
        ValueKind::String => string(writer, value.as_str().unwrap_or_default(), style.ascii),
        ValueKind::Seq | ValueKind::Iterable
            if value.len().is_some()
                && value.downcast_object_ref::<super::values::View>().is_none() =>
        {
            let items = value.try_iter()?.map(|item| (None, item));
            container(writer, style, level, ["[", "]"], items)
        }
        ValueKind::Map if is_plain_map(value) => {
            let mut keys: Vec<Value> = value.try_iter()?.collect();
            if style.sorted {
                sort(writer.state, &mut keys, |key| Ok(key.clone()), false)?;
            }
            let mut pairs = Vec::with_capacity(keys.len());
            for key in keys {
                let written = match key.kind() {
                    ValueKind::String => key.as_str().unwrap_or_default().to_owned(),
                    _ => scalar(&key).map_or_else(
                        || fail(format!("{} cannot be a key of JSON", kind(&key))),
                        Ok,
                    )?,
                };
                pairs.push((Some(written), value.get_item(&key)?));
            }
            container(writer, style, level, ["{", "}"], pairs.into_iter())
        }
        _ => match scalar(value) {
            Some(text) => writer.push(&text),
            None => fail(format!("{} cannot be written as JSON", kind(value))),
        },
    }
}

/// None, truth values and numbers.
fn scalar(value: &Value) -> Option<String> {
    match value.kind() {
        ValueKind::None => Some("null".into()),
        ValueKind::Bool => Some(value.is_true().to_string()),
        ValueKind::Number if value.is_integer() => Some(value.to_string()),
        ValueKind::Number => f64::try_from(value.clone()).ok().map(|x| match x {
            x if x.is_nan() => "NaN".into(),
            f64::INFINITY => "Infinity".into(),
            f64::NEG_INFINITY => "-Infinity".into(),
            x => float(x),
        }),
        _ => None,
    }
}

fn container(
    writer: &mut Writer<'_, '_, '_>,
    style: &Style,
    level: usize,
    [open, close]: [&str; 2],
    items: impl Iterator<Item = (Option<String>, Value)>,
) -> Result<(), Error> {
    let newline = |writer: &mut Writer<'_, '_, '_>, level: usize| -> Result<(), Error> {
        let Some(indent) = &style.indent else { return Ok(()) };
        writer.push("\n")?;
        (0..level).try_for_each(|_| writer.push(indent))
    };
    writer.push(open)?;
    let mut empty = true;
    for (key, item) in items {
        if !empty {
            writer.push(&style.between)?;
        }
        empty = false;
        newline(writer, level + 1)?;
        if let Some(key) = key {
            string(writer, &key, style.ascii)?;
            writer.push(&style.colon)?;
        }
        writer.deeper(|writer| write(writer, style, &item, level + 1))?;
    }
    if !empty {
        newline(writer, level)?;
    }
    writer.push(close)
}

fn string(writer: &mut Writer<'_, '_, '_>, text: &str, ascii: bool) -> Result<(), Error> {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\x08' => out.push_str("\\b"),
            '\x0c' => out.push_str("\\f"),
            c if c < ' ' || (ascii && !c.is_ascii()) || (ascii && c == '\x7f') => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    // Writing to a string does not fail.
                    _ = write!(out, "\\u{unit:04x}");
                }
            }
            c => out.push(c),
        }
    }
    out.push('"');
    writer.push(&out)
}
