//! What every request passes: its number and its line in the log, where it is from, and its key.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

use axum::{
    body::Body,
    extract::{MatchedPath, Request, State},
    http::{
        HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri,
        header::{AUTHORIZATION, CONTENT_TYPE, HOST, ORIGIN, WWW_AUTHENTICATE},
        request::Parts,
    },
    middleware::Next,
    response::{IntoResponse, Response},
};
use futures_util::StreamExt;
use tower_http::cors::{AllowOrigin, Any, CorsLayer};

use crate::{
    app::Shared,
    error::{ApiError, ApiResult},
};

/// Names a request in headers and logs.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Longest name of a request that is taken over from a client.
const MAX_ID: usize = 128;

/// Gives a request its name, and a line in the log.
pub(crate) async fn log(State(app): State<Shared>, request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let given = request.headers().get(&REQUEST_ID).and_then(|id| id.to_str().ok());
    let is_fit = |id: &&str| {
        !id.is_empty() && id.len() <= MAX_ID && id.bytes().all(|b| b.is_ascii_graphic())
    };
    let id = given.filter(is_fit).map_or_else(new_id, str::to_owned);
    // Paths that exist, so that no client makes up names of metrics.
    let known = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let mut response = next.run(request).await;
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    let kind = response.headers().get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    let is_stream = kind.is_some_and(|kind| kind.starts_with(b"text/event-stream"));
    let status = response.status().as_u16();
    let ending = Ending { app, id, method, path, known, status, begun };
    match is_stream {
        // It ends with its last event, or when its client leaves.
        true => response
            .map(|body| Body::from_stream(body.into_data_stream().inspect(move |_| _ = &ending))),
        false => response,
    }
}

/// The end of an answer, which is told when it is dropped.
struct Ending {
    app: Shared,
    id: String,
    method: Method,
    path: String,
    known: Option<String>,
    status: u16,
    begun: Instant,
}

impl Drop for Ending {
    fn drop(&mut self) {
        let Self { app, id, method, path, known, status, begun } = self;
        let time = begun.elapsed();
        app.metrics.request(known.as_deref().unwrap_or("other"), *status, time);
        tracing::info!(id, %method, path, status, ms = time.as_secs_f64() * 1e3, "request");
    }
}

/// A name that no other request of this server has.
pub(crate) fn new_id() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!(
        "{:08x}{:08x}",
        crate::app::now() as u32,
        (u64::from(std::process::id()) << 20) as u32 ^ count as u32
    )
}

/// Refuses pages of other origins, which could otherwise spend a server that only its machine reaches,
/// and names of hosts that somebody else may have pointed here.
pub(crate) async fn origins(
    State(app): State<Shared>,
    request: Request,
    next: Next,
) -> ApiResult<Response> {
    let headers = request.headers();
    let text = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let host = text(&HOST).map(without_port).unwrap_or_default();
    let options = &app.options;
    let is_known = options.socket.is_some()
        || !options.host.is_loopback()
        || host.is_empty()
        || host.eq_ignore_ascii_case("localhost")
        || host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok()
        || options.allowed_hosts.iter().any(|allowed| allowed.eq_ignore_ascii_case(host));
    if !is_known {
        let message = "this server does not go by that name; see `--allowed-host`";
        return Err(ApiError::new(StatusCode::FORBIDDEN, message).coded("unknown_host"));
    }
    if let Some(origin) = text(&ORIGIN) {
        let is_own = origin.split_once("://").is_some_and(|(_, rest)| Some(rest) == text(&HOST));
        if !is_own && !options.allows(origin) {
            let message = "pages of this origin may not call this server; see `--cors-origin`";
            return Err(ApiError::new(StatusCode::FORBIDDEN, message).coded("unknown_origin"));
        }
    }
    Ok(next.run(request).await)
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        // The colons of an IPv6 address are no port's.
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !name.ends_with(':') => {
            name
        }
        _ => host,
    }
}

/// What browsers are told of other origins, if any may call.
pub(crate) fn cors(app: &Shared) -> Option<CorsLayer> {
    if app.options.cors_origins.is_empty() {
        return None;
    }
    let app = Shared::clone(app);
    let is_allowed = move |origin: &HeaderValue, _: &Parts| {
        origin.to_str().is_ok_and(|origin| app.options.allows(origin))
    };
    let cors = CorsLayer::new()
        .allow_origin(AllowOrigin::predicate(is_allowed))
        .allow_methods([Method::GET, Method::POST])
        .allow_headers(Any)
        .expose_headers([REQUEST_ID]);
    Some(cors)
}

/// Refuses requests without one of the keys.
pub(crate) async fn keys(State(app): State<Shared>, request: Request, next: Next) -> Response {
    let keys = &app.options.api_keys;
    let given = key(request.headers());
    // Every key is compared, so that time tells nothing of which.
    let is_right = given.is_some_and(|given| {
        keys.iter().fold(false, |found, key| found | is_equal(key.as_bytes(), given.as_bytes()))
    });
    if keys.is_empty() || is_right {
        return next.run(request).await;
    }
    let message = match given {
        Some(_) => "this API key is not one of this server's",
        None => "this server asks for an API key: send it as `Authorization: Bearer KEY`",
    };
    let error = ApiError::new(StatusCode::UNAUTHORIZED, message).coded("invalid_api_key");
    ([(WWW_AUTHENTICATE, "Bearer")], error).into_response()
}

/// The key of a request: OpenAI's header, or Anthropic's.
fn key(headers: &HeaderMap) -> Option<&str> {
    let bearer = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let bearer = bearer.and_then(|value| {
        let (scheme, key) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
    });
    bearer.or_else(|| headers.get("x-api-key").and_then(|value| value.to_str().ok()))
}

/// Compares in a time that tells the length alone.
fn is_equal(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |sum, (a, b)| sum | (a ^ b)) == 0
}

/// What is not there.
pub(crate) async fn not_found(uri: Uri) -> ApiError {
    let path: String = uri.path().chars().take(200).collect();
    ApiError::new(StatusCode::NOT_FOUND, format!("there is no `{path}` here; see /openapi.json"))
}

/// What is there for another method.
pub(crate) async fn not_allowed(method: Method) -> ApiError {
    let message = format!("this path does not take {method}; see /openapi.json");
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_lose_their_ports() {
        for (host, name) in [
            ("localhost:8080", "localhost"),
            ("127.0.0.1", "127.0.0.1"),
            ("[::1]:80", "[::1]"),
            ("[::1]", "[::1]"),
            ("a.b:1", "a.b"),
        ] {
            assert_eq!(without_port(host), name);
        }
    }

    #[test]
    fn keys_are_equal_or_not() {
        assert!(is_equal(b"secret", b"secret") && is_equal(b"", b""));
        assert!(!is_equal(b"secret", b"Secret") && !is_equal(b"secret", b"secret1"));
    }
}
