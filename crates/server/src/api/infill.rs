//! `/v1/infill`, a text with holes, and the one hole of requests to fill in the middle.

use std::sync::Arc;

use axum::{extract::State, response::Response};
use llada::{
    config::ModelConfig,
    constraint::Automaton,
    diffusion::{
        Sampler, Settings,
        infill::{
            self, Frame, Part, Template,
            length::{Choosing, Search, Trial},
        },
    },
};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::{
    body::{Body, Fields},
    openai::stream::{self, Chunks},
    structure::{self, Structure},
};
use crate::{
    answer::{self, Ask, Detail, End, Ends, Holes},
    app::{App, Shared},
    error::{ApiError, ApiResult},
    guard,
    models::Model,
    task::Task,
};

/// Longest hole that is searched, in tokens, unless said otherwise.
const MAX_HOLE: usize = 16;

/// Longest hole that can be searched.
const LONGEST: usize = 256;

/// Marks of fill-in-the-middle in prompts, as model families have them: before, after, between.
const SENTINELS: [[&str; 3]; 4] = [
    ["<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"],
    ["<fim_prefix>", "<fim_suffix>", "<fim_middle>"],
    ["<PRE>", "<SUF>", "<MID>"],
    ["[PREFIX]", "[SUFFIX]", "[MIDDLE]"],
];

/// The texts around a hole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Between {
    prefix: String,
    suffix: String,
}

impl Between {
    pub(crate) fn new(prefix: impl Into<String>, suffix: impl Into<String>) -> Self {
        Self { prefix: prefix.into(), suffix: suffix.into() }
    }
}

/// How the hole is to be filled.
#[derive(Debug, Clone)]
pub(crate) struct Hole {
    /// Just so many tokens.
    pub(crate) length: Option<usize>,
    /// At most so many.
    pub(crate) most: Option<usize>,
    pub(crate) stops: Vec<String>,
    /// What it must match.
    pub(crate) automaton: Option<Arc<Automaton>>,
}

/// How the holes of a text are to be filled.
struct Filling<'a> {
    settings: &'a Settings,
    /// Longest fill of a hole without a length.
    max_hole: usize,
    /// Whether the text ends where it ends.
    is_whole: bool,
    stops: Vec<String>,
    /// What each fill must match.
    automaton: Option<Arc<Automaton>>,
}

/// The texts around the hole that the sentinels in a prompt make; `None` if it has none. The suffix may
/// come first, as some models want it.
pub(crate) fn sentinels(prompt: &str) -> Option<Between> {
    SENTINELS.iter().find_map(|[before, after, between]| {
        let marked = prompt.trim_end().strip_suffix(between)?;
        if let Some((start, suffix)) = marked.split_once(after)
            && let Some((context, prefix)) = start.split_once(before)
        {
            return Some(Between::new(format!("{context}{prefix}"), suffix));
        }
        let (start, prefix) = marked.split_once(before)?;
        let (context, suffix) = start.split_once(after)?;
        Some(Between::new(format!("{context}{prefix}"), suffix))
    })
}

/// Asks for what is between two texts.
///
/// # Errors
/// If the model cannot fill holes, or this one has no room.
pub(crate) async fn ask(
    app: &Arc<App>,
    model: &Arc<Model>,
    between: &Between,
    hole: Hole,
    settings: &Settings,
) -> ApiResult<Ask> {
    let Between { prefix, suffix } = between;
    let parts = [Part::Text(prefix.clone()), Part::Hole(hole.length), Part::Text(suffix.clone())];
    let template = Template::new(parts)?;
    if hole.length.is_some_and(|length| !(1..=infill::MAX_HOLE).contains(&length)) {
        let message = format!("hole_length is a number of tokens from 1 to {}", infill::MAX_HOLE);
        return Err(ApiError::field("hole_length", message));
    }
    // A cap says how much may be, and not how much is to be searched.
    let max_hole = hole.most.unwrap_or(MAX_HOLE).min(MAX_HOLE);
    let Hole { stops, automaton, .. } = hole;
    let filling = Filling { settings, max_hole, is_whole: false, stops, automaton };
    filled(app, model, &template, filling).await
}

/// Asks for the holes of a text.
async fn filled(
    app: &Arc<App>,
    model: &Arc<Model>,
    template: &Template,
    filling: Filling<'_>,
) -> ApiResult<Ask> {
    let Filling { settings, max_hole, is_whole, stops, automaton } = filling;
    let codec = &model.codec;
    let (sampler, unused) = Ask::infill_sampler(settings)?;
    let mut frame = codec.frame(template)?;
    if is_whole {
        let eos = codec.special.eos;
        frame = frame
            .ended(eos.ok_or_else(|| ApiError::field("whole", "this model has no end of text"))?);
    }
    if let Some(automaton) = automaton {
        frame = frame.constrained(automaton);
    }
    let lengths = lengths(app, model, &frame, &sampler, max_hole).await?;
    Ok(Ask::holes(Holes { frame, lengths }, (sampler, unused), stops))
}

/// The lengths of the holes, chosen where they are not given: a trial of each length shares passes with all
/// else.
async fn lengths(
    app: &App,
    model: &Model,
    frame: &Frame,
    sampler: &Sampler,
    max_hole: usize,
) -> ApiResult<Vec<usize>> {
    let codec = &model.codec;
    let &ModelConfig { attention, max_sequence_length: limit, .. } = codec.config();
    let search = Search { frame, sampler, special: &codec.special, attention, max_hole, limit };
    let mut choosing = Choosing::new(search)?;
    while let Some(trials) = choosing.trials()? {
        let tasks = trials.into_iter().map(|trial| Task::Trial(Box::new(trial))).collect();
        let done = answer::work(app, model, tasks).await?;
        let trial = |task| match task {
            Task::Trial(trial) => Some(*trial),
            Task::Canvas(_) | Task::Scoring(_) | Task::Greedy(_) => None,
        };
        let trials: Vec<Trial> = done.into_iter().filter_map(trial).collect();
        choosing.choose(&trials);
    }
    Ok(choosing.lengths().lengths.clone())
}

/// A text with holes that are to be filled. Settings of the sampler stand beside these fields.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct Infill {
    /// The model; the first of the server where none is named.
    #[serde(default)]
    model: Option<String>,
    /// The text: `{{hole:12}}` asks for 12 tokens, `{{hole}}` for as many as fit best, `\{{` is no hole.
    #[serde(default)]
    template: Option<String>,
    /// The same in parts: texts, and objects with the key `hole`, a number of tokens or null.
    #[serde(default)]
    parts: Option<Vec<Value>>,
    /// The longest fill of a hole without a length, in tokens.
    #[serde(default)]
    max_hole: Option<usize>,
    /// Whether the text ends where the template does.
    #[serde(default)]
    whole: bool,
    /// A regular expression that each fill must match.
    #[serde(default)]
    regex: Option<String>,
    /// Texts of which each fill must be one.
    #[serde(default)]
    choices: Option<Vec<String>>,
    /// A JSON schema that each fill must match.
    #[serde(default)]
    json_schema: Option<Value>,
    /// Whether to stream.
    #[serde(default)]
    stream: bool,
    /// Stream the canvas and each step of it as events of their own.
    #[serde(default)]
    stream_events: bool,
}

impl Fields for Infill {
    const IGNORED: &[&str] = &["user", "metadata"];
}

/// Fills the holes of a text.
pub(crate) async fn create(State(app): State<Shared>, body: Body<Infill>) -> ApiResult<Response> {
    let Body { fields, settings, warnings } = body;
    let max_hole = match fields.max_hole.unwrap_or(MAX_HOLE) {
        most @ 1..=LONGEST => most,
        _ => {
            return Err(ApiError::field(
                "max_hole",
                format!("max_hole is a number from 1 to {LONGEST}"),
            ));
        }
    };
    let template = template(fields.template, fields.parts)?;
    let Infill { regex, choices, json_schema, .. } = fields;
    let structure = Structure { response_format: None, json_schema, regex, choices };
    let constraint = structure.constraint(None)?;
    let model = app.models.get(fields.model.as_deref()).await?;
    let automaton = structure::automaton(&model, constraint).await?;
    let (settings, is_whole, stops) = (&settings, fields.whole, Vec::new());
    let filling = Filling { settings, max_hole, is_whole, stops, automaton };
    let ask = filled(&app, &model, &template, filling).await?;
    let warning = ask.warning(&warnings);
    let detail = Detail { text: false, ..Detail::of(fields.stream, false, fields.stream_events) };
    let pieces = answer::begin(&app, &model, vec![ask], detail)?;
    let reply = Reply { model: model.name.clone(), template, warning };
    stream::respond(pieces, reply, fields.stream).await
}

/// The text with holes of a request.
fn template(template: Option<String>, parts: Option<Vec<Value>>) -> ApiResult<Template> {
    match (template, parts) {
        (Some(text), None) => {
            text.parse().map_err(|error: llada::diffusion::infill::InfillError| {
                ApiError::field("template", error.to_string())
            })
        }
        (None, Some(parts)) => {
            let part = |(i, part): (usize, Value)| match &part {
                Value::String(text) => Ok(Part::Text(text.clone())),
                Value::Object(object) if object.contains_key("hole") => match &object["hole"] {
                    Value::Null => Ok(Part::Hole(None)),
                    length => match length.as_u64().and_then(|n| usize::try_from(n).ok()) {
                        Some(length @ 1..=infill::MAX_HOLE) => Ok(Part::Hole(Some(length))),
                        _ => Err(ApiError::field(
                            format!("parts[{i}].hole"),
                            "hole is a number of tokens, or null",
                        )),
                    },
                },
                _ => Err(ApiError::field(
                    format!("parts[{i}]"),
                    "a part is a text, or an object with the key `hole`",
                )),
            };
            let parts: Vec<Part> =
                parts.into_iter().enumerate().map(part).collect::<Result<_, _>>()?;
            Template::new(parts).map_err(|error| ApiError::field("parts", error.to_string()))
        }
        _ => Err(ApiError::field("template", "give either `template` or `parts`")),
    }
}

/// What a response has.
struct Reply {
    model: String,
    template: Template,
    warning: Option<String>,
}

impl Reply {
    /// What is told of the text once it is filled.
    fn done(&self, number: usize, end: &End) -> Value {
        let texts: Vec<&str> = end.fills.iter().map(|fill| fill.text.as_str()).collect();
        let mut done = stream::done(number, end, "stop");
        done["text"] = self.template.fill(&texts).into();
        done
    }
}

impl Chunks for Reply {
    fn whole(&self, ends: &Ends) -> Value {
        let mut whole = self.done(0, &ends.first);
        whole["object"] = "llada.infill".into();
        whole["id"] = format!("infill-{}", guard::new_id()).into();
        whole["model"] = self.model.as_str().into();
        if let Some(warning) = &self.warning {
            whole["warning"] = warning.as_str().into();
        }
        if let Some(object) = whole.as_object_mut() {
            object.remove("choices");
        }
        whole
    }

    fn end(&mut self, number: usize, end: &End) -> Vec<Value> {
        vec![self.done(number, end)]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn sentinels_make_a_hole() {
        for prompt in [
            "<|fim_prefix|>a<|fim_suffix|>b<|fim_middle|>",
            "<|fim_suffix|>b<|fim_prefix|>a<|fim_middle|>\n",
            "<fim_prefix>a<fim_suffix>b<fim_middle>",
            "<PRE>a<SUF>b<MID>",
        ] {
            assert_eq!(sentinels(prompt), Some(Between::new("a", "b")), "{prompt}");
        }
        let context = "<|fim_prefix|>x\na<|fim_suffix|><|fim_middle|>";
        assert_eq!(sentinels(context), Some(Between::new("x\na", "")));
        for text in ["", "a", "<|fim_prefix|>a", "<|fim_middle|>", "<PRE>a<|fim_suffix|>b<MID>"] {
            assert_eq!(sentinels(text), None, "{text}");
        }
    }

    #[test]
    fn holes_come_in_two_notations() {
        let parts = json!(["a ", { "hole": 3 }, " b", { "hole": null }]);
        let of_parts = template(None, serde_json::from_value(parts).unwrap()).unwrap();
        assert_eq!(of_parts, "a {{hole:3}} b{{hole}}".parse().unwrap());
        for wrong in [json!([]), json!(["a"]), json!([{ "hole": 0 }]), json!([7])] {
            assert!(template(None, serde_json::from_value(wrong).unwrap()).is_err());
        }
        assert!(template(None, None).is_err() && template(Some("a".into()), None).is_err());
    }
}
