//! The daemon answers calls on one connection. Each call is a task; all end with the connection.

use bytes::Bytes;
use h2::SendStream;
use h2::server::SendResponse;
use http::{HeaderMap, Request, Response};
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;

use super::message::{Incoming, framed, send};
use super::status::{Code, Status};
use super::{CONNECTION_WINDOW, CONTENT_TYPE, MAX_CALLS, MAX_HEADERS, SMALL_FRAMES, STREAM_WINDOW};

/// A call.
pub(crate) struct Call {
    /// `/package.Service/Method`.
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) messages: Incoming,
}

/// How a call is answered.
pub(crate) enum Answer {
    /// By one message.
    One(Bytes),
    /// What was to be sent has been sent.
    Streamed,
}

impl Answer {
    pub(crate) fn of(message: &impl Message) -> Self {
        Self::One(framed(message))
    }
}

/// Sends messages of an answer that is a stream.
pub(crate) struct Replies {
    respond: SendResponse<Bytes>,
    stream: Option<SendStream<Bytes>>,
}

impl Replies {
    /// One more message.
    pub(crate) async fn send(&mut self, message: &impl Message) -> Result<(), Status> {
        self.send_bytes(framed(message)).await
    }

    /// The head of the answer alone: who waits for it goes on.
    pub(crate) fn begin(&mut self) -> Result<(), Status> {
        self.stream().map(|_| ())
    }

    async fn send_bytes(&mut self, bytes: Bytes) -> Result<(), Status> {
        send(self.stream()?, bytes).await
    }

    fn stream(&mut self) -> Result<&mut SendStream<Bytes>, Status> {
        if self.stream.is_none() {
            self.stream = Some(self.respond.send_response(head(), false)?);
        }
        self.stream
            .as_mut()
            .ok_or_else(|| Status::internal("the answer has no stream"))
    }

    /// Sends the status; with nothing before it, as the only head.
    fn end(mut self, result: Result<(), &Status>) -> Result<(), Status> {
        let trailers = Status::trailers(result);
        match self.stream {
            Some(mut stream) => Ok(stream.send_trailers(trailers)?),
            None => {
                let mut head = head();
                head.headers_mut().extend(trailers);
                self.respond.send_response(head, true)?;
                Ok(())
            }
        }
    }
}

fn head() -> Response<()> {
    let mut response = Response::new(());
    let value = http::header::HeaderValue::from_static(CONTENT_TYPE);
    response
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, value);
    response
}

/// Answers the calls of one connection until it ends.
pub(crate) async fn serve<S, H, F>(io: S, answer: H) -> Result<(), h2::Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
    H: Fn(Call, Replies) -> F,
    F: Future<Output = (Replies, Result<Answer, Status>)> + Send + 'static,
{
    let mut connection = h2::server::Builder::new()
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .data_frame_budget(SMALL_FRAMES)
        .max_header_list_size(MAX_HEADERS)
        .max_concurrent_streams(MAX_CALLS)
        .handshake(io)
        .await?;
    // Dropped with this function: no call outlives its connection.
    let mut calls = JoinSet::new();
    while let Some(accepted) = connection.accept().await {
        while calls.try_join_next().is_some() {}
        let (request, respond) = accepted?;
        let replies = Replies {
            respond,
            stream: None,
        };
        match call_of(request) {
            Ok(call) => {
                calls.spawn(finish(answer(call, replies)));
            }
            // Who asks wrongly may be gone already.
            Err(status) => drop(replies.end(Err(&status))),
        }
    }
    Ok(())
}

fn call_of(request: Request<h2::RecvStream>) -> Result<Call, Status> {
    let (head, body) = request.into_parts();
    let kind = head
        .headers
        .get(http::header::CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok());
    if !kind.is_some_and(|kind| kind.starts_with(CONTENT_TYPE)) {
        return Err(Status::invalid("the call is no gRPC"));
    }
    Ok(Call {
        path: head.uri.path().to_owned(),
        headers: head.headers,
        messages: Incoming::new(body),
    })
}

/// Waits for an answer and sends it, or stops working when the caller takes the call back.
async fn finish(answer: impl Future<Output = (Replies, Result<Answer, Status>)>) {
    let (mut replies, answer) = answer.await;
    let sent = match answer {
        Ok(Answer::One(bytes)) => replies.send_bytes(bytes).await,
        Ok(Answer::Streamed) => replies.begin(),
        Err(status) => Err(status),
    };
    if let Err(error) = replies.end(sent.as_ref().copied()) {
        tracing::debug!(%error, "a call's answer was not taken");
    }
}

impl Replies {
    /// Runs `work`; when the caller takes the call back it is dropped.
    pub(crate) async fn unless_cancelled<T>(
        &mut self,
        work: impl Future<Output = Result<T, Status>>,
    ) -> Result<T, Status> {
        let respond = &mut self.respond;
        let reset = std::future::poll_fn(|context| respond.poll_reset(context));
        // The work is dropped on purpose: what it holds ends what it has begun.
        tokio::select! {
            result = work => result,
            _ = reset => Err(Status::new(Code::Cancelled, "the caller has taken the call back")),
        }
    }
}
