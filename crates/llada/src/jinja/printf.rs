//! Texts with places for values: `%` of Python.

use minijinja::{Error, State, Value, value::ValueKind};

use super::{
    arguments::{float as to_float, whole},
    charge, fail,
    text::{repr, text},
    values::{is_list, is_plain_map, items, kind},
    written::{
        PLAIN, Reader, Spec, at_least, cut, float, integer, pad, prefix, radix, signed, truncated,
    },
};

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
    let may_be_left = is_map || is_list(right) || right.kind() == ValueKind::Seq;
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
