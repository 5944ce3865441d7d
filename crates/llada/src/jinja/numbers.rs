//! The filters of jinja2 that make numbers, and `filesizeformat`.

use minijinja::{Error, State, Value, value::ValueKind};

use super::{
    arguments::{bind, float, string, truth, whole},
    arithmetic::number,
    fail,
    values::kind,
};
use crate::text::is_space;

pub(super) fn abs(_: &mut State<'_, '_>, args: Vec<Value>) -> Result<Value, Error> {
    let [value] = bind(args, 1, ["value"])?;
    let value = value.unwrap_or_default();
    match value.kind() {
        ValueKind::Bool => whole(&value).map(Value::from),
        ValueKind::Number if value.is_integer() => {
            Ok(number(i128::try_from(value)?.saturating_abs()))
        }
        ValueKind::Number => Ok(Value::from(f64::try_from(value)?.abs())),
        _ => fail(format!("{} has no absolute value", kind(&value))),
    }
}

pub(super) fn file_size(_: &mut State<'_, '_>, args: Vec<Value>) -> Result<Value, Error> {
    let [value, binary] = bind(args, 1, ["value", "binary"])?;
    let Some(bytes) = parsed_float(&value.unwrap_or_default()) else {
        return fail("a size that is no number");
    };
    let (base, last) = if truth(binary.as_ref()) { (1024.0, "iB") } else { (1000.0, "B") };
    if bytes == 1.0 {
        return Ok(Value::from("1 Byte"));
    }
    if bytes < base {
        return Ok(Value::from(format!("{} Bytes", bytes.trunc())));
    }
    let mut unit = base;
    for (at, prefix) in "kMGTPEZY".chars().enumerate() {
        unit *= base;
        if bytes < unit || at == 7 {
            let prefix = if base == 1024.0 { prefix.to_ascii_uppercase() } else { prefix };
            return Ok(Value::from(format!("{:.1} {prefix}{last}", base * bytes / unit)));
        }
    }
    Ok(Value::UNDEFINED)
}

/// What Python's `float` makes of a value.
fn parsed_float(value: &Value) -> Option<f64> {
    if let Some(x) = float(value) {
        return Some(x);
    }
    let text = value.as_str()?.trim_matches(is_space);
    let digits = |c: Option<char>| c.is_some_and(|c| c.is_ascii_digit());
    let chars: Vec<char> = text.chars().collect();
    for (at, _) in chars.iter().enumerate().filter(|(_, c)| **c == '_') {
        let before = at.checked_sub(1).and_then(|at| chars.get(at));
        if !digits(before.copied()) || !digits(chars.get(at + 1).copied()) {
            return None;
        }
    }
    text.replace('_', "").parse().ok()
}

pub(super) fn to_float(_: &mut State<'_, '_>, args: Vec<Value>) -> Result<Value, Error> {
    let [value, default] = bind(args, 1, ["value", "default"])?;
    let value = value.unwrap_or_default();
    if value.is_undefined() {
        return fail("the value is undefined");
    }
    Ok(parsed_float(&value).map_or_else(|| default.unwrap_or(Value::from(0.0)), Value::from))
}

pub(super) fn to_int(_: &mut State<'_, '_>, args: Vec<Value>) -> Result<Value, Error> {
    let [value, default, base] = bind(args, 1, ["value", "default", "base"])?;
    let value = value.unwrap_or_default();
    let base = base.as_ref().map(whole).transpose()?.unwrap_or(10);
    if value.is_undefined() {
        return fail("the value is undefined");
    }
    if value.is_integer() {
        return Ok(value);
    }
    if value.kind() == ValueKind::Bool {
        return whole(&value).map(Value::from);
    }
    if let Some(n) = value.as_str().and_then(|text| parsed_int(text, base)) {
        return Ok(number(n));
    }
    match parsed_float(&value).filter(|x| x.is_finite() && x.abs() < 1e38) {
        Some(x) => Ok(number(x.trunc() as i128)),
        None => Ok(default.unwrap_or(Value::from(0))),
    }
}

/// What Python's `int` makes of a text.
fn parsed_int(text: &str, base: i64) -> Option<i128> {
    let text = text.trim_matches(is_space);
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let lower = digits.to_lowercase();
    let prefixed = [("0x", 16), ("0o", 8), ("0b", 2)]
        .into_iter()
        .find(|(prefix, of)| lower.starts_with(prefix) && (base == 0 || base == *of));
    let (digits, base) = match prefixed {
        Some((_, of)) => (lower[2..].strip_prefix('_').unwrap_or(&lower[2..]).to_owned(), of),
        None if base == 0 => (lower, 10),
        None => (lower, base),
    };
    let between = digits.contains("__") || digits.starts_with('_') || digits.ends_with('_');
    if between || digits.starts_with(['+', '-']) || !(2..=36).contains(&base) {
        return None;
    }
    let n = i128::from_str_radix(&digits.replace('_', ""), base as u32).ok()?;
    Some(if text.starts_with('-') { -n } else { n })
}

pub(super) fn round(_: &mut State<'_, '_>, args: Vec<Value>) -> Result<Value, Error> {
    let [value, precision, method] = bind(args, 1, ["value", "precision", "method"])?;
    let value = value.unwrap_or_default();
    let precision = precision.as_ref().map(whole).transpose()?.unwrap_or(0);
    let method = method.unwrap_or(Value::from("common"));
    let Some(x) = float(&value) else { return fail(format!("{} cannot be rounded", kind(&value))) };
    let places = i32::try_from(precision.clamp(-400, 400)).unwrap_or(0);
    let power = 10_f64.powi(places);
    match string(&method)? {
        "common" if value.is_integer() || value.kind() == ValueKind::Bool => {
            let n = if value.is_integer() { i128::try_from(value)? } else { whole(&value)?.into() };
            Ok(number(if places >= 0 { n } else { round_whole(n, places.unsigned_abs()) }))
        }
        "common" if !x.is_finite() => Ok(value),
        // As Python does, by the shortest decimal that is exact to these places.
        "common" if places >= 0 => {
            let written = format!("{x:.*}", usize::try_from(places.min(340)).unwrap_or(0));
            Ok(Value::from(written.parse::<f64>().unwrap_or(x)))
        }
        "common" => {
            let scaled = x * power;
            Ok(Value::from(scaled.round_ties_even() / power))
        }
        method @ ("ceil" | "floor") => {
            let scaled = x * power;
            if !scaled.is_finite() {
                return fail("a number that is too large to be rounded");
            }
            let scaled = if method == "ceil" { scaled.ceil() } else { scaled.floor() };
            // Whole numbers over whole numbers.
            Ok(Value::from(scaled / power + 0.0))
        }
        _ => fail("`method` is common, ceil or floor"),
    }
}

fn round_whole(n: i128, zeros: u32) -> i128 {
    let Some(unit) = 10_i128.checked_pow(zeros) else { return 0 };
    let (down, rest) = (n.div_euclid(unit), n.rem_euclid(unit));
    let up = rest * 2 > unit || (rest * 2 == unit && down % 2 != 0);
    (down + i128::from(up)).saturating_mul(unit)
}
