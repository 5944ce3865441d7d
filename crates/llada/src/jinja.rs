//! Jinja as Python's jinja2 computes it, for templates that nobody here has written.
//!
//! Chat templates and the templates of evaluation tasks are made for jinja2. minijinja runs them;
//! what the two do differently is mended in three places. Expressions are translated
//! ([`translate`]) so that comparisons, `%`, slices and the like call functions that compute as
//! Python does ([`operators`]); filters, tests, methods and globals have Python's names, arguments
//! and results; and values are shown as `str` and `json.dumps` show them.
//!
//! Templates are not trusted. Each rendering has fuel for a number of steps and of bytes that are
//! made, in proportion to what it reads, and [limits](Limits) of the source and the output.

mod arguments;
mod arithmetic;
mod characters;
mod collections;
mod expression;
mod filters;
mod format;
mod globals;
mod html;
mod json;
mod lexer;
mod methods;
mod numbers;
mod operators;
mod order;
mod parser;
mod pprint;
mod predicates;
mod printf;
mod sequences;
mod text;
mod translate;
mod urlize;
mod values;
mod wordwrap;
mod written;

use chrono::NaiveDateTime;
use minijinja::{
    AutoEscape, Environment, Error, ErrorKind, State, UndefinedBehavior, Value,
    syntax::SyntaxConfig,
    value::{Rest, ValueOrKwargs},
};
use serde_json::Value as Json;

pub(crate) use globals::{GENERATION_END, GENERATION_START, MARKS};
pub(crate) use text::text;

/// The name under which a template is registered.
const NAME: &str = "template";

/// A function of the language: arguments, keywords last, to a result.
type Function = fn(&mut State<'_, '_>, Vec<Value>) -> Outcome;
/// What a function gives.
type Outcome = Result<Value, Error>;

/// What a template may use up.
pub(crate) struct Limits;

impl Limits {
    /// Bytes of a template. The longest of a hundred published ones has 20 kB.
    pub(crate) const SOURCE: usize = 1 << 20;
    /// Steps of one rendering, or blocks of 64 bytes that it makes, whatever it reads. Published
    /// chat templates need a few thousand for a conversation of some turns.
    const FUEL: u64 = 1_000_000;
    /// The same for each byte that it reads.
    const FUEL_PER_BYTE: u64 = 8;
    /// Bytes of the output, whatever it reads.
    const OUTPUT: usize = 8 << 20;
    /// The same for each byte that it reads.
    const OUTPUT_PER_BYTE: usize = 8;
    /// Bytes that the row of a data set is taken to have.
    const ROW: usize = 1 << 20;
    /// How deep values and blocks may be nested, and calls of macros a quarter of it.
    const DEPTH: usize = 200;

    /// The fuel of a rendering that reads `size` bytes.
    fn fuel(size: usize) -> u64 {
        Self::FUEL.saturating_add(Self::FUEL_PER_BYTE.saturating_mul(size as u64))
    }
}

/// What is wrong with a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mistake {
    /// The line.
    pub(crate) line: usize,
    /// What is wrong there.
    pub(crate) what: String,
}

impl Mistake {
    fn new(what: impl Into<String>) -> Self {
        Self { line: 0, what: what.into() }
    }

    fn of(error: &Error) -> Self {
        // The innermost error says what happened.
        let mut inner = error;
        while let Some(source) =
            std::error::Error::source(inner).and_then(|source| source.downcast_ref::<Error>())
        {
            inner = source;
        }
        let what = match inner.kind() {
            ErrorKind::OutOfFuel => {
                "it takes too many steps, or makes too long a text, for what it reads".into()
            }
            kind => inner.detail().map_or_else(|| kind.to_string(), str::to_owned),
        };
        Self { line: error.line().unwrap_or(1), what }
    }
}

/// Whose set-up of Jinja is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// That of `apply_chat_template` of `transformers`.
    Transformers {
        /// What `strftime_now` shows.
        now: NaiveDateTime,
    },
    /// That of the tasks of lm-evaluation-harness.
    Harness,
}

/// Jinja without templates.
pub(crate) fn environment(dialect: Dialect) -> Result<Environment<'static>, Mistake> {
    let mut environment = Environment::empty();
    let chat = dialect != Dialect::Harness;
    let syntax = SyntaxConfig::builder()
        .trim_blocks(chat)
        .lstrip_blocks(chat)
        .keep_trailing_newline(!chat)
        .build();
    environment.set_syntax(syntax.map_err(|e| Mistake::of(&e))?);
    environment.set_recursion_limit(Limits::DEPTH);
    environment.set_fuel(Some(Limits::fuel(Limits::ROW)));
    if !chat {
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
    }
    environment.set_formatter(|out, state, value| {
        let text = text(state, value)?;
        let plain = matches!(state.auto_escape(), AutoEscape::None) || value.is_safe();
        out.write_str(&if plain { text } else { html::escaped(&text) }).map_err(Error::from)
    });
    environment.set_unknown_method_callback(|state, value, method, args| {
        methods::call(state, value, method, args)
    });
    for (name, filter) in filters::ALL.iter().chain(&sequences::ALL) {
        environment.add_filter(*name, function(*filter));
    }
    for (name, test) in predicates::ALL {
        environment.add_test(name, function(test));
    }
    for (name, global) in operators::ALL.iter().chain(&arithmetic::ALL).chain(&globals::ALL) {
        environment.add_function(*name, function(*global));
    }
    globals::add(&mut environment, dialect);
    Ok(environment)
}

/// What minijinja takes for a function. Each call pays for the texts that it reads and for the one
/// that it gives, so that none is free for being called by another function.
fn function(
    function: Function,
) -> impl Fn(&mut State<'_, '_>, Rest<ValueOrKwargs>) -> Outcome + Send + Sync + 'static {
    move |state: &mut State<'_, '_>, arguments: Rest<ValueOrKwargs>| {
        let arguments = arguments.into_values();
        arguments.iter().try_for_each(|value| charge(state, text_len(value)))?;
        let result = function(state, arguments)?;
        charge(state, text_len(&result))?;
        Ok(result)
    }
}

/// Adds the one template of an environment.
pub(crate) fn add(environment: &mut Environment<'static>, source: &str) -> Result<(), Mistake> {
    let source = template(environment, source)?;
    environment.add_template_owned(NAME, source).map_err(|e| Mistake::of(&e))
}

/// Whether a template has `{% generation %}`.
pub(crate) fn has_generation(source: &str) -> bool {
    source.match_indices("{%").any(|(at, _)| {
        let inside = &source[at + 2..];
        let inside = inside.strip_prefix(['-', '+']).unwrap_or(inside).trim_start();
        let after = inside.strip_prefix("generation").map(str::trim_start);
        after.is_some_and(|after| after.starts_with(['-', '+', '%']))
    })
}

/// Renders the one template of an environment, for a context of `size` bytes.
pub(crate) fn render(
    environment: &Environment<'static>,
    context: Value,
    size: usize,
) -> Result<String, Mistake> {
    let mut environment = environment.clone();
    environment.set_fuel(Some(Limits::fuel(size)));
    let rendered = environment.get_template(NAME).and_then(|t| t.render(context));
    within(rendered.map_err(|e| Mistake::of(&e))?, size)
}

/// Renders `source` over a row of a data set.
pub(crate) fn render_str(
    environment: &Environment<'_>,
    source: &str,
    row: &Value,
) -> Result<String, Mistake> {
    let source = template(environment, source)?;
    within(environment.render_str(&source, row).map_err(|e| Mistake::of(&e))?, Limits::ROW)
}

/// The value of the expression `source`.
pub(crate) fn evaluate(
    environment: &Environment<'_>,
    source: &str,
    context: &Value,
) -> Result<Value, Mistake> {
    let source = translated(source, translate::expression)?;
    let value = environment.compile_expression(&source).and_then(|e| e.eval(context));
    value.map_err(|e| Mistake::of(&e))
}

/// A template as minijinja reads it.
fn template(environment: &Environment<'_>, source: &str) -> Result<String, Mistake> {
    let trim = environment.syntax().trim_blocks();
    translated(source, |source| translate::template(source, trim))
}

fn translated(
    source: &str,
    translate: impl Fn(&str) -> Result<String, Mistake>,
) -> Result<String, Mistake> {
    match source.len() {
        0..=Limits::SOURCE => translate(source),
        len => {
            let most = Limits::SOURCE;
            Err(Mistake { line: 1, what: format!("it has {len} bytes, of {most} at most") })
        }
    }
}

fn within(text: String, size: usize) -> Result<String, Mistake> {
    let most = Limits::OUTPUT.saturating_add(Limits::OUTPUT_PER_BYTE.saturating_mul(size));
    match text.len() <= most {
        true => Ok(text),
        false => Err(Mistake { line: 1, what: format!("it writes more than {most} bytes") }),
    }
}

/// A value of JSON as templates see it, keys in their order.
pub(crate) fn value(json: &Json) -> Value {
    match json {
        Json::Null => Value::from(()),
        Json::Bool(yes) => Value::from(*yes),
        Json::Number(n) => match (n.as_i64(), n.as_u64()) {
            (Some(n), _) => Value::from(n),
            (None, Some(n)) => Value::from(n),
            (None, None) => Value::from(n.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::from(text.as_str()),
        Json::Array(items) => items.iter().map(value).collect::<Vec<_>>().into(),
        Json::Object(fields) => {
            Value::from_pairs(fields.iter().map(|(name, field)| (name.as_str(), value(field))))
        }
    }
}

/// An operation that its values do not allow.
fn fail<T>(what: impl Into<String>) -> Result<T, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, what.into()))
}

/// The bytes of a value that is a text.
fn text_len(value: &Value) -> usize {
    value.as_str().map_or(0, str::len)
}

/// Pays for `bytes` bytes before they are made.
fn charge(state: &State<'_, '_>, bytes: usize) -> Result<(), Error> {
    state.consume_fuel(bytes as u64 / 64)
}

#[cfg(test)]
mod tests;
