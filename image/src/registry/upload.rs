//! Uploading a blob (distribution-spec v1.1.1 "Pushing blobs"): not at all when it is there, by
//! reference when another repository of the registry has it, in one request when it is small, and
//! otherwise as a stream that goes on where a broken connection ended.

use std::fs::File;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, LOCATION, RANGE};
use reqwest::{Body, Method, RequestBuilder, Response, StatusCode, Url};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use super::connection::Connection;
use super::error::RegistryError;
use super::retry::{Attempts, Failure, with_retries};
use crate::content::ContentStore;
use crate::document::Descriptor;
use crate::error::ImageError;
use crate::progress::{Outcome, Progress, Task};

/// Up to this size a blob goes in one request: it is sent again sooner than asked about.
const MONOLITHIC: u64 = 4 * 1024 * 1024;
/// Chunks for registries that refuse large ones; the smallest that all of them take.
const SMALL_CHUNK: u64 = 5 * 1024 * 1024;
/// What is read from disk at a time.
const BUFFER: usize = 256 * 1024;
/// An attempt that brought so much is no failure in a row.
const PROGRESS: u64 = 1024 * 1024;

/// A blob on its way.
pub(super) struct Upload<'a> {
    pub(super) connection: &'a Connection,
    pub(super) content: &'a ContentStore,
    pub(super) progress: &'a dyn Progress,
    pub(super) blob: &'a Descriptor,
    /// Repositories of the same registry that may have it.
    pub(super) mount_from: Vec<String>,
}

/// Where the next bytes go, and how many are there.
struct Session {
    url: Url,
    offset: u64,
    /// The largest chunk that the registry takes, as far as known.
    chunk: u64,
}

impl Upload<'_> {
    /// Brings the blob there.
    pub(super) async fn run(&self) -> Result<(), ImageError> {
        let digest = &self.blob.digest;
        self.progress
            .begin(Task::Upload, digest, Some(self.blob.size));
        let result = self.bring().await;
        let outcome = *result.as_ref().unwrap_or(&Outcome::Failed);
        self.progress.end(Task::Upload, digest, outcome);
        result.map(drop).map_err(|source| {
            RegistryError::Send {
                what: format!("blob `{digest}`"),
                registry: self.connection.registry().to_owned(),
                source: Box::new(source),
            }
            .into()
        })
    }

    async fn bring(&self) -> Result<Outcome, ImageError> {
        if with_retries(async || self.is_there().await).await? {
            return Ok(Outcome::AlreadyThere);
        }
        let Some(session) = with_retries(async || self.begin().await).await? else {
            return Ok(Outcome::AlreadyThere);
        };
        let file = Arc::new(self.content.open_blob(&self.blob.digest)?);
        self.send(session, &file).await?;
        Ok(Outcome::Done)
    }

    async fn is_there(&self) -> Result<bool, Failure> {
        let path = self.connection.path(&format!("blobs/{}", self.blob.digest));
        let response = self
            .connection
            .ask(Method::HEAD, &path, |request| request)
            .await?;
        match response.status() {
            StatusCode::NOT_FOUND => Ok(false),
            status if status.is_success() => Ok(true),
            status => Err(self.refusal(status, response.headers())),
        }
    }

    /// Begins an upload; `None` when the registry has the blob elsewhere and took it from there.
    async fn begin(&self) -> Result<Option<Session>, Failure> {
        for repository in &self.mount_from {
            let query = format!("?mount={}&from={repository}", self.blob.digest);
            let response = self.post(&query).await?;
            match response.status() {
                StatusCode::CREATED => return Ok(None),
                // It did not, and began an ordinary upload instead.
                StatusCode::ACCEPTED => return self.session(&response, 0).map(Some),
                // Some refuse the parameters instead.
                _ => {}
            }
        }
        let response = self.post("").await?;
        match response.status() {
            status if status.is_success() => self.session(&response, 0).map(Some),
            status => Err(self.refusal(status, response.headers())),
        }
    }

    async fn post(&self, query: &str) -> Result<Response, Failure> {
        let path = self.connection.path(&format!("blobs/uploads/{query}"));
        self.connection
            .ask(Method::POST, &path, |request| {
                request.header(CONTENT_LENGTH, 0)
            })
            .await
    }

    /// The address that the registry wants the rest at: absolute or relative.
    fn session(&self, response: &Response, offset: u64) -> Result<Session, Failure> {
        let url = response
            .headers()
            .get(LOCATION)
            .and_then(|location| location.to_str().ok())
            .and_then(|location| response.url().join(location).ok())
            .ok_or_else(|| {
                let reason = "it begins an upload and does not say where".to_owned();
                self.connection.answer(reason)
            })?;
        if self.connection.uses_tls() && url.scheme() != "https" {
            let reason = "it wants the blob at an address without TLS".to_owned();
            return Err(self.connection.answer(reason).into());
        }
        Ok(Session {
            url,
            offset,
            chunk: u64::MAX,
        })
    }

    /// Sends everything, taking up a broken upload where the registry says it ended.
    async fn send(&self, mut session: Session, file: &Arc<File>) -> Result<(), ImageError> {
        let mut attempts = Attempts::default();
        loop {
            let before = session.offset;
            let failure = match self.send_rest(&mut session, file).await {
                Ok(()) => return Ok(()),
                Err(failure) => failure,
            };
            attempts.wait(failure).await?;
            session = self.resume(session).await?;
            if session.offset >= before + PROGRESS {
                attempts.reset();
            }
        }
    }

    async fn send_rest(&self, session: &mut Session, file: &Arc<File>) -> Result<(), Failure> {
        let size = self.blob.size;
        if session.offset == 0 && size <= MONOLITHIC {
            return self.finish(session, Some(file)).await;
        }
        while session.offset < size {
            let length = session.chunk.min(size - session.offset);
            let (offset, last) = (session.offset, session.offset + length - 1);
            let response = self
                .with_body(
                    Method::PATCH,
                    &session.url,
                    file,
                    offset,
                    length,
                    |request| request.header(CONTENT_RANGE, format!("{offset}-{last}")),
                )
                .await?;
            match response.status() {
                status if status.is_success() => {
                    let chunk = session.chunk;
                    *session = self.session(&response, offset + length)?;
                    session.chunk = chunk;
                }
                // A proxy before the registry bounds the bodies that it passes.
                StatusCode::PAYLOAD_TOO_LARGE if session.chunk > SMALL_CHUNK => {
                    session.chunk = SMALL_CHUNK;
                }
                status => return Err(self.refusal(status, response.headers())),
            }
        }
        self.finish(session, None).await
    }

    /// Says that it was all, with the whole content or without any.
    async fn finish(&self, session: &Session, file: Option<&Arc<File>>) -> Result<(), Failure> {
        let mut url = session.url.clone();
        url.query_pairs_mut()
            .append_pair("digest", &self.blob.digest.to_string());
        let response = match file {
            Some(file) => {
                self.with_body(Method::PUT, &url, file, 0, self.blob.size, |request| {
                    request
                })
                .await?
            }
            None => {
                let prepare = |request: RequestBuilder| request.header(CONTENT_LENGTH, 0);
                self.connection.send_to(&url, Method::PUT, prepare).await?
            }
        };
        match response.status() {
            status if status.is_success() => Ok(()),
            status => Err(self.refusal(status, response.headers())),
        }
    }

    /// Asks how far a broken upload came. One that is no longer known begins anew.
    async fn resume(&self, session: Session) -> Result<Session, ImageError> {
        let status = with_retries(async || {
            let response = self
                .connection
                .send_to(&session.url, Method::GET, |request| request)
                .await?;
            if !response.status().is_success() {
                return Ok(None);
            }
            let offset = received(response.headers());
            let url = response
                .headers()
                .contains_key(LOCATION)
                .then(|| self.session(&response, 0))
                .transpose()?
                .map(|session| session.url);
            Ok(offset.map(|offset| (url, offset)))
        })
        .await?;
        match status {
            Some((url, offset)) if offset <= self.blob.size => Ok(Session {
                url: url.unwrap_or(session.url),
                offset,
                chunk: session.chunk,
            }),
            _ => {
                let response = with_retries(async || self.post("").await).await?;
                let mut fresh = self.session(&response, 0).map_err(Failure::into_error)?;
                fresh.chunk = session.chunk;
                Ok(fresh)
            }
        }
    }

    /// Sends a part of the blob as the body of a request.
    async fn with_body(
        &self,
        method: Method,
        url: &Url,
        file: &Arc<File>,
        offset: u64,
        length: u64,
        prepare: impl Fn(RequestBuilder) -> RequestBuilder,
    ) -> Result<Response, Failure> {
        let (sender, mut sent) = unbounded_channel();
        let exchange = async {
            let sender = sender;
            self.connection
                .send_to(url, method, |request| {
                    prepare(request)
                        .header(CONTENT_TYPE, "application/octet-stream")
                        .header(CONTENT_LENGTH, length)
                        .body(part(Arc::clone(file), offset, length, sender.clone()))
                })
                .await
        };
        let watch = async {
            while let Some(bytes) = sent.recv().await {
                self.progress
                    .advance(Task::Upload, &self.blob.digest, bytes);
            }
        };
        tokio::join!(exchange, watch).0
    }

    fn refusal(&self, status: StatusCode, headers: &HeaderMap) -> Failure {
        let missing = || {
            self.connection
                .answer("it does not know the repository or the upload".to_owned())
        };
        self.connection.refusal(status, headers, missing)
    }
}

/// How many bytes of an upload are there: `Range: 0-<last byte>`.
fn received(headers: &HeaderMap) -> Option<u64> {
    let range = headers.get(RANGE)?.to_str().ok()?;
    let range = range.strip_prefix("bytes=").unwrap_or(range);
    let last: u64 = range.split_once('-')?.1.trim().parse().ok()?;
    // `0-0` is what an upload without any byte says, too; one byte is soon sent again.
    Some(if last == 0 { 0 } else { last + 1 })
}

/// A part of a file as a stream. Reading is from the page cache mostly, and short.
fn part(file: Arc<File>, offset: u64, length: u64, sent: UnboundedSender<u64>) -> Body {
    let state = (file, offset, length, sent);
    let chunks = stream::try_unfold(state, |(file, offset, left, sent)| async move {
        if left == 0 {
            return Ok::<_, io::Error>(None);
        }
        let most = usize::try_from(left).unwrap_or(BUFFER).min(BUFFER);
        let mut buffer = vec![0; most];
        let count = sys::file::read_at(&file, &mut buffer, offset)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        buffer.truncate(count);
        let bytes = count as u64;
        // Nobody counts any more when the request has ended.
        sent.send(bytes).ok();
        let next = (file, offset + bytes, left - bytes, sent);
        Ok(Some((Bytes::from(buffer), next)))
    });
    Body::wrap_stream(chunks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn received_reads_every_form_of_the_range() {
        let of = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(RANGE, text.parse().unwrap());
            received(&headers)
        };
        assert_eq!(of("0-99"), Some(100));
        assert_eq!(of("bytes=0-99"), Some(100));
        assert_eq!(of("0-0"), Some(0));
        assert_eq!(of("0--1"), None);
        assert_eq!(of("all"), None);
        assert_eq!(received(&HeaderMap::new()), None);
    }
}
