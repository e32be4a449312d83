//! What happens to the blobs of an archive while the rest of it is read: those that are layers are
//! unpacked, then all get their names. Which blobs are layers an archive says at its end only; so
//! whatever looks like one is tried, and its diff ID is what it turns out to be. What no image of
//! the archive needs goes afterwards, with the lease.

use std::io::Read as _;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::thread::Scope;

use crate::content::{ContentStore, VerifiedBlob};
use crate::decode::Compression;
use crate::digest::Digest;
use crate::error::ImageError;
use crate::layers::{self, LayerStore};
use crate::lease::Lease;
use crate::progress::{Outcome, Progress, Task};

/// Where the mark of a tar header is, and the mark (POSIX.1-2024 `pax`, "ustar Interchange Format").
const USTAR: std::ops::Range<usize> = 257..262;

/// Whether blobs are unpacked before it is known that they are layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ahead {
    Unpack,
    No,
}

/// Takes verified blobs and gives them their names, on threads of its own.
pub(super) struct Settler<'env> {
    pub(super) content: &'env ContentStore,
    pub(super) layers: &'env LayerStore,
    pub(super) lease: &'env Lease,
    pub(super) progress: &'env dyn Progress,
    pub(super) ahead: Ahead,
    pub(super) failure: Mutex<Option<ImageError>>,
}

impl<'env> Settler<'env> {
    /// Begins the threads. They end when the queue is dropped.
    pub(super) fn start<'scope>(
        &'env self,
        scope: &'scope Scope<'scope, 'env>,
    ) -> Sender<VerifiedBlob> {
        let (queue, blobs) = channel();
        let blobs = std::sync::Arc::new(Mutex::new(blobs));
        for _ in 0..layers::PARALLEL {
            let blobs = std::sync::Arc::clone(&blobs);
            scope.spawn(move || {
                while let Some(blob) = next(&blobs) {
                    if let Err(error) = self.settle(blob) {
                        self.fail(error);
                    }
                }
            });
        }
        queue
    }

    fn fail(&self, error: ImageError) {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.get_or_insert(error);
    }

    /// The first failure of a thread, after all have ended.
    pub(super) fn into_result(self) -> Result<(), ImageError> {
        let failure = self.failure.into_inner();
        failure
            .unwrap_or_else(PoisonError::into_inner)
            .map_or(Ok(()), Err)
    }

    fn settle(&self, blob: VerifiedBlob) -> Result<(), ImageError> {
        let is_new = !self.content.has(&blob.digest);
        if is_new
            && self.ahead == Ahead::Unpack
            && looks_like_layer(&blob)?
            && let Some(staged) = self.stage(&blob)?
        {
            self.lease.add([staged.diff_id.0])?;
            staged.sync()?;
            blob.publish()?;
            self.layers.publish(&staged)?;
            return Ok(());
        }
        blob.sync()?;
        blob.publish().map(drop)
    }

    /// Unpacks the blob. One that is no layer, or a layer that breaks a rule, is refused when an
    /// image turns out to need it.
    fn stage(&self, blob: &VerifiedBlob) -> Result<Option<layers::StagedLayer>, ImageError> {
        let digest: Digest = blob.digest;
        self.progress.begin(Task::Unpack, &digest, Some(blob.size));
        let advance = |bytes| self.progress.advance(Task::Unpack, &digest, bytes);
        let staged = self.layers.stage(blob.open()?, None, &advance);
        let outcome = match &staged {
            Ok(_) => Outcome::Done,
            Err(_) => Outcome::Failed,
        };
        self.progress.end(Task::Unpack, &digest, outcome);
        if let Err(error) = &staged {
            tracing::debug!(%error, %digest, "a blob of the archive is no layer");
        }
        Ok(staged.ok())
    }
}

fn next(blobs: &Mutex<Receiver<VerifiedBlob>>) -> Option<VerifiedBlob> {
    let blobs = blobs.lock().unwrap_or_else(PoisonError::into_inner);
    blobs.recv().ok()
}

fn looks_like_layer(blob: &VerifiedBlob) -> Result<bool, ImageError> {
    let mut head = Vec::new();
    blob.open()?
        .take(512)
        .read_to_end(&mut head)
        .map_err(|source| ImageError::ReadStream {
            what: "the archive",
            source,
        })?;
    Ok(Compression::detect(&head) != Compression::None
        || head.get(USTAR).is_some_and(|mark| mark == b"ustar"))
}
