//! What all that uses the web has in common: how connections are made and whom they trust, the origins
//! of addresses, and the waits that servers ask for.

use std::time::{Duration, SystemTime};

use anyhow::Result;
use llada::hub;
use ureq::{
    Agent,
    http::Uri,
    tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem},
};

use crate::error::Failure;

/// The longest time until a connection stands.
const CONNECTING: Duration = Duration::from_secs(60);

/// Makes connections that count as broken after so long a `silence`. A status that says no and a
/// redirection are answers like others: whoever asks knows where its secrets may go.
pub fn agent(silence: Duration) -> Result<Agent> {
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .user_agent(concat!("llada/", env!("CARGO_PKG_VERSION")))
        .accept_encoding("identity")
        .timeout_resolve(Some(CONNECTING))
        .timeout_connect(Some(CONNECTING))
        .timeout_recv_response(Some(silence))
        .timeout_per_read(Some(silence))
        .tls_config(TlsConfig::builder().root_certs(roots()?).build());
    Ok(config.build().new_agent())
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
pub fn origin(url: &str) -> Option<(String, String, u16)> {
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

/// The wait that a header asks for: seconds, or the time until a date.
pub fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
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
