//! The web page, which is in the program.

use axum::{
    Router,
    extract::Path,
    http::{
        StatusCode,
        header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS},
    },
    response::{IntoResponse, Response},
    routing::get,
};

use crate::app::Shared;

/// Nothing from elsewhere, and nothing that was put in by a text.
const POLICY: &str = "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'";

macro_rules! files {
    ($($name:literal: $kind:literal),* $(,)?) => {
        /// Its files by name, each with its type.
        const FILES: &[(&str, &str, &[u8])] =
            &[$(($name, $kind, include_bytes!(concat!("page/", $name)))),*];
    };
}

files! {
    "announce.js": "text/javascript; charset=utf-8",
    "answer.js": "text/javascript; charset=utf-8",
    "api.js": "text/javascript; charset=utf-8",
    "app.js": "text/javascript; charset=utf-8",
    "canvas.css": "text/css; charset=utf-8",
    "canvas.js": "text/javascript; charset=utf-8",
    "chat.js": "text/javascript; charset=utf-8",
    "drafts.js": "text/javascript; charset=utf-8",
    "export.js": "text/javascript; charset=utf-8",
    "film.html": "text/html; charset=utf-8",
    "film.js": "text/javascript; charset=utf-8",
    "holes.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
    "index.html": "text/html; charset=utf-8",
    "infill.js": "text/javascript; charset=utf-8",
    "log.js": "text/javascript; charset=utf-8",
    "palette.js": "text/javascript; charset=utf-8",
    "player.js": "text/javascript; charset=utf-8",
    "settings.js": "text/javascript; charset=utf-8",
    "structure.js": "text/javascript; charset=utf-8",
    "style.css": "text/css; charset=utf-8",
    "svg.js": "text/javascript; charset=utf-8",
    "text.js": "text/javascript; charset=utf-8",
    "theme.js": "text/javascript; charset=utf-8",
}

/// The paths of the page.
pub(crate) fn router() -> Router<Shared> {
    Router::new()
        .route("/", get(async || file("index.html")))
        .route("/page/{name}", get(async |Path(name): Path<String>| file(&name)))
}

fn file(name: &str) -> Response {
    let Some((_, kind, bytes)) = FILES.iter().find(|(known, ..)| *known == name) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let headers = [
        (CONTENT_TYPE, *kind),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (CACHE_CONTROL, "no-cache"),
    ];
    (headers, *bytes).into_response()
}
