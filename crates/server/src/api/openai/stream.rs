//! Answers as server-sent events.

use std::{collections::VecDeque, convert::Infallible, time::Duration};

use axum::{
    Json,
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures_util::stream;
use serde_json::{Value, json};

use crate::{
    answer::{self, End, Ends, Piece, Pieces, Usage},
    api::types,
    error::{ApiError, ApiResult},
};

/// How often a stream without news shows that it lives.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// How an interface writes answers: whole, or piece by piece, each piece as chunks of JSON. As provided, a
/// piece is told by none.
pub(crate) trait Chunks: Send + 'static {
    /// The response that is not streamed.
    fn whole(&self, ends: &Ends) -> Value;

    /// What comes before answer `number`.
    fn begin(&mut self, _number: usize) -> Vec<Value> {
        Vec::new()
    }

    /// More of the text of answer `number`.
    fn text(&mut self, _number: usize, _text: String) -> Vec<Value> {
        Vec::new()
    }

    /// The text of answer `number` as it stands.
    fn snapshot(&mut self, _number: usize, _text: String) -> Vec<Value> {
        Vec::new()
    }

    /// Answer `number` is over.
    fn end(&mut self, number: usize, end: &End) -> Vec<Value>;

    /// All answers are over.
    fn last(&mut self, _usage: &Usage) -> Vec<Value> {
        Vec::new()
    }

    /// The chunk as an event; as provided, with a name if it is one of the program's own.
    fn event(&self, chunk: &Value) -> Event {
        let event = Event::default().data(chunk.to_string());
        match chunk["object"].as_str() {
            Some(name) if name.starts_with("llada.") => event.event(name),
            _ => event,
        }
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
            Ok(Piece::Canvas(mut event) | Piece::Step(mut event)) => {
                event["index"] = number.into();
                self.push(vec![event]);
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

/// The response of `pieces`, as they come or once all are there.
///
/// # Errors
/// If it is not streamed, that of the first answer that fails.
pub(crate) async fn respond(
    pieces: Pieces,
    chunks: impl Chunks,
    is_stream: bool,
) -> ApiResult<Response> {
    match is_stream {
        true => Ok(streamed(pieces, chunks)),
        false => Ok(Json(chunks.whole(&answer::ends(pieces).await?)).into_response()),
    }
}

/// The response that streams `pieces`.
fn streamed(pieces: Pieces, chunks: impl Chunks) -> Response {
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
