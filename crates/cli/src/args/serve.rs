//! The flags of `llada serve`.

use std::{net::IpAddr, path::PathBuf};

use clap::{Args, ValueEnum};
use llada_server::Options;

use super::{Machine, ModelOperand};

/// `llada serve`.
#[derive(Debug, Args)]
pub struct Serve {
    #[command(flatten)]
    pub model: ModelOperand,
    /// Serve this model too, by this name; it is loaded when it is asked for
    #[arg(long, value_name = "NAME=MODEL", value_parser = named)]
    pub also: Vec<(String, PathBuf)>,
    /// A file of these settings in TOML, which flags go before
    #[arg(long, value_name = "FILE", env = "LLADA_SERVE_CONFIG", hide_env_values = true)]
    pub config: Option<PathBuf>,
    /// The address to listen at [default: 127.0.0.1, which only this machine reaches]
    #[arg(long, value_name = "ADDRESS")]
    pub host: Option<IpAddr>,
    /// The port to listen at; 0 takes a free one [default: 8080]
    #[arg(long, value_name = "PORT")]
    pub port: Option<u16>,
    /// Listen at a Unix socket instead
    #[arg(long, value_name = "FILE", conflicts_with_all = ["host", "port"])]
    pub socket: Option<PathBuf>,
    /// A key that requests must have; several may be given
    #[arg(long, value_name = "KEY", env = "LLADA_API_KEY", hide_env_values = true)]
    pub api_key: Vec<String>,
    /// A file with such keys, one on each line
    #[arg(long, value_name = "FILE")]
    pub api_key_file: Option<PathBuf>,
    /// Sequences that share forward passes [default: 8]
    #[arg(long, value_name = "N", visible_alias = "np", value_parser = count("parallel"))]
    pub parallel: Option<u64>,
    /// Requests that may wait for their turn [default: 32]
    #[arg(long, value_name = "N", value_parser = count("queue"))]
    pub queue: Option<u64>,
    /// Tokens of a forward pass, unless one sequence alone has more [default: 128]
    #[arg(long, value_name = "TOKENS", value_parser = count("budget"), hide_short_help = true)]
    pub budget: Option<u64>,
    /// Longest time for an answer, in seconds [default: 600]
    #[arg(long, value_name = "SECONDS", value_parser = from_one(86_400))]
    pub timeout: Option<u64>,
    /// Longest time to wait for what a client sends or takes, in seconds [default: 30]
    #[arg(long, value_name = "SECONDS", value_parser = from_one(3600), hide_short_help = true)]
    pub client_timeout: Option<u64>,
    /// Time for requests to end at SIGTERM, in seconds [default: 30]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(..=86_400), hide_short_help = true)]
    pub drain: Option<u64>,
    /// Unload models that nobody asked for so many seconds [default: never]
    #[arg(long, value_name = "SECONDS", value_parser = from_one(86_400 * 30), hide_short_help = true)]
    pub idle: Option<u64>,
    /// GiB of weights in memory, of all models together [default: no limit]
    #[arg(long, value_name = "GIB")]
    pub memory: Option<f64>,
    /// Connections at a time [default: 1024]
    #[arg(long, value_name = "N", value_parser = count("connections"), hide_short_help = true)]
    pub connections: Option<u64>,
    /// Bytes of the body of a request [default: 2 MiB]
    #[arg(long, value_name = "BYTES", value_parser = count("max_body"), hide_short_help = true)]
    pub max_body: Option<u64>,
    /// An origin whose pages may call the server from a browser
    #[arg(long, value_name = "ORIGIN", hide_short_help = true)]
    pub cors_origin: Vec<String>,
    /// A name of this server in the `Host` of requests, where it listens for this machine alone
    #[arg(long, value_name = "NAME", hide_short_help = true)]
    pub allowed_host: Vec<String>,
    /// How the log on stderr is written
    #[arg(long, value_name = "FORM", default_value = "text", hide_short_help = true)]
    pub log: LogForm,
    #[command(flatten)]
    pub machine: Machine,
}

/// How a log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogForm {
    /// For people.
    Text,
    /// One object of JSON on each line.
    Json,
}

/// Reads a number of the setting `name`, within its range.
fn count(name: &str) -> clap::builder::RangedU64ValueParser<u64> {
    clap::value_parser!(u64).range(Options::range(name).unwrap_or(0..=u64::MAX))
}

/// Reads a whole number from 1 on.
fn from_one(most: u64) -> clap::builder::RangedU64ValueParser<u64> {
    clap::value_parser!(u64).range(1..=most)
}

/// Reads the name and the place of a model.
fn named(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((name, path)) if !name.is_empty() && !path.is_empty() => {
            Ok((name.into(), path.into()))
        }
        _ => Err("give a name, `=`, and a model".into()),
    }
}
