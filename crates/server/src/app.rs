//! What all requests share, and where each goes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::{
    Router,
    extract::{DefaultBodyLimit, State},
    middleware,
    routing::{get, post},
};
use tokio::sync::watch;

use crate::{
    api,
    error::{ApiError, ApiResult},
    guard,
    metrics::Metrics,
    models::Models,
    options::Options,
    page,
};

/// What all requests share.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) options: Options,
    pub(crate) models: Models,
    pub(crate) metrics: Arc<Metrics>,
    /// Seconds since 1970 when it started.
    pub(crate) started: u64,
    phase: AtomicU8,
    /// Whether what has not ended is to be broken off.
    cut: watch::Sender<bool>,
}

/// The state that handlers have.
pub(crate) type Shared = Arc<App>;

/// What a server does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Its first model is being loaded.
    Loading,
    /// It answers.
    Ready,
    /// It was told to end, and finishes what it has begun.
    Draining,
}

impl App {
    pub(crate) fn new(options: Options, models: Models, metrics: Arc<Metrics>) -> Self {
        let phase = AtomicU8::new(Phase::Loading as u8);
        Self { options, models, metrics, started: now(), phase, cut: watch::Sender::new(false) }
    }

    pub(crate) fn set(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::SeqCst);
    }

    pub(crate) fn phase(&self) -> Phase {
        let phase = self.phase.load(Ordering::SeqCst);
        let all = [Phase::Loading, Phase::Ready, Phase::Draining];
        all.into_iter().find(|p| *p as u8 == phase).unwrap_or(Phase::Draining)
    }

    /// Breaks off what has not ended.
    pub(crate) fn cut(&self) {
        self.cut.send_replace(true);
    }

    /// Waits until what has not ended is broken off; the error tells its client.
    pub(crate) async fn until_cut(&self) -> ApiError {
        // The sender lives as long as this.
        _ = self.cut.subscribe().wait_for(|is_cut| *is_cut).await;
        let message = "the server is shutting down, and the answer took longer than it waits";
        ApiError::unavailable(message, Duration::from_secs(2)).coded("shutting_down")
    }

    /// Whether it takes requests.
    ///
    /// # Errors
    /// While it loads or drains.
    pub(crate) fn check_ready(&self) -> ApiResult<()> {
        let why = match self.phase() {
            Phase::Ready => return Ok(()),
            Phase::Loading => "Loading model",
            Phase::Draining => "the server is shutting down",
        };
        Err(ApiError::unavailable(why, Duration::from_secs(2)).coded("not_ready"))
    }
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

/// The paths of a server.
pub(crate) fn router(app: Shared) -> Router {
    use api::{anthropic, infill, llama, openai, score};
    let answering = Router::new()
        .route("/v1/chat/completions", post(openai::chat::create))
        .route("/chat/completions", post(openai::chat::create))
        .route("/v1/completions", post(openai::completions::create))
        .route("/v1/fim/completions", post(openai::edits::fim))
        .route("/v1/edit/completions", post(openai::edits::edit))
        .route("/v1/apply/completions", post(openai::edits::apply))
        .route("/v1/infill", post(infill::create))
        .route("/v1/score", post(score::create))
        .route("/v1/embeddings", post(openai::models::embeddings))
        .route("/v1/messages", post(anthropic::create))
        .route("/v1/messages/count_tokens", post(anthropic::count_tokens))
        .route("/completion", post(llama::completion::create))
        .route("/completions", post(llama::completion::create))
        .route("/infill", post(llama::completion::infill))
        .route("/tokenize", post(llama::tokens::tokenize))
        .route("/detokenize", post(llama::tokens::detokenize))
        .route("/apply-template", post(llama::tokens::apply_template))
        .route("/props", get(llama::state::props))
        .route("/slots", get(llama::state::slots))
        .route_layer(middleware::from_fn_with_state(Arc::clone(&app), ready));
    let open = Router::new()
        .route("/v1/models", get(openai::models::list))
        .route("/models", get(openai::models::list))
        .route("/v1/models/{*name}", get(openai::models::one))
        .route("/metrics", get(llama::state::metrics));
    let keyed = answering
        .merge(open)
        .route_layer(middleware::from_fn_with_state(Arc::clone(&app), guard::keys));
    let router = Router::new()
        .merge(keyed)
        .route("/health", get(llama::state::health))
        .route("/openapi.json", get(crate::openapi::document))
        .merge(page::router())
        .fallback(guard::not_found)
        .method_not_allowed_fallback(guard::not_allowed)
        .layer(DefaultBodyLimit::max(app.options.max_body));
    let router = match guard::cors(&app) {
        Some(cors) => router.layer(cors),
        None => router,
    };
    router
        .layer(middleware::from_fn_with_state(Arc::clone(&app), guard::origins))
        .layer(middleware::from_fn_with_state(Arc::clone(&app), guard::log))
        .with_state(app)
}

async fn ready(
    State(app): State<Shared>,
    request: axum::extract::Request,
    next: middleware::Next,
) -> ApiResult<axum::response::Response> {
    app.check_ready()?;
    Ok(next.run(request).await)
}
