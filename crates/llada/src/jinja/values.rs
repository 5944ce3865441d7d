//! What kinds of values there are, and those that minijinja has no type for.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use minijinja::{
    Error, State, Value,
    value::{Enumerator, Object, ObjectRepr, ValueKind},
};

use super::{charge, fail};

/// What Python calls the type of a value.
pub(super) fn kind(value: &Value) -> &'static str {
    match value.kind() {
        ValueKind::Undefined => "an undefined value",
        ValueKind::None => "none",
        ValueKind::Bool => "a truth value",
        ValueKind::Number if value.is_integer() => "a whole number",
        ValueKind::Number => "a float",
        ValueKind::String => "a string",
        ValueKind::Seq | ValueKind::Iterable => "a list",
        ValueKind::Map => "a dictionary",
        _ => "an object",
    }
}

/// Whether it is a dictionary, and no namespace, loop, macro or the like.
pub(super) fn is_plain_map(value: &Value) -> bool {
    let repr = value.as_object().map(|object| object.repr());
    repr == Some(ObjectRepr::Map)
        && !["Namespace", "Loop", "Macro", "Module"].iter().any(|name| is_named(value, name))
}

/// Whether it is an object of the type `name` of minijinja.
pub(super) fn is_named(value: &Value, name: &str) -> bool {
    value.as_object().is_some_and(|object| object.type_name().ends_with(name))
}

/// Whether it has a length and items.
pub(super) fn is_sequence(value: &Value) -> bool {
    match value.kind() {
        ValueKind::Undefined | ValueKind::String | ValueKind::Seq => true,
        ValueKind::Iterable => is_list(value),
        ValueKind::Map => is_plain_map(value),
        _ => false,
    }
}

/// Whether Python iterates over it.
pub(super) fn is_iterable(value: &Value) -> bool {
    value.kind() == ValueKind::Iterable || is_sequence(value)
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

    pub(super) fn of_dict(name: &str, items: Vec<Value>) -> Value {
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
