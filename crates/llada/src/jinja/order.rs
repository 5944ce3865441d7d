//! How Python orders values.

use std::cmp::Ordering;

use minijinja::{Error, State, Value, value::ValueKind};

use super::{
    Limits, charge, fail,
    text::{is_plain_map, kind},
    text_len,
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
        (Seq | Iterable, Seq | Iterable) if a.is_tuple() == b.is_tuple() => {
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
    let steps = items.len() * (items.len().max(1).ilog2() as usize + 1);
    state.consume_fuel(steps as u64)?;
    let mut keyed = Vec::with_capacity(items.len());
    for item in items.drain(..) {
        let key = key(&item)?;
        weigh_key(state, &key)?;
        keyed.push((key, item));
    }
    let mut error = None;
    keyed.sort_by(|a, b| match order(&a.0, &b.0) {
        Ok(found) => {
            let found = found.unwrap_or(Ordering::Equal);
            if reverse { found.reverse() } else { found }
        }
        Err(e) => {
            error.get_or_insert(e);
            Ordering::Equal
        }
    });
    items.extend(keyed.into_iter().map(|(_, item)| item));
    error.map_or(Ok(()), Err)
}
