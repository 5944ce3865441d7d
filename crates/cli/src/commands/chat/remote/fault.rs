//! Why a server does not answer, and what to do about it.

use std::{io, time::Duration};

use serde_json::Value;
use ureq::{
    Body,
    http::{Response, header},
};

use crate::{error::Failure, term, view::units};

/// Bytes of what a server says that are repeated.
const MOST_SAID: usize = 1000;

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Fault {
    /// There is no room now, and perhaps after so long.
    Busy(Failure, Duration),
    /// Another try would not help.
    Failed(Failure),
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Busy(failure, _) | Fault::Failed(failure) => failure,
        }
    }
}

fn fault(message: impl Into<String>, hint: impl Into<String>) -> Fault {
    Fault::Failed(Failure::new(message, hint))
}

/// A connection that cannot be made, or ends before an answer begins.
pub(super) fn broken(host: &str, error: &ureq::Error) -> Fault {
    let hint = match error {
        ureq::Error::HostNotFound => "check the spelling of the address",
        ureq::Error::Tls(_) | ureq::Error::Rustls(_) | ureq::Error::Pem(_) => {
            "`http://` is for servers without encryption; SSL_CERT_FILE names certificates to trust"
        }
        ureq::Error::Protocol(_) => {
            "check the address: what is there does not speak HTTP, or is `https://`"
        }
        ureq::Error::Timeout(_) => "look whether the server is at work; it said nothing for long",
        _ => "check the address, and that a server runs there, such as `llada serve`",
    };
    fault(format!("cannot reach {host}: {error}"), hint)
}

/// An answer that ends before its end.
pub(super) fn cut_off(host: &str, error: Option<&io::Error>) -> Fault {
    let why = error.map(|error| format!(": {error}")).unwrap_or_default();
    let hint = "say it again; the server's log may tell why";
    fault(format!("{host} broke off its answer{why}"), hint)
}

/// An answer that is not what the API asks for.
pub(super) fn not_understood(host: &str, text: &str) -> Fault {
    let what = match Said::of(text) {
        said if said.is_page => "a page for browsers".to_owned(),
        _ if text.trim().is_empty() => "nothing".to_owned(),
        _ => format!("`{}`", term::shortened(text.trim(), 200)),
    };
    let hint = "give the address of its API, such as `--url http://HOST:PORT/v1`";
    fault(format!("{host} answers with {what}, and not as OpenAI's API does"), hint)
}

/// An error in the place of an answer, or of the rest of one.
pub(super) fn failed(host: &str, said: &Said) -> Fault {
    fault(format!("{host} fails: {}", said.text), said.hint())
}

/// The kind of a response's body, without what is after a semicolon.
pub(super) fn content_type(response: &Response<Body>) -> String {
    let value = response.headers().get(header::CONTENT_TYPE);
    let value = value.and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// What a server says of an error.
#[derive(Debug, Default)]
pub(super) struct Said {
    text: String,
    is_page: bool,
    /// Whether the conversation is too long.
    is_too_long: bool,
}

impl Said {
    /// Reads a body: OpenAI's form of errors, and those that other servers have.
    pub(super) fn of(body: &str) -> Self {
        let body = body.trim();
        let Ok(json) = serde_json::from_str::<Value>(body) else {
            let is_page = body.starts_with('<');
            let text = if is_page { "" } else { body };
            return Self { text: shortened(text), is_page, is_too_long: false };
        };
        let error = &json["error"];
        let all = [&error["message"], error, &json["message"], &json["detail"]];
        let text = all.into_iter().find_map(Value::as_str).map(str::to_owned);
        let code = [&error["code"], &error["type"]].into_iter().filter_map(Value::as_str);
        let long = ["context_length_exceeded", "exceed_context_size_error"];
        let is_too_long = code.into_iter().any(|code| long.contains(&code));
        Self {
            text: shortened(&text.unwrap_or_else(|| json.to_string())),
            is_page: false,
            is_too_long,
        }
    }

    fn hint(&self) -> &'static str {
        match self.is_too_long {
            true => "`/reset` forgets the conversation, `/undo` its last turn",
            false => "say it again; the server's log may tell why",
        }
    }
}

fn shortened(text: &str) -> String {
    term::shortened(text, MOST_SAID).into_owned()
}

/// A status that says no, with all that is known of it.
pub(super) struct Refusal<'a> {
    pub(super) host: &'a str,
    pub(super) status: u16,
    /// After which it is worth another try.
    pub(super) wait: Option<Duration>,
    /// Where it says that the answer is.
    pub(super) target: Option<String>,
    /// Whether a key was sent.
    pub(super) has_key: bool,
    pub(super) said: Said,
}

impl Refusal<'_> {
    pub(super) fn fault(self) -> Fault {
        let Self { host, status, wait, target, has_key, said } = self;
        let said_so = match said.text.as_str() {
            "" => String::new(),
            text => format!(": {text}"),
        };
        let message = |what: &str| format!("{host} {what} ({status}){said_so}");
        match (status, wait) {
            (429 | 503, Some(wait)) => {
                let asked = units::duration(wait.as_secs_f64());
                let what = if status == 429 { "has too many requests" } else { "is not ready" };
                let message = format!("{}; it asks to wait {asked}", message(what));
                let hint = format!("say it again in {asked}");
                Fault::Busy(Failure::new(message, hint), wait)
            }
            (429, None) => fault(message("has too many requests"), "say it again in some minutes"),
            (300..=399, _) => fault(
                message("says that it is elsewhere"),
                format!("give the address where it is: `{}`", target.unwrap_or_default()),
            ),
            (401 | 403, _) => fault(
                message("refuses"),
                match has_key {
                    true => "check the key in LLADA_API_KEY, or that of `--api-key`",
                    false => "set LLADA_API_KEY to a key of the server, or give `--api-key`",
                },
            ),
            (404 | 405, _) if said.is_page => not_understood(host, "<html>"),
            (404 | 405, _) => fault(
                message("has no such thing"),
                "check the path of `--url`, and the name of the model, which `--model` gives",
            ),
            (400..=499, _) if !said.is_too_long => fault(
                message("does not take the request"),
                "`/show` lists the settings that go along, `/set KEY default` takes one back",
            ),
            (400..=499, _) => fault(message("does not take the request"), said.hint()),
            _ => fault(message("fails"), said.hint()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(status: u16, wait: Option<u64>, body: &str) -> String {
        let wait = wait.map(Duration::from_secs);
        let (said, target) = (Said::of(body), Some("http://b/v1".into()));
        let refusal = Refusal { host: "a:1", status, wait, target, has_key: false, said };
        let failure: Failure = refusal.fault().into();
        format!("{failure} | {}", failure.hint())
    }

    #[test]
    fn refusals_say_what_to_do() {
        let error = r#"{"error": {"message": "no", "code": "context_length_exceeded"}}"#;
        for (found, parts) in [
            (shown(401, None, r#"{"error": "no key"}"#), ["(401): no key", "LLADA_API_KEY"]),
            (shown(429, Some(7), "{}"), ["too many requests (429)", "wait 7.0s"]),
            (shown(503, Some(2), ""), ["is not ready (503); it", "again in 2.0s"]),
            (shown(302, None, ""), ["elsewhere (302)", "`http://b/v1`"]),
            (shown(404, None, "<!doctype html>"), ["a page for browsers", "/v1"]),
            (shown(404, None, r#"{"detail": "none"}"#), ["(404): none", "--model"]),
            (shown(400, None, error), ["(400): no", "/reset"]),
            (shown(422, None, r#"{"message": "bad"}"#), ["(422): bad", "/set KEY default"]),
            (shown(500, None, "oh"), ["fails (500): oh", "log"]),
        ] {
            assert!(parts.iter().all(|part| found.contains(part)), "{found}");
        }
    }
}
