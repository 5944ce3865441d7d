//! Arguments of functions, by place or by name.

use minijinja::{Error, Value, value::ValueKind};

use super::{fail, values::kind};

/// Arguments given by place, and those given by name.
pub(super) struct Arguments {
    pub(super) placed: Vec<Value>,
    pub(super) named: Vec<(String, Value)>,
}

impl Arguments {
    pub(super) fn new(mut values: Vec<Value>) -> Result<Self, Error> {
        let mut named = Vec::new();
        if values.last().is_some_and(Value::is_kwargs)
            && let Some(keywords) = values.pop()
        {
            for key in keywords.try_iter()? {
                let value = keywords.get_item(&key)?;
                named.push((key.as_str().unwrap_or_default().to_owned(), value));
            }
        }
        Ok(Self { placed: values, named })
    }
}

/// The arguments in the order of `names`, of which the first `required` must be given.
pub(super) fn bind<const N: usize>(
    values: Vec<Value>,
    required: usize,
    names: [&str; N],
) -> Result<[Option<Value>; N], Error> {
    let Arguments { placed, named } = Arguments::new(values)?;
    let mut bound = [const { None }; N];
    if placed.len() > N {
        return fail(format!("{} arguments where {N} are taken", placed.len()));
    }
    for (slot, value) in bound.iter_mut().zip(placed) {
        *slot = Some(value);
    }
    for (name, value) in named {
        match names.iter().position(|n| *n == name) {
            Some(at) if bound[at].is_none() => bound[at] = Some(value),
            Some(_) => return fail(format!("the argument `{name}` is given twice")),
            None => return fail(format!("there is no argument `{name}`")),
        }
    }
    match bound[..required].iter().position(Option::is_none) {
        Some(at) => fail(format!("the argument `{}` is missing", names[at])),
        None => Ok(bound),
    }
}

/// A string.
pub(super) fn string(value: &Value) -> Result<&str, Error> {
    match value.as_str() {
        Some(text) if value.kind() == ValueKind::String => Ok(text),
        _ => fail(format!("{} where a string should stand", kind(value))),
    }
}

/// A whole number, which true and false are too.
pub(super) fn whole(value: &Value) -> Result<i64, Error> {
    match value.kind() {
        ValueKind::Bool => Ok(value.is_true().into()),
        ValueKind::Number if value.is_integer() => match value.as_i64() {
            Some(n) => Ok(n),
            None => fail("a number that is too large"),
        },
        _ => fail(format!("{} where a whole number should stand", kind(value))),
    }
}

/// An optional whole number; none is not given.
pub(super) fn optional_whole(value: Option<&Value>) -> Result<Option<i64>, Error> {
    value.filter(|v| !v.is_none()).map(whole).transpose()
}

/// A number that Python could count with as a float.
pub(super) fn float(value: &Value) -> Option<f64> {
    match value.kind() {
        ValueKind::Bool => Some(f64::from(u8::from(value.is_true()))),
        ValueKind::Number => f64::try_from(value.clone())
            .ok()
            .or_else(|| i128::try_from(value.clone()).ok().map(|n| n as f64)),
        _ => None,
    }
}

pub(super) fn truth(value: Option<&Value>) -> bool {
    value.is_some_and(Value::is_true)
}

/// The character with a number.
pub(super) fn character(value: &Value) -> Result<char, Error> {
    match u32::try_from(whole(value)?).ok().and_then(char::from_u32) {
        Some(c) => Ok(c),
        None => fail("a number that no character has"),
    }
}

/// Refuses what is no string.
pub(super) fn strictly(value: Option<Value>) -> Result<String, Error> {
    let value = value.unwrap_or_default();
    match value.as_str() {
        Some(text) => Ok(text.to_owned()),
        None => fail(format!("{} where a string should stand", kind(&value))),
    }
}
