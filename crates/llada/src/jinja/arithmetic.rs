//! `+`, `*`, `**` and `%` of Python. The translated template calls them with all operands of a chain.

use minijinja::{
    Error, State, Value,
    value::{Tuple, ValueKind},
};

use super::{
    Function,
    arguments::{float, string},
    charge, fail,
    html::escaped,
    printf::printf,
    values::{is_list, items, kind, list},
};

/// The functions, by names that no template has.
pub(super) const ALL: [(&str, Function); 4] = [
    ("__add__", |state, operands| fold(state, operands, sum)),
    ("__modulo__", |state, operands| fold(state, operands, modulo)),
    ("__multiply__", |state, operands| fold(state, operands, product)),
    ("__power__", |state, operands| fold(state, operands, power)),
];

/// What `operator` makes of all `operands`, from left to right.
fn fold(
    state: &State<'_, '_>,
    operands: Vec<Value>,
    operator: impl Fn(&State<'_, '_>, &Value, &Value) -> Result<Value, Error>,
) -> Result<Value, Error> {
    let mut operands = operands.into_iter();
    let first = operands.next().unwrap_or_default();
    operands.try_fold(first, |left, right| operator(state, &left, &right))
}

/// `a + b`
fn sum(state: &State<'_, '_>, a: &Value, b: &Value) -> Result<Value, Error> {
    let (Some(x), Some(y)) = (a.as_str(), b.as_str()) else { return add(state, a, b) };
    charge(state, x.len() + y.len())?;
    if !(a.is_safe() || b.is_safe()) {
        return Ok(Value::from([x, y].concat()));
    }
    let safe = |value: &Value, text: &str| match value.is_safe() {
        true => text.to_owned(),
        false => escaped(text),
    };
    Ok(Value::from_safe_string(safe(a, x) + &safe(b, y)))
}

/// `a + b` of numbers or of lists.
pub(super) fn add(state: &State<'_, '_>, a: &Value, b: &Value) -> Result<Value, Error> {
    if is_list(a) && is_list(b) && a.is_tuple() == b.is_tuple() {
        let mut all = items(state, a)?;
        all.extend(items(state, b)?);
        let tuple = a.is_tuple();
        return Ok(if tuple { Value::from(Tuple::from(all)) } else { list(all) });
    }
    if let (Some(x), Some(y)) = (integer(a), integer(b)) {
        return whole_or_fail(x.checked_add(y));
    }
    match (float(a), float(b)) {
        (Some(x), Some(y)) => Ok(Value::from(x + y)),
        _ => fail(format!("{} + {} cannot be computed", kind(a), kind(b))),
    }
}

/// `a * b`, which repeats strings, lists and tuples.
fn product(state: &State<'_, '_>, a: &Value, b: &Value) -> Result<Value, Error> {
    for (value, count) in [(a, b), (b, a)] {
        if let Some(count) = integer(count)
            && (value.as_str().is_some() || is_list(value))
        {
            return match usize::try_from(count.max(0)) {
                Ok(times) if i64::try_from(times).is_ok() => repeated(state, value, times),
                _ => fail("a number that is too large"),
            };
        }
    }
    if let (Some(x), Some(y)) = (integer(a), integer(b)) {
        return whole_or_fail(x.checked_mul(y));
    }
    match (float(a), float(b)) {
        (Some(x), Some(y)) => Ok(Value::from(x * y)),
        _ => fail(format!("{} * {} cannot be computed", kind(a), kind(b))),
    }
}

/// A string, a list or a tuple `times` times.
fn repeated(state: &State<'_, '_>, value: &Value, times: usize) -> Result<Value, Error> {
    if let Some(text) = value.as_str() {
        charge(state, text.len().saturating_mul(times))?;
        let text = text.repeat(times);
        return Ok(if value.is_safe() { Value::from_safe_string(text) } else { text.into() });
    }
    let all = items(state, value)?;
    charge(state, all.len().saturating_mul(times).saturating_mul(32))?;
    // Nothing, however often, is nothing at once.
    let times = if all.is_empty() { 0 } else { times };
    let all: Vec<Value> = std::iter::repeat_n(all, times).flatten().collect();
    Ok(if value.is_tuple() { Tuple::from(all).into() } else { list(all) })
}

/// `a ** b` of numbers.
fn power(_: &State<'_, '_>, a: &Value, b: &Value) -> Result<Value, Error> {
    if let (Some(x), Some(y)) = (integer(a), integer(b))
        && y >= 0
    {
        return whole_or_fail(u32::try_from(y).ok().and_then(|y| x.checked_pow(y)));
    }
    let (Some(x), Some(y)) = (float(a), float(b)) else {
        return fail(format!("{} ** {} cannot be computed", kind(a), kind(b)));
    };
    let power = x.powf(y);
    match power {
        _ if x == 0.0 && y < 0.0 => fail("a division by zero"),
        _ if x.is_finite() && y.is_finite() && power.is_infinite() => {
            fail("a number that is too large")
        }
        _ if x < 0.0 && y.is_finite() && y.fract() != 0.0 => fail("a complex number"),
        power => Ok(Value::from(power)),
    }
}

/// `value % right`, which formats if `value` is a string.
pub(super) fn modulo(state: &State<'_, '_>, left: &Value, right: &Value) -> Result<Value, Error> {
    if left.kind() == ValueKind::String {
        return printf(state, string(left)?, right).map(Value::from);
    }
    if let (Some(a), Some(b)) = (integer(left), integer(right)) {
        let rest = a.checked_rem(b).map(|r| if r != 0 && (r < 0) != (b < 0) { r + b } else { r });
        return rest.map_or_else(|| fail("a division by zero"), |rest| Ok(number(rest)));
    }
    match (float(left), float(right)) {
        (Some(_), Some(0.0)) => fail("a division by zero"),
        (Some(a), Some(b)) => {
            let rest = a % b;
            let rest = if rest != 0.0 && (rest < 0.0) != (b < 0.0) { rest + b } else { rest };
            Ok(Value::from(if rest == 0.0 { 0.0_f64.copysign(b) } else { rest }))
        }
        _ => fail(format!("{} % {} cannot be computed", kind(left), kind(right))),
    }
}

/// A whole number, as which truth values count.
fn integer(value: &Value) -> Option<i128> {
    match value.kind() {
        ValueKind::Bool => Some(i128::from(value.is_true())),
        _ if value.is_integer() => i128::try_from(value.clone()).ok(),
        _ => None,
    }
}

/// A whole number, if it could be computed.
fn whole_or_fail(n: Option<i128>) -> Result<Value, Error> {
    n.map_or_else(|| fail("a number that is too large"), |n| Ok(number(n)))
}

/// A whole number in the smallest type that holds it.
pub(super) fn number(n: i128) -> Value {
    i64::try_from(n).map_or_else(|_| Value::from(n), Value::from)
}
