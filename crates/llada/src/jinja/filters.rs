//! The filters of jinja2 that make texts; those that make [`numbers`] have a file of their own.

use std::fmt::Write;

use minijinja::{
    Error, State, Value,
    value::{Tuple, ValueKind},
};

use super::{
    Function,
    arguments::{Arguments, bind, optional_whole, strictly, string, truth, whole},
    characters::{case, is_word},
    charge, fail, html, json,
    methods::{self, replace, strip},
    numbers::{abs, file_size, round, to_float, to_int},
    pprint::pprint,
    printf::printf,
    text::{soft, text},
    urlize::urlize,
    values::{is_plain_map, items},
    wordwrap::word_wrap,
    written::padded,
};
use crate::text::is_space;

/// The filters.
pub(super) const ALL: [(&str, Function); 32] = [
    ("abs", abs),
    ("attr", attr),
    ("capitalize", |state, args| cased(state, args, "capitalize")),
    ("center", center),
    ("d", default),
    ("default", default),
    ("e", html::escape),
    ("escape", html::escape),
    ("filesizeformat", file_size),
    ("float", to_float),
    ("forceescape", html::force_escape),
    ("format", format_filter),
    ("indent", indent),
    ("int", to_int),
    ("lower", |state, args| cased(state, args, "lower")),
    ("pprint", pprint),
    ("random", |_, _| fail("`random` gives a random item, another one each time")),
    ("replace", replace_filter),
    ("round", round),
    ("safe", safe),
    ("string", |state, args| {
        let [value] = bind(args, 1, ["value"])?;
        soft(state, value).map(Value::from)
    }),
    ("striptags", html::strip_tags),
    ("title", title),
    ("tojson", json::tojson),
    ("trim", trim),
    ("truncate", truncate),
    ("upper", |state, args| cased(state, args, "upper")),
    ("urlencode", url_encode),
    ("urlize", urlize),
    ("wordcount", word_count),
    ("wordwrap", word_wrap),
    ("xmlattr", html::xml_attributes),
];

fn attr(state: &mut State<'_, '_>, args: Vec<Value>) -> Result<Value, Error> {
    let [value, name] = bind(args, 2, ["obj", "name"])?;
    let (value, name) = (value.unwrap_or_default(), name.unwrap_or_default());
    // Keys of a dictionary are no attributes.
    match is_plain_map(&value) {
        true => {
            let global = state.env().globals().find(|(name, _)| *name == "__item__");
            let Some((_, item)) = global else { return Ok(Value::UNDEFINED) };
            let empty = Value::from_pairs(std::iter::empty::<(Value, Value)>());
            item.call(state, &[empty, name, Value::from(true)])
        }
        false => value.get_item(&name),
    }
}

fn cased(state: &mut State<'_, '_>, args: Vec<Value>, method: &str) -> Result<Value, Error> {
    let [value] = bind(args, 1, ["s"])?;
    let text = soft(state, value)?;
    Ok(Value::from(case(&text, method).unwrap_or(text)))
}

fn center(state: &mut State<'_, '_>, args: Vec<Value>) -> Result<Value, Error> {
    let [value, width] = bind(args, 1, ["value", "width"])?;
    let width = width.as_ref().map(whole).transpose()?.unwrap_or(80);
    let width = usize::try_from(width).unwrap_or(0);
    padded(state, &soft(state, value)?, width, ' ', "center").map(Value::from)
}

fn default(_: &mut State<'_, '_>, args: Vec<Value>) -> Result<Value, Error> {
    let [value, default, boolean] = bind(args, 1, ["value", "default_value", "boolean"])?;
    let value = value.unwrap_or_default();
    let replaced = value.is_undefined() || (truth(boolean.as_ref()) && !value.is_true());
    Ok(if replaced { default.unwrap_or(Value::from("")) } else { value })
}

fn safe(state: &mut State<'_, '_>, args: Vec<Value>) -> Result<Value, Error> {
    let [value] = bind(args, 1, ["value"])?;
    Ok(Value::from_safe_string(soft(state, value)?))
}

fn format_filter(state: &mut State<'_, '_>, mut args: Vec<Value>) -> Result<Value, Error> {
    if args.is_empty() {
        return fail("nothing to format");
    }
    let template = text(state, &args.remove(0))?;
    let Arguments { placed, named } = Arguments::new(args)?;
    let right = match (placed.is_empty(), named.is_empty()) {
        (false, false) => return fail("values by place and by name at once"),
        (true, false) => Value::from_pairs(named),
        (_, true) => Value::from(Tuple::from(placed)),
    };
    printf(state, &template, &right).map(Value::from)
}

fn indent(state: &mut State<'_, '_>, args: Vec<Value>) -> Result<Value, Error> {
    let [value, width, first, blank] = bind(args, 1, ["s", "width", "first", "blank"])?;
    let width = width.unwrap_or(Value::from(4));
    let text = strictly(value)? + "\n";
    let lines = methods::lines(&text, false);
    let indention = match width.kind() {
        ValueKind::String => string(&width)?.to_owned(),
        _ => {
            let width = usize::try_from(whole(&width)?).unwrap_or(0);
            charge(state, width.saturating_mul(lines.len()))?;
            " ".repeat(width)
        }
    };
    charge(state, indention.len().saturating_mul(lines.len()))?;
    let mut out = if truth(first.as_ref()) { indention.clone() } else { String::new() };
    for (at, line) in lines.iter().enumerate() {
        if at > 0 {
            out.push('\n');
            if truth(blank.as_ref()) || !line.is_empty() {
                out.push_str(&indention);
            }
        }
        out.push_str(line);
    }
    Ok(Value::from(out))
}

fn replace_filter(state: &mut State<'_, '_>, args: Vec<Value>) -> Result<Value, Error> {
    let [value, old, new, count] = bind(args, 3, ["s", "old", "new", "count"])?;
    let text = soft(state, value)?;
    let (old, new) = (soft(state, old)?, soft(state, new)?);
    replace(state, &text, &old, &new, optional_whole(count.as_ref())?).map(Value::from)
}

fn title(state: &mut State<'_, '_>, args: Vec<Value>) -> Result<Value, Error> {
    let [value] = bind(args, 1, ["s"])?;
    let text = soft(state, value)?;
    let begins = |c: char| is_space(c) || matches!(c, '-' | '(' | '{' | '[' | '<');
    let mut out = String::new();
    for word in text.split_inclusive(begins) {
        let mut chars = word.chars();
        out.extend(chars.next().into_iter().flat_map(char::to_uppercase));
        out.push_str(&chars.as_str().to_lowercase());
    }
    Ok(Value::from(out))
}

fn trim(state: &mut State<'_, '_>, args: Vec<Value>) -> Result<Value, Error> {
    let [value, chars] = bind(args, 1, ["value", "chars"])?;
    let chars = chars.filter(|c| !c.is_none());
    let set = chars.as_ref().map(string).transpose()?;
    Ok(Value::from(strip(&soft(state, value)?, set, true, true)))
}

fn truncate(_: &mut State<'_, '_>, args: Vec<Value>) -> Result<Value, Error> {
    let names = ["s", "length", "killwords", "end", "leeway"];
    let [value, length, kill, end, leeway] = bind(args, 1, names)?;
    let value = value.unwrap_or_default();
    let length = length.as_ref().map(whole).transpose()?.unwrap_or(255);
    let leeway = optional_whole(leeway.as_ref())?.unwrap_or(5);
    let end = end.unwrap_or(Value::from("..."));
    let end = string(&end)?;
    let room = length - i64::try_from(end.chars().count()).unwrap_or(0);
    let (Ok(room), true) = (usize::try_from(room), leeway >= 0) else {
        return fail("a length shorter than the end");
    };
    let found = value.as_str().map(|text| text.chars().count()).or_else(|| value.len());
    let fits = found.is_some_and(|found| found as i64 <= length.saturating_add(leeway));
    if fits || value.is_undefined() {
        return Ok(value);
    }
    let text = string(&value)?;
    let kept: String = text.chars().take(room).collect();
    let kept = match truth(kill.as_ref()) {
        true => kept.as_str(),
        false => kept.rsplit_once(' ').map_or(kept.as_str(), |(words, _)| words),
    };
    Ok(Value::from(format!("{kept}{end}")))
}

fn url_encode(state: &mut State<'_, '_>, args: Vec<Value>) -> Result<Value, Error> {
    let [value] = bind(args, 1, ["value"])?;
    let value = value.unwrap_or_default();
    let quote = |text: &str, query: bool| {
        let mut out = String::new();
        for byte in text.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'.' | b'-' | b'~' => {
                    out.push(char::from(byte));
                }
                b'/' if !query => out.push('/'),
                b' ' if query => out.push('+'),
                // Writing to a string does not fail.
                byte => _ = write!(out, "%{byte:02X}"),
            }
        }
        out
    };
    let is_list = matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable | ValueKind::Map);
    if !is_list {
        return Ok(Value::from(quote(&text(state, &value)?, false)));
    }
    let mut parts = Vec::new();
    for item in items(state, &value)? {
        let pair = match is_plain_map(&value) {
            true => vec![item.clone(), value.get_item(&item)?],
            false => items(state, &item)?,
        };
        let [key, value] = pair.as_slice() else { return fail("no pairs to encode") };
        let (key, value) = (text(state, key)?, text(state, value)?);
        parts.push(format!("{}={}", quote(&key, true), quote(&value, true)));
    }
    Ok(Value::from(parts.join("&")))
}

fn word_count(state: &mut State<'_, '_>, args: Vec<Value>) -> Result<Value, Error> {
    let [value] = bind(args, 1, ["s"])?;
    let text = soft(state, value)?;
    Ok(text.split(|c| !is_word(c)).filter(|word| !word.is_empty()).count().into())
}
