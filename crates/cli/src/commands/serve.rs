//! `llada serve`: a model over HTTP.

use std::{
    io::{ErrorKind, IsTerminal},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context, Result};
use llada::{Compute, session, text};
use llada_kernels::Cpu;
use llada_server::{Options, OutOfRange, ServeError};
use tracing_subscriber::{EnvFilter, filter::LevelFilter};

use crate::{
    args::{LogForm, Serve},
    failure::Failure,
    locate::{self, Shipped},
    term::{self, Level, Term},
};

/// Serves until it is told to end.
pub fn run(args: Serve, term: &Term) -> Result<()> {
    let cpu = Cpu::new(args.machine.threads())?;
    let options = options(&args)?;
    let models = models(&args, &options)?;
    let is_open =
        options.api_keys.is_empty() && options.socket.is_none() && !options.host.is_loopback();
    log(args.log, term)?;
    let (kernels, threads) = (cpu.isa(), cpu.threads());
    let names: Vec<String> = models.iter().map(|(name, _)| name.clone()).collect();
    let listening = |place: &str| {
        tracing::info!(%kernels, threads, models = names.join(", "), "listening at {place}");
        if is_open {
            tracing::warn!("whoever reaches this address may use it: there is no API key");
        }
    };
    llada_server::serve(options, models, cpu, listening, told()).map_err(failure)
}

/// What a server that does not run is to a person.
fn failure(error: ServeError) -> anyhow::Error {
    let hint = match &error {
        ServeError::Listen { is_socket, source, .. } => match (source.kind(), is_socket) {
            (ErrorKind::AddrInUse, false) => {
                "another program listens there: choose another with `--port`"
            }
            (ErrorKind::AddrInUse, true) => {
                "a file is there, or another program listens: choose another path for `--socket`"
            }
            (ErrorKind::PermissionDenied, false) => {
                "ports below 1024 are the system's: choose another with `--port`"
            }
            (_, false) => "`--host` must be an address of this machine",
            (_, true) => {
                "`--socket` must be a path of at most 107 bytes in a folder where you may write"
            }
        },
        ServeError::Model { .. } => "`llada show --verify MODEL` looks at its files",
        ServeError::Options(_) => "see `llada serve --help-all`",
        ServeError::Runtime(_) => "the system allows no more threads",
    };
    Failure::new(error.to_string(), hint).into()
}

/// What the file says, and before it the flags.
fn options(args: &Serve) -> Result<Options> {
    let mut options = match &args.config {
        Some(path) => {
            let source = text::read(path)?;
            toml::from_str::<Options>(&source).map_err(|error| {
                let (file, what) = (path.display(), error.message().to_owned());
                let line =
                    error.span().map_or(1, |span| 1 + source[..span.start].matches('\n').count());
                Failure::new(
                    format!("`{file}`, line {line}: {what}"),
                    "see `llada serve --help-all`",
                )
            })?
        }
        None => Options::default(),
    };
    let seconds = |time: Option<u64>| time.map(Duration::from_secs);
    let count = |number: Option<u64>| number.and_then(|number| usize::try_from(number).ok());
    let set = |place: &mut usize, value: Option<usize>| *place = value.unwrap_or(*place);
    options.host = args.host.unwrap_or(options.host);
    options.port = args.port.unwrap_or(options.port);
    if args.host.is_some() || args.port.is_some() {
        options.socket = None;
    }
    options.socket = args.socket.clone().or(options.socket);
    if args.machine.compute != Compute::Auto {
        options.compute = args.machine.compute;
    }
    set(&mut options.parallel, count(args.parallel));
    set(&mut options.queue, count(args.queue));
    set(&mut options.budget, count(args.budget));
    set(&mut options.connections, count(args.connections));
    set(&mut options.max_body, count(args.max_body));
    options.timeout = seconds(args.timeout).unwrap_or(options.timeout);
    options.client_timeout = seconds(args.client_timeout).unwrap_or(options.client_timeout);
    options.drain = seconds(args.drain).unwrap_or(options.drain);
    options.idle = seconds(args.idle).unwrap_or(options.idle);
    if let Some(memory) = args.memory {
        if !(memory > 0.0 && memory < 1e6) {
            return Err(Failure::usage("`--memory` is no number of GiB", "give one above 0").into());
        }
        options.memory = (memory * f64::from(1 << 30)) as u64;
    }
    options.cors_origins.extend(args.cors_origin.iter().cloned());
    options.allowed_hosts.extend(args.allowed_host.iter().cloned());
    options.api_keys.extend(args.api_key.iter().cloned());
    if let Some(file) = &args.api_key_file {
        let keys = text::read(file)?;
        options.api_keys.extend(
            keys.lines()
                .map(str::trim)
                .filter(|key| !key.is_empty() && !key.starts_with('#'))
                .map(str::to_owned),
        );
        if options.api_keys.is_empty() {
            let message = format!("`{}` has no key", file.display());
            return Err(Failure::new(message, "write one on each line").into());
        }
    }
    if options
        .api_keys
        .iter()
        .any(|key| key.is_empty() || !key.bytes().all(|b| b.is_ascii_graphic()))
    {
        let message = "an API key is empty, or has spaces or other characters than those of ASCII";
        return Err(
            Failure::new(message, "keys are words such as `openssl rand -hex 24` writes").into()
        );
    }
    options.check().map_err(out_of_range)?;
    Ok(options)
}

/// What a number out of its range is to a person.
fn out_of_range(OutOfRange { name, found, range }: OutOfRange) -> Failure {
    let hint = format!("give a whole number from {} to {}", range.start(), range.end());
    Failure::new(format!("`{name}` is {found}"), hint)
}

/// The models by name; the first is meant where none is named.
fn models(args: &Serve, options: &Options) -> Result<Vec<(String, PathBuf)>> {
    let given = args.model.get()?;
    let mut models: Vec<(String, PathBuf)> = Vec::new();
    if given.is_some() || options.models.is_empty() {
        let path = locate::model(given, Shipped::Tuned)?;
        models.push((session::name(&path), path));
    }
    let mut listed: Vec<_> = options.models.iter().collect();
    // The one that is meant where none is named.
    listed.sort_by_key(|(name, _)| *name != "default");
    let also = args.also.iter().map(|(name, path)| (name, path));
    for (name, path) in listed.into_iter().chain(also) {
        if name == "default" && !models.is_empty() {
            let message = "`default` is another name of the first model";
            let hint = "call this one otherwise, or give it as MODEL";
            return Err(Failure::usage(message, hint).into());
        }
        if models.iter().any(|(known, _)| known == name) {
            let message = format!("two models are called `{name}`");
            return Err(Failure::usage(message, "give each a name of its own").into());
        }
        models.push((name.clone(), locate::model(Some(path), Shipped::Tuned)?));
    }
    Ok(models)
}

/// Writes what happens to stderr. `LLADA_LOG` chooses what, as `RUST_LOG` does for other programs.
fn log(form: LogForm, term: &Term) -> Result<()> {
    let level = match term.level {
        Level::Quiet => LevelFilter::ERROR,
        Level::Normal => LevelFilter::INFO,
        Level::Verbose => LevelFilter::DEBUG,
    };
    let asked = term::variable("LLADA_LOG").and_then(|value| value.into_string().ok());
    let filter = match asked {
        Some(asked) => {
            EnvFilter::try_new(asked).context("LLADA_LOG chooses nothing that can be logged")?
        }
        None => EnvFilter::default().add_directive(level.into()),
    };
    let log = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(filter)
        .with_target(false);
    let colors = std::io::stderr().is_terminal() && term.colors != term::Colors::None;
    let started = match form {
        LogForm::Text => log.with_ansi(colors).try_init(),
        LogForm::Json => log.json().flatten_event(true).try_init(),
    };
    started.map_err(|error| anyhow::anyhow!("{error}"))
}

/// Waits until the server is told to end: by Ctrl-C or SIGTERM. The second time ends the program at once.
async fn told() {
    signal().await;
    tokio::spawn(async {
        signal().await;
        crate::shipped::remove_temporary();
        std::process::exit(130);
    });
}

async fn signal() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        // Without a handler the system ends the program, as it should.
        if let (Ok(mut terminate), Ok(mut interrupt)) =
            (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
        {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            return;
        }
    }
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}
