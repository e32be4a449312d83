//! `GET /metrics` at a port of its own: numbers, and nothing that could be changed.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::body::{self, ResponseBody};
use crate::connections::refusal;
use crate::daemon::Daemon;
use crate::error::ApiError;
use crate::wire::messages;

/// How many are answered at once; further ones wait.
const CONNECTIONS: usize = 16;

/// How long a connection may last without a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);

/// How long to wait when no connection can be taken.
const PAUSE: Duration = Duration::from_millis(100);

/// The format of the text.
const FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Answers until `ended`.
pub(crate) async fn serve(
    daemon: Arc<Daemon>,
    listener: TcpListener,
    mut ended: watch::Receiver<()>,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let next = async {
            let place = places.clone().acquire_owned().await;
            (place, listener.accept().await)
        };
        // Both can be dropped: a connection that is not taken yet waits in the socket's queue.
        let (place, accepted) = tokio::select! {
            accepted = next => accepted,
            _ = ended.changed() => break,
        };
        while connections.try_join_next().is_some() {}
        match accepted {
            Ok((stream, _)) => {
                let serving = connection(Arc::clone(&daemon), stream);
                connections.spawn(async move {
                    serving.await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot take a connection for metrics");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    connections.shutdown().await;
}

async fn connection(daemon: Arc<Daemon>, stream: TcpStream) {
    let service = service_fn(move |request| answer(Arc::clone(&daemon), request));
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection for metrics has ended");
    }
}

async fn answer(
    daemon: Arc<Daemon>,
    request: Request<Incoming>,
) -> Result<Response<ResponseBody>, Infallible> {
    if request.method() != http::Method::GET || request.uri().path() != "/metrics" {
        let error = ApiError::new(StatusCode::NOT_FOUND, messages::PAGE_NOT_FOUND);
        return Ok(refusal(&error));
    }
    let asked = Arc::clone(&daemon);
    let version = daemon.options.version;
    let text = daemon.run(move |engine| Ok(asked.metrics.text(engine, version)));
    Ok(match text.await {
        Ok(text) => {
            let mut response = Response::new(body::full(text));
            let headers = response.headers_mut();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(FORMAT));
            response
        }
        Err(error) => refusal(&error),
    })
}
