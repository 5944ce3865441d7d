//! Errors as clients get them: `{"error": {"message", "type", "param", "code"}}`, OpenAI's form.

use std::time::Duration;

use axum::{
    Json,
    extract::rejection::{PathRejection, QueryRejection},
    http::{HeaderValue, StatusCode, header::RETRY_AFTER},
    response::{IntoResponse, Response},
};
use llada::diffusion::{SamplerError, Spelling};
use serde_json::{Value, json};

use crate::runner::Full;

/// Why a request is not answered.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    pub(crate) message: String,
    /// The field of the request that is at fault.
    pub(crate) param: Option<String>,
    /// What programs tell errors apart by.
    pub(crate) code: Option<&'static str>,
    /// After which it is worth another try.
    pub(crate) retry_after: Option<Duration>,
}

/// The answer to a request, or why there is none.
pub(crate) type ApiResult<T> = Result<T, ApiError>;

impl ApiError {
    /// Of a status of its own.
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        let (message, param, code, retry_after) = (message.into(), None, None, None);
        Self { status, message, param, code, retry_after }
    }

    /// The request is wrong (400).
    pub(crate) fn bad(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// A field of the request is wrong.
    pub(crate) fn field(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self { param: Some(param.into()), ..Self::bad(message) }
    }

    /// The program failed (500); what it says stays in the log.
    pub(crate) fn internal(error: impl std::fmt::Display) -> Self {
        tracing::error!(%error, "a request failed");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "the server failed; its log says why")
    }

    /// It cannot be answered now, and perhaps after so long (503).
    pub(crate) fn unavailable(message: impl Into<String>, retry_after: Duration) -> Self {
        let retry_after = Some(retry_after);
        Self { retry_after, ..Self::new(StatusCode::SERVICE_UNAVAILABLE, message) }
    }

    /// With a code.
    pub(crate) fn coded(self, code: &'static str) -> Self {
        Self { code: Some(code), ..self }
    }

    /// What kind of error it is, in OpenAI's words.
    pub(crate) fn kind(&self) -> &'static str {
        match self.status.as_u16() {
            401 => "authentication_error",
            403 => "permission_error",
            404 => "not_found_error",
            429 => "rate_limit_error",
            503 => "unavailable_error",
            500.. => "server_error",
            _ => "invalid_request_error",
        }
    }

    /// The object that clients get.
    pub(crate) fn json(&self) -> Value {
        let Self { message, param, code, .. } = self;
        json!({ "error": {
            "message": message, "type": self.kind(), "param": param, "code": code,
        } })
    }

    /// Puts the time after which it is worth another try into an answer.
    pub(crate) fn with_headers(&self, mut response: Response) -> Response {
        if let Some(time) = self.retry_after {
            let seconds = HeaderValue::from(time.as_secs_f64().ceil() as u64);
            response.headers_mut().insert(RETRY_AFTER, seconds);
        }
        response
    }

    /// A sampler that cannot be.
    pub(crate) fn sampler(error: &SamplerError) -> Self {
        let hint = error.hint_for(Spelling::Key);
        let message = hint.map_or_else(|| error.to_string(), |hint| format!("{error}; {hint}"));
        Self { param: error.setting().map(str::to_owned), ..Self::bad(message) }
    }
}

/// An error of the library in a line, with its remedy.
pub(crate) fn told(error: &llada::Error) -> String {
    let hint = match error {
        llada::Error::Likelihood(error) => error.hint_for(Spelling::Key),
        error => error.hint(),
    };
    hint.map_or_else(|| error.to_string(), |hint| format!("{error}; {hint}"))
}

impl From<llada::Error> for ApiError {
    /// What the library says of a request is for whoever sent it, but for files and kernels.
    fn from(error: llada::Error) -> Self {
        use llada::Error as E;
        match &error {
            E::Sampler(error) => Self::sampler(error),
            E::Chat(_)
            | E::Constraint(_)
            | E::Infill(_)
            | E::Likelihood(_)
            | E::Tokenizer(_)
            | E::Model(_) => Self::bad(told(&error)),
            _ => Self::internal(error),
        }
    }
}

impl From<llada::diffusion::infill::InfillError> for ApiError {
    fn from(error: llada::diffusion::infill::InfillError) -> Self {
        llada::Error::from(error).into()
    }
}

impl From<QueryRejection> for ApiError {
    fn from(error: QueryRejection) -> Self {
        Self::bad(error.body_text())
    }
}

impl From<PathRejection> for ApiError {
    fn from(error: PathRejection) -> Self {
        Self::bad(error.body_text())
    }
}

impl From<Full> for ApiError {
    fn from(full: Full) -> Self {
        let message = "as many requests run and wait as may; try again later";
        let error = Self::new(StatusCode::TOO_MANY_REQUESTS, message).coded("queue_full");
        Self { retry_after: Some(full.retry_after), ..error }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        self.with_headers((self.status, Json(self.json())).into_response())
    }
}
