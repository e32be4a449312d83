//! Blobs: streamed from the registry into the content store, hashed on the way.

use std::error::Error;
use std::io::{self, Write};
use std::pin::pin;

use futures_util::{Stream, StreamExt, TryStreamExt};
use oci_distribution::RegistryOperation;
use oci_distribution::client::{BlobResponse, SizedStream};
use oci_distribution::errors::{DigestError, OciDistributionError, OciErrorCode};
use oci_distribution::secrets::RegistryAuth;
use reqwest::StatusCode;
use reqwest::header::HeaderMap;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::connection::{Connection, IDLE_TIMEOUT};
use super::error::RegistryError;
use super::retry::{Failure, with_retries};
use crate::content::{BlobWriter, ContentStore};
use crate::document::Descriptor;
use crate::error::ImageError;
use crate::progress::{Outcome, Progress, Task};

/// How many blobs are fetched at a time: more gain little and annoy registries.
const PARALLEL: usize = 3;
/// How many chunks may wait for the disk, per blob. A chunk has some ten kilobytes.
const QUEUE: usize = 16;

/// Fetches those of `blobs` that are not in `content`.
pub(super) async fn fetch_all(
    connection: &Connection<'_>,
    content: &ContentStore,
    blobs: &[Descriptor],
    progress: &dyn Progress,
) -> Result<(), ImageError> {
    let mut missing = Vec::new();
    for blob in blobs {
        if content.has(&blob.digest) {
            progress.begin(Task::Download, &blob.digest, Some(blob.size));
            progress.end(Task::Download, &blob.digest, Outcome::AlreadyThere);
        } else {
            missing.push(blob);
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let source = Source::open(connection, content, progress).await?;
    futures_util::stream::iter(missing)
        .map(|blob| source.fetch(blob))
        .buffer_unordered(PARALLEL)
        .try_collect::<()>()
        .await
}

/// Where the blobs of one image come from and go to.
struct Source<'a> {
    connection: &'a Connection<'a>,
    content: &'a ContentStore,
    progress: &'a dyn Progress,
    client: oci_distribution::Client,
    repository: oci_distribution::Reference,
}

impl<'a> Source<'a> {
    async fn open(
        connection: &'a Connection<'a>,
        content: &'a ContentStore,
        progress: &'a dyn Progress,
    ) -> Result<Self, ImageError> {
        let config = connection.blob_client_config()?;
        let client = oci_distribution::Client::try_from(config).map_err(|source| {
            RegistryError::Prepare {
                registry: connection.registry().to_owned(),
                source: source.into(),
            }
        })?;
        let source = Self {
            connection,
            content,
            progress,
            client,
            repository: connection.blob_repository(),
        };
        source.authorize().await;
        Ok(source)
    }

    /// Passes the connection's authorization on. The client must know credentials to look for a
    /// token; it gets none, so that it never asks a token service itself.
    async fn authorize(&self) {
        let Some(authorization) = self.connection.authorization() else {
            return;
        };
        let token = authorization.for_blob_client();
        let auth = match &token {
            // For tokens that the client does not want to keep: their form is not its own.
            oci_distribution::token_cache::RegistryTokenType::Bearer(token) => {
                RegistryAuth::Bearer(token.token().to_owned())
            }
            oci_distribution::token_cache::RegistryTokenType::Basic(..) => RegistryAuth::Anonymous,
        };
        self.client
            .store_auth_if_needed(self.repository.resolve_registry(), &auth)
            .await;
        self.client
            .tokens
            .insert(&self.repository, RegistryOperation::Pull, token)
            .await;
    }

    async fn fetch(&self, blob: &Descriptor) -> Result<(), ImageError> {
        let result = with_retries(async || self.attempt(blob).await).await;
        let outcome = match &result {
            Ok(()) => Outcome::Done,
            Err(_) => Outcome::Failed,
        };
        self.progress.end(Task::Download, &blob.digest, outcome);
        result
    }

    async fn attempt(&self, blob: &Descriptor) -> Result<(), Failure> {
        let failed = |source| {
            self.connection
                .fetch_failed(format!("blob `{}`", blob.digest), source)
        };
        self.progress
            .begin(Task::Download, &blob.digest, Some(blob.size));
        let mut writer = self
            .content
            .writer(Some(&blob.digest), Some(blob.size))
            .map_err(failed)?;
        // There is no range in an empty blob that could be asked for, and nothing to fetch.
        if blob.size > 0 {
            let body = self.open_stream(blob).await?;
            writer = self.copy(body, writer, blob).await?;
        }
        spawn_blocking(move || writer.finish())
            .await
            .map_err(|error| failed(write_failed(io::Error::other(error))))?
            .map_err(failed)?;
        Ok(())
    }

    /// The whole blob as a stream. It is asked for as the range that begins at its first byte: the
    /// client then leaves hashing to the writer, which does it anyway; and a range from where an
    /// earlier attempt ended would be the same request.
    async fn open_stream(&self, blob: &Descriptor) -> Result<SizedStream, Failure> {
        let mut answer = self.request(blob).await?;
        if let Err(OciDistributionError::UnauthorizedError { .. }) = answer {
            self.connection.renew().await?;
            self.authorize().await;
            answer = self.request(blob).await?;
        }
        match answer {
            Ok(BlobResponse::Full(stream) | BlobResponse::Partial(stream)) => Ok(stream),
            Err(error) => Err(self.refusal(error, blob)),
        }
    }

    async fn request(
        &self,
        blob: &Descriptor,
    ) -> Result<Result<BlobResponse, OciDistributionError>, Failure> {
        let digest = blob.digest.to_string();
        let request =
            self.client
                .pull_blob_stream_partial(&self.repository, digest.as_str(), 0, None);
        // The client reads the text of a refusal to its end: that, too, must come to one.
        timeout(IDLE_TIMEOUT, request).await.map_err(|_| {
            self.connection
                .answer("it is not complete in time".to_owned())
                .into()
        })
    }

    async fn copy(
        &self,
        body: SizedStream,
        writer: BlobWriter,
        blob: &Descriptor,
    ) -> Result<BlobWriter, Failure> {
        let failed = |source| {
            self.connection
                .fetch_failed(format!("blob `{}`", blob.digest), source)
        };
        if let Some(actual) = body.content_length
            && actual > blob.size
        {
            let expected = blob.size;
            return Err(failed(ImageError::SizeMismatch { expected, actual }).into());
        }
        let (writer, end) = stream_into(writer, body.stream, |bytes| {
            self.progress.advance(Task::Download, &blob.digest, bytes);
        })
        .await;
        let writer = writer.map_err(|error| failed(write_failed(error)))?;
        if writer.written() == blob.size {
            return Ok(writer);
        }
        tracing::debug!(digest = %blob.digest, ?end, "a blob ended early");
        let error = RegistryError::Truncated {
            registry: self.connection.registry().to_owned(),
            digest: blob.digest,
            expected: blob.size,
            actual: writer.written(),
        };
        Err(Failure::Transient {
            error: error.into(),
            after: None,
        })
    }

    /// What the client's error means. It keeps no headers of a refusal, so a `Retry-After` of a
    /// blob is not known.
    fn refusal(&self, error: OciDistributionError, blob: &Descriptor) -> Failure {
        let missing = || RegistryError::BlobNotFound {
            digest: blob.digest,
            registry: self.connection.registry().to_owned(),
        };
        let by_status = |status| self.connection.refusal(status, &HeaderMap::new(), missing);
        match error {
            OciDistributionError::RequestError(error) => self.connection.no_answer(&error),
            OciDistributionError::UnauthorizedError { .. } => self.connection.denied().into(),
            OciDistributionError::ServerError { code, .. } => {
                by_status(StatusCode::from_u16(code).unwrap_or(StatusCode::BAD_GATEWAY))
            }
            OciDistributionError::RegistryError { envelope, .. } => {
                let code = envelope.errors.first().map(|error| &error.code);
                by_status(match code {
                    Some(OciErrorCode::Denied | OciErrorCode::Unauthorized) => {
                        StatusCode::FORBIDDEN
                    }
                    Some(OciErrorCode::Toomanyrequests) => StatusCode::TOO_MANY_REQUESTS,
                    Some(
                        OciErrorCode::BlobUnknown
                        | OciErrorCode::NameUnknown
                        | OciErrorCode::NotFound
                        | OciErrorCode::ManifestUnknown,
                    ) => StatusCode::NOT_FOUND,
                    _ => StatusCode::BAD_REQUEST,
                })
            }
            error => self
                .connection
                .answer(super::error::quote(&error.to_string()))
                .into(),
        }
    }
}

fn write_failed(error: io::Error) -> ImageError {
    // The writer's own refusals travel inside.
    error
        .downcast::<ImageError>()
        .unwrap_or_else(|source| ImageError::WriteStream {
            what: "the blob",
            source,
        })
}

/// Writes what comes, on another thread, so that several blobs are hashed at a time. Gives the
/// writer back with what it holds, and how the stream ended.
async fn stream_into<B: AsRef<[u8]> + Send + 'static>(
    mut writer: BlobWriter,
    stream: impl Stream<Item = io::Result<B>>,
    advance: impl Fn(u64),
) -> (io::Result<BlobWriter>, io::Result<()>) {
    let (sender, mut receiver) = mpsc::channel::<B>(QUEUE);
    let sink = spawn_blocking(move || {
        while let Some(chunk) = receiver.blocking_recv() {
            writer.write_all(chunk.as_ref())?;
        }
        Ok(writer)
    });
    let mut stream = pin!(stream);
    let end = loop {
        match stream.next().await {
            Some(Ok(chunk)) => {
                let bytes = chunk.as_ref().len() as u64;
                if sender.send(chunk).await.is_err() {
                    // The writer failed, and says so below.
                    break Ok(());
                }
                advance(bytes);
            }
            // The client hashed, too: it is the end, and our own hash decides.
            Some(Err(error)) if is_digest_error(&error) => break Ok(()),
            Some(Err(error)) => break Err(error),
            None => break Ok(()),
        }
    };
    drop(sender);
    let writer = sink.await.map_err(io::Error::other).flatten();
    (writer, end)
}

fn is_digest_error(error: &io::Error) -> bool {
    error
        .get_ref()
        .is_some_and(<dyn Error + Send + Sync>::is::<DigestError>)
}
