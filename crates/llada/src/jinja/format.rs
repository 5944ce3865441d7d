//! Texts with places for values: `str.format` of Python.

use minijinja::{Error, State, Value, value::ValueKind};

use super::{
    arguments::{Arguments, character, float as to_float},
    charge, fail,
    text::{repr, text},
    values::{items, kind},
    written::{PLAIN, Reader, Spec, cut, float, grouped, integer, pad, prefix, radix, signed},
};

/// `template.format(…)`
pub(super) fn format(
    state: &State<'_, '_>,
    template: &str,
    args: Vec<Value>,
) -> Result<String, Error> {
    let args = Arguments::new(args)?;
    filled(state, template, &args, &mut Some(0), true)
}

/// `template.format_map(map)`
pub(super) fn format_map(
    state: &State<'_, '_>,
    template: &str,
    map: &Value,
) -> Result<String, Error> {
    let mut named = Vec::new();
    for key in items(state, map)? {
        let value = map.get_item(&key)?;
        named.push((text(state, &key)?, value));
    }
    filled(state, template, &Arguments { placed: Vec::new(), named }, &mut Some(0), true)
}

/// Fills in the fields of `template`; `next` is the number of the next field without one, as long
/// as no field has one. Formats of fields may have fields if `nested`.
fn filled(
    state: &State<'_, '_>,
    template: &str,
    args: &Arguments,
    next: &mut Option<usize>,
    nested: bool,
) -> Result<String, Error> {
    let mut out = String::new();
    let mut rest = template;
    while let Some(at) = rest.find(['{', '}']) {
        out.push_str(&rest[..at]);
        let brace = &rest[at..=at];
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix(brace) {
            out.push_str(brace);
            rest = after;
            continue;
        }
        if brace == "}" {
            return fail("a single `}` in a format");
        }
        let mut depth = 1;
        let end = rest.char_indices().find(|(_, c)| {
            depth += match c {
                '{' => 1,
                '}' => -1,
                _ => 0,
            };
            depth == 0
        });
        let Some((end, _)) = end else { return fail("a single `{` in a format") };
        let (field, after) = rest.split_at(end);
        rest = &after[1..];
        // A format begins after the first colon, which may not be a key's in brackets.
        let brackets = field.find('[').map_or(0, |open| {
            field
                .find([':', '!'])
                .filter(|colon| *colon < open)
                .map_or_else(|| field[open..].find(']').map_or(0, |close| open + close), |_| 0)
        });
        let (field, spec) = match field[brackets..].find(':') {
            Some(colon) => (&field[..brackets + colon], &field[brackets + colon + 1..]),
            None => (field, ""),
        };
        let (field, conversion) = match field[brackets.min(field.len())..].find('!') {
            Some(mark) => (&field[..brackets + mark], &field[brackets + mark + 1..]),
            None => (field, ""),
        };
        let value = lookup(field, args, next)?;
        let value = match conversion {
            "" => value,
            "s" => Value::from(text(state, &value)?),
            "r" | "a" => Value::from(repr(state, &value)?),
            other => return fail(format!("the conversion `{other}` is unknown")),
        };
        let spec = match nested && spec.contains('{') {
            true => filled(state, spec, args, next, false)?,
            false => spec.to_owned(),
        };
        let written = formatted(state, &spec, &value)?;
        charge(state, out.len() / 8 + written.len())?;
        out.push_str(&written);
    }
    out.push_str(rest);
    Ok(out)
}

/// The value that a field names.
fn lookup(field: &str, args: &Arguments, next: &mut Option<usize>) -> Result<Value, Error> {
    let end = field.find(['.', '[']).unwrap_or(field.len());
    let (name, mut rest) = field.split_at(end);
    let placed = |at: usize| match args.placed.get(at) {
        Some(value) => Ok(value.clone()),
        None => fail("not enough values to format"),
    };
    let mut value = match (name, *next) {
        ("", Some(at)) => {
            *next = Some(at + 1);
            placed(at)?
        }
        ("", None) => return fail("fields with and without numbers"),
        (digits, _) if digits.bytes().all(|b| b.is_ascii_digit()) => {
            if next.is_some_and(|at| at > 0) {
                return fail("fields with and without numbers");
            }
            *next = None;
            placed(digits.parse().unwrap_or(usize::MAX))?
        }
        (name, _) => match args.named.iter().find(|(known, _)| known == name) {
            Some((_, value)) => value.clone(),
            None => return fail(format!("there is no `{name}` to format")),
        },
    };
    while !rest.is_empty() {
        let inside = rest.strip_prefix('[');
        let (key, after) = match (inside, rest.strip_prefix('.')) {
            (Some(inside), _) => match inside.split_once(']') {
                Some(split) => split,
                None => return fail("a `[` without `]` in a format"),
            },
            (None, Some(name)) => name.split_at(name.find(['.', '[']).unwrap_or(name.len())),
            (None, None) => return fail("a field that cannot be read"),
        };
        value = match key.parse::<i64>() {
            Ok(index) if inside.is_some() => value.get_item(&Value::from(index))?,
            _ => value.get_item(&Value::from(key))?,
        };
        rest = after;
    }
    Ok(value)
}

/// A value as `format(value, spec)` of Python writes it.
fn formatted(state: &State<'_, '_>, spec: &str, value: &Value) -> Result<String, Error> {
    if spec.is_empty() {
        return text(state, value);
    }
    let mut spec = parsed(spec)?;
    let letter = spec.letter;
    match value.kind() {
        ValueKind::String if letter.is_none_or(|l| l == 's') => {
            spec.align = spec.align.or(Some('<'));
            if spec.zeros {
                (spec.fill, spec.zeros) = ('0', false);
            }
            let kept = cut(value.as_str().unwrap_or_default(), spec.precision);
            pad(state, spec, "", &kept)
        }
        ValueKind::Number | ValueKind::Bool => {
            spec.align = spec.align.or(Some('>'));
            let whole = value.is_integer() || value.kind() == ValueKind::Bool;
            match letter {
                None | Some('d' | 'n') if whole => {
                    let n = integer(value)?;
                    let digits = grouped(&n.unsigned_abs().to_string(), spec.group);
                    signed(state, spec, n < 0, "", &digits)
                }
                Some(letter @ ('b' | 'o' | 'x' | 'X')) if whole => {
                    let n = integer(value)?;
                    let prefix = ["", prefix(letter)][usize::from(spec.alternate)];
                    signed(state, spec, n < 0, prefix, &radix(n.unsigned_abs(), letter))
                }
                Some('c') if whole => {
                    let is_plain = spec.sign.or(spec.group).is_none() && spec.precision.is_none();
                    if spec.alternate || !is_plain {
                        return fail("a character that should be written as a number");
                    }
                    pad(state, spec, "", &character(value)?.to_string())
                }
                None | Some('e' | 'E' | 'f' | 'F' | 'g' | 'G' | 'n' | '%') => {
                    let x = to_float(value).unwrap_or(f64::NAN);
                    let digits = match (letter, spec.precision) {
                        (None, None) => super::text::float(x.abs()),
                        (None, Some(p)) => {
                            let digits = float(x.abs(), 'g', p, false)?;
                            let plain = digits.bytes().all(|b| b.is_ascii_digit());
                            if plain { digits + ".0" } else { digits }
                        }
                        (Some('%'), p) => {
                            float(x.abs() * 100.0, 'f', p.unwrap_or(6), spec.alternate)? + "%"
                        }
                        (Some(l), p) => {
                            let l = if l == 'n' { 'g' } else { l };
                            float(x.abs(), l, p.unwrap_or(6), spec.alternate)?
                        }
                    };
                    let digits = match spec.group {
                        Some(_) => {
                            let end = digits.find(|c: char| !c.is_ascii_digit());
                            let (whole, rest) = digits.split_at(end.unwrap_or(digits.len()));
                            grouped(whole, spec.group) + rest
                        }
                        None => digits,
                    };
                    signed(state, spec, x.is_sign_negative() && !x.is_nan(), "", &digits)
                }
                Some(letter) => fail(format!("{} cannot be written by `{letter}`", kind(value))),
            }
        }
        _ => fail(format!("{} cannot be written by a format", kind(value))),
    }
}

fn parsed(source: &str) -> Result<Spec, Error> {
    let mut spec = PLAIN;
    let mut reader = Reader { rest: source };
    let is_align = |c: char| "<>=^".contains(c);
    let mut chars = source.chars();
    if let (Some(fill), Some(align)) = (chars.next(), chars.next())
        && is_align(align)
    {
        (spec.fill, spec.align) = (fill, Some(align));
        reader.rest = chars.as_str();
    } else {
        spec.align = reader.next_if(is_align);
    }
    spec.sign = reader.next_if(|c| "+- ".contains(c)).filter(|c| *c != '-');
    spec.alternate = reader.next_if(|c| c == '#').is_some();
    let zero = reader.rest.starts_with('0');
    spec.width = reader.number()?.unwrap_or(0);
    spec.zeros = zero && spec.align.is_none();
    spec.group = reader.next_if(|c| matches!(c, ',' | '_'));
    if reader.next_if(|c| c == '.').is_some() {
        spec.precision = reader.number()?;
        if spec.precision.is_none() {
            return fail("a format without digits after its point");
        }
    }
    spec.letter = reader.next_if(|_| true);
    match reader.rest {
        "" => Ok(spec),
        _ => fail(format!("the format `{source}` cannot be read")),
    }
}
