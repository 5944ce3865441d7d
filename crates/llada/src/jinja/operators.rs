//! What expressions of jinja2 compute otherwise than minijinja, as functions that the translated
//! template calls.

use std::cmp::Ordering;

use minijinja::{
    Error, State, UndefinedBehavior, Value,
    value::{Tuple, ValueKind},
};

use super::{
    Function,
    arguments::{optional_whole, string},
    charge,
    collections::{DICT_METHODS, hashable},
    fail,
    methods::{self, Bound},
    order::{order, weigh},
    text::text,
    values::{Group, View, is_list, is_plain_map, items, kind, list},
};

/// The functions, by names that no template has.
pub(super) const ALL: [(&str, Function); 10] = [
    ("__bounded__", bounded),
    ("__compare__", compare),
    ("__concat__", concat),
    ("__cycle__", cycle),
    ("__each__", each),
    ("__item__", item),
    ("__key__", |_, arguments| Ok(arguments.into_iter().next().unwrap_or_default())),
    ("__method__", method),
    ("__missing__", missing),
    ("__slice__", slice),
];

/// The value that is assigned; refused if it is nested too deeply to be dropped or shown. A namespace
/// that it is assigned to comes second; holding one, it could hold itself.
fn bounded(state: &mut State<'_, '_>, arguments: Vec<Value>) -> Result<Value, Error> {
    let is_of_namespace = arguments.len() > 1;
    let value = arguments.into_iter().next().unwrap_or_default();
    weigh(state, &value, is_of_namespace)?;
    Ok(value)
}

/// `a op b op c …`
fn compare(state: &mut State<'_, '_>, arguments: Vec<Value>) -> Result<Value, Error> {
    let mut left = arguments.first().cloned().unwrap_or_default();
    for pair in arguments.get(1..).unwrap_or_default().chunks_exact(2) {
        let (operator, right) = (pair[0].as_str().unwrap_or_default(), &pair[1]);
        strictly(state, [&left, right])?;
        let holds = match operator {
            "==" | "!=" => (left == *right) == (operator == "=="),
            "in" | "not in" => contains(state, right, &left)? == (operator == "in"),
            _ => {
                weigh(state, &left, false)?;
                let found = order(&left, right)?;
                match operator {
                    "<" => found == Some(Ordering::Less),
                    "<=" => matches!(found, Some(Ordering::Less | Ordering::Equal)),
                    ">" => found == Some(Ordering::Greater),
                    _ => matches!(found, Some(Ordering::Greater | Ordering::Equal)),
                }
            }
        };
        if !holds {
            return Ok(Value::from(false));
        }
        left = right.clone();
    }
    Ok(Value::from(true))
}

/// Where undefined values are errors, none of `values` may be one.
fn strictly<'a>(
    state: &State<'_, '_>,
    values: impl IntoIterator<Item = &'a Value>,
) -> Result<(), Error> {
    let strict = state.undefined_behavior() == UndefinedBehavior::Strict;
    match strict && values.into_iter().any(Value::is_undefined) {
        true => fail("a value is undefined"),
        false => Ok(()),
    }
}

/// `value in container`
pub(super) fn contains(
    state: &State<'_, '_>,
    container: &Value,
    value: &Value,
) -> Result<bool, Error> {
    match container.kind() {
        ValueKind::String => {
            let text = string(container)?;
            charge(state, text.len())?;
            Ok(text.contains(string(value)?))
        }
        ValueKind::Map if is_plain_map(container) => {
            hashable(value)?;
            Ok(container.as_object().is_some_and(|object| object.get_value(value).is_some()))
        }
        _ => {
            let view = container.downcast_object_ref::<View>();
            if view.is_some_and(|view| view.name() == "dict_keys") {
                hashable(value)?;
            }
            Ok(items(state, container)?.contains(value))
        }
    }
}

/// `a ~ b ~ c …`
fn concat(state: &mut State<'_, '_>, arguments: Vec<Value>) -> Result<Value, Error> {
    strictly(state, &arguments)?;
    let mut out = String::new();
    for value in &arguments {
        let part = text(state, value)?;
        charge(state, out.len() + part.len())?;
        out.push_str(&part);
    }
    Ok(Value::from(out))
}

/// `loop.cycle(a, b, …)`, or a method `cycle` of another object.
fn cycle(state: &mut State<'_, '_>, arguments: Vec<Value>) -> Result<Value, Error> {
    match arguments.as_slice() {
        [] | [_] => fail("there are no items to cycle through"),
        [object, args @ ..] => object.call_method(state, "cycle", args),
    }
}

/// What `for` iterates over.
fn each(state: &mut State<'_, '_>, arguments: Vec<Value>) -> Result<Value, Error> {
    let value = arguments.into_iter().next().unwrap_or_default();
    strictly(state, [&value])?;
    Ok(match value.kind() {
        ValueKind::Seq => value,
        _ => list(items(state, &value)?),
    })
}

/// `value[key]`, or `value.key` with a third argument that is true.
fn item(state: &mut State<'_, '_>, arguments: Vec<Value>) -> Result<Value, Error> {
    let [value, key, dotted] = arguments.as_slice() else { return fail("no key") };
    if value.is_undefined() {
        return fail("a value is undefined");
    }
    let found = || match value.downcast_object_ref::<View>() {
        Some(view) if !view.is_sequence() => Ok(Value::UNDEFINED),
        None if value.kind() == ValueKind::Iterable && value.len().is_none() => {
            Ok(Value::UNDEFINED)
        }
        _ if key.is_number() && !key.is_integer() && value.kind() != ValueKind::Map => {
            Ok(Value::UNDEFINED)
        }
        // True and false are numbers.
        _ if key.kind() == ValueKind::Bool && value.kind() != ValueKind::Map => {
            value.get_item(&Value::from(i64::from(key.is_true())))
        }
        _ => value.get_item(key),
    };
    let method = key.as_str().filter(|name| DICT_METHODS.contains(name) && is_plain_map(value));
    let Some(name) = method else {
        let found = found()?;
        strictly(state, [&found])?;
        return Ok(found);
    };
    if !dotted.is_true() {
        let found = found()?;
        if !found.is_undefined() {
            return Ok(found);
        }
    }
    Ok(match name {
        "clear" | "pop" | "popitem" | "setdefault" | "update" => Value::UNDEFINED,
        name => Value::from_object(Bound { object: value.clone(), method: name.into() }),
    })
}

/// `value.name(…)` for a name that is a method of dictionaries.
fn method(state: &mut State<'_, '_>, arguments: Vec<Value>) -> Result<Value, Error> {
    let [value, name, args @ ..] = arguments.as_slice() else { return fail("no method") };
    let name = string(name)?;
    match is_plain_map(value) {
        true => methods::call(state, value, name, args),
        false => value.call_method(state, name, args),
    }
}

/// What a tag does that needs other templates.
fn missing(_: &mut State<'_, '_>, arguments: Vec<Value>) -> Result<Value, Error> {
    let tag = arguments.first().and_then(Value::as_str).unwrap_or_default();
    fail(format!("`{tag}` needs other templates, and there are none"))
}

/// `value[start:stop:step]`
fn slice(state: &mut State<'_, '_>, mut arguments: Vec<Value>) -> Result<Value, Error> {
    arguments.resize(4, Value::from(()));
    let [value, bounds @ ..] = arguments.as_slice() else { return fail("no value") };
    if !(matches!(value.kind(), ValueKind::String | ValueKind::Seq) || is_list(value)) {
        return fail(format!("{} cannot be sliced", kind(value)));
    }
    let bounds: Vec<_> =
        bounds.iter().map(|bound| optional_whole(Some(bound))).collect::<Result<_, _>>()?;
    let [start, stop, step] = bounds[..] else { return fail("a slice has three bounds") };
    let step = step.unwrap_or(1);
    if step == 0 {
        return fail("a slice with steps of 0");
    }
    if let Some(text) = value.as_str() {
        charge(state, text.len())?;
        let chars: Vec<char> = text.chars().collect();
        let taken = places(start, stop, step, chars.len()).map(|at| chars[at]);
        return Ok(Value::from(taken.collect::<String>()));
    }
    let all = items(state, value)?;
    let taken = places(start, stop, step, all.len()).map(|at| all[at].clone()).collect();
    let is_tuple = value.is_tuple() || value.downcast_object_ref::<Group>().is_some();
    Ok(if is_tuple { Value::from(Tuple::from(taken)) } else { list(taken) })
}

/// The places that a slice of `len` items takes.
fn places(
    start: Option<i64>,
    stop: Option<i64>,
    step: i64,
    len: usize,
) -> Box<dyn Iterator<Item = usize>> {
    let len = i64::try_from(len).unwrap_or(i64::MAX);
    let (low, high) = if step > 0 { (0, len) } else { (-1, len - 1) };
    let place = |at: i64| {
        let at = if at < 0 { at.saturating_add(len) } else { at };
        at.clamp(low, high)
    };
    let (first, last) = if step > 0 { (low, high) } else { (high, low) };
    let (start, stop) = (start.map_or(first, place), stop.map_or(last, place));
    let distance = if step > 0 { stop - start } else { start - stop };
    let stride = step.unsigned_abs();
    let count = u64::try_from(distance).map_or(0, |d| d.div_ceil(stride));
    Box::new((0..count).map(move |i| {
        let offset = (i * stride) as i64;
        (if step > 0 { start + offset } else { start - offset }) as usize
    }))
}
