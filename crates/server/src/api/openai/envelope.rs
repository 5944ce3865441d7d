//! What all responses of OpenAI's interface have around their choices.

use serde_json::{Value, json};

use crate::{
    answer::{Ends, Usage},
    api::types,
    app, guard,
    models::Model,
};

/// The name of a response, and what is told in it besides its choices.
#[derive(Debug)]
pub(super) struct Envelope {
    id: String,
    created: u64,
    model: String,
    /// What was accepted and has no effect, until it is told.
    warning: Option<String>,
    /// Whether a stream tells how many tokens the answers took.
    pub(super) tells_usage: bool,
    /// Whether a stream has the program's own events.
    pub(super) tells_events: bool,
}

impl Envelope {
    /// A plain one, whose name begins with `kind`.
    pub(super) fn new(kind: &str, model: &Model, warning: Option<String>) -> Self {
        let (id, created) = (format!("{kind}-{}", guard::new_id()), app::now());
        let (tells_usage, tells_events) = (false, false);
        let model = model.name.clone();
        Self { id, created, model, warning, tells_usage, tells_events }
    }

    /// Whether there is something to be warned of.
    pub(super) fn has_warning(&self) -> bool {
        self.warning.is_some()
    }

    /// A response of the kind `object`, or a part of one.
    pub(super) fn chunk(&self, object: &str, choices: Value) -> Value {
        json!({
            "id": self.id,
            "object": object,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": concat!("llada-", env!("CARGO_PKG_VERSION")),
            "choices": choices,
        })
    }

    /// A response that is not streamed.
    pub(super) fn whole(&self, object: &str, choices: Vec<Value>, ends: &Ends) -> Value {
        let mut whole = self.chunk(object, choices.into());
        whole["usage"] = types::usage(&ends.usage());
        whole["seed"] = ends.first.seed.into();
        whole["timings"] = types::timings(&ends.first);
        if let Some(warning) = &self.warning {
            whole["warning"] = warning.as_str().into();
        }
        whole
    }

    /// The first chunk of a stream, which has the warning.
    pub(super) fn first(&mut self, mut chunk: Value) -> Vec<Value> {
        if let Some(warning) = self.warning.take() {
            chunk["warning"] = warning.into();
        }
        vec![chunk]
    }

    /// The last chunk of a stream, if it tells how many tokens the answers took.
    pub(super) fn last(&self, object: &str, usage: &Usage) -> Vec<Value> {
        let mut last = self.chunk(object, json!([]));
        last["usage"] = types::usage(usage);
        if self.tells_usage { vec![last] } else { Vec::new() }
    }
}
