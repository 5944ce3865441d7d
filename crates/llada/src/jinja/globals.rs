//! The functions that templates find without asking.

use std::{
    fmt::Write,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use chrono::{
    NaiveDateTime,
    format::{Item, StrftimeItems},
};
use minijinja::{
    Environment, Error, State, Value,
    value::{Enumerator, Kwargs, Object, ObjectRepr, Rest, ValueOrKwargs},
};

use super::{
    Dialect, Function,
    arguments::{Arguments, bind, string, whole},
    fail,
    text::text,
    values::{View, is_plain_map, items},
};

/// The variable whose truth asks for marks around what `{% generation %}` holds.
pub(crate) const MARKS: &str = "__marks__";
/// Stands where a generation begins, with the variable's value between this and the same again.
/// Unicode keeps these two characters for uses inside a program.
pub(crate) const GENERATION_START: char = '\u{fdd2}';
/// Stands where a generation ends.
pub(crate) const GENERATION_END: char = '\u{fdd3}';
/// What the C library fills in.
const FIELDS: &str = "aAbBcCdDeFfgGhHIjklmMnpPrRsStTuUVwWxXyYzZ%";
/// The longest range of jinja2's sandbox.
const LONGEST_RANGE: i64 = 100_000;

/// The functions that do not depend on the dialect.
pub(super) const ALL: [(&str, Function); 6] = [
    ("range", range),
    ("dict", dict),
    ("cycler", cycler),
    ("joiner", joiner),
    ("lipsum", |_, _| fail("`lipsum` gives a random text, another one each time")),
    ("__generation__", generation),
];

/// Adds those that do.
pub(super) fn add(environment: &mut Environment<'static>, dialect: Dialect) {
    environment.add_function("namespace", super::function(namespace));
    let Dialect::Transformers { now } = dialect else { return };
    environment.add_function("raise_exception", super::function(raise_exception));
    let strftime = move |arguments: Rest<ValueOrKwargs>| {
        let [format] = bind(arguments.into_values(), 1, ["format"])?;
        string(&format.unwrap_or_default()).map(|format| strftime(now, format))
    };
    environment.add_function("strftime_now", strftime);
}

fn raise_exception(state: &mut State<'_, '_>, arguments: Vec<Value>) -> Result<Value, Error> {
    let [message] = bind(arguments, 1, ["message"])?;
    fail(text(state, &message.unwrap_or_default())?)
}

/// `format` with its fields filled in; what is no field stays as it is, as in the C library.
fn strftime(now: NaiveDateTime, format: &str) -> String {
    let mut out = String::new();
    let mut rest = format;
    while let Some(start) = rest.find('%') {
        out.push_str(&rest[..start]);
        let field = &rest[start..];
        let flag = usize::from(field[1..].starts_with(['-', '_', '0', '^']));
        let len = field.char_indices().nth(2 + flag).map_or(field.len(), |(at, _)| at);
        let (field, after) = field.split_at(len);
        // Microseconds, which Python fills in itself.
        let field = if field == "%f" { "%6f" } else { field };
        let letter = field.chars().last();
        let known = letter.is_some_and(|l| FIELDS.contains(l))
            && StrftimeItems::new(field).all(|i| !matches!(i, Item::Error));
        // Without a time zone `%z` and `%Z` are empty.
        let zone = matches!(field, "%z" | "%Z");
        let written = out.len();
        if !zone && (!known || write!(out, "{}", now.format(field)).is_err()) {
            out.truncate(written);
            out.push_str(field);
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

fn range(_: &mut State<'_, '_>, arguments: Vec<Value>) -> Result<Value, Error> {
    let numbers: Vec<i64> = arguments.iter().map(whole).collect::<Result<_, _>>()?;
    let (start, stop, step) = match numbers[..] {
        [stop] => (0, stop, 1),
        [start, stop] => (start, stop, 1),
        [start, stop, step] if step != 0 => (start, stop, step),
        _ => return fail("`range` takes a stop, or a start, a stop and a step that is not 0"),
    };
    let distance = if step > 0 { stop.saturating_sub(start) } else { start.saturating_sub(stop) };
    let count = u64::try_from(distance).map_or(0, |d| d.div_ceil(step.unsigned_abs()));
    if count > LONGEST_RANGE as u64 {
        return fail(format!("a range of more than {LONGEST_RANGE} numbers"));
    }
    let name = match step {
        1 => format!("range({start}, {stop})"),
        _ => format!("range({start}, {stop}, {step})"),
    };
    let numbers = (0..count as i64).map(|i| Value::from(start + i * step));
    Ok(View::range(name, numbers.collect()))
}

fn dict(state: &mut State<'_, '_>, arguments: Vec<Value>) -> Result<Value, Error> {
    pairs(state, arguments).map(Value::from_pairs)
}

/// The pairs that Python's `dict` is made of.
fn pairs(state: &State<'_, '_>, arguments: Vec<Value>) -> Result<Vec<(Value, Value)>, Error> {
    let Arguments { placed, named } = Arguments::new(arguments)?;
    let mut pairs: Vec<(Value, Value)> = Vec::new();
    match placed.as_slice() {
        [] => {}
        [map] if is_plain_map(map) => {
            for key in items(state, map)? {
                let value = map.get_item(&key)?;
                pairs.push((key, value));
            }
        }
        [list] => {
            for pair in items(state, list)? {
                match items(state, &pair)?.as_slice() {
                    [key, value] => pairs.push((key.clone(), value.clone())),
                    _ => return fail("`dict` takes pairs"),
                }
            }
        }
        _ => return fail("`dict` takes one argument, and more by name"),
    }
    pairs.extend(named.into_iter().map(|(name, value)| (Value::from(name), value)));
    Ok(pairs)
}

fn namespace(state: &mut State<'_, '_>, arguments: Vec<Value>) -> Result<Value, Error> {
    let pairs = pairs(state, arguments)?;
    if pairs.iter().any(|(name, _)| name.as_str().is_some_and(|name| name.starts_with('_'))) {
        return fail("the names of a namespace may not begin with `_`");
    }
    let named = pairs.into_iter().map(|(name, value)| (name.to_string(), value));
    let keywords = Value::from(named.collect::<Kwargs>());
    let empty = keywords.len() == Some(0);
    let original = Value::from_function(minijinja::functions::namespace);
    original.call(state, if empty { &[] } else { std::slice::from_ref(&keywords) })
}

/// What `{% generation %}` calls.
fn generation(state: &mut State<'_, '_>, arguments: Vec<Value>) -> Result<Value, Error> {
    let Arguments { named, .. } = Arguments::new(arguments)?;
    let caller = named.into_iter().find(|(name, _)| name == "caller");
    let Some((_, caller)) = caller else { return fail("a generation without text") };
    let said = caller.call(state, &[])?;
    let marks = state.lookup(MARKS).filter(Value::is_true);
    Ok(match marks {
        None => said,
        Some(mark) => {
            let [start, end] = [GENERATION_START, GENERATION_END];
            Value::from(format!("{start}{mark}{start}{said}{end}{mark}{end}"))
        }
    })
}

/// `cycler(…)`: the items in turn.
#[derive(Debug)]
struct Cycler {
    items: Vec<Value>,
    at: AtomicUsize,
}

fn cycler(_: &mut State<'_, '_>, arguments: Vec<Value>) -> Result<Value, Error> {
    match arguments.is_empty() {
        true => fail("`cycler` takes items"),
        false => Ok(Value::from_object(Cycler { items: arguments, at: AtomicUsize::new(0) })),
    }
}

impl Object for Cycler {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let at = self.at.load(Ordering::Relaxed) % self.items.len();
        (key.as_str() == Some("current")).then(|| self.items[at].clone())
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::NonEnumerable
    }

    fn call_method(
        self: &Arc<Self>,
        _: &mut State<'_, '_>,
        method: &str,
        args: &[Value],
    ) -> Result<Value, Error> {
        match (method, args) {
            ("next", []) => {
                let at = self.at.fetch_add(1, Ordering::Relaxed) % self.items.len();
                Ok(self.items[at].clone())
            }
            ("reset", []) => {
                self.at.store(0, Ordering::Relaxed);
                Ok(Value::from(()))
            }
            _ => fail("a cycler has the methods `next` and `reset`"),
        }
    }
}

/// `joiner(sep)`: nothing when called first, then the separator.
#[derive(Debug)]
struct Joiner {
    separator: Value,
    calls: AtomicUsize,
}

fn joiner(_: &mut State<'_, '_>, arguments: Vec<Value>) -> Result<Value, Error> {
    let [separator] = bind(arguments, 0, ["sep"])?;
    let separator = separator.unwrap_or(Value::from(", "));
    string(&separator)?;
    Ok(Value::from_object(Joiner { separator, calls: AtomicUsize::new(0) }))
}

impl Object for Joiner {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn call(self: &Arc<Self>, _: &mut State<'_, '_>, _: &[Value]) -> Result<Value, Error> {
        Ok(match self.calls.fetch_add(1, Ordering::Relaxed) {
            0 => Value::from(""),
            _ => self.separator.clone(),
        })
    }
}
