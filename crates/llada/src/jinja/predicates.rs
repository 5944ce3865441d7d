//! The tests of jinja2: what may stand after `is`.

use minijinja::{Error, State, Value, value::ValueKind};

use super::{
    Function,
    arguments::bind,
    arithmetic::modulo,
    characters, filters,
    methods::Bound,
    operators::contains,
    order::order,
    sequences,
    text::text,
    values::{is_iterable, is_plain_map, is_sequence},
};

/// The tests.
pub(super) const ALL: [(&str, Function); 39] = [
    ("odd", |state, args| one(args, |v| Ok(modulo(state, v, &2.into())? == 1.into()))),
    ("even", |state, args| one(args, |v| Ok(modulo(state, v, &2.into())? == 0.into()))),
    ("divisibleby", |state, args| two(args, |a, b| Ok(modulo(state, a, b)? == 0.into()))),
    ("defined", |_, args| one(args, |v| Ok(!v.is_undefined()))),
    ("undefined", |_, args| one(args, |v| Ok(v.is_undefined()))),
    ("filter", |_, args| one(args, |v| Ok(is_named(v, &[&filters::ALL, &sequences::ALL])))),
    ("test", |_, args| one(args, |v| Ok(is_named(v, &[&ALL])))),
    ("none", |_, args| one(args, |v| Ok(v.is_none()))),
    ("boolean", |_, args| one(args, |v| Ok(v.kind() == ValueKind::Bool))),
    ("false", |_, args| one(args, |v| Ok(v.kind() == ValueKind::Bool && !v.is_true()))),
    ("true", |_, args| one(args, |v| Ok(v.kind() == ValueKind::Bool && v.is_true()))),
    ("integer", |_, args| one(args, |v| Ok(v.is_integer()))),
    ("float", |_, args| one(args, |v| Ok(v.is_number() && !v.is_integer()))),
    ("lower", |state, args| one(args, |v| Ok(characters::is_lower(&text(state, v)?)))),
    ("upper", |state, args| one(args, |v| Ok(characters::is_upper(&text(state, v)?)))),
    ("string", |_, args| one(args, |v| Ok(v.kind() == ValueKind::String))),
    ("mapping", |_, args| one(args, |v| Ok(is_plain_map(v)))),
    ("number", |_, args| {
        one(args, |v| Ok(matches!(v.kind(), ValueKind::Number | ValueKind::Bool)))
    }),
    ("sequence", |_, args| one(args, |v| Ok(is_sequence(v)))),
    ("iterable", |_, args| one(args, |v| Ok(is_iterable(v)))),
    ("callable", |_, args| one(args, |v| Ok(is_callable(v)))),
    ("sameas", |_, args| two(args, |a, b| Ok(is_same(a, b)))),
    ("escaped", |_, args| one(args, |v| Ok(v.is_safe()))),
    ("in", |state, args| two(args, |a, b| contains(state, b, a))),
    ("==", equal),
    ("eq", equal),
    ("equalto", equal),
    ("!=", unequal),
    ("ne", unequal),
    (">", greater),
    ("gt", greater),
    ("greaterthan", greater),
    (">=", |_, args| two(args, |a, b| Ok(order(a, b)?.is_some_and(|o| o.is_ge())))),
    ("ge", |_, args| two(args, |a, b| Ok(order(a, b)?.is_some_and(|o| o.is_ge())))),
    ("<", less),
    ("lt", less),
    ("lessthan", less),
    ("<=", |_, args| two(args, |a, b| Ok(order(a, b)?.is_some_and(|o| o.is_le())))),
    ("le", |_, args| two(args, |a, b| Ok(order(a, b)?.is_some_and(|o| o.is_le())))),
];

fn equal(_: &mut State<'_, '_>, args: Vec<Value>) -> Result<Value, Error> {
    two(args, |a, b| Ok(a == b))
}

fn unequal(_: &mut State<'_, '_>, args: Vec<Value>) -> Result<Value, Error> {
    two(args, |a, b| Ok(a != b))
}

fn greater(_: &mut State<'_, '_>, args: Vec<Value>) -> Result<Value, Error> {
    two(args, |a, b| Ok(order(a, b)?.is_some_and(|o| o.is_gt())))
}

fn less(_: &mut State<'_, '_>, args: Vec<Value>) -> Result<Value, Error> {
    two(args, |a, b| Ok(order(a, b)?.is_some_and(|o| o.is_lt())))
}

fn one(args: Vec<Value>, test: impl FnOnce(&Value) -> Result<bool, Error>) -> Result<Value, Error> {
    let [value] = bind(args, 1, ["value"])?;
    test(&value.unwrap_or_default()).map(Value::from)
}

fn two(
    args: Vec<Value>,
    test: impl FnOnce(&Value, &Value) -> Result<bool, Error>,
) -> Result<Value, Error> {
    let [value, other] = bind(args, 2, ["value", "other"])?;
    test(&value.unwrap_or_default(), &other.unwrap_or_default()).map(Value::from)
}

fn is_named(value: &Value, lists: &[&[(&str, Function)]]) -> bool {
    lists.iter().flat_map(|list| list.iter()).any(|(name, _)| value.as_str() == Some(name))
}

fn is_callable(value: &Value) -> bool {
    value.is_undefined()
        || value.downcast_object_ref::<Bound>().is_some()
        || (value.as_object().is_some()
            && !is_iterable(value)
            && ["function", "<macro", "Joiner"]
                .iter()
                .any(|start| value.to_string().starts_with(start)))
}

/// Whether Python would find the very same object.
fn is_same(a: &Value, b: &Value) -> bool {
    let kinds = (a.kind(), b.kind());
    kinds.0 == kinds.1 && a.is_integer() == b.is_integer() && a == b
}
