//! Answers as server-sent events.

use std::{collections::VecDeque, convert::Infallible, time::Duration};

use axum::response::{
    IntoResponse, Response,
    sse::{Event, KeepAlive, Sse},
};
use futures_util::stream;
use serde_json::{Value, json};

use crate::{
    answer::{End, Piece, Pieces, Usage},
    api::types,
    error::ApiError,
};

/// How often a stream without news shows that it lives.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// How an interface writes the pieces of answers; each is a chunk of JSON, or several.
pub(crate) trait Chunks: Send + 'static {
    /// What comes before answer `number`.
    fn begin(&mut self, number: usize) -> Vec<Value>;

    /// More of the text of answer `number`.
    fn text(&mut self, number: usize, text: String) -> Vec<Value>;

    /// The text of answer `number` as it stands.
    fn snapshot(&mut self, number: usize, text: String) -> Vec<Value>;

    /// Answer `number` is over.
    fn end(&mut self, number: usize, end: &End) -> Vec<Value>;

    /// All answers are over.
    fn last(&mut self, usage: &Usage) -> Vec<Value>;

    /// The chunk as an event; without a name, as provided.
    fn event(&self, chunk: &Value) -> Event {
        Event::default().data(chunk.to_string())
    }

    /// What ends the stream.
    fn close(&self) -> Option<Event> {
        Some(Event::default().data("[DONE]"))
    }

    /// What tells of a failure in mid-stream.
    fn error(&self, error: &ApiError) -> Event {
        Event::default().data(error.json().to_string())
    }
}

/// A stream on its way.
struct State<C> {
    pieces: Pieces,
    chunks: C,
    ready: VecDeque<Event>,
    begun: Vec<usize>,
    usage: Usage,
    is_over: bool,
}

impl<C: Chunks> State<C> {
    fn push(&mut self, chunks: Vec<Value>) {
        let events = chunks.iter().map(|chunk| self.chunks.event(chunk));
        let events: Vec<Event> = events.collect();
        self.ready.extend(events);
    }

    fn take(&mut self, number: usize, piece: Result<Piece, ApiError>) {
        if !self.begun.contains(&number) {
            self.begun.push(number);
            let chunks = self.chunks.begin(number);
            self.push(chunks);
        }
        match piece {
            Ok(Piece::Canvas(event) | Piece::Step(event)) => {
                self.ready.push_back(named(event, number))
            }
            Ok(Piece::Text(text)) => {
                let chunks = self.chunks.text(number, text);
                self.push(chunks);
            }
            Ok(Piece::Snapshot(text)) => {
                let chunks = self.chunks.snapshot(number, text);
                self.push(chunks);
            }
            Ok(Piece::End(end)) => {
                self.usage += end.usage;
                let chunks = self.chunks.end(number, &end);
                self.push(chunks);
            }
            Err(error) => {
                self.ready.push_back(self.chunks.error(&error));
                self.pieces.close();
                self.is_over = true;
            }
        }
    }

    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            if self.is_over {
                return None;
            }
            match self.pieces.recv().await {
                Some((number, piece)) => self.take(number, piece),
                None => {
                    let chunks = self.chunks.last(&self.usage);
                    self.push(chunks);
                    self.ready.extend(self.chunks.close());
                    self.is_over = true;
                }
            }
        }
    }
}

/// The response that streams `pieces`.
pub(crate) fn respond(pieces: Pieces, chunks: impl Chunks) -> Response {
    let (ready, begun, usage) = (VecDeque::new(), Vec::new(), Usage::default());
    let state = State { pieces, chunks, ready, begun, usage, is_over: false };
    let events = stream::unfold(state, |mut state| async move {
        let event = state.next().await?;
        Some((Ok::<_, Infallible>(event), state))
    });
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE).text("keep-alive");
    let response = Sse::new(events).keep_alive(keep_alive).into_response();
    // Proxies must not collect what is to be seen at once.
    ([("x-accel-buffering", "no"), ("cache-control", "no-cache")], response).into_response()
}

/// An event with the name that its object says.
fn named(mut event: Value, number: usize) -> Event {
    let name = event["object"].as_str().unwrap_or_default().to_owned();
    event["index"] = number.into();
    Event::default().event(name).data(event.to_string())
}

/// The event that tells all of an answer that is over.
pub(crate) fn done(number: usize, end: &End, finish_reason: &str) -> Value {
    let fills = end.fills.iter().map(|fill| {
        json!({ "text": fill.text, "length": fill.tokens.len(), "confidence": fill.confidence })
    });
    json!({
        "object": "llada.done",
        "choices": [],
        "index": number,
        "text": end.text,
        "finish_reason": finish_reason,
        "seed": end.seed,
        "fills": fills.collect::<Vec<_>>(),
        "usage": types::usage(&end.usage),
        "timings": types::timings(end),
    })
}

/// A chunk as an event that has a name if it is one of the program's own.
pub(crate) fn event(chunk: &Value) -> Event {
    let event = Event::default().data(chunk.to_string());
    match chunk["object"].as_str() {
        Some(name) if name.starts_with("llada.") => event.event(name),
        _ => event,
    }
}
