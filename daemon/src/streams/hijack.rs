//! A request's connection becomes a stream in both directions: with `Upgrade: tcp` the connection
//! itself, else the bodies of request and response.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, HeaderValue, UPGRADE};
use http::{Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::mpsc;
use tokio_rustls::server::TlsStream;

use crate::body;
use crate::call::{Reply, streamed};

/// How much is read at once.
const BUFFER: usize = 32 * 1024;

/// How long a client may take to close its side after the end.
const LINGER: Duration = Duration::from_secs(2);

/// A connection that is no HTTP any more.
type Connection = Box<dyn Stream>;

/// Bytes in both directions.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// How long a client may take to read the head of an answer before its stream begins all the same.
const HEAD_PATIENCE: Duration = Duration::from_millis(200);

/// The kernel tells nobody when the other side has read.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// Both directions.
pub(crate) struct Duplex {
    pub(crate) input: Input,
    pub(crate) output: Output,
}

/// What the client sends.
pub(crate) enum Input {
    /// What was read with the request comes first.
    Socket(Bytes, ReadHalf<Connection>),
    Body(Incoming),
    /// The request's body was its document.
    None,
}

/// What goes to the client.
pub(crate) enum Output {
    Socket(WriteHalf<Connection>),
    Body(mpsc::Sender<Bytes>),
}

impl Input {
    /// The next bytes; `None` at the end, which may be that of the client's sending alone.
    pub(crate) async fn next(&mut self) -> Option<Bytes> {
        match self {
            Self::None => None,
            Self::Socket(first, _) if !first.is_empty() => Some(std::mem::take(first)),
            Self::Socket(_, socket) => {
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

impl Duplex {
    /// Ends the stream. What the client has sent and nobody wanted is read first: else the system
    /// tells it that the connection was broken.
    pub(crate) async fn end(self) {
        let Self { mut input, output } = self;
        output.close().await;
        let rest = async { while input.next().await.is_some() {} };
        // A client that never closes is not waited for.
        drop(tokio::time::timeout(LINGER, rest).await);
    }
}

/// The connection below HTTP, when the client has read the answer's head. Clients that read the head
/// with a buffer of their own lose what comes with it: docker-py does.
async fn connection(upgraded: Upgraded) -> (Bytes, Connection) {
    let upgraded = match upgraded.downcast::<TokioIo<UnixStream>>() {
        Ok(parts) => {
            let stream = parts.io.into_inner();
            head_is_read(&stream).await;
            return (parts.read_buf, Box::new(stream));
        }
        Err(upgraded) => upgraded,
    };
    let upgraded = match upgraded.downcast::<TokioIo<TcpStream>>() {
        Ok(parts) => {
            let stream = parts.io.into_inner();
            head_is_read(&stream).await;
            return (parts.read_buf, Box::new(stream));
        }
        Err(upgraded) => upgraded,
    };
    match upgraded.downcast::<TokioIo<TlsStream<TcpStream>>>() {
        Ok(parts) => {
            let stream = parts.io.into_inner();
            head_is_read(stream.get_ref().0).await;
            (parts.read_buf, Box::new(stream))
        }
        Err(upgraded) => (Bytes::new(), Box::new(TokioIo::new(upgraded))),
    }
}

/// Waits until the other side has taken everything, or takes too long.
async fn head_is_read(stream: &impl AsFd) {
    let begun = Instant::now();
    while begun.elapsed() < HEAD_PATIENCE
        && sys::socket::unread_by_peer(stream.as_fd()).is_ok_and(|bytes| bytes > 0)
    {
        tokio::time::sleep(LOOK_AGAIN).await;
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
                let (first, connection) = connection(upgraded).await;
                let (read, write) = tokio::io::split(connection);
                serve(Duplex {
                    input: Input::Socket(first, read),
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
