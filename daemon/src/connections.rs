//! Connections: taken, served, ended. A panic in one request ends that request only.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::access::{Access, Answered, Peer};
use crate::body::{self, ResponseBody};
use crate::call::{self, Call};
use crate::daemon::Daemon;
use crate::error::{ApiError, chain};
use crate::routes;
use crate::scope::Scope;
use crate::{tls, wire};

/// How long to wait when there are no descriptors for a further connection.
const NO_DESCRIPTORS: Duration = Duration::from_millis(100);

/// How long a handshake of TLS may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How many connections one socket serves at once; further ones wait in its queue.
const CONNECTIONS: usize = 16 * 1024;

/// How a method is counted that no route has.
const UNKNOWN: (&str, &str) = ("other", "none");

/// Where connections come in, and what those that do may ask.
#[derive(Clone)]
pub(crate) struct Door {
    pub(crate) daemon: Arc<Daemon>,
    pub(crate) scope: Option<Arc<Scope>>,
    pub(crate) tls: Option<TlsAcceptor>,
}

/// A socket that gives connections.
pub(crate) trait Accept: Send + Sync + 'static {
    /// A connection.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// The next one.
    fn accept_one(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;

    /// Who is at its other end.
    fn peer(stream: &Self::Stream) -> Peer;
}

impl Accept for UnixListener {
    type Stream = UnixStream;

    async fn accept_one(&self) -> io::Result<UnixStream> {
        Ok(self.accept().await?.0)
    }

    fn peer(stream: &UnixStream) -> Peer {
        stream.into()
    }
}

impl Accept for TcpListener {
    type Stream = TcpStream;

    async fn accept_one(&self) -> io::Result<TcpStream> {
        let stream = self.accept().await?.0;
        // Small answers are waited for.
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    fn peer(stream: &TcpStream) -> Peer {
        stream.into()
    }
}

/// A number that counts what is there, as long as it is.
struct Counted(Arc<Daemon>, fn(&Daemon) -> &AtomicU64);

impl Counted {
    fn new(daemon: &Arc<Daemon>, number: fn(&Daemon) -> &AtomicU64) -> Self {
        number(daemon).fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(daemon), number)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        (self.1)(&self.0).fetch_sub(1, Ordering::Relaxed);
    }
}

/// Takes connections until `ended`, then waits for their requests.
pub(crate) async fn accept_all<A: Accept>(door: Door, listener: A, mut ended: watch::Receiver<()>) {
    let mut connections = JoinSet::new();
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let next = async {
            // The semaphore is never closed.
            let place = places.clone().acquire_owned().await;
            (place, listener.accept_one().await)
        };
        // Both can be dropped: a connection that is not taken yet waits in the socket's queue.
        let (place, accepted) = tokio::select! {
            accepted = next => accepted,
            _ = ended.changed() => break,
        };
        while connections.try_join_next().is_some() {}
        match accepted {
            Ok(stream) => {
                let peer = A::peer(&stream);
                let serving = connection(door.clone(), peer, stream, ended.clone());
                connections.spawn(async move {
                    serving.await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot take a connection");
                tokio::time::sleep(NO_DESCRIPTORS).await;
            }
        }
    }
    while connections.join_next().await.is_some() {}
}

/// Serves one connection, after its handshake where there is one.
async fn connection<S>(door: Door, peer: Peer, stream: S, ended: watch::Receiver<()>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Door { daemon, scope, tls } = door;
    daemon.metrics.connections.fetch_add(1, Ordering::Relaxed);
    let _open = Counted::new(&daemon, |daemon| &daemon.metrics.open_connections);
    let access = Arc::new(Access { peer, scope });
    let Some(acceptor) = tls else {
        return http(daemon, access, stream, ended).await;
    };
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => http(daemon, access, stream, ended).await,
        Ok(Err(error)) => {
            let error = tls::why(&error);
            tracing::warn!(error, ?peer, "a client is refused by TLS");
        }
        Err(_) => tracing::debug!(?peer, "a client took too long for its handshake"),
    }
}

async fn http<S>(
    daemon: Arc<Daemon>,
    access: Arc<Access>,
    stream: S,
    mut ended: watch::Receiver<()>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let head_timeout = daemon.options.head_timeout;
    let service =
        service_fn(move |request| answer(Arc::clone(&daemon), Arc::clone(&access), request));
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head_timeout)
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
    access: Arc<Access>,
    request: Request<Incoming>,
) -> Result<Response<ResponseBody>, Infallible> {
    let begun = Instant::now();
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let call = Call::new(Arc::clone(&daemon), &access, request);
    let found = call.as_ref().ok().and_then(|call| call.route.as_ref());
    let (counted, route) = found.map_or(UNKNOWN, |(route, _)| (route.method, route.path));
    let reply = match call {
        Err(error) => Err(error),
        Ok(call) => {
            let running = Counted::new(&daemon, |daemon| &daemon.metrics.running_requests);
            let task = tokio::spawn(async move {
                let reply = routes::route(call).await;
                drop(running);
                reply
            });
            task.await.unwrap_or_else(|error| {
                daemon.metrics.panics.fetch_add(1, Ordering::Relaxed);
                tracing::error!(%error, %method, path = uri.path(), "a request has failed");
                Err(ApiError::internal("the daemon has failed in this request"))
            })
        }
    };
    let mut response = match reply {
        Ok(response) => response,
        Err(error) => {
            if error.status == StatusCode::FORBIDDEN && access.scope.is_some() {
                daemon.metrics.denied.fetch_add(1, Ordering::Relaxed);
            }
            refusal(&error)
        }
    };
    wire::system::head(response.headers_mut(), daemon.options.version);
    let (status, took) = (response.status(), begun.elapsed());
    let metrics = &daemon.metrics;
    metrics.answered(counted, route, status.as_u16(), took);
    access.log(&Answered {
        method: &method,
        path: uri.path(),
        route,
        status,
        took,
    });
    Ok(response)
}

/// An error as clients read it.
pub(crate) fn refusal(error: &ApiError) -> Response<ResponseBody> {
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
    use crate::daemon::Options;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    /// A daemon that has no containers and no programs to start any.
    fn daemon(dir: &std::path::Path) -> Arc<Daemon> {
        let layout = state::Layout::open(dir.join("root"), dir.join("run")).unwrap();
        let store = image::Store::open(&layout, image::UnpackMode::default()).unwrap();
        let nothing = engine::Executables {
            init: b"",
            wasm_host: b"",
            pid1: b"",
            version: "0",
        };
        let engine = engine::Engine::new(layout, store, nothing, "ketch".into()).unwrap();
        let options = Options {
            registry: image::RegistryOptions::default(),
            publish: network::Publish::default(),
            publish_addresses: Vec::new(),
            cdi_dirs: Vec::new(),
            version: "0",
            head_timeout: Duration::from_secs(300),
        };
        Arc::new(Daemon::new(engine, options))
    }

    async fn ask(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), path: &str) -> String {
        let request = format!("GET {path} HTTP/1.1\r\nHost: d\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        // The answers here come at once and have a length.
        while !answer.ends_with(b"OK") && !answer.ends_with(b"}\n") && !answer.ends_with(b"}") {
            assert!(stream.read_buf(&mut answer).await.unwrap() > 0);
        }
        String::from_utf8(answer).unwrap()
    }

    #[test]
    fn panic_in_a_request_ends_that_request_only() {
        let dir = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let daemon = daemon(dir.path());
            let (mut client, server) = tokio::io::duplex(4096);
            let (_end, ended) = watch::channel(());
            let access = Arc::new(Access {
                peer: Peer::Unknown,
                scope: None,
            });
            let serving = tokio::spawn(http(Arc::clone(&daemon), access, server, ended));
            let answer = ask(&mut client, "/_fault").await;
            assert!(answer.starts_with("HTTP/1.1 500"), "{answer}");
            assert!(answer.contains("\"message\":"), "{answer}");
            // The same connection goes on.
            let answer = ask(&mut client, "/_ping").await;
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
            let metrics = &daemon.metrics;
            assert_eq!(metrics.panics.load(Ordering::Relaxed), 1);
            assert_eq!(metrics.running_requests.load(Ordering::Relaxed), 0);
            let text = metrics.text(&daemon.engine, "0");
            let line = r#"ketch_requests_total{method="GET",route="_fault",code="500"} 1"#;
            assert!(text.contains(line), "{text}");
            drop(client);
            serving.await.unwrap();
        });
    }
}
