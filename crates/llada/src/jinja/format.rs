//! Texts with places for values: `%` and `str.format` of Python.

use minijinja::{Error, State, Value, value::ValueKind};

use super::{
    arguments::{Arguments, float as to_float, whole},
    charge,
    collections::items,
    fail,
    methods::padded,
    text::{is_plain_map, kind, repr, text},
};

/// How a value is written.
#[derive(Debug, Clone, Copy)]
struct Spec {
    fill: char,
    align: Option<char>,
    sign: Option<char>,
    alternate: bool,
    zeros: bool,
    width: usize,
    group: Option<char>,
    precision: Option<usize>,
    /// The letter at the end: `d`, `f`, `s` and so on.
    letter: Option<char>,
}

const PLAIN: Spec = Spec {
    fill: ' ',
    align: None,
    sign: None,
    alternate: false,
    zeros: false,
    width: 0,
    group: None,
    precision: None,
    letter: None,
};
/// The most digits after a point; Rust has a limit of 65535.
const MOST_DIGITS: usize = 10_000;

/// Characters of a text, of which any number can be looked at before they are read.
struct Reader<'a> {
    rest: &'a str,
}

impl<'a> Reader<'a> {
    fn next_if(&mut self, is: impl Fn(char) -> bool) -> Option<char> {
        let c = self.rest.chars().next().filter(|c| is(*c))?;
        self.rest = &self.rest[c.len_utf8()..];
        Some(c)
    }

    fn take_while(&mut self, is: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|c| !is(c)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        taken
    }

    fn number(&mut self) -> Result<Option<usize>, Error> {
        match self.take_while(|c| c.is_ascii_digit()) {
            "" => Ok(None),
            digits => match digits.parse() {
                Ok(number) => Ok(Some(number)),
                Err(_) => fail("a width that is too large"),
            },
        }
    }
}

/// `template % right`
pub(super) fn printf(
    state: &State<'_, '_>,
    template: &str,
    right: &Value,
) -> Result<String, Error> {
    let is_map = is_plain_map(right);
    let args = if right.is_tuple() { items(state, right)? } else { vec![right.clone()] };
    let mut args = args.into_iter();
    let mut out = String::new();
    let mut reader = Reader { rest: template };
    while !reader.rest.is_empty() {
        out.push_str(reader.take_while(|c| c != '%'));
        if reader.next_if(|c| c == '%').is_none() {
            break;
        }
        let mut named = None;
        if reader.next_if(|c| c == '(').is_some() {
            let name = reader.take_while(|c| c != ')');
            if reader.next_if(|c| c == ')').is_none() || !is_map {
                return fail("a name in a format, and no dictionary");
            }
            let found = right.get_item(&Value::from(name))?;
            if found.is_undefined() {
                return fail(format!("there is no `{name}` to format"));
            }
            named = Some(found);
        }
        let mut spec = PLAIN;
        while let Some(flag) = reader.next_if(|c| "#0- +".contains(c)) {
            match flag {
                '#' => spec.alternate = true,
                '0' => spec.zeros = true,
                '-' => spec.align = Some('<'),
                flag => spec.sign = if flag == '+' { Some('+') } else { spec.sign.or(Some(' ')) },
            }
        }
        let mut star = |reader: &mut Reader<'_>| match reader.next_if(|c| c == '*') {
            Some(_) => match args.next() {
                Some(value) => whole(&value).map(Some),
                None => fail("not enough values to format"),
            },
            None => Ok(reader.number()?.map(|n| i64::try_from(n).unwrap_or(i64::MAX))),
        };
        if let Some(width) = star(&mut reader)? {
            spec.align = if width < 0 { Some('<') } else { spec.align };
            spec.width = usize::try_from(width.unsigned_abs()).unwrap_or(usize::MAX);
        }
        if reader.next_if(|c| c == '.').is_some() {
            let precision = star(&mut reader)?.unwrap_or(0);
            spec.precision = Some(usize::try_from(precision).unwrap_or(0));
        }
        reader.take_while(|c| "hlL".contains(c));
        let Some(letter) = reader.next_if(|_| true) else {
            return fail("a format without its end");
        };
        if letter == '%' {
            out.push('%');
            continue;
        }
        let value = match named {
            Some(value) => value,
            None if is_map => right.clone(),
            None => match args.next() {
                Some(value) => value,
                None => return fail("not enough values to format"),
            },
        };
        let written = conversion(state, spec, letter, &value)?;
        charge(state, written.len())?;
        out.push_str(&written);
    }
    // Whatever has items may go unused; texts and numbers may not.
    let may_be_left = is_map || matches!(right.kind(), ValueKind::Seq | ValueKind::Iterable);
    match args.next().is_some() && (right.is_tuple() || !may_be_left) {
        true => fail("not all values are formatted"),
        false => Ok(out),
    }
}

/// One value as `%` writes it.
fn conversion(
    state: &State<'_, '_>,
    mut spec: Spec,
    letter: char,
    value: &Value,
) -> Result<String, Error> {
    spec.align = spec.align.or(Some('>'));
    let is_number = matches!(value.kind(), ValueKind::Number | ValueKind::Bool);
    match letter {
        's' | 'r' | 'a' => {
            let written = if letter == 's' { text(state, value)? } else { repr(state, value)? };
            spec.zeros = false;
            let kept = cut(&written, spec.precision);
            pad(state, spec, "", &kept)
        }
        'c' => {
            let c = match value.as_str() {
                Some(text) if text.chars().count() == 1 => text.to_owned(),
                Some(_) => return fail("`%c` takes one character"),
                None => match u32::try_from(whole(value)?).ok().and_then(char::from_u32) {
                    Some(c) => c.to_string(),
                    None => return fail("`%c` takes a character"),
                },
            };
            spec.zeros = false;
            pad(state, spec, "", &c)
        }
        'd' | 'i' | 'u' if is_number => {
            let n = match to_float(value) {
                Some(x) if !value.is_integer() => truncated(x)?,
                _ => integer(value)?,
            };
            let digits = at_least(&n.unsigned_abs().to_string(), spec.precision);
            signed(state, spec, n < 0, "", &digits)
        }
        'o' | 'x' | 'X' if is_number && (value.is_integer() || value.kind() == ValueKind::Bool) => {
            let n = integer(value)?;
            let digits = at_least(&radix(n.unsigned_abs(), letter), spec.precision);
            let prefix = ["", prefix(letter)][usize::from(spec.alternate)];
            signed(state, spec, n < 0, prefix, &digits)
        }
        'e' | 'E' | 'f' | 'F' | 'g' | 'G' => match to_float(value) {
            Some(x) => {
                let digits = float(x.abs(), letter, spec.precision.unwrap_or(6), spec.alternate)?;
                signed(state, spec, x.is_sign_negative() && !x.is_nan(), "", &digits)
            }
            None => fail(format!("{} cannot be written by `%{letter}`", kind(value))),
        },
        _ => fail(format!("{} cannot be written by `%{letter}`", kind(value))),
    }
}

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

fn cut(text: &str, most: Option<usize>) -> String {
    text.chars().take(most.unwrap_or(usize::MAX)).collect()
}

fn at_least(digits: &str, least: Option<usize>) -> String {
    format!(
        "{}{digits}",
        "0".repeat(least.unwrap_or(0).min(MOST_DIGITS).saturating_sub(digits.len()))
    )
}

fn integer(value: &Value) -> Result<i128, Error> {
    match value.is_integer() {
        true => i128::try_from(value.clone()),
        false => whole(value).map(i128::from),
    }
}

fn truncated(x: f64) -> Result<i128, Error> {
    match x.is_finite() && x.abs() < 1e38 {
        true => Ok(x.trunc() as i128),
        false => fail("a float that is no whole number"),
    }
}

fn prefix(letter: char) -> &'static str {
    match letter {
        'b' => "0b",
        'o' => "0o",
        'X' => "0X",
        _ => "0x",
    }
}

fn radix(n: u128, letter: char) -> String {
    match letter {
        'b' => format!("{n:b}"),
        'o' => format!("{n:o}"),
        'X' => format!("{n:X}"),
        _ => format!("{n:x}"),
    }
}

fn grouped(digits: &str, separator: Option<char>) -> String {
    let Some(separator) = separator else { return digits.to_owned() };
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(separator);
        }
        out.push(digit);
    }
    out
}

/// A float that is not negative, in one of the forms `e`, `f` and `g`.
fn float(x: f64, letter: char, precision: usize, alternate: bool) -> Result<String, Error> {
    if precision > MOST_DIGITS {
        return fail(format!("more than {MOST_DIGITS} digits after the point"));
    }
    if !x.is_finite() {
        let text = super::text::float(x);
        return Ok(if letter.is_uppercase() { text.to_uppercase() } else { text });
    }
    let scientific = |x: f64, precision: usize| {
        let written = format!("{x:.precision$e}");
        let (digits, exponent) = written.split_once('e').unwrap_or((&written, "0"));
        let number: i32 = exponent.parse().unwrap_or(0);
        (digits.to_owned(), number)
    };
    let with_exponent = |digits: &str, exponent: i32| {
        let sign = if exponent < 0 { '-' } else { '+' };
        format!("{digits}e{sign}{:02}", exponent.unsigned_abs())
    };
    let text = match letter.to_ascii_lowercase() {
        'f' => format!("{x:.precision$}"),
        'e' => {
            let (digits, exponent) = scientific(x, precision);
            with_exponent(&digits, exponent)
        }
        _ => {
            let precision = precision.max(1);
            let (digits, exponent) = scientific(x, precision - 1);
            let short = |digits: &str| match digits.contains('.') && !alternate {
                true => digits.trim_end_matches('0').trim_end_matches('.').to_owned(),
                false => digits.to_owned(),
            };
            match exponent >= -4 && i64::from(exponent) < precision as i64 {
                true => {
                    let places = precision as i64 - 1 - i64::from(exponent);
                    short(&format!("{x:.*}", usize::try_from(places).unwrap_or(0)))
                }
                false => with_exponent(&short(&digits), exponent),
            }
        }
    };
    Ok(if letter.is_uppercase() { text.to_uppercase() } else { text })
}

fn signed(
    state: &State<'_, '_>,
    spec: Spec,
    negative: bool,
    prefix: &str,
    digits: &str,
) -> Result<String, Error> {
    let sign = match (negative, spec.sign) {
        (true, _) => "-",
        (false, Some('+')) => "+",
        (false, Some(_)) => " ",
        (false, None) => "",
    };
    pad(state, spec, &format!("{sign}{prefix}"), digits)
}

/// `head` and `body` in the width of `spec`; zeros go between them.
fn pad(state: &State<'_, '_>, spec: Spec, head: &str, body: &str) -> Result<String, Error> {
    let between = spec.align == Some('=') || (spec.zeros && spec.align != Some('<'));
    if between {
        let fill = if spec.zeros { '0' } else { spec.fill };
        let width = spec.width.saturating_sub(head.chars().count());
        return Ok(format!("{head}{}", padded(state, body, width, fill, "rjust")?));
    }
    let method = match spec.align {
        Some('<') => "ljust",
        Some('^') => return centred(state, spec, &format!("{head}{body}")),
        _ => "rjust",
    };
    padded(state, &format!("{head}{body}"), spec.width, spec.fill, method)
}

/// Unlike `str.center`, a format puts the odd character to the right.
fn centred(state: &State<'_, '_>, spec: Spec, text: &str) -> Result<String, Error> {
    let len = text.chars().count();
    let left = len + spec.width.saturating_sub(len) / 2;
    let start = padded(state, text, left, spec.fill, "rjust")?;
    padded(state, &start, spec.width, spec.fill, "ljust")
}
