//! The daemon calls: a client's session, where the one who connected serves.

use std::future::poll_fn;

use bytes::Bytes;
use h2::SendStream;
use h2::client::{Connection, ResponseFuture, SendRequest};
use http::header::{CONTENT_TYPE as TYPE, HeaderName, HeaderValue, TE};
use http::{Method, Request};
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite};

use super::message::{Incoming, decode, framed, send};
use super::status::{Code, Status};
use super::{CONNECTION_WINDOW, CONTENT_TYPE, MAX_HEADERS, SMALL_FRAMES, STREAM_WINDOW};

/// Who is called.
#[derive(Clone)]
pub(crate) struct Peer {
    requests: SendRequest<Bytes>,
}

/// A call that runs.
pub(crate) struct Exchange {
    out: Outgoing,
    back: Answers,
}

/// What goes to the other side of a call.
pub(crate) struct Outgoing(SendStream<Bytes>);

/// What comes back.
pub(crate) enum Answers {
    /// The head of the answer has not come.
    Waiting(ResponseFuture),
    /// Messages.
    Incoming(Incoming),
    /// Nothing any more.
    Ended,
}

impl Peer {
    /// Begins HTTP/2 on a connection. The second part moves it and must be polled until it ends.
    pub(crate) async fn connect<S>(io: S) -> Result<(Self, Connection<S, Bytes>), h2::Error>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let (requests, connection) = h2::client::Builder::new()
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .data_frame_budget(SMALL_FRAMES)
            .max_header_list_size(MAX_HEADERS)
            .enable_push(false)
            .handshake(io)
            .await?;
        Ok((Self { requests }, connection))
    }

    /// Begins a call of `path` with metadata.
    pub(crate) async fn call(
        &self,
        path: &str,
        metadata: &[(String, String)],
    ) -> Result<Exchange, Status> {
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(format!("http://localhost{path}"))
            .version(http::Version::HTTP_2)
            .body(())
            .map_err(|error| Status::internal(format!("cannot call {path}: {error}")))?;
        let headers = request.headers_mut();
        headers.insert(TYPE, HeaderValue::from_static(CONTENT_TYPE));
        headers.insert(TE, HeaderValue::from_static("trailers"));
        for (name, value) in metadata {
            let wrong = || Status::invalid(format!("`{name}: {value}` is no metadata"));
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong())?;
            let value = HeaderValue::from_str(value).map_err(|_| wrong())?;
            headers.append(name, value);
        }
        let mut requests = self.requests.clone().ready().await?;
        let (response, out) = requests.send_request(request, false)?;
        Ok(Exchange {
            out: Outgoing(out),
            back: Answers::Waiting(response),
        })
    }

    /// A call with one message in each direction.
    pub(crate) async fn ask<A: Message + Default>(
        &self,
        path: &str,
        question: &impl Message,
    ) -> Result<A, Status> {
        let mut exchange = self.call(path, &[]).await?;
        exchange.send(question).await?;
        // Whether it could be closed is in what comes back: the other side may have ended the call.
        drop(exchange.close());
        let answer = exchange.next().await?;
        let answer = answer.ok_or_else(|| Status::internal("the answer has no message"))?;
        // The status that follows counts.
        while exchange.next().await?.is_some() {}
        decode(answer)
    }
}

impl Exchange {
    /// Both directions, for two tasks.
    pub(crate) fn split(self) -> (Outgoing, Answers) {
        (self.out, self.back)
    }

    /// Sends a message.
    pub(crate) async fn send(&mut self, message: &impl Message) -> Result<(), Status> {
        match self.out.send(message).await {
            Ok(()) => Ok(()),
            // Why the other side wants no more is in its status.
            Err(error) => Err(self.failure().await.unwrap_or(error)),
        }
    }

    async fn failure(&mut self) -> Option<Status> {
        loop {
            match self.next().await {
                Ok(Some(_)) => {}
                Ok(None) => return None,
                Err(status) => return Some(status),
            }
        }
    }

    /// Nothing more will be sent.
    pub(crate) fn close(&mut self) -> Result<(), Status> {
        self.out.close()
    }

    /// The next message of the answer; `None` when the call has ended well.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Status> {
        self.back.next().await
    }
}

impl Outgoing {
    /// Sends a message.
    pub(crate) async fn send(&mut self, message: &impl Message) -> Result<(), Status> {
        send(&mut self.0, framed(message)).await
    }

    /// Nothing more will be sent.
    pub(crate) fn close(&mut self) -> Result<(), Status> {
        Ok(self.0.send_data(Bytes::new(), true)?)
    }
}

impl Answers {
    /// The next message; `None` when the call has ended well.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Status> {
        if let Self::Waiting(response) = self {
            let response =
                poll_fn(|context| std::pin::Pin::new(&mut *response).poll(context)).await?;
            let (head, body) = response.into_parts();
            if let Some(result) = Status::read(&head.headers) {
                *self = Self::Ended;
                return result.map(|()| None);
            }
            if head.status != http::StatusCode::OK {
                *self = Self::Ended;
                let text = format!("the session answered with HTTP status {}", head.status);
                return Err(Status::new(Code::Unavailable, text));
            }
            *self = Self::Incoming(Incoming::new(body));
        }
        let Self::Incoming(incoming) = self else {
            return Ok(None);
        };
        if let Some(message) = incoming.next().await? {
            return Ok(Some(message));
        }
        let trailers = incoming.trailers().await?;
        *self = Self::Ended;
        let result = trailers.as_ref().and_then(Status::read);
        result
            .unwrap_or_else(|| Err(Status::internal("the call ended without a status")))
            .map(|()| None)
    }
}
