//! The methods of lists and dictionaries.

use minijinja::{
    Error, ErrorKind, State, Value,
    value::{Tuple, ValueKind},
};

use super::{
    arguments::{Arguments, bind, optional_whole},
    fail,
    values::{Group, View, items},
};

/// Methods of dictionaries, which jinja2 finds before a key of the same name.
pub(super) const DICT_METHODS: [&str; 11] = [
    "clear",
    "copy",
    "fromkeys",
    "get",
    "items",
    "keys",
    "pop",
    "popitem",
    "setdefault",
    "update",
    "values",
];

/// Calls a method of a dictionary.
pub(super) fn dict(
    state: &State<'_, '_>,
    value: &Value,
    method: &str,
    args: &[Value],
) -> Result<Value, Error> {
    let pair = |key: Value| -> Result<Value, Error> {
        let item = value.get_item(&key)?;
        Ok(Value::from(Tuple::from([key, item])))
    };
    match method {
        "get" => {
            let Arguments { placed, named } = Arguments::new(args.to_vec())?;
            match (placed.as_slice(), named.is_empty()) {
                ([key] | [key, _], true) => {
                    hashable(key)?;
                    let found = value.as_object().and_then(|object| object.get_value(key));
                    let default = placed.get(1).cloned().unwrap_or(Value::from(()));
                    Ok(found.unwrap_or(default))
                }
                _ => fail("`get` takes a key and a default"),
            }
        }
        "keys" | "values" | "items" | "copy" => {
            let [] = bind(args.to_vec(), 0, [])?;
            let keys = items(state, value)?;
            Ok(match method {
                "keys" => View::of_dict("dict_keys", keys),
                "values" => {
                    let values: Result<_, Error> = keys.iter().map(|k| value.get_item(k)).collect();
                    View::of_dict("dict_values", values?)
                }
                "items" => {
                    let pairs: Result<_, Error> = keys.into_iter().map(pair).collect();
                    View::of_dict("dict_items", pairs?)
                }
                _ => value.clone(),
            })
        }
        "clear" | "pop" | "popitem" | "setdefault" | "update" => {
            fail(format!("`{method}` would change a dictionary, which a template may not"))
        }
        "fromkeys" => {
            let [keys, default] = bind(args.to_vec(), 1, ["iterable", "value"])?;
            let default = default.unwrap_or(Value::from(()));
            let keys = items(state, &keys.unwrap_or_default())?;
            Ok(Value::from_pairs(keys.into_iter().map(|key| (key, default.clone()))))
        }
        _ => Err(Error::from(ErrorKind::UnknownMethod)),
    }
}

/// Refuses what cannot be a key.
pub(super) fn hashable(key: &Value) -> Result<(), Error> {
    match key.kind() {
        ValueKind::Map => fail("a dictionary cannot be a key"),
        ValueKind::Seq | ValueKind::Iterable => {
            let view = key.downcast_object_ref::<View>();
            let is_range = view.is_some_and(View::is_sequence);
            let is_group = key.downcast_object_ref::<Group>().is_some();
            match key.is_tuple() || is_range || is_group || key.len().is_none() {
                true => Ok(()),
                false => fail("a list cannot be a key"),
            }
        }
        _ => Ok(()),
    }
}

/// Calls a method of a list or a tuple.
pub(super) fn sequence(
    state: &State<'_, '_>,
    value: &Value,
    method: &str,
    args: &[Value],
) -> Result<Value, Error> {
    match method {
        "count" => {
            let [wanted] = bind(args.to_vec(), 1, ["value"])?;
            let wanted = wanted.unwrap_or_default();
            let found = items(state, value)?;
            Ok(found.iter().filter(|item| **item == wanted).count().into())
        }
        "index" => {
            let [wanted, start, stop] = bind(args.to_vec(), 1, ["value", "start", "stop"])?;
            let found = items(state, value)?;
            let wanted = wanted.unwrap_or_default();
            let (start, stop) = (optional_whole(start.as_ref())?, optional_whole(stop.as_ref())?);
            let range = clamp(start, stop, found.len());
            let first = range.start;
            match found[range].iter().position(|item| *item == wanted) {
                Some(at) => Ok((first + at).into()),
                None => fail("the value is not in the list"),
            }
        }
        "copy" if !value.is_tuple() => {
            let [] = bind(args.to_vec(), 0, [])?;
            Ok(value.clone())
        }
        "append" | "clear" | "pop" | "reverse" | "insert" | "sort" | "extend" | "remove" => {
            fail(format!("`{method}` would change a list, which a template may not"))
        }
        _ => Err(Error::from(ErrorKind::UnknownMethod)),
    }
}

/// The part of `len` items that Python means by `[start:stop]`.
pub(super) fn clamp(start: Option<i64>, stop: Option<i64>, len: usize) -> std::ops::Range<usize> {
    let place = |at: i64| {
        let at = if at < 0 { at.saturating_add(len as i64) } else { at };
        at.clamp(0, len as i64) as usize
    };
    let (start, stop) = (start.map_or(0, place), stop.map_or(len, place));
    start..stop.max(start)
}
