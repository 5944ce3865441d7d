//! A server that answers: any with OpenAI's `/v1/chat/completions`. Of one of this program more is
//! known: how long sequences are, how many tokens a conversation has, and each step of an answer.

mod events;
mod fault;
mod server;
mod shown;

use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use llada::{
    chat::Message,
    constraint::Constraint,
    diffusion::{Settings, Spelling},
    rng::nth_seed,
};
use serde_json::{Map, Value, json};

use super::{Partner, Room, is_watched, pace, settings};
use crate::{
    args::Talk,
    commands::{constraint, observer::Pace},
    error::Failure,
    interrupt::Flag,
    keys::Silence,
    term::{Level, Term},
    view::units,
};
use fault::Fault;
use server::{News, Props, Reply, Server};
use shown::Shown;

/// The longest wait that a server may ask for and gets.
const LONGEST_WAIT: Duration = Duration::from_secs(20);

/// A server, and how it is asked.
pub(super) struct Remote {
    server: Server,
    /// The name of one of its models.
    model: Option<String>,
    /// What it says of the model, if it is a server of this program.
    props: Option<Props>,
    /// The settings that were made, by flags or `/set`.
    asked: Settings,
    /// Fields of every request: what an answer must be.
    structure: Map<String, Value>,
    /// Answers begun since the seed was set: each has one of its own.
    answers: u64,
    is_watched: bool,
    pace: Pace,
    term: Term,
}

/// How an answer ended, and what it took.
#[derive(Default)]
struct Outcome {
    is_stopped: bool,
    finish: Option<String>,
    usage: Value,
}

impl Remote {
    /// Looks who is at `url`.
    pub(super) fn connect(
        url: &str,
        key: Option<&str>,
        model: Option<&Path>,
        talk: &Talk,
        term: &Term,
    ) -> Result<Self> {
        let structure = constraint::read(&talk.constraint)?;
        let structure = structure.map(written).unwrap_or_default();
        let asked = talk.sampler.settings.clone();
        let model = model.map(|model| model.to_string_lossy().into_owned());
        let server = Server::new(url, key)?;
        let (is_watched, pace) = (is_watched(talk, term), pace(talk));
        let props = None;
        let mut remote = Self {
            server,
            model,
            props,
            asked,
            structure,
            answers: 0,
            is_watched,
            pace,
            term: *term,
        };
        // Nothing is lost yet where Ctrl-C ends the program.
        let wait = |time| {
            thread::sleep(time);
            false
        };
        let model = remote.model.as_deref();
        remote.props = remote.patiently(wait, || remote.server.props(model))?.flatten();
        if let Some(props) = remote.props.as_ref().filter(|props| !props.chat) {
            let name = &props.model;
            term.note(&format!("`{name}` is a base model, which was not tuned on conversations"));
        }
        Ok(remote)
    }

    /// Tries, and once more after a short wait if the server asks for one. `None` if `wait`, which
    /// sleeps, says that nobody wants to any more.
    fn patiently<T>(
        &self,
        wait: impl Fn(Duration) -> bool,
        attempt: impl Fn() -> Result<T, Fault>,
    ) -> Result<Option<T>> {
        let first = match attempt() {
            Err(Fault::Busy(failure, time)) if time <= LONGEST_WAIT => {
                self.term.note(&format!("{failure}; trying again then"));
                if wait(time) {
                    return Ok(None);
                }
                attempt()
            }
            other => other,
        };
        Ok(Some(first.map_err(Failure::from)?))
    }

    /// The request for an answer to `messages`.
    fn request(&self, messages: &[Message]) -> Value {
        let mut request = self.structure.clone();
        let seed = self.asked.seed.map(|seed| nth_seed(seed, self.answers));
        for (name, value) in (Settings { seed, ..self.asked.clone() }).to_json() {
            // The name by which every server knows it.
            let name = if name == "gen_length" { "max_tokens".into() } else { name };
            request.insert(name, value);
        }
        if let Some(model) = &self.model {
            request.insert("model".into(), model.as_str().into());
        }
        if self.is_drawn() {
            request.insert("stream_events".into(), true.into());
        }
        request.insert("messages".into(), json!(messages));
        request.insert("stream".into(), true.into());
        request.insert("stream_options".into(), json!({ "include_usage": true }));
        request.into()
    }

    fn is_drawn(&self) -> bool {
        self.is_watched && self.term.level > Level::Quiet && self.props.is_some()
    }

    /// Shows what comes of a reply, to its end.
    fn follow(&self, reply: &Reply, shown: &mut Shown, stop: &Flag) -> Result<Outcome> {
        let mut outcome = Outcome::default();
        loop {
            let chunk = match reply.next(stop) {
                Ok(News::Begun) => continue,
                Ok(News::Chunk(chunk)) => chunk,
                Ok(News::Stopped) => return Ok(Outcome { is_stopped: true, ..outcome }),
                Ok(News::Done) => return Ok(outcome),
                // What is told after the answer may be missing.
                Ok(News::Over) | Err(_) if outcome.finish.is_some() => return Ok(outcome),
                Ok(News::Over) => return Err(self.cut_off()),
                Err(fault) => return Err(Failure::from(fault).into()),
            };
            match chunk["object"].as_str() {
                Some("llada.canvas") => shown.open(&chunk),
                Some("llada.step") => shown.step(&chunk, stop),
                _ => {}
            }
            if let Some(warning) = chunk["warning"].as_str() {
                self.term.warn(warning);
            }
            if chunk["usage"].is_object() {
                outcome.usage = chunk["usage"].clone();
            }
            let choice = &chunk["choices"][0];
            for part in ["delta", "message"] {
                if let Some(text) = choice[part]["content"].as_str() {
                    shown.push(text)?;
                }
            }
            if let Some(reason) = choice["finish_reason"].as_str() {
                outcome.finish = Some(reason.to_owned());
            }
        }
    }

    fn cut_off(&self) -> anyhow::Error {
        Failure::from(fault::cut_off(self.server.host(), None)).into()
    }

    /// What an answer took, in a line.
    fn summary(&self, outcome: &Outcome, time: Duration) -> String {
        let usage = &outcome.usage;
        let mut parts = Vec::new();
        if let Some(nfe) = usage["nfe"].as_u64() {
            parts.push(format!("{nfe} NFE"));
        }
        if let (Some(tokens), Some(prompt)) =
            (usage["completion_tokens"].as_u64(), usage["prompt_tokens"].as_u64())
        {
            parts.push(format!("{tokens} tokens after {prompt}"));
        }
        if let Some(room) = self.room() {
            parts.push(format!("{} left for the conversation", room.left()));
        }
        if let Some(reason) = outcome.finish.as_deref().filter(|reason| *reason != "stop") {
            parts.push(format!("ended by `{reason}`"));
        }
        parts.push(units::duration(time.as_secs_f64()));
        parts.join(" · ")
    }
}

/// The fields that say what an answer must be.
fn written(constraint: Constraint) -> Map<String, Value> {
    let (name, value) = match constraint {
        Constraint::JsonSchema(schema) => {
            let named = json!({ "name": "answer", "schema": schema });
            ("response_format", json!({ "type": "json_schema", "json_schema": named }))
        }
        Constraint::Regex(regex) => ("regex", regex.into()),
        Constraint::Choices(choices) => ("choices", choices.into()),
        Constraint::Json | Constraint::Tools { .. } => {
            ("response_format", json!({ "type": "json_object" }))
        }
    };
    Map::from_iter([(name.to_owned(), value)])
}

impl Partner for Remote {
    fn greeting(&self) -> String {
        let host = self.server.host();
        match (&self.props, self.room(), &self.model) {
            (Some(props), Some(Room { longest, answer }), _) => format!(
                "{} at {host}: sequences of {longest} tokens, answers of up to {answer}",
                props.model
            ),
            (.., Some(model)) => format!("{model} at {host}"),
            _ => format!("the model at {host}"),
        }
    }

    fn room(&self) -> Option<Room> {
        let props = self.props.as_ref()?;
        let longest = props.max_sequence_length;
        // A server shortens what is only usual, where there is less room.
        let usual = props.usual.gen_length.map(|length| length.min(longest / 2));
        let answer = self.asked.gen_length.or(usual).unwrap_or(0);
        Some(Room { longest, answer })
    }

    fn count(&self, messages: &[Message]) -> Result<usize> {
        let count = self.server.count(messages, self.model.as_deref());
        Ok(count.map_err(Failure::from)?)
    }

    fn answer(&mut self, messages: &[Message], stop: &Flag) -> Result<Option<String>> {
        let request = self.request(messages);
        let begun = Instant::now();
        let is_typed = self.term.interactive && self.term.level > Level::Quiet;
        let _silence = is_typed.then(Silence::new);
        let asked = self.patiently(|time| stop.wait(time), || self.server.ask(&request, stop))?;
        let Some(reply) = asked.flatten() else { return Ok(None) };
        self.answers += 1;
        let mut shown = Shown::new(self.pace, self.term);
        match self.follow(&reply, &mut shown, stop) {
            Ok(outcome) => {
                let is_answer = !outcome.is_stopped || shown.has_words();
                let text = shown.end(is_answer)?;
                self.term.detail(&self.summary(&outcome, begun.elapsed()));
                Ok(is_answer.then_some(text))
            }
            Err(error) => {
                // The error is told on a line of its own; a stdout that is gone has no line.
                _ = shown.end(false);
                Err(error)
            }
        }
    }

    fn set(&mut self, key: &str, value: &str) -> Result<()> {
        let refuse = |error| Failure::sampler(error, Spelling::Command);
        self.asked.set(key, value).map_err(refuse)?;
        if key == "seed" {
            self.answers = 0;
        }
        Ok(())
    }

    fn settings(&self) -> Vec<String> {
        let usual = self.props.as_ref().map(|props| &props.usual);
        settings::list(&self.asked.over(usual.unwrap_or(&Settings::NONE)))
    }
}
