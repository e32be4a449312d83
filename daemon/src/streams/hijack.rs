//! A request's connection becomes a stream in both directions: with `Upgrade: tcp` the connection
//! itself, else the bodies of request and response.

use std::io;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, HeaderValue, UPGRADE};
use http::{Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::mpsc;

use crate::body;
use crate::call::{Reply, streamed};

/// How much is read at once.
const BUFFER: usize = 32 * 1024;

/// Both directions.
pub(crate) struct Duplex {
    pub(crate) input: Input,
    pub(crate) output: Output,
}

/// What the client sends.
pub(crate) enum Input {
    Socket(ReadHalf<TokioIo<Upgraded>>),
    Body(Incoming),
    /// The request's body was its document.
    None,
}

/// What goes to the client.
pub(crate) enum Output {
    Socket(WriteHalf<TokioIo<Upgraded>>),
    Body(mpsc::Sender<Bytes>),
}

impl Input {
    /// The next bytes; `None` at the end, which may be that of the client's sending alone.
    pub(crate) async fn next(&mut self) -> Option<Bytes> {
        match self {
            Self::None => None,
            Self::Socket(socket) => {
                let mut buffer = vec![0; BUFFER];
                let length = socket.read(&mut buffer).await.ok()?;
                buffer.truncate(length);
                (length > 0).then(|| buffer.into())
            }
            Self::Body(body) => loop {
                let frame = body.frame().await?.ok()?;
                if let Ok(bytes) = frame.into_data()
                    && !bytes.is_empty()
                {
                    return Some(bytes);
                }
            },
        }
    }
}

impl Output {
    /// Sends bytes; waits as long as the client takes none.
    pub(crate) async fn send(&mut self, bytes: Bytes) -> io::Result<()> {
        match self {
            Self::Socket(socket) => {
                socket.write_all(&bytes).await?;
                socket.flush().await
            }
            Self::Body(sender) => {
                let sent = sender.send(bytes).await;
                sent.map_err(|_| io::ErrorKind::BrokenPipe.into())
            }
        }
    }

    /// The end, as the client sees it.
    pub(crate) async fn close(mut self) {
        if let Self::Socket(socket) = &mut self {
            // A client that is gone needs no end.
            drop(socket.shutdown().await);
        }
    }
}

/// Answers with a stream, which `serve` is given when the client has the answer.
pub(crate) fn hijack<F>(
    upgrade: Option<OnUpgrade>,
    input: Input,
    kind: &'static str,
    serve: impl FnOnce(Duplex) -> F + Send + 'static,
) -> Reply
where
    F: Future<Output = ()> + Send + 'static,
{
    let Some(upgrade) = upgrade else {
        let (sender, stream) = body::channel();
        tokio::spawn(serve(Duplex {
            input,
            output: Output::Body(sender),
        }));
        return streamed("application/vnd.docker.raw-stream", stream);
    };
    tokio::spawn(async move {
        match upgrade.await {
            Ok(upgraded) => {
                let (read, write) = tokio::io::split(TokioIo::new(upgraded));
                serve(Duplex {
                    input: Input::Socket(read),
                    output: Output::Socket(write),
                })
                .await;
            }
            Err(error) => tracing::debug!(%error, "a client has hung up before its stream began"),
        }
    });
    let mut response = Response::new(body::full(""));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("tcp"));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    Ok(response)
}
