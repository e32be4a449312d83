//! Connections: taken, served, ended. A panic in one request ends that request only.

use std::convert::Infallible;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::Engine;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::blocking::THREADS;
use crate::body::{self, ResponseBody};
use crate::call::{self, Call};
use crate::daemon::{Daemon, Options};
use crate::error::{ApiError, chain};
use crate::listen::{Host, ListenError, Listener};
use crate::ready::watched;
use crate::rescue;
use crate::routes;
use crate::wire;

/// How long a client may take for the head of a request; between two requests of one connection too.
const HEAD_TIMEOUT: Duration = Duration::from_secs(300);

/// How long requests may go on when the daemon ends.
const END_TIMEOUT: Duration = Duration::from_secs(10);

/// How long to wait when there are no descriptors for a further connection.
const NO_DESCRIPTORS: Duration = Duration::from_millis(100);

/// SIGINT and SIGTERM.
const END_SIGNALS: [i32; 2] = [2, 15];

/// Why the daemon has ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// It cannot listen.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The system refuses something.
    #[error("cannot {what}")]
    Io {
        /// What.
        what: &'static str,
        /// The cause.
        source: io::Error,
    },
}

/// Serves the API at all of `hosts` until SIGINT or SIGTERM. Containers go on after that. `ready` is
/// called when clients can connect.
///
/// # Errors
/// When it cannot listen somewhere.
pub fn serve(
    engine: Engine,
    hosts: &[Host],
    options: Options,
    ready: impl FnOnce(),
) -> Result<(), ServeError> {
    let failed = |what| move |source| ServeError::Io { what, source };
    let listeners = hosts
        .iter()
        .map(Host::listen)
        .collect::<Result<Vec<_>, _>>()?;
    let signals = sys::signals::signal_fd(&END_SIGNALS).map_err(failed("take signals"))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(THREADS)
        .build()
        .map_err(failed("start the runtime"))?;
    let daemon = Arc::new(Daemon::new(engine, options));
    let events = Arc::clone(&daemon);
    let reader = std::thread::Builder::new()
        .name("events".to_owned())
        .spawn(move || events.hub.read(&events.engine))
        .map_err(failed("start a thread"))?;
    let served = runtime.block_on(run(&daemon, listeners, &signals, ready));
    daemon.hub.end();
    // What blocks still is a follower of a client that is gone; it ends by itself.
    runtime.shutdown_timeout(Duration::from_secs(2));
    let joined = reader.join();
    served.map_err(failed("serve"))?;
    joined.map_err(|_| failed("read events")(io::ErrorKind::Other.into()))
}

async fn run(
    daemon: &Arc<Daemon>,
    listeners: Vec<Listener>,
    signals: &impl AsFd,
    ready: impl FnOnce(),
) -> io::Result<()> {
    let signals = watched(signals.as_fd().try_clone_to_owned()?)?;
    let (end, ended) = watch::channel(());
    let mut accepting = JoinSet::new();
    let mut paths = Vec::new();
    for listener in listeners {
        let (daemon, ended) = (Arc::clone(daemon), ended.clone());
        match listener {
            Listener::Unix(listener, path) => {
                paths.push(path);
                let listener = UnixListener::from_std(listener)?;
                accepting.spawn(accept_all(daemon, listener, ended));
            }
            Listener::Tcp(listener) => {
                let listener = TcpListener::from_std(listener)?;
                accepting.spawn(accept_all(daemon, listener, ended));
            }
        }
    }
    accepting.spawn(rescue::watch(Arc::clone(daemon), ended.clone()));
    ready();
    signals.readable().await?.retain_ready();
    tracing::info!("the daemon ends; containers go on");
    drop(end);
    daemon.hub.end();
    let all = async { while accepting.join_next().await.is_some() {} };
    if tokio::time::timeout(END_TIMEOUT, all).await.is_err() {
        tracing::warn!("requests that still run are cut off");
    }
    for path in paths {
        // It may be another daemon's by now; then it is not there under this inode for long anyway.
        drop(std::fs::remove_file(path));
    }
    Ok(())
}

/// A socket that gives connections.
trait Accept: Send + Sync + 'static {
    /// A connection.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// The next one.
    fn accept_one(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

impl Accept for UnixListener {
    type Stream = UnixStream;

    async fn accept_one(&self) -> io::Result<UnixStream> {
        Ok(self.accept().await?.0)
    }
}

impl Accept for TcpListener {
    type Stream = TcpStream;

    async fn accept_one(&self) -> io::Result<TcpStream> {
        Ok(self.accept().await?.0)
    }
}

/// Takes connections until the daemon ends, then waits for their requests.
async fn accept_all<A: Accept>(daemon: Arc<Daemon>, listener: A, mut ended: watch::Receiver<()>) {
    let mut connections = JoinSet::new();
    loop {
        // Both can be dropped: a connection that is not taken yet waits in the socket's queue.
        let accepted = tokio::select! {
            accepted = listener.accept_one() => accepted,
            _ = ended.changed() => break,
        };
        while connections.try_join_next().is_some() {}
        match accepted {
            Ok(stream) => {
                connections.spawn(connection(Arc::clone(&daemon), stream, ended.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot take a connection");
                tokio::time::sleep(NO_DESCRIPTORS).await;
            }
        }
    }
    while connections.join_next().await.is_some() {}
}

async fn connection<S>(daemon: Arc<Daemon>, stream: S, mut ended: watch::Receiver<()>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request| answer(Arc::clone(&daemon), request));
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut serving = std::pin::pin!(serving);
    let result = tokio::select! {
        result = serving.as_mut() => result,
        _ = ended.changed() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(error = chain(&error), "a connection has ended");
    }
}

/// Answers a request. It runs in a task of its own: a client that hangs up stops nothing half-way,
/// and a panic reaches nobody else.
async fn answer(
    daemon: Arc<Daemon>,
    request: Request<Incoming>,
) -> Result<Response<ResponseBody>, Infallible> {
    let begun = Instant::now();
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let options = daemon.options.version;
    let reply = tokio::spawn(async move { routes::route(Call::new(daemon, request)?).await }).await;
    let reply = reply.unwrap_or_else(|error| {
        tracing::error!(%error, %method, path = uri.path(), "a request has failed");
        Err(ApiError::internal("the daemon has failed in this request"))
    });
    let mut response = match reply {
        Ok(response) => response,
        Err(error) => refusal(&error),
    };
    wire::system::head(response.headers_mut(), options);
    tracing::info!(
        %method,
        path = uri.path(),
        status = response.status().as_u16(),
        milliseconds = begun.elapsed().as_millis(),
        "request"
    );
    Ok(response)
}

/// An error as clients read it.
fn refusal(error: &ApiError) -> Response<ResponseBody> {
    let message = wire::system::Message {
        message: &error.message,
    };
    call::json(error.status, &message).unwrap_or_else(|_| {
        let mut response = Response::new(body::full(""));
        *response.status_mut() = error.status;
        response
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::version::NEWEST;

    #[test]
    fn newest_version_is_announced() {
        let mut headers = http::HeaderMap::new();
        wire::system::head(&mut headers, "9.9");
        assert_eq!(headers["api-version"], NEWEST.to_string().as_str());
        assert_eq!(headers["server"], "Docker/9.9 (linux)");
    }
}
