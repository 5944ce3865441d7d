//! Texts in HTML and out of it.

use minijinja::{Error, State, Value};

use super::{
    arguments::{bind, string},
    fail,
    text::{soft, text},
    values::{is_plain_map, items, kind},
};
use crate::text::is_space;

/// `text` for HTML.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\'' => out.push_str("&#39;"),
            '"' => out.push_str("&#34;"),
            c => out.push(c),
        }
    }
    out
}

/// The text of a value for HTML.
pub(super) fn html(state: &State<'_, '_>, value: &Value) -> Result<String, Error> {
    let text = text(state, value)?;
    Ok(if value.is_safe() { text } else { escaped(&text) })
}

/// The filter `escape`.
pub(super) fn escape(state: &mut State<'_, '_>, args: Vec<Value>) -> Result<Value, Error> {
    let [value] = bind(args, 1, ["s"])?;
    html(state, &value.unwrap_or_default()).map(Value::from_safe_string)
}

/// The filter `forceescape`.
pub(super) fn force_escape(state: &mut State<'_, '_>, args: Vec<Value>) -> Result<Value, Error> {
    let [value] = bind(args, 1, ["value"])?;
    Ok(Value::from_safe_string(escaped(&soft(state, value)?)))
}

/// The filter `striptags`.
pub(super) fn strip_tags(state: &mut State<'_, '_>, args: Vec<Value>) -> Result<Value, Error> {
    let [value] = bind(args, 1, ["value"])?;
    let without = without(&soft(state, value)?, "<!--", "-->");
    let without = self::without(&without, "<", ">");
    let words: Vec<&str> = without.split(is_space).filter(|word| !word.is_empty()).collect();
    let mut text = words.join(" ");
    for (entity, c) in
        [("&lt;", "<"), ("&gt;", ">"), ("&#39;", "'"), ("&#34;", "\""), ("&quot;", "\"")]
    {
        text = text.replace(entity, c);
    }
    Ok(Value::from(text.replace("&amp;", "&")))
}

/// `text` without what stands between `open` and `close`, and without these.
fn without(text: &str, open: &str, close: &str) -> String {
    let (mut out, mut rest) = (String::new(), text);
    while let Some(start) = rest.find(open)
        && let Some(len) = rest[start..].find(close)
    {
        out.push_str(&rest[..start]);
        rest = &rest[start + len + close.len()..];
    }
    out + rest
}

/// The filter `xmlattr`.
pub(super) fn xml_attributes(state: &mut State<'_, '_>, args: Vec<Value>) -> Result<Value, Error> {
    let [map, autospace] = bind(args, 1, ["d", "autospace"])?;
    let map = map.unwrap_or_default();
    if !is_plain_map(&map) {
        return fail(format!("{} has no attributes", kind(&map)));
    }
    let mut out = Vec::new();
    for key in items(state, &map)? {
        let value = map.get_item(&key)?;
        if value.is_none() || value.is_undefined() {
            continue;
        }
        let key = string(&key)?;
        if key.contains(|c: char| c.is_ascii_whitespace() || matches!(c, '/' | '>' | '=')) {
            return fail(format!("`{key}` is no name of an attribute"));
        }
        out.push(format!("{}=\"{}\"", escaped(key), escaped(&text(state, &value)?)));
    }
    let space = autospace.is_none_or(|a| a.is_true()) && !out.is_empty();
    Ok(Value::from(format!("{}{}", if space { " " } else { "" }, out.join(" "))))
}
