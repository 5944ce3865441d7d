//! How Python orders values.

use std::cmp::Ordering;

use minijinja::{Error, State, Value, value::ValueKind};

use super::{
    Limits, charge, fail, text_len,
    values::{is_list, is_plain_map, items, kind},
};

/// Visits a value and all in it, and pays for it; an error if it is nested too deeply, and if it is to
/// be `plain` and has a namespace or the like in it.
pub(super) fn weigh(state: &State<'_, '_>, value: &Value, plain: bool) -> Result<(), Error> {
    fn visit(
        state: &State<'_, '_>,
        value: &Value,
        left: usize,
        plain: bool,
        seen: &mut u64,
    ) -> Result<(), Error> {
        *seen += 1;
        if seen.is_multiple_of(64) {
            state.consume_fuel(8)?;
        }
        let inner = match value.kind() {
            ValueKind::Seq => value.try_iter()?,
            ValueKind::Iterable if value.len().is_some() => value.try_iter()?,
            ValueKind::Map => value.try_iter()?,
            _ => return Ok(()),
        };
        if left == 0 {
            return fail("values that are nested too deeply");
        }
        let is_map = value.kind() == ValueKind::Map;
        if plain && is_map && !is_plain_map(value) {
            return fail("a namespace that holds another");
        }
        for item in inner {
            let item = if is_map { value.get_item(&item)? } else { item };
            visit(state, &item, left - 1, plain, seen)?;
        }
        Ok(())
    }
    visit(state, value, Limits::DEPTH, plain, &mut 0)
}

/// Pays for a key that others are compared with.
pub(super) fn weigh_key(state: &State<'_, '_>, key: &Value) -> Result<(), Error> {
    charge(state, text_len(key))?;
    weigh(state, key, false)
}

/// The order of two values, where they have one.
pub(super) fn order(a: &Value, b: &Value) -> Result<Option<Ordering>, Error> {
    use ValueKind::{Bool, Iterable, Number, Seq, String};
    match (a.kind(), b.kind()) {
        (Bool | Number, Bool | Number) => {
            if a == b {
                return Ok(Some(Ordering::Equal));
            }
            let nan = |v: &Value| super::arguments::float(v).is_some_and(f64::is_nan);
            Ok(if nan(a) || nan(b) { None } else { Some(a.cmp(b)) })
        }
        (String, String) => Ok(a.as_str().partial_cmp(&b.as_str())),
        (Seq | Iterable, Seq | Iterable)
            if is_list(a) && is_list(b) && a.is_tuple() == b.is_tuple() =>
        {
            let (mut left, mut right) = (a.try_iter()?, b.try_iter()?);
            loop {
                match (left.next(), right.next()) {
                    (None, None) => return Ok(Some(Ordering::Equal)),
                    (None, Some(_)) => return Ok(Some(Ordering::Less)),
                    (Some(_), None) => return Ok(Some(Ordering::Greater)),
                    (Some(x), Some(y)) if x == y => {}
                    (Some(x), Some(y)) => return order(&x, &y),
                }
            }
        }
        _ => fail(format!("{} and {} have no order", kind(a), kind(b))),
    }
}

/// Sorts `items` by what `key` makes of them, equal ones in their order.
pub(super) fn sort<K: Fn(&Value) -> Result<Value, Error>>(
    state: &State<'_, '_>,
    items: &mut Vec<Value>,
    key: K,
    reverse: bool,
) -> Result<(), Error> {
    pay(state, items.len())?;
    let mut keyed = Vec::with_capacity(items.len());
    for item in items.drain(..) {
        let key = key(&item)?;
        weigh_key(state, &key)?;
        keyed.push((key, item));
    }
    let sorted = merge_sort(keyed, &mut |a, b| {
        let (a, b) = if reverse { (&b.0, &a.0) } else { (&a.0, &b.0) };
        Ok(order(a, b)? == Some(Ordering::Less))
    })?;
    items.extend(sorted.into_iter().map(|(_, item)| item));
    Ok(())
}

/// Pays for the steps of sorting `len` items.
pub(super) fn pay(state: &State<'_, '_>, len: usize) -> Result<(), Error> {
    let steps = len.saturating_mul(len.max(1).ilog2() as usize + 1);
    state.consume_fuel(steps as u64)
}

/// Sorts by `less`, equal ones in their order. Nothing is asked of `less`: values that come from a
/// template need not have an order at all, which the sort of the standard library does not forgive.
pub(super) fn merge_sort<T>(
    mut items: Vec<T>,
    less: &mut dyn FnMut(&T, &T) -> Result<bool, Error>,
) -> Result<Vec<T>, Error> {
    if items.len() < 2 {
        return Ok(items);
    }
    let right = merge_sort(items.split_off(items.len() / 2), less)?;
    let left = merge_sort(items, less)?;
    let mut merged = Vec::with_capacity(left.len() + right.len());
    let (mut left, mut right) = (left.into_iter().peekable(), right.into_iter().peekable());
    while let (Some(a), Some(b)) = (left.peek(), right.peek()) {
        let next = if less(b, a)? { right.next() } else { left.next() };
        merged.extend(next);
    }
    merged.extend(left.chain(right));
    Ok(merged)
}

/// The keys of a dictionary in Python's order where they have one, else by the name of their type.
pub(super) fn sorted_keys(state: &State<'_, '_>, value: &Value) -> Result<Vec<Value>, Error> {
    let keys = items(state, value)?;
    pay(state, keys.len())?;
    keys.iter().try_for_each(|key| weigh_key(state, key))?;
    merge_sort(keys, &mut |a, b| {
        let found = match order(a, b) {
            Ok(found) => found,
            Err(_) => Some(type_name(a).cmp(type_name(b))),
        };
        Ok(found == Some(Ordering::Less))
    })
}

/// What Python calls the type of a key.
fn type_name(value: &Value) -> &'static str {
    match value.kind() {
        ValueKind::Undefined => "Undefined",
        ValueKind::None => "NoneType",
        ValueKind::Bool => "bool",
        ValueKind::Number if value.is_integer() => "int",
        ValueKind::Number => "float",
        ValueKind::String => "str",
        _ => "tuple",
    }
}
