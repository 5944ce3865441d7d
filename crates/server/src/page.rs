//! The web page, which is in the program.

use axum::{
    Router,
    http::{
        StatusCode, Uri,
        header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS},
    },
    response::{IntoResponse, Response},
    routing::get,
};

use llada::diffusion::trace;

use crate::{app::Shared, guard};

/// Nothing from elsewhere, and nothing that was put in by a text.
const POLICY: &str = "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'";

macro_rules! files {
    ($($name:literal),* $(,)?) => {
        /// Its files by name.
        const FILES: &[(&str, &[u8])] = &[
            // The library's, which exports of the program are made of too.
            ("film.html", trace::FILM.as_bytes()),
            $(($name, include_bytes!(concat!("page/", $name)))),*
        ];
    };
}

files! {
    "announce.js",
    "answer.js",
    "api.js",
    "app.js",
    "canvas.css",
    "canvas.js",
    "chat.js",
    "drafts.js",
    "export.js",
    "film.js",
    "holes.js",
    "icon.svg",
    "index.html",
    "infill.js",
    "log.js",
    "palette.js",
    "player.js",
    "settings.js",
    "structure.js",
    "style.css",
    "svg.js",
    "text.js",
    "theme.js",
}

/// The paths of the page.
pub(crate) fn router() -> Router<Shared> {
    Router::new().route("/", get(async || file("index.html"))).route("/page/{name}", get(page))
}

async fn page(uri: Uri) -> Response {
    match uri.path().strip_prefix("/page/") {
        Some(name) if FILES.iter().any(|(known, _)| *known == name) => file(name),
        _ => guard::not_found(uri).await.into_response(),
    }
}

fn file(name: &str) -> Response {
    let Some((_, bytes)) = FILES.iter().find(|(known, _)| *known == name) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let kind = match name.rsplit('.').next() {
        Some("css") => "text/css; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "text/html; charset=utf-8",
    };
    let headers = [
        (CONTENT_TYPE, kind),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (CACHE_CONTROL, "no-cache"),
    ];
    (headers, *bytes).into_response()
}
