//! What Prometheus asks for at `/metrics`.

use std::{sync::atomic::AtomicU64, time::Duration};

use llada::engine::Pass;
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};

use crate::answer::End;

/// How a request ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    path: String,
    status: u16,
}

/// Of which model something is told.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Of {
    model: String,
}

/// Counts since the start of the program.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<Request, Counter>,
    request_duration: Histogram,
    first: Histogram,
    per_token: Histogram,
    prompt_tokens: Counter,
    generation_tokens: Counter,
    canvas_tokens: Counter,
    cached_tokens: Counter,
    passes: Counter,
    pass_duration: Histogram,
    tokens_fed: Counter,
    tokens_per_forward: Histogram,
    rows: Family<Of, Gauge>,
    queue: Family<Of, Gauge>,
    loaded: Gauge,
    refused: Counter,
    cancelled: Counter,
    seconds: Counter<f64, AtomicU64>,
}

fn seconds(first: f64) -> Histogram {
    Histogram::new(exponential_buckets(first, 2.0, 14))
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("llada"),
            requests: Family::default(),
            request_duration: seconds(0.01),
            first: seconds(0.01),
            per_token: seconds(0.001),
            prompt_tokens: Counter::default(),
            generation_tokens: Counter::default(),
            canvas_tokens: Counter::default(),
            cached_tokens: Counter::default(),
            passes: Counter::default(),
            pass_duration: seconds(0.001),
            tokens_fed: Counter::default(),
            tokens_per_forward: Histogram::new([
                0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 16.0, 32.0,
            ]),
            rows: Family::default(),
            queue: Family::default(),
            loaded: Gauge::default(),
            refused: Counter::default(),
            cancelled: Counter::default(),
            seconds: Counter::default(),
        };
        metrics.register();
        metrics
    }

    fn register(&mut self) {
        let r = &mut self.registry;
        r.register("requests", "Requests that were answered", self.requests.clone());
        let timed = [
            ("request_duration", "Time to answer a request whole", &self.request_duration),
            (
                "time_to_first_token",
                "Time to the first token that can no longer change",
                &self.first,
            ),
            ("time_per_output_token", "Time for each useful token of an answer", &self.per_token),
            ("forward_pass_duration", "Time of a forward pass", &self.pass_duration),
        ];
        for (name, help, histogram) in timed {
            r.register_with_unit(name, help, Unit::Seconds, histogram.clone());
        }
        let counted = [
            ("prompt_tokens", "Tokens of prompts", &self.prompt_tokens),
            ("generation_tokens", "Useful tokens of answers", &self.generation_tokens),
            ("canvas_tokens", "Tokens of canvases, useful or not", &self.canvas_tokens),
            ("cached_tokens", "Tokens of prompts that were not fed again", &self.cached_tokens),
            ("forward_passes", "Forward passes", &self.passes),
            ("fed_tokens", "Tokens that were fed to the model", &self.tokens_fed),
            ("refused_requests", "Requests refused for want of room", &self.refused),
            ("cancelled_requests", "Requests whose client left", &self.cancelled),
        ];
        for (name, help, counter) in counted {
            r.register(name, help, counter.clone());
        }
        r.register(
            "tokens_per_forward",
            "Tokens committed in a pass of a sequence",
            self.tokens_per_forward.clone(),
        );
        r.register("batch_rows", "Sequences that share passes", self.rows.clone());
        r.register("queue_depth", "Sequences that wait", self.queue.clone());
        r.register("models_loaded", "Models in memory", self.loaded.clone());
        r.register("forward_busy_seconds", "Time spent in forward passes", self.seconds.clone());
    }

    /// The text that Prometheus reads.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        // Writing into a string cannot fail.
        _ = encode(&mut text, &self.registry);
        text
    }

    pub(crate) fn pass(&self, pass: &Pass, time: Duration) {
        if pass.works > 0 {
            self.passes.inc();
            self.tokens_fed.inc_by(pass.tokens_fed as u64);
            self.pass_duration.observe(time.as_secs_f64());
            self.seconds.inc_by(time.as_secs_f64());
        }
    }

    pub(crate) fn load(&self, model: &str, rows: usize, queue: usize) {
        let of = Of { model: model.into() };
        self.rows.get_or_create(&of).set(rows as i64);
        self.queue.get_or_create(&of).set(queue as i64);
    }

    pub(crate) fn models(&self, loaded: usize) {
        self.loaded.set(loaded as i64);
    }

    pub(crate) fn request(&self, path: &str, status: u16, time: Duration) {
        self.requests.get_or_create(&Request { path: path.into(), status }).inc();
        self.request_duration.observe(time.as_secs_f64());
        if status == 429 {
            self.refused.inc();
        }
    }

    pub(crate) fn cancelled(&self) {
        self.cancelled.inc();
    }

    pub(crate) fn answered(&self, end: &End) {
        let End { usage, timings, .. } = end;
        self.prompt_tokens.inc_by(usage.prompt as u64);
        self.generation_tokens.inc_by(usage.completion as u64);
        self.canvas_tokens.inc_by(usage.canvas as u64);
        self.cached_tokens.inc_by(usage.cached as u64);
        self.first.observe(timings.first.unwrap_or(timings.total).as_secs_f64());
        self.per_token.observe(timings.total.as_secs_f64() / usage.completion.max(1) as f64);
        self.tokens_per_forward.observe(usage.tokens_per_forward());
    }
}
