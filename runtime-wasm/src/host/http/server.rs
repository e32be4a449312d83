//! The listener and its connections.

use std::convert::Infallible;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, Uri, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use wasmtime_wasi_http::handler::{ExpirationError, InstantiationError, ProxyHandler};
use wasmtime_wasi_http::{Error, WasiBody};

use super::worker::Workers;
use crate::spec::HttpOptions;

/// Connections that the kernel keeps for later.
const BACKLOG: u32 = 4096;

/// How long a client may take to send a request's head, and a connection may be idle.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);

/// How long to wait when a connection cannot be accepted, for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Largest request head.
const MAX_HEAD: usize = 64 << 10;

/// A listening server.
pub(super) struct Server {
    listener: TcpListener,
    shared: Arc<Shared>,
    connections: Arc<Semaphore>,
    max_connections: u32,
    draining: watch::Sender<bool>,
}

struct Shared {
    handler: ProxyHandler<Workers>,
    requests: Arc<Semaphore>,
    is_fresh: bool,
    timeout: Duration,
}

/// Writes a line to the container's standard error.
pub(super) fn say(text: &str) {
    // Nobody is left to hear of a failure.
    let _lost = writeln!(io::stderr(), "{text}");
}

impl Server {
    /// Listens.
    pub(super) fn bind(workers: Workers, options: &HttpOptions) -> wasmtime::Result<Self> {
        let listener = listen(options.address).map_err(|error| {
            wasmtime::Error::msg(format!("cannot listen at {}: {error}", options.address))
        })?;
        let size = |number: u32| usize::try_from(number.max(1)).unwrap_or(1);
        Ok(Self {
            listener,
            shared: Arc::new(Shared {
                is_fresh: workers.is_fresh(),
                timeout: workers.timeout(),
                handler: ProxyHandler::new(workers),
                requests: Arc::new(Semaphore::new(size(options.concurrent_requests))),
            }),
            connections: Arc::new(Semaphore::new(size(options.connections))),
            max_connections: options.connections.max(1),
            draining: watch::Sender::new(false),
        })
    }

    /// Says where it listens: the port may have been the kernel's choice.
    pub(super) fn announce(&self) {
        if let Ok(address) = self.listener.local_addr() {
            say(&format!("ketch: serving http://{address}/"));
        }
    }

    /// Accepts connections for ever.
    pub(super) async fn accept(&self) -> Infallible {
        loop {
            let permit = Arc::clone(&self.connections).acquire_owned().await;
            match (permit, self.listener.accept().await) {
                (Ok(permit), Ok((stream, _))) => {
                    let shared = Arc::clone(&self.shared);
                    let draining = self.draining.subscribe();
                    tokio::spawn(connection(shared, stream, draining, permit));
                }
                _ => tokio::time::sleep(ACCEPT_PAUSE).await,
            }
        }
    }

    /// Closes the listener, lets requests come to their end, and closes what is left after `grace`.
    pub(super) async fn drain(self, grace: Duration) {
        drop(self.listener);
        self.draining.send_replace(true);
        let all = self.connections.acquire_many(self.max_connections);
        if tokio::time::timeout(grace, all).await.is_err() {
            say("ketch: some requests took longer than the time to stop, and were cut off");
        }
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

async fn connection(
    shared: Arc<Shared>,
    stream: TcpStream,
    mut draining: watch::Receiver<bool>,
    permit: OwnedSemaphorePermit,
) {
    // Without it an answer in two parts waits for an acknowledgement; a failure only costs time.
    drop(stream.set_nodelay(true));
    let service = service_fn(move |request| {
        let shared = Arc::clone(&shared);
        async move { Ok::<_, Infallible>(shared.answer(request).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service);
    let mut served = std::pin::pin!(served);
    let broken = tokio::select! {
        result = served.as_mut() => result.is_err(),
        () = drained(&mut draining) => {
            served.as_mut().graceful_shutdown();
            served.await.is_err()
        }
    };
    // A connection that the client broke is its own affair.
    let _ = broken;
    drop(permit);
}

/// Waits until the server closes.
async fn drained(draining: &mut watch::Receiver<bool>) {
    // The sender lives as long as the server; without it nobody asks any more.
    drop(draining.wait_for(|draining| *draining).await);
}

impl Shared {
    async fn answer(&self, request: Request<Incoming>) -> Response<WasiBody> {
        let Ok(permit) = Arc::clone(&self.requests).acquire_owned().await else {
            return failure(StatusCode::SERVICE_UNAVAILABLE);
        };
        let (to_worker, to_body) = match self.is_fresh {
            true => (Some(permit), None),
            false => (None, Some(permit)),
        };
        let request = absolute(request.map(|body| body.map_err(Error::from).boxed_unsync()));
        let handled = self.handler.handle(to_worker, request);
        match tokio::time::timeout(self.timeout, handled).await {
            Ok(Ok(response)) => response.map(|body| {
                Held {
                    body,
                    _permit: to_body,
                }
                .boxed_unsync()
            }),
            Ok(Err(error)) => failure(status(&error)),
            Err(_) => failure(StatusCode::GATEWAY_TIMEOUT),
        }
    }
}

/// Which status an error is. The reason goes to standard error, never to the client.
fn status(error: &wasmtime::Error) -> StatusCode {
    if error.downcast_ref::<ExpirationError>().is_some() {
        return StatusCode::GATEWAY_TIMEOUT;
    }
    let instantiation = error.downcast_ref::<InstantiationError<Option<OwnedSemaphorePermit>>>();
    if let Some(failed) = instantiation {
        say(&format!(
            "ketch: cannot make an instance: {:#}",
            failed.error
        ));
        return StatusCode::SERVICE_UNAVAILABLE;
    }
    StatusCode::INTERNAL_SERVER_ERROR
}

fn failure(status: StatusCode) -> Response<WasiBody> {
    let text = status.canonical_reason().unwrap_or_default();
    let body = Full::new(Bytes::from(format!("{text}\n")));
    let mut response = Response::new(body.map_err(Error::from).boxed_unsync());
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    response
}

/// Gives the request's target scheme and authority, which the worlds ask for and a request line
/// does not have (RFC 9112, section 3.3).
fn absolute(mut request: Request<WasiBody>) -> Request<WasiBody> {
    if request.uri().authority().is_some() {
        return request;
    }
    let Some(host) = request.headers().get(header::HOST) else {
        return request;
    };
    let path = request.uri().path_and_query().map_or("/", |p| p.as_str());
    let target = Uri::builder()
        .scheme("http")
        .authority(host.as_bytes())
        .path_and_query(path)
        .build();
    if let Ok(target) = target {
        *request.uri_mut() = target;
    }
    request
}

/// A body that holds its request's place until it was sent.
struct Held {
    body: WasiBody,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Body for Held {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
