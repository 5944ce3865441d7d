//! Masked-diffusion language models over HTTP: OpenAI's, Mercury's, Anthropic's and llama-server's
//! interfaces, and a page to watch a canvas fill.
//!
//! A request becomes one or more [`Canvas`](llada::diffusion::Canvas)es. One thread for each model owns the
//! weights and an [`Engine`](llada::engine::Engine); canvases of many requests share its forward passes, and
//! what one gets does not depend on who shares them. Handlers follow the steps of their canvases and tell
//! what can no longer change.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod answer;
mod api;
mod app;
mod error;
mod guard;
mod listen;
mod metrics;
mod models;
mod openapi;
mod options;
mod page;
mod runner;
mod task;

use std::{future::Future, io, path::PathBuf, sync::Arc, time::Duration};

use llada_kernels::Cpu;

use app::{App, Phase};
use listen::Listener;
use metrics::Metrics;
use models::Models;
pub use options::{Options, OutOfRange};
use runner::Capacity;

/// Why a server does not run.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// It cannot listen where it was told to.
    #[error("cannot listen at {place}: {source}")]
    Listen {
        /// The address or the socket.
        place: String,
        /// Whether it is a socket.
        is_socket: bool,
        /// The system's reason.
        source: io::Error,
    },
    /// The model that it was started for cannot be loaded.
    #[error("cannot load the model `{name}`: {why}")]
    Model {
        /// Its name.
        name: String,
        /// The reason.
        why: String,
    },
    /// A setting cannot be so.
    #[error(transparent)]
    Options(#[from] OutOfRange),
    /// The system has no threads for it.
    #[error("cannot start: {0}")]
    Runtime(#[source] io::Error),
}

/// Serves `models`, by their names, until `stop`. The first is loaded at once; it is meant where a request
/// names none. `listening` is called with the address once connections are taken.
///
/// # Errors
/// If the address is taken, or the first model cannot be loaded.
pub fn serve(
    options: Options,
    models: Vec<(String, PathBuf)>,
    cpu: Cpu,
    listening: impl FnOnce(&str),
    stop: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    // The cores are the model's: handlers do little.
    options.check()?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(ServeError::Runtime)?;
    let served = runtime.block_on(run(options, models, cpu, listening, stop));
    // What still computes does so for nobody.
    runtime.shutdown_background();
    served
}

async fn run(
    options: Options,
    named: Vec<(String, PathBuf)>,
    cpu: Cpu,
    listening: impl FnOnce(&str),
    stop: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let listener = Listener::bind(&options).await.map_err(|source| {
        let place = match &options.socket {
            Some(socket) => socket.display().to_string(),
            None => format!("{}:{}", options.host, options.port),
        };
        ServeError::Listen { place, is_socket: options.socket.is_some(), source }
    })?;
    // Another server may take the place while this one ends.
    #[cfg(unix)]
    let own = options.socket.as_deref().and_then(inode);
    let metrics = Arc::new(Metrics::new());
    let Options { parallel, queue, budget, memory, idle, compute, .. } = options;
    let capacity = Capacity { parallel, queue, budget };
    let first = named.first().map(|(name, _)| name.clone()).unwrap_or_default();
    let memory = (memory > 0).then_some(memory);
    let models = Models::new(named, (cpu, compute), capacity, memory, Arc::clone(&metrics));
    let app = Arc::new(App::new(options, models, metrics));
    listening(&listener.place());
    let (loaded, loading) = tokio::sync::oneshot::channel();
    let task = tokio::spawn(load(Arc::clone(&app), loaded));
    if !idle.is_zero() {
        tokio::spawn(unload(Arc::clone(&app), idle));
    }
    let mut why = None;
    let stop = async {
        let failed = async {
            match loading.await {
                Ok(Err(error)) => error,
                Err(_) => "a fault of the program".into(),
                Ok(Ok(())) => std::future::pending().await,
            }
        };
        tokio::select! {
            () = stop => {}
            error = failed => why = Some(error),
        }
        app.set(Phase::Draining);
        tracing::info!("ending: no more requests are taken");
    };
    listen::serve(listener, Arc::clone(&app), stop).await;
    task.abort();
    #[cfg(unix)]
    if let Some(socket) = app.options.socket.as_deref().filter(|socket| inode(socket) == own) {
        // It may be gone already.
        _ = std::fs::remove_file(socket);
    }
    why.map_or(Ok(()), |why| Err(ServeError::Model { name: first, why }))
}

/// Which file a path leads to.
#[cfg(unix)]
fn inode(path: &std::path::Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    path.symlink_metadata().ok().map(|data| (data.dev(), data.ino()))
}

/// Loads the first model, or says why it cannot.
async fn load(app: Arc<App>, loaded: tokio::sync::oneshot::Sender<Result<(), String>>) {
    let first = app.models.load_first().await;
    if first.is_ok() {
        app.set(Phase::Ready);
    }
    // Nobody listens any more if the server ends already.
    _ = loaded.send(first);
}

/// Unloads models that nobody asks.
async fn unload(app: Arc<App>, idle: Duration) {
    let mut clock = tokio::time::interval((idle / 4).max(Duration::from_millis(100)));
    loop {
        clock.tick().await;
        app.models.unload_idle(idle).await;
    }
}
