//! An answer: canvases that the engine fills one after the other, followed step by step, told in pieces.

mod ask;
mod progress;

use std::{
    collections::VecDeque,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::http::StatusCode;
use llada::diffusion::{Canvas, Step, infill::Frame, trace};
use serde_json::{Value, json};
use tokio::sync::mpsc::{Receiver, Sender, channel};

use crate::{
    app::App,
    error::{self, ApiError, ApiResult},
    models::Model,
    runner::{News, Ticket},
    task::Task,
};

use ask::Result;
pub(crate) use ask::{Ask, Wanted};
pub(crate) use progress::Finish;
use progress::Progress;

/// Pieces that wait for a slow reader.
const PIECES: usize = 64;

/// What is told of an answer besides its end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Detail {
    /// Text as it can no longer change.
    pub(crate) text: bool,
    /// The whole text after each step, masks included.
    pub(crate) snapshots: bool,
    /// The canvas and each step of it.
    pub(crate) events: bool,
}

impl Detail {
    /// Of a request that says whether to stream, by snapshots, and with events.
    pub(crate) fn of(stream: bool, diffusing: bool, events: bool) -> Self {
        let (text, snapshots) = (stream && !diffusing, stream && diffusing);
        Self { text, snapshots, events: stream && events }
    }
}

/// A piece of an answer.
#[derive(Debug)]
pub(crate) enum Piece {
    /// It begins, with a canvas.
    Canvas(Value),
    /// A step of the canvas, with the texts of tokens.
    Step(Value),
    /// More of the text.
    Text(String),
    /// The text as it stands.
    Snapshot(String),
    /// It is over.
    End(Box<End>),
}

/// How many tokens an answer took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Of the prompt.
    pub(crate) prompt: usize,
    /// Useful ones of the answer.
    pub(crate) completion: usize,
    /// Of the prompt, not fed since they were cached.
    pub(crate) cached: usize,
    /// Of the canvas, useful or not.
    pub(crate) canvas: usize,
    /// Committed ones.
    pub(crate) committed: usize,
    /// Forward passes.
    pub(crate) nfe: usize,
}

impl Usage {
    /// Tokens committed in a pass.
    pub(crate) fn tokens_per_forward(&self) -> f64 {
        self.committed as f64 / self.nfe.max(1) as f64
    }
}

impl std::ops::AddAssign for Usage {
    /// Several answers to one prompt.
    fn add_assign(&mut self, other: Self) {
        self.prompt = self.prompt.max(other.prompt);
        self.cached = self.cached.max(other.cached);
        self.completion += other.completion;
        self.canvas += other.canvas;
        self.committed += other.committed;
        self.nfe += other.nfe;
    }
}

/// How long an answer took.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Timings {
    /// In the queue.
    pub(crate) queued: Duration,
    /// To the first text that could no longer change.
    pub(crate) first: Option<Duration>,
    /// In all.
    pub(crate) total: Duration,
}

/// An answer that is over.
#[derive(Debug, Clone)]
pub(crate) struct End {
    pub(crate) finish: Finish,
    pub(crate) text: String,
    /// Its useful tokens.
    pub(crate) tokens: Vec<u32>,
    /// What the holes were filled with, and how sure the model was.
    pub(crate) fills: Vec<Fill>,
    pub(crate) usage: Usage,
    pub(crate) timings: Timings,
    pub(crate) seed: u64,
}

/// All answers to a request, in their order.
#[derive(Debug)]
pub(crate) struct Ends {
    /// The first, which there always is.
    pub(crate) first: End,
    others: Vec<End>,
}

impl Ends {
    /// Each of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &End> {
        std::iter::once(&self.first).chain(&self.others)
    }

    /// What they took together.
    pub(crate) fn usage(&self) -> Usage {
        let mut usage = Usage::default();
        self.iter().for_each(|end| usage += end.usage);
        usage
    }
}

/// The text in a hole.
#[derive(Debug, Clone)]
pub(crate) struct Fill {
    pub(crate) text: String,
    pub(crate) tokens: Vec<u32>,
    pub(crate) confidence: f64,
}

/// The pieces of several answers to one request, each with the number of its answer.
pub(crate) type Pieces = Receiver<(usize, ApiResult<Piece>)>;

/// Begins to answer. The canvases are made before it returns, so that what cannot be is refused at once;
/// whoever drops the pieces cancels all.
///
/// # Errors
/// If a canvas cannot be, or there is no room for it.
pub(crate) fn begin(
    app: &Arc<App>,
    model: &Arc<Model>,
    asks: Vec<Ask>,
    detail: Detail,
) -> ApiResult<Pieces> {
    let ticket = model.runner.ticket(asks.len())?;
    let (pieces, receiver) = channel(PIECES);
    let mut answers = Vec::with_capacity(asks.len());
    for (number, ask) in asks.into_iter().enumerate() {
        let canvas = ask.canvas(&model.codec)?;
        let (app, model) = (Arc::clone(app), Arc::clone(model));
        let begun = Instant::now();
        let deadline = begun + app.options.timeout;
        let patience = app.options.client_timeout;
        let out = Out { number, pieces: pieces.clone(), patience };
        let ticket = ticket.clone();
        answers.push((Answer { app, model, ask, detail, ticket, begun, deadline, out }, canvas));
    }
    for (answer, canvas) in answers {
        tokio::spawn(answer.run(canvas));
    }
    Ok(receiver)
}

/// All answers to a request, once they are over.
///
/// # Errors
/// That of the first that fails.
pub(crate) async fn ends(mut pieces: Pieces) -> ApiResult<Ends> {
    let mut ends = Vec::new();
    while let Some((number, piece)) = pieces.recv().await {
        if let Piece::End(end) = piece? {
            ends.push((number, *end));
        }
    }
    ends.sort_by_key(|(number, _)| *number);
    let mut ends = ends.into_iter().map(|(_, end)| end);
    let first = ends.next().ok_or_else(|| ApiError::internal("an answer has no end"))?;
    Ok(Ends { first, others: ends.collect() })
}

/// Has works done that are no canvases.
///
/// # Errors
/// If there is no room for them, or one fails.
pub(crate) async fn work(app: &App, model: &Model, tasks: Vec<Task>) -> ApiResult<Vec<Task>> {
    let ticket = model.runner.ticket(1)?;
    let deadline = Instant::now() + app.options.timeout;
    let submit = |task| model.runner.submit(task, deadline, ticket.clone());
    let mut done = Vec::with_capacity(tasks.len());
    let mut left = tasks.into_iter();
    // As many at a time as share passes: other requests then wait for one of them, and not for all.
    let first = left.by_ref().take(app.options.parallel);
    let mut waiting: VecDeque<_> = first.map(&submit).collect();
    let mut cut = pin!(app.until_cut());
    while let Some(mut news) = waiting.pop_front() {
        done.push(loop {
            let next = tokio::select! {
                next = news.recv() => next,
                error = &mut cut => return Err(error),
            };
            match next {
                Some(News::Begun { .. } | News::Step(_)) => {}
                Some(News::Done(task)) => break *task,
                Some(News::Failed(error)) => return Err(failed(&error)),
                Some(News::Late) => return Err(late()),
                None => return Err(ended()),
            }
        });
        waiting.extend(left.next().map(&submit));
    }
    Ok(done)
}

/// Where the pieces of one answer go.
struct Out {
    number: usize,
    pieces: Sender<(usize, ApiResult<Piece>)>,
    patience: Duration,
}

/// Nobody takes the pieces any more.
struct Gone;

impl Out {
    async fn send(&self, piece: ApiResult<Piece>) -> std::result::Result<(), Gone> {
        self.pieces.send_timeout((self.number, piece), self.patience).await.map_err(|_| Gone)
    }
}

/// An answer that is being made.
struct Answer {
    app: Arc<App>,
    model: Arc<Model>,
    ask: Ask,
    detail: Detail,
    ticket: Ticket,
    begun: Instant,
    deadline: Instant,
    out: Out,
}

/// Why an answer is not made to its end.
enum Break {
    Gone,
    Error(ApiError),
}

impl From<Gone> for Break {
    fn from(_: Gone) -> Self {
        Self::Gone
    }
}

impl From<llada::Error> for Break {
    fn from(error: llada::Error) -> Self {
        Self::Error(error.into())
    }
}

impl Answer {
    async fn run(self, canvas: Canvas) {
        match self.fill(canvas).await {
            Ok(end) => {
                self.app.metrics.answered(&end);
                // Whoever has gone by now does not want it.
                _ = self.out.send(Ok(Piece::End(Box::new(end)))).await;
            }
            Err(Break::Gone) => self.app.metrics.cancelled(),
            Err(Break::Error(error)) => _ = self.out.send(Err(error)).await,
        }
    }

    /// Has canvases filled until the answer is over.
    async fn fill(&self, canvas: Canvas) -> std::result::Result<End, Break> {
        let Self { ask, model, detail, out, .. } = self;
        let codec = &*model.codec;
        let (prompt, mut canvas) = (canvas.prompt().tokens.len(), canvas);
        let mut progress = ask.progress(&canvas);
        let (mut usage, mut timings) = (Usage::default(), Timings::default());
        let mut confidence = Vec::new();
        usage.prompt = ask.prompt_tokens(prompt);
        if detail.events {
            out.send(Ok(Piece::Canvas(self.opening(&canvas)))).await?;
        }
        let mut cut = pin!(self.app.until_cut());
        loop {
            let task = Task::Canvas(Box::new(canvas));
            let mut news = model.runner.submit(task, self.deadline, self.ticket.clone());
            let done = loop {
                let next = tokio::select! {
                    next = news.recv() => next,
                    () = out.pieces.closed() => return Err(Break::Gone),
                    error = &mut cut => return Err(Break::Error(error)),
                };
                match next {
                    Some(News::Begun { waited, reused }) => {
                        timings.queued += waited;
                        // A further canvas has what was there before as its prompt.
                        usage.cached = usage.cached.max(reused.min(usage.prompt));
                    }
                    Some(News::Step(step)) => {
                        for commit in &step.committed {
                            if confidence.len() <= commit.position {
                                confidence.resize(commit.position + 1, 0.0);
                            }
                            confidence[commit.position] = commit.confidence;
                        }
                        progress.apply(&step, codec)?;
                        self.tell(&step, &mut progress, &mut timings).await?;
                        if progress.finish().is_some() && ask.is_response() {
                            break None;
                        }
                    }
                    Some(News::Done(task)) => break Some(task),
                    Some(News::Failed(error)) => return Err(Break::Error(failed(&error))),
                    Some(News::Late) => return Err(Break::Error(late())),
                    None => return Err(Break::Error(ended())),
                }
            };
            let Some(done) = done else { break };
            let Task::Canvas(filled) = *done else { break };
            progress.settle(filled.tokens(), codec)?;
            if progress.finish().is_some() {
                break;
            }
            match ask.next(progress.tokens(), codec)? {
                Some(next) => canvas = next,
                None => break,
            }
            progress.extend(canvas.tokens());
        }
        let result = ask.result(&progress, &confidence, codec)?;
        let rest = match ask.is_response() {
            true => progress.take(true),
            // A text that is filled from both sides has no beginning that comes first.
            false => Some(result.text.clone()),
        };
        if let Some(text) = rest.filter(|text| detail.text && !text.is_empty()) {
            out.send(Ok(Piece::Text(text))).await?;
        }
        // The last canvas may be longer than the answer, which a cap or a stop string ended.
        if detail.snapshots {
            out.send(Ok(Piece::Snapshot(result.text.clone()))).await?;
        }
        timings.total = self.begun.elapsed();
        usage.completion = result.tokens.len();
        usage.canvas = progress.canvas_tokens();
        (usage.nfe, usage.committed) = (progress.nfe(), progress.committed());
        let Result { finish, text, tokens, fills } = result;
        let seed = ask.seed();
        Ok(End { finish, text, tokens, fills, usage, timings, seed })
    }

    /// Tells what a step gave.
    async fn tell(
        &self,
        step: &Step,
        progress: &mut Progress,
        timings: &mut Timings,
    ) -> std::result::Result<(), Break> {
        let Self { detail, out, model, .. } = self;
        if timings.first.is_none() && !progress.text().is_empty() {
            timings.first = Some(self.begun.elapsed());
        }
        if detail.events {
            out.send(Ok(Piece::Step(self.written(step, progress.nfe())))).await?;
        }
        if detail.snapshots {
            let text = progress.snapshot(&model.codec)?;
            out.send(Ok(Piece::Snapshot(text))).await?;
        } else if detail.text
            && self.ask.is_response()
            && let Some(text) = progress.take(false)
        {
            out.send(Ok(Piece::Text(text))).await?;
        }
        Ok(())
    }

    /// The text of a token, as traces have it.
    fn token(&self, token: u32) -> Option<trace::Text> {
        self.model.codec.tokenizer.token_bytes(token).map(Into::into)
    }

    /// A step with the texts of its tokens; `nfe` counts all canvases.
    fn written(&self, step: &Step, nfe: usize) -> Value {
        let mut step = Step { nfe, ..step.clone() };
        for commit in &mut step.committed {
            commit.text = self.token(commit.token);
        }
        let mut event = json!({ "object": "llada.step", "choices": [] });
        if let (Some(event), Ok(Value::Object(step))) =
            (event.as_object_mut(), serde_json::to_value(step))
        {
            event.extend(step);
        }
        event
    }

    /// The canvas as it begins.
    fn opening(&self, canvas: &Canvas) -> Value {
        let mut header = trace::Header::new(canvas, &self.model.name);
        header.prompt_text = header.prompt.iter().map(|&token| self.token(token)).collect();
        let is_response = self.ask.is_response();
        let fixed = (!is_response).then(|| {
            let text = |&token: &u32| match Some(token) == canvas.mask_token() {
                true => None,
                false => self.token(token),
            };
            canvas.tokens().iter().map(text).collect::<Vec<_>>()
        });
        json!({
            "object": "llada.canvas",
            "choices": [],
            "model": self.model.name,
            "mask": canvas.mask_token(),
            "prompt_length": if is_response { canvas.prompt().tokens.len() } else { 0 },
            "length": canvas.length(),
            "tokens": canvas.tokens().len(),
            "sampler": canvas.sampler(),
            "fixed": fixed,
            "header": header,
        })
    }
}

/// What the engine says of an answer that it cannot give.
fn failed(error: &llada::Error) -> ApiError {
    tracing::warn!(%error, "a canvas failed");
    ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, error::told(error)).coded("failed")
}

fn ended() -> ApiError {
    let message = "the engine ended; the model is loaded anew with the next request";
    ApiError::unavailable(message, Duration::from_secs(1))
}

fn late() -> ApiError {
    let message = "the answer took longer than this server allows; ask for fewer tokens or steps";
    ApiError::new(StatusCode::GATEWAY_TIMEOUT, message).coded("timeout")
}

/// A frame of which all lengths are known.
#[derive(Debug, Clone)]
pub(crate) struct Holes {
    pub(crate) frame: Frame,
    pub(crate) lengths: Vec<usize>,
}
