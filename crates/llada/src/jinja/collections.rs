//! Lists, dictionaries and what their methods and the filters give that minijinja has no type for.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use minijinja::{
    Error, ErrorKind, State, Value,
    value::{Enumerator, Object, ObjectRepr, Tuple, ValueKind},
};

use super::{
    arguments::{Arguments, bind, optional_whole},
    charge, fail,
    predicates::is_iterable,
    text::kind,
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
/// What is iterated over once, as the generators that most filters of jinja2 give.
#[derive(Debug)]
struct Generator(Mutex<VecDeque<Value>>);

impl Object for Generator {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Iterable
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        let this = self.clone();
        Enumerator::Iter(Box::new(std::iter::from_fn(move || {
            this.0.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
        })))
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        None
    }
}

/// A generator of `items`.
pub(super) fn generator(items: Vec<Value>) -> Value {
    Value::from_object(Generator(Mutex::new(items.into())))
}

/// The keys, values or items of a dictionary, or the numbers of a range.
#[derive(Debug)]
pub(super) struct View {
    name: String,
    sequence: bool,
    items: Vec<Value>,
}

impl View {
    /// A range, shown as `name`.
    pub(super) fn range(name: String, items: Vec<Value>) -> Value {
        Value::from_object(Self { name, sequence: true, items })
    }

    fn of_dict(name: &str, items: Vec<Value>) -> Value {
        Value::from_object(Self { name: name.into(), sequence: false, items })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Whether items can be taken by their number.
    pub(super) fn is_sequence(&self) -> bool {
        self.sequence
    }

    pub(super) fn items(&self) -> &[Value] {
        &self.items
    }
}

impl Object for View {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        if self.sequence { ObjectRepr::Seq } else { ObjectRepr::Iterable }
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.sequence.then(|| self.items.get(key.as_usize()?).cloned()).flatten()
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.items.clone())
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        Some(self.items.len())
    }
}

/// A group of the filter `groupby`: a tuple whose places have names.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) grouper: Value,
    pub(super) list: Value,
}

impl Object for Group {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Seq
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        match (key.as_usize(), key.as_str()) {
            (Some(0), _) | (_, Some("grouper")) => Some(self.grouper.clone()),
            (Some(1), _) | (_, Some("list")) => Some(self.list.clone()),
            _ => None,
        }
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Seq(2)
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
        super::methods::call(state, &self.object, &self.method, args)
    }
}

/// What Python iterates over.
pub(super) fn items(state: &State<'_, '_>, value: &Value) -> Result<Vec<Value>, Error> {
    if !is_iterable(value) {
        return fail(format!("{} cannot be iterated over", kind(value)));
    }
    charge(state, value.len().unwrap_or(0).saturating_mul(32))?;
    let mut items = Vec::new();
    for item in value.try_iter()?.checked() {
        items.push(item?);
        if items.len() % 64 == 0 {
            state.consume_fuel(8)?;
        }
    }
    Ok(items)
}

/// A list whose items are in memory, whatever operators have made it.
pub(super) fn list(items: Vec<Value>) -> Value {
    Value::from(items)
}

/// Whether it is a list or a tuple: no range, view or generator.
pub(super) fn is_list(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable)
        && value.len().is_some()
        && value.downcast_object_ref::<View>().is_none()
}

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
