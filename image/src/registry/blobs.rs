//! Blobs: streamed from a registry into the content store, hashed on the way, and unpacked beside
//! that when they are layers.
//!
//! ```text
//! network ─ chunks ─▶ hash, write `<hex>.part` ─▶ read ─▶ inflate ─▶ hash, walk, write files
//!  (one thread)        (a thread a blob)           (two threads a layer, two layers at once)
//! ```
//! The file is the queue between download and unpacking: the network never waits for the disk's
//! tree, a cut-off download is taken up by both, and memory stays at some buffers a layer.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::thread::Scope;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt};
use reqwest::header::{CONTENT_RANGE, RANGE};
use reqwest::{Method, Response, StatusCode};
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::connection::Connection;
use super::error::RegistryError;
use super::retry::{Attempts, Failure};
use crate::content::{Begin, ContentStore, PartialBlob, VerifiedBlob};
use crate::digest::{DiffId, Digest};
use crate::document::Descriptor;
use crate::error::ImageError;
use crate::layers::{self, LayerStore, StagedLayer};
use crate::progress::{Outcome, Progress, Task};

/// How many blobs are fetched at a time: more gain little and annoy registries.
const PARALLEL: usize = 3;
/// How many chunks may wait for the disk, per blob. A chunk has some ten kilobytes.
const QUEUE: usize = 16;
/// An attempt that brought so much is no failure in a row: large blobs come over bad lines, too.
const PROGRESS: u64 = 1024 * 1024;
/// How often a blob is looked for that another ketch fetches.
const BUSY_INTERVAL: Duration = Duration::from_millis(50);

/// Where blobs come from and go to.
pub(super) struct Transfer<'scope, 'env> {
    pub(super) scope: &'scope Scope<'scope, 'env>,
    /// The one that gave the manifest, then those that are asked when it fails.
    pub(super) connections: &'env [Connection],
    pub(super) content: &'env ContentStore,
    pub(super) layers: Option<&'env LayerStore>,
    pub(super) progress: &'env dyn Progress,
    unpackers: Semaphore,
}

impl<'scope, 'env> Transfer<'scope, 'env> {
    pub(super) fn new(
        scope: &'scope Scope<'scope, 'env>,
        connections: &'env [Connection],
        content: &'env ContentStore,
        layers: Option<&'env LayerStore>,
        progress: &'env dyn Progress,
    ) -> Self {
        Self {
            scope,
            connections,
            content,
            layers,
            progress,
            unpackers: Semaphore::new(layers::PARALLEL),
        }
    }

    /// Fetches those of `blobs` that are not there, and unpacks those that `diff_ids` names.
    pub(super) async fn fetch_all(
        &self,
        blobs: &[Descriptor],
        diff_ids: &BTreeMap<Digest, DiffId>,
    ) -> Result<(), ImageError> {
        let mut missing = Vec::new();
        for blob in blobs {
            let diff_id = diff_ids.get(&blob.digest).copied();
            let is_unpacked = self.is_unpacked(diff_id)?;
            if self.content.has(&blob.digest) {
                self.progress
                    .begin(Task::Download, &blob.digest, Some(blob.size));
                self.progress
                    .end(Task::Download, &blob.digest, Outcome::AlreadyThere);
                if is_unpacked {
                    continue;
                }
            }
            missing.push((blob, diff_id.filter(|_| !is_unpacked)));
        }
        // The largest first, so that none is left alone at the end.
        missing.sort_by_key(|(blob, _)| std::cmp::Reverse(blob.size));
        futures_util::stream::iter(missing)
            .map(|(blob, diff_id)| self.fetch(blob, diff_id))
            .buffer_unordered(PARALLEL)
            .try_collect::<()>()
            .await
    }

    fn is_unpacked(&self, diff_id: Option<DiffId>) -> Result<bool, ImageError> {
        match (self.layers, diff_id) {
            (Some(layers), Some(diff_id)) => Ok(layers.record(&diff_id)?.is_some()),
            _ => Ok(true),
        }
    }

    async fn fetch(&self, blob: &Descriptor, diff_id: Option<DiffId>) -> Result<(), ImageError> {
        if self.content.has(&blob.digest) {
            return self.unpack_stored(blob, diff_id).await;
        }
        let result = self.fetch_new(blob, diff_id).await;
        let outcome = match &result {
            Ok(()) => Outcome::Done,
            Err(_) => Outcome::Failed,
        };
        self.progress.end(Task::Download, &blob.digest, outcome);
        result
    }

    async fn fetch_new(
        &self,
        blob: &Descriptor,
        diff_id: Option<DiffId>,
    ) -> Result<(), ImageError> {
        self.progress
            .begin(Task::Download, &blob.digest, Some(blob.size));
        let Some(partial) = self.begin(blob).await? else {
            return self.unpack_stored(blob, diff_id).await;
        };
        let resumed = partial.written();
        if resumed > 0 {
            self.progress.advance(Task::Download, &blob.digest, resumed);
        }
        match self.download_and_unpack(partial, blob, diff_id).await {
            // What lay here may have been damaged by a power cut: once more, from its first byte.
            Err(error) if resumed > 0 && is_wrong_digest(&error) => {
                tracing::debug!(digest = %blob.digest, "the beginning of a blob was damaged");
                let Some(partial) = self.begin(blob).await? else {
                    return self.unpack_stored(blob, diff_id).await;
                };
                self.download_and_unpack(partial, blob, diff_id).await
            }
            result => result,
        }
    }

    /// Takes up the blob; `None` when it is there by now.
    async fn begin(&self, blob: &Descriptor) -> Result<Option<Box<PartialBlob>>, ImageError> {
        loop {
            let (content, digest, size) = (self.content.clone(), blob.digest, blob.size);
            let begin = self
                .on_thread(move || PartialBlob::begin(&content, &digest, size))
                .await?;
            match begin {
                Begin::AlreadyThere => return Ok(None),
                Begin::Fetch(partial) => return Ok(Some(partial)),
                Begin::Busy => tokio::time::sleep(BUSY_INTERVAL).await,
            }
        }
    }

    async fn download_and_unpack(
        &self,
        partial: Box<PartialBlob>,
        blob: &Descriptor,
        diff_id: Option<DiffId>,
    ) -> Result<(), ImageError> {
        let (Some(layers), Some(diff_id)) = (self.layers, diff_id) else {
            let verified = self.download(partial, blob).await?;
            return self
                .on_thread(move || {
                    verified.sync()?;
                    verified.publish().map(drop)
                })
                .await;
        };
        let reader = partial.reader()?;
        let (verified, staged) = tokio::join!(
            self.download(partial, blob),
            self.stage(layers, reader, blob, diff_id)
        );
        // When the download fails, so does the unpacking, and the download says why.
        let (verified, staged) = (verified?, staged?);
        self.on_thread(move || {
            // One barrier for the blob and for all files of the layer.
            staged.sync()?;
            verified.publish()?;
            layers.publish(&staged).map(drop)
        })
        .await
    }

    /// Unpacks a blob that is in the content store.
    async fn unpack_stored(
        &self,
        blob: &Descriptor,
        diff_id: Option<DiffId>,
    ) -> Result<(), ImageError> {
        let (Some(layers), Some(diff_id)) = (self.layers, diff_id) else {
            return Ok(());
        };
        let file = self.content.open_blob(&blob.digest)?;
        let staged = self.stage(layers, file, blob, diff_id).await?;
        self.on_thread(move || {
            staged.sync()?;
            layers.publish(&staged).map(drop)
        })
        .await
    }

    async fn stage(
        &self,
        layers: &'env LayerStore,
        reader: impl io::Read + Send + 'scope,
        blob: &Descriptor,
        diff_id: DiffId,
    ) -> Result<StagedLayer, ImageError> {
        // Never closed, so there is always a permit to come.
        let _permit = self.unpackers.acquire().await.ok();
        let (progress, digest, size) = (self.progress, blob.digest, blob.size);
        self.on_thread(move || {
            progress.begin(Task::Unpack, &digest, Some(size));
            let advance = |bytes| progress.advance(Task::Unpack, &digest, bytes);
            let staged = layers.stage(reader, Some(diff_id), &advance);
            let outcome = match &staged {
                Ok(_) => Outcome::Done,
                Err(_) => Outcome::Failed,
            };
            progress.end(Task::Unpack, &digest, outcome);
            staged.map_err(|error| ImageError::Unpack {
                layer: diff_id,
                source: Box::new(error),
            })
        })
        .await
    }

    /// Downloads what is missing of the blob, from the first place that has it.
    async fn download(
        &self,
        partial: Box<PartialBlob>,
        blob: &Descriptor,
    ) -> Result<VerifiedBlob, ImageError> {
        let waiting = partial.waiting_readers();
        let mut partial = Some(partial);
        let mut first = None;
        for connection in self.connections {
            match self.download_from(connection, &mut partial, blob).await {
                Ok(()) => {
                    first = None;
                    break;
                }
                Err(error) => {
                    tracing::debug!(%error, registry = connection.registry(), "looking elsewhere");
                    first = first.or(Some(error));
                }
            }
            if partial.is_none() {
                break;
            }
        }
        let partial = match (first, partial) {
            (None, Some(partial)) => partial,
            (Some(error), _) => return Err(error),
            (None, None) => return Err(ImageError::BlobMissing(blob.digest)),
        };
        let failed = self.failed(blob);
        let verified = self.on_thread(move || partial.verify()).await;
        drop(waiting);
        verified.map_err(failed)
    }

    fn failed(&self, blob: &Descriptor) -> impl Fn(ImageError) -> ImageError + use<'env> {
        let what = format!("blob `{}`", blob.digest);
        let connection = self.connections.first();
        move |source| match connection {
            Some(connection) => connection.fetch_failed(what.clone(), source),
            None => source,
        }
    }

    async fn download_from(
        &self,
        connection: &Connection,
        partial: &mut Option<Box<PartialBlob>>,
        blob: &Descriptor,
    ) -> Result<(), ImageError> {
        let mut attempts = Attempts::default();
        loop {
            let Some(before) = partial.as_ref().map(|partial| partial.written()) else {
                return Err(ImageError::BlobMissing(blob.digest));
            };
            // There is nothing to ask for after the last byte, and no range in an empty blob.
            if before == blob.size {
                return Ok(());
            }
            let result = self.attempt(connection, partial, blob).await;
            let after = partial.as_ref().map_or(before, |partial| partial.written());
            match result {
                Ok(()) => return Ok(()),
                Err(failure) => {
                    if after - before >= PROGRESS {
                        attempts.reset();
                    }
                    attempts.wait(failure).await?;
                }
            }
        }
    }

    async fn attempt(
        &self,
        connection: &Connection,
        partial: &mut Option<Box<PartialBlob>>,
        blob: &Descriptor,
    ) -> Result<(), Failure> {
        let failed = |source| connection.fetch_failed(format!("blob `{}`", blob.digest), source);
        let offset = partial.as_ref().map_or(0, |partial| partial.written());
        let body = request(connection, blob, offset).await?;
        let Some(writer) = partial.take() else {
            return Err(ImageError::BlobMissing(blob.digest).into());
        };
        let (writer, end) = self.stream_into(writer, body, blob).await;
        // Its writer failed, not the registry: what there is of the blob stays on disk.
        let writer = writer.map_err(|error| failed(write_failed(error)))?;
        let written = writer.written();
        *partial = Some(writer);
        if written == blob.size {
            return Ok(());
        }
        tracing::debug!(digest = %blob.digest, ?end, "a blob ended early");
        let error = RegistryError::Truncated {
            registry: connection.registry().to_owned(),
            digest: blob.digest,
            expected: blob.size,
            actual: written,
        };
        Err(Failure::Transient {
            error: error.into(),
            after: None,
        })
    }

    /// Writes what comes, on another thread, so that several blobs are hashed at a time. Gives the
    /// writer back with what it holds, and how the stream ended.
    async fn stream_into(
        &self,
        mut writer: Box<PartialBlob>,
        mut body: Body,
        blob: &Descriptor,
    ) -> (io::Result<Box<PartialBlob>>, Result<(), reqwest::Error>) {
        let (sender, mut receiver) = mpsc::channel::<bytes::Bytes>(QUEUE);
        let sink = self.on_thread(move || {
            while let Some(chunk) = receiver.blocking_recv() {
                writer.write_all(&chunk)?;
            }
            Ok(writer)
        });
        let source = async move {
            loop {
                let mut chunk = match body.response.chunk().await {
                    Ok(Some(chunk)) => chunk,
                    Ok(None) => break Ok(()),
                    Err(error) => break Err(error),
                };
                let known = body.known.min(chunk.len() as u64);
                body.known -= known;
                // Not more than the chunk has.
                drop(
                    chunk.split_to(
                        usize::try_from(known)
                            .unwrap_or(usize::MAX)
                            .min(chunk.len()),
                    ),
                );
                let bytes = chunk.len() as u64;
                if sender.send(chunk).await.is_err() {
                    // The writer failed, and says so.
                    break Ok(());
                }
                self.progress.advance(Task::Download, &blob.digest, bytes);
            }
        };
        tokio::join!(sink, source)
    }

    /// Runs blocking work beside everything else.
    fn on_thread<T: Send + 'scope>(
        &self,
        work: impl FnOnce() -> T + Send + 'scope,
    ) -> impl Future<Output = T> {
        let (sender, receiver) = oneshot::channel();
        self.scope.spawn(move || {
            // Nobody waits any more when another blob failed.
            drop(sender.send(work()));
        });
        async move {
            receiver
                .await
                .expect("a thread of the scope sends before it ends")
        }
    }
}

/// The answer to a request for a blob.
struct Body {
    response: Response,
    /// How many of its first bytes are here already: some servers send everything again.
    known: u64,
}

/// Asks for the blob from `offset` on.
async fn request(connection: &Connection, blob: &Descriptor, offset: u64) -> Result<Body, Failure> {
    let path = connection.path(&format!("blobs/{}", blob.digest));
    let response = connection
        .ask(Method::GET, &path, |request| {
            if offset == 0 {
                return request;
            }
            request.header(RANGE, format!("bytes={offset}-"))
        })
        .await?;
    let missing = || RegistryError::BlobNotFound {
        digest: blob.digest,
        registry: connection.registry().to_owned(),
    };
    let (known, rest) = match response.status() {
        StatusCode::PARTIAL_CONTENT if begins_at(&response, offset) => (0, blob.size - offset),
        StatusCode::PARTIAL_CONTENT => {
            let reason = "it sends another part of the blob than was asked for".to_owned();
            return Err(connection.answer(reason).into());
        }
        status if status.is_success() => (offset, blob.size),
        status => return Err(connection.refusal(status, response.headers(), missing)),
    };
    if let Some(announced) = response.content_length()
        && announced > rest
    {
        let source = ImageError::SizeMismatch {
            expected: blob.size,
            actual: announced + (blob.size - rest),
        };
        let what = format!("blob `{}`", blob.digest);
        return Err(connection.fetch_failed(what, source).into());
    }
    Ok(Body { response, known })
}

/// Whether a part begins where it was asked for (RFC 9110 section 14.4).
fn begins_at(response: &Response, offset: u64) -> bool {
    response
        .headers()
        .get(CONTENT_RANGE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("bytes "))
        .and_then(|range| range.split('-').next())
        .is_some_and(|start| start.trim().parse() == Ok(offset))
}

fn is_wrong_digest(error: &ImageError) -> bool {
    match error {
        ImageError::DigestMismatch { .. } => true,
        ImageError::Registry(error) => match &**error {
            RegistryError::Fetch { source, .. } => is_wrong_digest(source),
            _ => false,
        },
        _ => false,
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
