//! Requests to the hub: whose token goes where, which failures pass, and how long to wait.

use std::{
    io,
    path::Path,
    thread,
    time::{Duration, SystemTime},
};

use anyhow::{Result, anyhow};
use llada::hub;
use ureq::{
    Agent, Body,
    http::{Response, StatusCode, header},
};

use crate::{
    error::{Failure, Interrupted},
    interrupt::Flag,
    term::Term,
    web::{self, origin, retry_after},
};

/// The hub, unless `HF_ENDPOINT` names another.
const ENDPOINT: &str = "https://huggingface.co";

/// Attempts at a request, or at a part of a file, before giving up.
pub const ATTEMPTS: u32 = 5;

/// The longest wait that the hub may ask for.
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// Without a byte for so long a connection counts as broken.
const SILENCE: Duration = Duration::from_secs(60);

/// Redirections that are followed.
const REDIRECTS: usize = 10;

/// Characters of a token or a message of the hub, at most.
const MAX_TEXT: usize = 1000;

/// Where the hub is and who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The address of the hub, without a slash at its end.
    pub endpoint: String,
    /// What proves who asks; none for what everybody may read.
    pub token: Option<String>,
}

impl Settings {
    /// What the environment says, `token` first: `HF_ENDPOINT`, `HF_TOKEN`, and the file that
    /// `hf auth login` writes.
    pub fn from_env(token: Option<&str>) -> Result<Self> {
        let text = |key: &str| hub::set(key).and_then(|value| value.into_string().ok());
        let home = || std::env::home_dir().filter(|home| !home.as_os_str().is_empty());
        let file = hub::set("HF_TOKEN_PATH").map(Into::into).or_else(|| {
            let cache = hub::set("XDG_CACHE_HOME").map(Into::into);
            let cache = cache.or_else(|| Some(home()?.join(".cache")));
            let folder = hub::set("HF_HOME").map(Into::into);
            Some(folder.or_else(|| Some(cache?.join("huggingface")))?.join("token"))
        });
        let token = token
            .map(str::to_owned)
            .or_else(|| text("HF_TOKEN"))
            .or_else(|| text("HUGGING_FACE_HUB_TOKEN"))
            .or_else(|| read_token(&file?));
        let token = token.map(|token| token.trim().to_owned()).filter(|token| !token.is_empty());
        let odd = |c: char| !c.is_ascii_graphic();
        if token.as_ref().is_some_and(|token| token.contains(odd) || token.len() > MAX_TEXT) {
            let hint = "copy it again from https://huggingface.co/settings/tokens";
            return Err(Failure::new("the token of the hub has odd characters", hint).into());
        }
        let endpoint = text("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.to_owned());
        let endpoint = endpoint.trim_end_matches('/').to_owned();
        if origin(&endpoint).is_none() {
            let message = format!("HF_ENDPOINT is no address: `{endpoint}`");
            return Err(Failure::new(message, format!("`{ENDPOINT}` is the usual one")).into());
        }
        Ok(Self { endpoint, token })
    }
}

/// Whether the environment forbids to use the network (`HF_HUB_OFFLINE`).
pub fn is_offline() -> bool {
    let value = hub::set("HF_HUB_OFFLINE").and_then(|value| value.into_string().ok());
    let yes = ["1", "on", "yes", "true"];
    value.is_some_and(|value| yes.iter().any(|yes| value.eq_ignore_ascii_case(yes)))
}

fn read_token(file: &Path) -> Option<String> {
    let is_small = file.metadata().is_ok_and(|data| data.is_file() && data.len() < 1 << 16);
    if is_small { std::fs::read_to_string(file).ok() } else { None }
}

/// Why a request failed.
#[derive(Debug)]
pub enum Fault {
    /// It may pass: try again, after the wait that the hub asks for.
    Passing(anyhow::Error, Option<Duration>),
    /// The hub answered with a status that says no.
    Refused(Refusal),
    /// Trying again would not help.
    Final(anyhow::Error),
}

/// A status that says no.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The status.
    pub status: u16,
    /// The hub's own word for it (`RepoNotFound`, `GatedRepo`, …).
    pub code: String,
    /// The hub's sentence.
    pub message: String,
}

/// How far redirections are followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Follow {
    /// Everywhere, for the bytes of a file.
    Everywhere,
    /// On the hub itself: what it says of a file is in the answer that points elsewhere.
    OnTheHub,
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// Headers alone.
    Head,
    /// All of it, or all from this byte on.
    Get(u64),
}

/// Sends requests to one hub.
pub struct Client {
    agent: Agent,
    settings: Settings,
    stop: Flag,
    term: Term,
}

impl Client {
    /// A client that gives up as soon as `stop` is set, and tells `term` why it waits.
    pub fn new(settings: Settings, stop: Flag, term: Term) -> Result<Self> {
        Ok(Self { agent: web::agent(SILENCE)?, settings, stop, term })
    }

    /// The address of the hub.
    pub fn endpoint(&self) -> &str {
        &self.settings.endpoint
    }

    /// Whether requests say who asks.
    pub fn has_token(&self) -> bool {
        self.settings.token.is_some()
    }

    /// Set when the work is to end.
    pub fn is_stopped(&self) -> bool {
        self.stop.is_set()
    }

    /// One attempt at `url`. The token goes to the hub itself and nowhere else.
    pub fn send(&self, url: &str, ask: Ask, follow: Follow) -> Result<Response<Body>, Fault> {
        let hub = origin(&self.settings.endpoint);
        let mut url = url.to_owned();
        for _ in 0..=REDIRECTS {
            let request = match ask {
                Ask::Head => self.agent.head(&url),
                Ask::Get(_) => self.agent.get(&url),
            };
            let request = match ask {
                Ask::Get(from) if from > 0 => request.header("Range", format!("bytes={from}-")),
                _ => request,
            };
            let request = match &self.settings.token {
                Some(token) if origin(&url) == hub => {
                    request.header("Authorization", format!("Bearer {token}"))
                }
                _ => request,
            };
            let response = request.call().map_err(|error| broken(&url, error))?;
            let Some(target) = redirection(&response) else { return check(response) };
            let next = join(&url, &target).ok_or_else(|| {
                let message = "the hub redirects to an address that cannot be followed";
                Fault::Final(Failure::new(message, "check HF_ENDPOINT").into())
            })?;
            if url.starts_with("https:") && !next.starts_with("https:") {
                let message = "the hub redirects to an address that is not encrypted";
                return Err(Fault::Final(Failure::new(message, "check HF_ENDPOINT").into()));
            }
            if follow == Follow::OnTheHub && origin(&next) != hub {
                return Ok(response);
            }
            url = next;
        }
        let message = format!("more than {REDIRECTS} redirections");
        Err(Fault::Final(Failure::new(message, "check HF_ENDPOINT").into()))
    }

    /// Tries until it succeeds, fails for good, or has failed too often.
    pub fn patiently<T>(
        &self,
        mut attempt: impl FnMut() -> Result<T, Fault>,
    ) -> Result<Result<T, Refusal>> {
        let mut failed = 0;
        loop {
            match attempt() {
                Ok(value) => return Ok(Ok(value)),
                Err(Fault::Refused(refusal)) => return Ok(Err(refusal)),
                Err(Fault::Final(error)) => return Err(error),
                Err(Fault::Passing(error, wait)) => {
                    failed += 1;
                    if failed == 1 && wait.is_none_or(|wait| wait <= LONGEST_WAIT) {
                        self.term.note(&format!("{error:#}; trying again"));
                    }
                    self.pause(failed, wait, error)?;
                }
            }
        }
    }

    /// Waits before the next attempt after `failed` failures: as long as the hub asks, or twice as
    /// long each time.
    ///
    /// # Errors
    /// The last failure, if there were too many or the wait is too long; Ctrl-C.
    pub fn pause(&self, failed: u32, wait: Option<Duration>, error: anyhow::Error) -> Result<()> {
        if failed >= ATTEMPTS {
            return Err(error);
        }
        let wait = wait.unwrap_or(Duration::from_secs(1 << failed.saturating_sub(1)));
        if wait > LONGEST_WAIT {
            let minutes = wait.as_secs().div_ceil(60);
            let message = format!("the hub asks to wait {minutes} minutes");
            let hint = "try again then; what was fetched is kept. A token (HF_TOKEN) raises limits";
            return Err(Failure::new(message, hint).into());
        }
        let slice = Duration::from_millis(50);
        let mut left = wait;
        while !left.is_zero() {
            if self.is_stopped() {
                return Err(Interrupted.into());
            }
            thread::sleep(left.min(slice));
            left = left.saturating_sub(slice);
        }
        Ok(())
    }
}

/// Where an answer points to.
fn redirection(response: &Response<Body>) -> Option<String> {
    let moved = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
    let location = response.headers().get(header::LOCATION).filter(|_| moved)?;
    Some(String::from_utf8_lossy(location.as_bytes()).into_owned())
}

/// The address that `location` means in an answer from `base`.
fn join(base: &str, location: &str) -> Option<String> {
    let (scheme, rest) = base.split_once("://")?;
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let next = if location.contains("://") {
        location.to_owned()
    } else if let Some(rest) = location.strip_prefix("//") {
        format!("{scheme}://{rest}")
    } else if location.starts_with('/') {
        format!("{scheme}://{host}{location}")
    } else {
        let path = path.split(['?', '#']).next().unwrap_or_default();
        let folder = &path[..path.rfind('/').map_or(0, |at| at + 1)];
        format!("{scheme}://{host}/{}{location}", folder.trim_start_matches('/'))
    };
    origin(&next).map(|_| next)
}

/// A connection that failed, most of which passes.
fn broken(url: &str, error: ureq::Error) -> Fault {
    let host = origin(url).map_or_else(|| "the hub".to_owned(), |(_, host, _)| host);
    let hint = "check the network, and HTTPS_PROXY or HF_ENDPOINT where you have them; the same \
                command goes on where this one stopped";
    let passes = !matches!(
        error,
        ureq::Error::BadUri(_)
            | ureq::Error::Http(_)
            | ureq::Error::Tls(_)
            | ureq::Error::Pem(_)
            | ureq::Error::Rustls(_)
            | ureq::Error::InvalidProxyUrl
            | ureq::Error::LargeResponseHeader(..)
    );
    let failure = Failure::new(format!("cannot reach {host}: {error}"), hint);
    match passes {
        true => Fault::Passing(failure.into(), None),
        false => Fault::Final(failure.into()),
    }
}

/// A body that broke off.
pub fn cut_short(error: &io::Error) -> Fault {
    let hint = "check the network; the same command goes on where this one stopped";
    let message = format!("the connection broke off: {error}");
    Fault::Passing(Failure::new(message, hint).into(), None)
}

/// Tells answers from refusals, and refusals that pass from others.
fn check(response: Response<Body>) -> Result<Response<Body>, Fault> {
    let status = response.status();
    if status.is_success() || status == StatusCode::RANGE_NOT_SATISFIABLE {
        return Ok(response);
    }
    let text = |key: &str| {
        let value = response.headers().get(key).map(|v| String::from_utf8_lossy(v.as_bytes()));
        value.map(|v| v.chars().take(MAX_TEXT).collect::<String>()).unwrap_or_default()
    };
    let wait = retry_after(&text("retry-after"), SystemTime::now());
    match status.as_u16() {
        408 | 425 | 429 | 500..=599 => {
            let asks = if status.as_u16() == 429 { " (too many requests)" } else { "" };
            let message = format!("the hub answers {}{asks}", status.as_u16());
            let hint = "try again in some minutes; what was fetched is kept";
            Err(Fault::Passing(anyhow!(Failure::new(message, hint)), wait))
        }
        status => Err(Fault::Refused(Refusal {
            status,
            code: text("x-error-code"),
            message: text("x-error-message"),
        })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirections_lead_where_they_say() {
        let base = "https://hub.org/a/b?x=/1";
        let cases = [
            ("/c", "https://hub.org/c"),
            ("c", "https://hub.org/a/c"),
            ("//cdn.org/c", "https://cdn.org/c"),
            ("http://cdn.org:8/c?d", "http://cdn.org:8/c?d"),
        ];
        for (location, expected) in cases {
            assert_eq!(join(base, location).as_deref(), Some(expected), "{location}");
        }
        assert_eq!(join("http://hub.org", "c").as_deref(), Some("http://hub.org/c"));
        for location in ["file:///etc/passwd", "ftp://x/y", "https://a@b/c", "http://"] {
            assert_eq!(join(base, location), None, "{location}");
        }
    }
}
