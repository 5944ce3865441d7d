//! The filters of jinja2 for lists and dictionaries.

use minijinja::{
    Error, State, Value,
    value::{Kwargs, Tuple, ValueKind},
};

use super::{
    Function,
    arguments::{Arguments, bind, string, truth, whole},
    arithmetic::add,
    characters::case,
    charge,
    collections::hashable,
    fail,
    methods::join as joined,
    order::{order, sort as sorted, weigh_key},
    text::text,
    values::{Group, generator, is_iterable, is_plain_map, items, kind, list},
};

/// The filters.
pub(super) const ALL: [(&str, Function); 22] = [
    ("batch", batch),
    ("count", length),
    ("dictsort", dict_sort),
    ("first", first),
    ("groupby", group_by),
    ("items", pairs),
    ("join", join),
    ("last", last),
    ("length", length),
    ("list", |state, args| {
        let [value] = bind(args, 1, ["value"])?;
        items(state, &value.unwrap_or_default()).map(list)
    }),
    ("map", map),
    ("max", |state, args| extreme(state, args, true)),
    ("min", |state, args| extreme(state, args, false)),
    ("reject", |state, args| select(state, args, false, false)),
    ("rejectattr", |state, args| select(state, args, true, false)),
    ("reverse", reverse),
    ("select", |state, args| select(state, args, false, true)),
    ("selectattr", |state, args| select(state, args, true, true)),
    ("slice", slice),
    ("sort", sort),
    ("sum", sum),
    ("unique", unique),
];

/// What leads from an item to one of its attributes: names and numbers with dots between them.
fn path(attribute: &Value) -> Vec<Value> {
    match attribute.as_str() {
        Some(names) => names
            .split('.')
            .map(|part| match part.parse::<i64>() {
                Ok(number) if part.bytes().all(|b| b.is_ascii_digit()) => Value::from(number),
                _ => Value::from(part),
            })
            .collect(),
        None if attribute.is_none() || attribute.is_undefined() => Vec::new(),
        None => vec![attribute.clone()],
    }
}

fn follow(item: &Value, path: &[Value], default: Option<&Value>) -> Result<Value, Error> {
    let mut item = item.clone();
    for part in path {
        item = item.get_item(part)?;
        if item.is_undefined()
            && let Some(default) = default
        {
            item = default.clone();
        }
    }
    Ok(item)
}

/// A text in lower case, and everything else as it is.
fn folded(state: &State<'_, '_>, value: Value) -> Result<Value, Error> {
    super::charge(state, super::text_len(&value))?;
    let lower = match value.kind() {
        ValueKind::String => value.as_str().and_then(|text| case(text, "lower")).map(Value::from),
        _ => None,
    };
    Ok(lower.unwrap_or(value))
}

fn batch(state: &mut State<'_, '_>, args: Vec<Value>) -> Result<Value, Error> {
    let [value, size, fill] = bind(args, 2, ["value", "linecount", "fill_with"])?;
    let all = items(state, &value.unwrap_or_default())?;
    let size = whole(&size.unwrap_or_default())?;
    let fill = fill.filter(|f| !f.is_none());
    let most = usize::try_from(size).ok().filter(|size| *size > 0).unwrap_or(usize::MAX);
    let mut batches: Vec<Vec<Value>> = all.chunks(most).map(<[Value]>::to_vec).collect();
    if let (Some(fill), Some(last)) = (fill, batches.last_mut())
        && most != usize::MAX
    {
        charge(state, (most - last.len()).saturating_mul(32))?;
        last.resize(most, fill);
    }
    Ok(generator(batches.into_iter().map(list).collect()))
}

fn slice(state: &mut State<'_, '_>, args: Vec<Value>) -> Result<Value, Error> {
    let [value, slices, fill] = bind(args, 2, ["value", "slices", "fill_with"])?;
    let all = items(state, &value.unwrap_or_default())?;
    let Some(slices) = usize::try_from(whole(&slices.unwrap_or_default())?).ok().filter(|n| *n > 0)
    else {
        return fail("a number of slices that is not positive");
    };
    charge(state, slices.saturating_mul(64))?;
    let fill = fill.filter(|f| !f.is_none());
    let (each, more) = (all.len() / slices, all.len() % slices);
    let mut rest = all.as_slice();
    let mut out = Vec::with_capacity(slices);
    for at in 0..slices {
        let (now, after) = rest.split_at(each + usize::from(at < more));
        let mut now = now.to_vec();
        now.extend(fill.clone().filter(|_| at >= more));
        out.push(list(now));
        rest = after;
    }
    Ok(generator(out))
}

fn dict_sort(state: &mut State<'_, '_>, args: Vec<Value>) -> Result<Value, Error> {
    let [value, case, by, reverse] = bind(args, 1, ["value", "case_sensitive", "by", "reverse"])?;
    let value = value.unwrap_or_default();
    let at = match by.as_ref().map(string).transpose()? {
        None | Some("key") => 0,
        Some("value") => 1,
        Some(_) => return fail("a dictionary is sorted by key or by value"),
    };
    if !is_plain_map(&value) {
        return fail(format!("{} has no items", kind(&value)));
    }
    let mut pairs = Vec::new();
    for key in items(state, &value)? {
        let item = value.get_item(&key)?;
        pairs.push(Value::from(Tuple::from([key, item])));
    }
    let case = truth(case.as_ref());
    let key = |pair: &Value| {
        let key = pair.get_item_by_index(at)?;
        Ok(if case { key } else { folded(state, key)? })
    };
    sorted(state, &mut pairs, key, truth(reverse.as_ref()))?;
    Ok(list(pairs))
}

fn pairs(state: &mut State<'_, '_>, args: Vec<Value>) -> Result<Value, Error> {
    let [value] = bind(args, 1, ["value"])?;
    let value = value.unwrap_or_default();
    let mut pairs = Vec::new();
    if !value.is_undefined() {
        if !is_plain_map(&value) {
            return fail(format!("{} has no items", kind(&value)));
        }
        for key in items(state, &value)? {
            let item = value.get_item(&key)?;
            pairs.push(Value::from(Tuple::from([key, item])));
        }
    }
    Ok(generator(pairs))
}

fn first(state: &mut State<'_, '_>, args: Vec<Value>) -> Result<Value, Error> {
    let [value] = bind(args, 1, ["seq"])?;
    let value = value.unwrap_or_default();
    // Takes one item of a generator, and leaves the others.
    if value.kind() == ValueKind::Iterable && value.len().is_none() {
        return Ok(value.try_iter()?.next().unwrap_or_default());
    }
    Ok(items(state, &value)?.into_iter().next().unwrap_or_default())
}

fn last(state: &mut State<'_, '_>, args: Vec<Value>) -> Result<Value, Error> {
    let [value] = bind(args, 1, ["seq"])?;
    let value = value.unwrap_or_default();
    reversible(&value)?;
    Ok(items(state, &value)?.pop().unwrap_or_default())
}

fn reversible(value: &Value) -> Result<(), Error> {
    match value.len().is_none() && value.kind() == ValueKind::Iterable {
        true => fail("a generator cannot be reversed"),
        false => Ok(()),
    }
}

fn reverse(state: &mut State<'_, '_>, args: Vec<Value>) -> Result<Value, Error> {
    let [value] = bind(args, 1, ["value"])?;
    let value = value.unwrap_or_default();
    if let (ValueKind::String, Some(text)) = (value.kind(), value.as_str()) {
        return Ok(Value::from(text.chars().rev().collect::<String>()));
    }
    let is_generator = reversible(&value).is_err();
    let mut all = items(state, &value)?;
    all.reverse();
    Ok(if is_generator { list(all) } else { generator(all) })
}

fn length(_: &mut State<'_, '_>, args: Vec<Value>) -> Result<Value, Error> {
    let [value] = bind(args, 1, ["value"])?;
    let value = value.unwrap_or_default();
    if value.is_undefined() {
        return Ok(Value::from(0));
    }
    match value.len().filter(|_| is_iterable(&value)) {
        Some(len) => Ok(len.into()),
        None => fail(format!("{} has no length", kind(&value))),
    }
}

fn join(state: &mut State<'_, '_>, args: Vec<Value>) -> Result<Value, Error> {
    let [value, between, attribute] = bind(args, 1, ["value", "d", "attribute"])?;
    let path = path(&attribute.unwrap_or_default());
    let mut parts = Vec::new();
    for item in items(state, &value.unwrap_or_default())? {
        parts.push(text(state, &follow(&item, &path, None)?)?);
    }
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let between = between.map(|d| text(state, &d)).transpose()?.unwrap_or_default();
    joined(state, &parts, &between).map(Value::from)
}

fn map(state: &mut State<'_, '_>, args: Vec<Value>) -> Result<Value, Error> {
    let Arguments { placed, named } = Arguments::new(args)?;
    let [value, rest @ ..] = placed.as_slice() else { return fail("nothing to map") };
    let mut out = Vec::new();
    if !value.is_true() {
        return Ok(generator(out));
    }
    let given = |wanted: &str| named.iter().find(|(name, _)| name == wanted).map(|(_, v)| v);
    let all = items(state, value)?;
    if let ([], Some(attribute)) = (rest, given("attribute")) {
        if named.iter().any(|(name, _)| !matches!(name.as_str(), "attribute" | "default")) {
            return fail("`map` takes an attribute and a default");
        }
        let (path, default) = (path(attribute), given("default").filter(|d| !d.is_none()));
        for item in &all {
            out.push(follow(item, &path, default)?);
        }
        return Ok(generator(out));
    }
    let [name, rest @ ..] = rest else { return fail("`map` takes a filter") };
    for item in all {
        let mut args = vec![item];
        args.extend(rest.iter().cloned());
        args.extend(keywords(&named));
        out.push(state.apply_filter(string(name)?, &args)?);
        state.consume_fuel(4)?;
    }
    Ok(generator(out))
}

fn keywords(named: &[(String, Value)]) -> Option<Value> {
    (!named.is_empty()).then(|| Value::from(named.iter().cloned().collect::<Kwargs>()))
}

fn select(
    state: &mut State<'_, '_>,
    args: Vec<Value>,
    by_attribute: bool,
    wanted: bool,
) -> Result<Value, Error> {
    let Arguments { placed, named } = Arguments::new(args)?;
    let Some((value, mut rest)) = placed.split_first() else { return fail("nothing to select") };
    let mut out = Vec::new();
    if !value.is_true() {
        return Ok(generator(out));
    }
    let mut way = Vec::new();
    if by_attribute {
        let Some((attribute, after)) = rest.split_first() else {
            return fail("no attribute is named");
        };
        (way, rest) = (path(attribute), after);
    }
    for item in items(state, value)? {
        let tested = follow(&item, &way, None)?;
        let holds = match rest {
            [] => tested.is_true(),
            [name, rest @ ..] => {
                let mut args = vec![tested];
                args.extend(rest.iter().cloned());
                args.extend(keywords(&named));
                state.perform_test(string(name)?, &args)?
            }
        };
        state.consume_fuel(4)?;
        if holds == wanted {
            out.push(item);
        }
    }
    Ok(generator(out))
}

fn sort(state: &mut State<'_, '_>, args: Vec<Value>) -> Result<Value, Error> {
    let names = ["value", "reverse", "case_sensitive", "attribute"];
    let [value, reverse, case, attribute] = bind(args, 1, names)?;
    let mut all = items(state, &value.unwrap_or_default())?;
    let case = truth(case.as_ref());
    let attribute = attribute.unwrap_or_default();
    let paths: Vec<Vec<Value>> = match attribute.as_str() {
        Some(names) => names.split(',').map(|name| path(&Value::from(name))).collect(),
        None => vec![path(&attribute)],
    };
    let key = |item: &Value| {
        let mut keys = Vec::new();
        for path in &paths {
            let key = follow(item, path, None)?;
            keys.push(if case { key } else { folded(state, key)? });
        }
        Ok(list(keys))
    };
    sorted(state, &mut all, key, truth(reverse.as_ref()))?;
    Ok(list(all))
}

fn group_by(state: &mut State<'_, '_>, args: Vec<Value>) -> Result<Value, Error> {
    let names = ["value", "attribute", "default", "case_sensitive"];
    let [value, attribute, default, case] = bind(args, 2, names)?;
    let mut all = items(state, &value.unwrap_or_default())?;
    let path = path(&attribute.unwrap_or_default());
    let default = default.filter(|d| !d.is_none());
    let own = |item: &Value| follow(item, &path, default.as_ref());
    let case = truth(case.as_ref());
    let key = |item: &Value| Ok(if case { own(item)? } else { folded(state, own(item)?)? });
    sorted(state, &mut all, key, false)?;
    let mut groups: Vec<(Value, Vec<Value>)> = Vec::new();
    for item in all {
        let found = key(&item)?;
        match groups.last_mut() {
            Some((last, members)) if *last == found => members.push(item),
            _ => groups.push((found, vec![item])),
        }
    }
    let mut out = Vec::new();
    for (key, members) in groups {
        let grouper = if case { key } else { own(&members[0])? };
        out.push(Value::from_object(Group { grouper, list: list(members) }));
    }
    Ok(list(out))
}

fn extreme(state: &mut State<'_, '_>, args: Vec<Value>, largest: bool) -> Result<Value, Error> {
    let [value, case, attribute] = bind(args, 1, ["value", "case_sensitive", "attribute"])?;
    let path = path(&attribute.unwrap_or_default());
    let case = truth(case.as_ref());
    let mut best: Option<(Value, Value)> = None;
    for item in items(state, &value.unwrap_or_default())? {
        let key = follow(&item, &path, None)?;
        let key = if case { key } else { folded(state, key)? };
        weigh_key(state, &key)?;
        let better = match &best {
            None => true,
            Some((known, _)) => {
                order(&key, known)?.is_some_and(|o| if largest { o.is_gt() } else { o.is_lt() })
            }
        };
        if better {
            best = Some((key, item));
        }
    }
    Ok(best.map(|(_, item)| item).unwrap_or_default())
}

fn sum(state: &mut State<'_, '_>, args: Vec<Value>) -> Result<Value, Error> {
    let [value, attribute, start] = bind(args, 1, ["iterable", "attribute", "start"])?;
    let path = path(&attribute.unwrap_or_default());
    let mut total = start.unwrap_or(Value::from(0));
    if total.kind() == ValueKind::String {
        return fail("strings cannot be summed");
    }
    for item in items(state, &value.unwrap_or_default())? {
        total = add(state, &total, &follow(&item, &path, None)?)?;
    }
    Ok(total)
}

fn unique(state: &mut State<'_, '_>, args: Vec<Value>) -> Result<Value, Error> {
    let [value, case, attribute] = bind(args, 1, ["value", "case_sensitive", "attribute"])?;
    let path = path(&attribute.unwrap_or_default());
    let case = truth(case.as_ref());
    let mut seen = std::collections::HashSet::new();
    let mut out = Vec::new();
    for item in items(state, &value.unwrap_or_default())? {
        let key = follow(&item, &path, None)?;
        hashable(&key)?;
        weigh_key(state, &key)?;
        if seen.insert(if case { key } else { folded(state, key)? }) {
            out.push(item);
        }
    }
    Ok(generator(out))
}
