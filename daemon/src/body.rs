//! Bodies of requests and responses: bounded, and passed in pieces between the connection and
//! threads that block.

use std::io::{self, Read, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake};

use bytes::{Buf, Bytes};
use http_body::{Body, Frame};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use serde_json::Value;
use tokio::sync::mpsc;

use crate::error::ApiError;

/// The body of a response.
pub(crate) type ResponseBody = UnsyncBoxBody<Bytes, io::Error>;

/// The largest document that is read.
const MAX_DOCUMENT: usize = 4 << 20;

/// How many pieces wait between a connection and a thread: a slow side stops the other.
const PIECES: usize = 4;

/// How large a piece gets.
const PIECE: usize = 64 * 1024;

/// A body that is known whole.
pub(crate) fn full(bytes: impl Into<Bytes>) -> ResponseBody {
    Full::new(bytes.into())
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// A body that comes piece by piece.
pub(crate) fn channel() -> (mpsc::Sender<Bytes>, ResponseBody) {
    let (sender, receiver) = mpsc::channel(PIECES);
    (sender, Pieces(receiver).boxed_unsync())
}

struct Pieces(mpsc::Receiver<Bytes>);

impl Body for Pieces {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        self.0
            .poll_recv(context)
            .map(|piece| piece.map(|bytes| Ok(Frame::data(bytes))))
    }
}

/// Writes a response's body from a thread that may block. A client that is gone is a broken pipe.
#[derive(Debug)]
pub(crate) struct BodyWriter {
    sender: mpsc::Sender<Bytes>,
    buffer: Vec<u8>,
}

impl BodyWriter {
    pub(crate) fn new(sender: mpsc::Sender<Bytes>) -> Self {
        Self {
            sender,
            buffer: Vec::new(),
        }
    }

    /// Whether nobody reads any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }
}

impl Write for BodyWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= PIECE {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let piece = Bytes::from(std::mem::take(&mut self.buffer));
        wait(self.sender.send(piece)).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// Wakes a thread.
struct Thread(std::thread::Thread);

impl Wake for Thread {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits for something of the daemon's runtime in a thread that may block. What pushes an image tells of
/// its progress from within a runtime of its own, where that runtime's way to wait is a panic.
fn wait<F: Future>(future: F) -> F::Output {
    let waker = Arc::new(Thread(std::thread::current())).into();
    let mut context = Context::from_waker(&waker);
    // A budget of the other runtime's would never be refilled here.
    let mut future = std::pin::pin!(tokio::task::unconstrained(future));
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(value) => return value,
            Poll::Pending => std::thread::park(),
        }
    }
}

/// Reads a request's body in a thread that may block.
#[derive(Debug)]
pub(crate) struct BodyReader {
    receiver: mpsc::Receiver<io::Result<Bytes>>,
    current: Bytes,
}

impl BodyReader {
    /// Reads on as long as somebody takes it.
    pub(crate) fn new(mut body: Incoming) -> Self {
        let (sender, receiver) = mpsc::channel(PIECES);
        tokio::spawn(async move {
            while let Some(frame) = body.frame().await {
                let piece = match frame {
                    Ok(frame) => frame.into_data().map(Ok).unwrap_or(Ok(Bytes::new())),
                    Err(error) => Err(io::Error::other(error)),
                };
                if sender.send(piece).await.is_err() {
                    return;
                }
            }
        });
        Self {
            receiver,
            current: Bytes::new(),
        }
    }
}

impl Read for BodyReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match wait(self.receiver.recv()) {
                Some(piece) => self.current = piece?,
                None => return Ok(0),
            }
        }
        let length = self.current.len().min(buffer.len());
        if let Some(target) = buffer.get_mut(..length) {
            self.current.copy_to_slice(target);
        }
        Ok(length)
    }
}

/// Reads a document; `None` for an empty body. Fields that are `null` are left out: Go's programs
/// write them for what is absent.
pub(crate) async fn document(body: Incoming) -> Result<Option<Value>, ApiError> {
    let read = Limited::new(body, MAX_DOCUMENT).collect().await;
    let bytes = read
        .map_err(|_| ApiError::bad("the request's body cannot be read, or is larger than 4 MiB"))?
        .to_bytes();
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok(None);
    }
    let mut value: Value = serde_json::from_slice(&bytes)
        .map_err(|error| ApiError::bad(format!("invalid JSON: {error}")))?;
    drop_nulls(&mut value);
    Ok(Some(value))
}

pub(crate) fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, field| !field.is_null());
            fields.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn body_is_written_from_within_another_runtime() {
        let runtime = || {
            tokio::runtime::Builder::new_current_thread()
                .build()
                .unwrap()
        };
        let (sender, mut receiver) = mpsc::channel(1);
        let writing = std::thread::spawn(move || {
            runtime().block_on(async {
                let mut writer = BodyWriter::new(sender);
                // More than the channel takes at once, and more than a task's budget.
                for _ in 0..500 {
                    writer.write_all(b"x").unwrap();
                    writer.flush().unwrap();
                }
            });
        });
        let mut count = 0;
        while runtime().block_on(receiver.recv()).is_some() {
            count += 1;
        }
        writing.join().unwrap();
        assert_eq!(count, 500);
    }
}
