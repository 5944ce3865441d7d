//! The methods of Python's strings, and the way to those of lists and dictionaries.

use std::{collections::HashSet, fmt, sync::Arc};

use minijinja::{
    Error, ErrorKind, State, Value,
    value::{Object, ObjectRepr, Tuple, ValueKind},
};

use super::{
    arguments::{bind, character, optional_whole, string, truth, whole},
    characters::{case, class},
    charge,
    collections::{self, clamp},
    fail, format,
    text::Writer,
    values::{is_list, is_plain_map, items, kind},
    written::padded,
};
use crate::text::is_space;

/// Calls a method of a value that minijinja knows no methods of.
pub(super) fn call(
    state: &State<'_, '_>,
    value: &Value,
    method: &str,
    args: &[Value],
) -> Result<Value, Error> {
    match value.kind() {
        ValueKind::String => of_string(state, string(value)?, method, args.to_vec()),
        ValueKind::Map if is_plain_map(value) => collections::dict(state, value, method, args),
        ValueKind::Seq | ValueKind::Iterable if value.len().is_some() => {
            collections::sequence(state, value, method, args)
        }
        ValueKind::Number if !value.is_integer() && method == "is_integer" => {
            let x = f64::try_from(value.clone())?;
            Ok(Value::from(x.fract() == 0.0))
        }
        _ => Err(Error::from(ErrorKind::UnknownMethod)),
    }
}

/// A method that has not been called yet.
pub(super) struct Bound {
    pub(super) object: Value,
    pub(super) method: String,
}

impl fmt::Debug for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<built-in method {}>", self.method)
    }
}

impl Object for Bound {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn call(self: &Arc<Self>, state: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
        call(state, &self.object, &self.method, args)
    }
}

fn of_string(
    state: &State<'_, '_>,
    text: &str,
    method: &str,
    args: Vec<Value>,
) -> Result<Value, Error> {
    match method {
        "strip" | "lstrip" | "rstrip" => {
            let [set] = bind(args, 0, ["chars"])?;
            let set = set.filter(|s| !s.is_none());
            let set = set.as_ref().map(string).transpose()?;
            let (left, right) = (method != "rstrip", method != "lstrip");
            Ok(Value::from(strip(text, set, left, right)))
        }
        "startswith" | "endswith" => affix(state, text, method, args),
        "find" | "rfind" | "index" | "rindex" | "count" => search(text, method, args),
        "replace" => {
            let [old, new, count] = bind(args, 2, ["old", "new", "count"])?;
            let (old, new) = (old.unwrap_or_default(), new.unwrap_or_default());
            let count = count.as_ref().map(whole).transpose()?;
            replace(state, text, string(&old)?, string(&new)?, count).map(Value::from)
        }
        "split" | "rsplit" => {
            let [separator, most] = bind(args, 0, ["sep", "maxsplit"])?;
            let separator = separator.filter(|s| !s.is_none());
            let separator = separator.as_ref().map(string).transpose()?;
            let most = most.as_ref().map(whole).transpose()?;
            let most = most.and_then(|n| usize::try_from(n).ok());
            charge(state, text.len() * 8)?;
            let parts = match (separator, method) {
                (Some(""), _) => return fail("an empty separator"),
                (Some(at), "split") => match most {
                    Some(most) => text.splitn(most.saturating_add(1), at).collect(),
                    None => text.split(at).collect(),
                },
                (Some(at), _) => {
                    let mut parts: Vec<&str> = match most {
                        Some(most) => text.rsplitn(most.saturating_add(1), at).collect(),
                        None => text.rsplit(at).collect(),
                    };
                    parts.reverse();
                    parts
                }
                (None, "split") => words(text, most),
                (None, _) => last_words(text, most),
            };
            Ok(texts(parts))
        }
        "splitlines" => {
            let [keep] = bind(args, 0, ["keepends"])?;
            charge(state, text.len() * 8)?;
            Ok(texts(lines(text, truth(keep.as_ref()))))
        }
        "partition" | "rpartition" => {
            let [separator] = bind(args, 1, ["sep"])?;
            let separator = separator.unwrap_or_default();
            let separator = string(&separator)?;
            if separator.is_empty() {
                return fail("an empty separator");
            }
            let parts = match method {
                "partition" => {
                    text.split_once(separator).map_or([text, "", ""], |(a, b)| [a, separator, b])
                }
                _ => text.rsplit_once(separator).map_or(["", "", text], |(a, b)| [a, separator, b]),
            };
            Ok(Value::from(Tuple::from(parts.map(Value::from))))
        }
        "join" => {
            let [list] = bind(args, 1, ["iterable"])?;
            let list = items(state, &list.unwrap_or_default())?;
            let parts: Vec<&str> = list.iter().map(string).collect::<Result<_, _>>()?;
            join(state, &parts, text).map(Value::from)
        }
        "removeprefix" | "removesuffix" => {
            let [affix] = bind(args, 1, ["affix"])?;
            let affix = affix.unwrap_or_default();
            let affix = string(&affix)?;
            let rest = match method {
                "removeprefix" => text.strip_prefix(affix),
                _ => text.strip_suffix(affix),
            };
            Ok(Value::from(rest.unwrap_or(text)))
        }
        "center" | "ljust" | "rjust" | "zfill" => pad(state, text, method, args),
        "expandtabs" => {
            let [size] = bind(args, 0, ["tabsize"])?;
            let size = size.as_ref().map(whole).transpose()?.unwrap_or(8);
            expand_tabs(state, text, usize::try_from(size).unwrap_or(0)).map(Value::from)
        }
        "maketrans" => table(state, args),
        "translate" => {
            let [table] = bind(args, 1, ["table"])?;
            translate(state, text, &table.unwrap_or_default()).map(Value::from)
        }
        "encode" => fail("`encode` gives bytes, which templates do not have here"),
        "format" => format::format(state, text, args).map(Value::from),
        "format_map" => {
            let [map] = bind(args, 1, ["mapping"])?;
            format::format_map(state, text, &map.unwrap_or_default()).map(Value::from)
        }
        _ => {
            let changed = case(text, method).map(Value::from);
            match changed.or_else(|| class(text, method).map(Value::from)) {
                Some(result) => {
                    let [] = bind(args, 0, [])?;
                    Ok(result)
                }
                None => Err(Error::from(ErrorKind::UnknownMethod)),
            }
        }
    }
}

fn texts(parts: Vec<&str>) -> Value {
    parts.into_iter().map(Value::from).collect::<Vec<_>>().into()
}

/// `text` without the characters of `set`, or white space, at its ends.
pub(super) fn strip<'a>(text: &'a str, set: Option<&str>, left: bool, right: bool) -> &'a str {
    let set: Option<HashSet<char>> = set.map(|set| set.chars().collect());
    let strips = |c: char| set.as_ref().map_or_else(|| is_space(c), |set| set.contains(&c));
    let text = if left { text.trim_start_matches(strips) } else { text };
    if right { text.trim_end_matches(strips) } else { text }
}

fn affix(
    state: &State<'_, '_>,
    text: &str,
    method: &str,
    args: Vec<Value>,
) -> Result<Value, Error> {
    let [affix, start, stop] = bind(args, 1, ["affix", "start", "end"])?;
    let affix = affix.unwrap_or_default();
    let affixes = if affix.is_tuple() { items(state, &affix)? } else { vec![affix] };
    let (text, _) = part(text, start.as_ref(), stop.as_ref())?;
    for affix in &affixes {
        let affix = string(affix)?;
        let found = match method {
            "startswith" => text.is_some_and(|text| text.starts_with(affix)),
            _ => text.is_some_and(|text| text.ends_with(affix)),
        };
        if found {
            return Ok(Value::from(true));
        }
    }
    Ok(Value::from(false))
}

/// The part of `text` between two places counted in characters, and its first place; none if it
/// begins after the end.
fn part<'a>(
    text: &'a str,
    start: Option<&Value>,
    stop: Option<&Value>,
) -> Result<(Option<&'a str>, usize), Error> {
    let (start, stop) = (optional_whole(start)?, optional_whole(stop)?);
    if start.is_none() && stop.is_none() {
        return Ok((Some(text), 0));
    }
    let len = text.chars().count();
    let beyond = start.is_some_and(|start| start > len as i64);
    let range = clamp(start, stop, len);
    let byte = |n| text.char_indices().nth(n).map_or(text.len(), |(at, _)| at);
    let part = &text[byte(range.start)..byte(range.end)];
    Ok(((!beyond).then_some(part), range.start))
}

fn search(text: &str, method: &str, args: Vec<Value>) -> Result<Value, Error> {
    let [wanted, start, stop] = bind(args, 1, ["sub", "start", "end"])?;
    let wanted = wanted.unwrap_or_default();
    let wanted = string(&wanted)?;
    let (inside, first) = part(text, start.as_ref(), stop.as_ref())?;
    if method == "count" {
        return Ok(match (inside, wanted) {
            (None, _) => 0,
            (Some(inside), "") => inside.chars().count() + 1,
            (Some(inside), _) => inside.matches(wanted).count(),
        }
        .into());
    }
    let found = inside.and_then(|inside| {
        let at = match method.starts_with('r') {
            true => inside.rfind(wanted),
            false => inside.find(wanted),
        };
        at.map(|at| first + inside[..at].chars().count())
    });
    match found {
        Some(at) => Ok(at.into()),
        None if method.ends_with("index") => fail("the text is not found"),
        None => Ok(Value::from(-1)),
    }
}

/// `text` with the first `count` of `old`, or all, replaced.
pub(super) fn replace(
    state: &State<'_, '_>,
    text: &str,
    old: &str,
    new: &str,
    count: Option<i64>,
) -> Result<String, Error> {
    let count = count.and_then(|n| usize::try_from(n).ok()).unwrap_or(usize::MAX);
    let found = match old {
        "" => text.chars().count() + 1,
        _ => text.matches(old).count(),
    };
    charge(state, text.len() + found.min(count).saturating_mul(new.len()))?;
    Ok(text.replacen(old, new, count))
}

/// `parts` with `separator` between them.
pub(super) fn join(
    state: &State<'_, '_>,
    parts: &[&str],
    separator: &str,
) -> Result<String, Error> {
    let between = separator.len().saturating_mul(parts.len());
    charge(state, parts.iter().fold(between, |sum, part| sum.saturating_add(part.len())))?;
    Ok(parts.join(separator))
}

/// The words of `text`; after `most` of them comes the rest.
fn words(text: &str, most: Option<usize>) -> Vec<&str> {
    let mut words = Vec::new();
    let mut rest = strip(text, None, true, false);
    while !rest.is_empty() {
        if most == Some(words.len()) {
            words.push(rest);
            break;
        }
        let end = rest.find(is_space).unwrap_or(rest.len());
        words.push(&rest[..end]);
        rest = strip(&rest[end..], None, true, false);
    }
    words
}

fn last_words(text: &str, most: Option<usize>) -> Vec<&str> {
    let mut words = Vec::new();
    let mut rest = strip(text, None, false, true);
    while !rest.is_empty() {
        if most == Some(words.len()) {
            words.push(rest);
            break;
        }
        let last = rest.char_indices().rev().find(|(_, c)| is_space(*c));
        let start = last.map_or(0, |(at, c)| at + c.len_utf8());
        words.push(&rest[start..]);
        rest = strip(&rest[..start], None, false, true);
    }
    words.reverse();
    words
}

/// The lines of `text`, with their ends if `keep`.
pub(super) fn lines(text: &str, keep: bool) -> Vec<&str> {
    let mut lines = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.char_indices().find(|(_, c)| {
            matches!(
                c,
                '\n' | '\r' | '\x0b' | '\x0c' | '\x1c'
                    ..='\x1e' | '\u{85}' | '\u{2028}' | '\u{2029}'
            )
        });
        let Some((at, c)) = end else {
            lines.push(rest);
            break;
        };
        let crlf = rest[at..].starts_with("\r\n");
        let next = at + if crlf { 2 } else { c.len_utf8() };
        lines.push(&rest[..if keep { next } else { at }]);
        rest = &rest[next..];
    }
    lines
}

fn pad(state: &State<'_, '_>, text: &str, method: &str, args: Vec<Value>) -> Result<Value, Error> {
    let [width, fill] = bind(args, 1, ["width", "fillchar"])?;
    let width = usize::try_from(whole(&width.unwrap_or_default())?).unwrap_or(0);
    let fill = match (&fill, method) {
        (Some(_), "zfill") => return fail("`zfill` takes a width alone"),
        (Some(fill), _) => match string(fill)?.chars().collect::<Vec<_>>()[..] {
            [fill] => fill,
            _ => return fail("the fill is not one character"),
        },
        (None, "zfill") => '0',
        (None, _) => ' ',
    };
    padded(state, text, width, fill, method).map(Value::from)
}

/// The table for [`translate`] that `str.maketrans` makes: of a dictionary, or of characters, what
/// they become, and characters that go.
fn table(state: &State<'_, '_>, args: Vec<Value>) -> Result<Value, Error> {
    let [from, to, gone] = bind(args, 1, ["x", "y", "z"])?;
    let from = from.unwrap_or_default();
    let code = |c: char| Value::from(u32::from(c));
    let mut pairs = Vec::new();
    if let Some(to) = to {
        let (from, to, gone) = (string(&from)?, string(&to)?, gone.unwrap_or(Value::from("")));
        let gone = string(&gone)?;
        if from.chars().count() != to.chars().count() {
            return fail("`maketrans` takes as many characters as they become");
        }
        charge(state, (from.len() + gone.len()).saturating_mul(64))?;
        pairs.extend(from.chars().map(code).zip(to.chars().map(code)));
        pairs.extend(gone.chars().map(|c| (code(c), Value::from(()))));
    } else if is_plain_map(&from) {
        for key in items(state, &from)? {
            let item = from.get_item(&key)?;
            let mut chars = key.as_str().unwrap_or_default().chars();
            pairs.push(match (chars.next(), chars.next()) {
                (Some(c), None) => (code(c), item),
                _ => (Value::from(whole(&key)?), item),
            });
        }
    } else {
        return fail(format!("{} where a dictionary should stand", kind(&from)));
    }
    Ok(Value::from_pairs(pairs))
}

/// `text` with each character as `table` has it by its number: another, a text, or none.
fn translate(state: &State<'_, '_>, text: &str, table: &Value) -> Result<String, Error> {
    let is_map = is_plain_map(table);
    if !is_map && !is_list(table) {
        return fail(format!("{} where a table should stand", kind(table)));
    }
    charge(state, text.len().saturating_mul(8))?;
    let mut writer = Writer::new(state);
    for c in text.chars() {
        let found = match is_map {
            true => table.as_object().and_then(|map| map.get_value(&Value::from(u32::from(c)))),
            false => Some(table.get_item_by_index(c as usize)?).filter(|v| !v.is_undefined()),
        };
        match found {
            None => writer.push(c.encode_utf8(&mut [0; 4]))?,
            Some(found) if found.is_none() => {}
            Some(found) => match found.as_str() {
                Some(text) => writer.push(text)?,
                None => writer.push(character(&found)?.encode_utf8(&mut [0; 4]))?,
            },
        }
    }
    Ok(writer.out)
}

fn expand_tabs(state: &State<'_, '_>, text: &str, size: usize) -> Result<String, Error> {
    charge(state, text.matches('\t').count().saturating_mul(size))?;
    let (mut out, mut column) = (String::new(), 0);
    for c in text.chars() {
        match c {
            '\t' if size == 0 => {}
            '\t' => {
                let n = size - column % size;
                out.push_str(&" ".repeat(n));
                column += n;
            }
            c => {
                out.push(c);
                column = if matches!(c, '\n' | '\r') { 0 } else { column + 1 };
            }
        }
    }
    Ok(out)
}
