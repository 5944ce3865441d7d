//! What a server is told when it starts.

use std::{collections::BTreeMap, net::IpAddr, ops::RangeInclusive, path::PathBuf, time::Duration};

use llada::Compute;
use serde::{Deserialize, Deserializer};

/// The settings of a server. Each is a key of its configuration file and a flag of `llada serve`.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// The address to listen at.
    pub host: IpAddr,
    /// The port to listen at; 0 takes a free one.
    pub port: u16,
    /// A Unix socket to listen at instead.
    pub socket: Option<PathBuf>,
    /// Keys of which every request must have one; none asks for none.
    pub api_keys: Vec<String>,
    /// Origins whose pages may call the server from a browser.
    pub cors_origins: Vec<String>,
    /// Names of this server in the `Host` of requests, besides addresses and `localhost`.
    pub allowed_hosts: Vec<String>,
    /// Sequences that share forward passes.
    pub parallel: usize,
    /// Requests that may wait for their turn.
    pub queue: usize,
    /// Tokens of a forward pass, unless one sequence alone has more. A processor computes no faster with
    /// more of them, and a short request waits for the pass that runs.
    pub budget: usize,
    /// Connections at a time.
    pub connections: usize,
    /// Bytes of the body of a request.
    pub max_body: usize,
    /// Longest time for an answer, in seconds.
    #[serde(deserialize_with = "seconds")]
    pub timeout: Duration,
    /// Longest time to wait for what a client sends or takes, in seconds.
    #[serde(deserialize_with = "seconds")]
    pub client_timeout: Duration,
    /// Time for requests to end when the server is told to, in seconds.
    #[serde(deserialize_with = "seconds")]
    pub drain: Duration,
    /// Seconds after which a model that nobody asks is unloaded; 0 keeps it.
    #[serde(deserialize_with = "seconds")]
    pub idle: Duration,
    /// What matrix products multiply.
    pub compute: Compute,
    /// Bytes of weights in memory, of all models together; 0 is no limit.
    pub memory: u64,
    /// Models by name; the first, or the one called `default`, is meant where none is named.
    pub models: BTreeMap<String, PathBuf>,
}

/// The numbers that the settings of these names may have.
const RANGES: [(&str, RangeInclusive<u64>); 5] = [
    ("parallel", 1..=1024),
    ("queue", 0..=1 << 20),
    ("budget", 1..=1 << 24),
    ("connections", 1..=1 << 20),
    ("max_body", 1..=1 << 32),
];

/// A number that a setting cannot have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` is {found}, and must be a whole number from {} to {}", .range.start(), .range.end())]
pub struct OutOfRange {
    /// The setting.
    pub name: &'static str,
    /// Its number.
    pub found: u64,
    /// The numbers that it may have.
    pub range: RangeInclusive<u64>,
}

impl Options {
    /// The numbers that a setting may have; `None` of one that is no count.
    pub fn range(name: &str) -> Option<RangeInclusive<u64>> {
        RANGES.into_iter().find(|(known, _)| *known == name).map(|(_, range)| range)
    }

    /// Checks that counts are in their ranges.
    ///
    /// # Errors
    /// The first that is not.
    pub fn check(&self) -> Result<(), OutOfRange> {
        let Self { parallel, queue, budget, connections, max_body, .. } = *self;
        let counts = [parallel, queue, budget, connections, max_body];
        for ((name, range), found) in RANGES.into_iter().zip(counts) {
            let found = found as u64;
            if !range.contains(&found) {
                return Err(OutOfRange { name, found, range });
            }
        }
        Ok(())
    }

    /// Whether pages of an origin may call the server.
    pub(crate) fn allows(&self, origin: &str) -> bool {
        self.cors_origins.iter().any(|allowed| allowed == "*" || allowed == origin)
    }
}

fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let seconds = f64::deserialize(deserializer)?;
    Duration::try_from_secs_f64(seconds).map_err(serde::de::Error::custom)
}

impl Default for Options {
    fn default() -> Self {
        Self {
            host: IpAddr::from([127, 0, 0, 1]),
            port: 8080,
            socket: None,
            api_keys: Vec::new(),
            cors_origins: Vec::new(),
            allowed_hosts: Vec::new(),
            parallel: 8,
            queue: 32,
            budget: 128,
            connections: 1024,
            max_body: 2 << 20,
            timeout: Duration::from_secs(600),
            client_timeout: Duration::from_secs(30),
            drain: Duration::from_secs(30),
            idle: Duration::ZERO,
            compute: Compute::Auto,
            memory: 0,
            models: BTreeMap::new(),
        }
    }
}
