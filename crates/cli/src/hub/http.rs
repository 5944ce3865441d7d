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
    http::{Response, StatusCode, Uri, header},
    tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem},
};

use crate::{
    error::{Failure, Interrupted},
    interrupt::Flag,
    term::Term,
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
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("llada/", env!("CARGO_PKG_VERSION")))
            .accept_encoding("identity")
            .timeout_resolve(Some(SILENCE))
            .timeout_connect(Some(SILENCE))
            .timeout_recv_response(Some(SILENCE))
            .timeout_per_read(Some(SILENCE))
            .tls_config(TlsConfig::builder().root_certs(roots()?).build())
            .build()
            .new_agent();
        Ok(Self { agent, settings, stop, term })
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

/// The certificates to trust: Mozilla's, and those of `SSL_CERT_FILE`, where a company has its own.
fn roots() -> Result<RootCerts> {
    let Some(file) = hub::set("SSL_CERT_FILE") else { return Ok(RootCerts::WebPki) };
    let failed = |what: &str| {
        let message = format!("cannot read certificates from SSL_CERT_FILE: {what}");
        Failure::new(message, "name a file of certificates in PEM, or unset the variable")
    };
    let pem = std::fs::read(file).map_err(|e| failed(&e.to_string()))?;
    let own: Vec<Certificate<'static>> = parse_pem(&pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    match own.is_empty() {
        true => Err(failed("it holds none").into()),
        false => Ok(RootCerts::new_with_certs(&own)),
    }
}

/// Scheme, host and port of an address of the web.
fn origin(url: &str) -> Option<(String, String, u16)> {
    let uri: Uri = url.parse().ok()?;
    let scheme = uri.scheme_str()?.to_ascii_lowercase();
    let usual = match scheme.as_str() {
        "https" => 443,
        "http" => 80,
        _ => return None,
    };
    let host = uri.host()?.to_ascii_lowercase();
    let is_plain = !uri.authority()?.as_str().contains('@');
    is_plain.then(|| (scheme, host, uri.port_u16().unwrap_or(usual)))
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

/// The wait that a header asks for: seconds, or the time until a date.
fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    match value.trim().parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => {
            let date = httpdate::parse_http_date(value.trim()).ok()?;
            Some(date.duration_since(now).unwrap_or_default())
        }
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

    #[test]
    fn origins_differ_in_scheme_host_and_port() {
        assert_eq!(origin("https://HF.co/a"), origin("https://hf.co:443/b"));
        for other in ["http://hf.co", "https://hf.co:444", "https://cdn.hf.co", "https://hf.co.x"] {
            assert_ne!(origin("https://hf.co"), origin(other), "{other}");
        }
        assert_eq!(origin("hf.co/a"), None);
    }

    #[test]
    fn waits_are_seconds_or_dates() {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        let seconds = |n| Some(Duration::from_secs(n));
        assert_eq!(retry_after("7", now), seconds(7));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:50:37 GMT", now), seconds(60));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:00:00 GMT", now), seconds(0));
        assert_eq!(retry_after("soon", now), None);
        assert_eq!(retry_after("", now), None);
    }
}
