//! Connections: as many as may be, each as patient as the server is.

use std::{
    future::Future,
    io,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::Router;
use futures_util::future::Either;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpListener,
    sync::Semaphore,
    time::{Instant, Sleep, sleep, timeout},
};

use crate::{
    app::{self, Shared},
    options::Options,
};

/// Most headers of a request.
const MAX_HEADERS: usize = 64;

/// Most bytes of a request's head.
const MAX_HEAD: usize = 64 << 10;

/// How long clients are waited for whose answers were broken off.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Where clients connect.
#[derive(Debug)]
pub(crate) enum Listener {
    Tcp(TcpListener),
    #[cfg(unix)]
    Unix(tokio::net::UnixListener),
}

/// A connection of any kind.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

impl Listener {
    /// Listens where the options say.
    ///
    /// # Errors
    /// If the address is taken or not this machine's.
    pub(crate) async fn bind(options: &Options) -> io::Result<Self> {
        #[cfg(unix)]
        if let Some(path) = &options.socket {
            // What a server that was killed has left refuses connections; one that lives answers.
            use std::os::unix::fs::FileTypeExt;
            let is_socket = path.symlink_metadata().is_ok_and(|data| data.file_type().is_socket());
            if is_socket
                && let Err(error) = tokio::net::UnixStream::connect(path).await
                && error.kind() == io::ErrorKind::ConnectionRefused
            {
                std::fs::remove_file(path)?;
            }
            return tokio::net::UnixListener::bind(path).map(Self::Unix);
        }
        #[cfg(not(unix))]
        if options.socket.is_some() {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "this system has no Unix sockets",
            ));
        }
        TcpListener::bind((options.host, options.port)).await.map(Self::Tcp)
    }

    /// Where it listens, for people.
    pub(crate) fn place(&self) -> String {
        match self {
            Self::Tcp(listener) => match listener.local_addr() {
                Ok(address) => format!("http://{address}"),
                Err(_) => "an unknown address".into(),
            },
            #[cfg(unix)]
            Self::Unix(listener) => {
                let address = listener.local_addr().ok();
                let path = address.as_ref().and_then(|address| address.as_pathname());
                path.map_or_else(
                    || "a Unix socket".into(),
                    |path| format!("unix:{}", path.display()),
                )
            }
        }
    }

    async fn accept(&self) -> io::Result<Box<dyn Stream>> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                // Pieces of an answer are small, and wanted at once.
                stream.set_nodelay(true)?;
                Ok(Box::new(stream))
            }
            #[cfg(unix)]
            Self::Unix(listener) => Ok(Box::new(listener.accept().await?.0)),
        }
    }
}

/// Serves connections until `stop`; then those that have begun have `options.drain` to end, and are told if
/// they have not. Those that come meanwhile are answered too, so that whoever asks is told.
pub(crate) async fn serve(listener: Listener, app: Shared, stop: impl Future<Output = ()>) {
    let options = &app.options;
    let router = app::router(Arc::clone(&app));
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(options.client_timeout)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEAD);
    let room = Arc::new(Semaphore::new(options.connections));
    let mut connections =
        Connections { listener, router, http, room, time: options.client_timeout };
    let graceful = GracefulShutdown::new();
    tokio::select! {
        () = connections.take(Some(&graceful)) => {}
        () = stop => {}
    }
    connections.http.keep_alive(false);
    let drained = async {
        let mut drained = pin!(graceful.shutdown());
        if timeout(options.drain, &mut drained).await.is_err() {
            tracing::warn!("requests were broken off, as they did not end in time");
            app.cut();
            _ = timeout(LAST_WORDS, drained).await;
        }
    };
    tokio::select! {
        () = connections.take(None) => {}
        () = drained => {}
    }
}

/// Where connections come from, and how they are served.
struct Connections {
    listener: Listener,
    router: Router,
    http: http1::Builder,
    room: Arc<Semaphore>,
    /// How long clients are waited for.
    time: Duration,
}

impl Connections {
    /// Serves what comes, for ever; `graceful` waits for it.
    async fn take(&self, graceful: Option<&GracefulShutdown>) {
        loop {
            // Nobody closes it.
            let Ok(permit) = Arc::clone(&self.room).acquire_owned().await else { return };
            let stream = match self.listener.accept().await {
                Ok(stream) => stream,
                Err(error) => {
                    // Too many open files, say: those that are open will close.
                    tracing::warn!(%error, "a connection could not be taken");
                    sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let service = TowerToHyperService::new(self.router.clone());
            let io = TokioIo::new(Patient::new(stream, self.time));
            let connection = self.http.serve_connection(io, service);
            let connection = match graceful {
                Some(graceful) => Either::Left(graceful.watch(connection)),
                None => Either::Right(connection),
            };
            tokio::spawn(async move {
                // What goes wrong with a connection is its client's doing.
                if let Err(error) = connection.await {
                    tracing::debug!(%error, "a connection ended early");
                }
                drop(permit);
            });
        }
    }
}

/// A connection that breaks when its client takes nothing for too long.
struct Patient {
    stream: Box<dyn Stream>,
    time: Duration,
    /// When a write that waits is given up.
    waits: Option<Pin<Box<Sleep>>>,
}

impl Patient {
    fn new(stream: Box<dyn Stream>, time: Duration) -> Self {
        Self { stream, time, waits: None }
    }

    /// What comes of a write, or that it has waited too long.
    fn judged<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.waits = None;
            return written;
        }
        let end = Instant::now() + self.time;
        let waits = self.waits.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(end)));
        match waits.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncRead for Patient {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Patient {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.judged(cx, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.judged(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
