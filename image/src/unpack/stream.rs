//! One layer blob, streamed: decompressed and hashed. Inflating is half of the work and has a thread
//! of its own; what it gives is hashed and written by the caller's.

use std::io::{self, Read};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::pipe::{Pipe, pipe};
use crate::decode::{Watched, decoder};
use crate::digest::{DiffId, Digest};
use crate::error::ImageError;

/// With which rights layers are unpacked. A layer that was unpacked in one mode is not used in
/// another: bits and owners that one of them had to drop would be missing, or trusted wrongly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct UnpackMode {
    /// Inside a user namespace: no device nodes, opaque marks in `user.overlay.*`.
    pub userns: bool,
    /// A user namespace with a single user: every file belongs to it.
    pub flat_owner: bool,
}

/// The uncompressed stream of a layer, as it was read to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LayerStream {
    pub(crate) diff_id: DiffId,
    /// Its bytes.
    pub(crate) size: u64,
}

/// Runs `consume` on the uncompressed stream, which is made on another thread.
pub(super) fn inflated<T>(
    blob: impl Read + Send,
    advance: &(dyn Fn(u64) + Sync),
    consume: impl FnOnce(Pipe) -> Result<T, ImageError>,
) -> Result<T, ImageError> {
    let (sink, source) = pipe();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let watched = Watched::new(blob, |bytes: &[u8]| advance(bytes.len() as u64));
            // The decoder is no `Send`, so it is made here; a failure travels through the pipe.
            match decoder(watched) {
                Ok((_, mut decoder)) => sink.copy(&mut decoder),
                Err(error) => sink.fail(io::Error::other(error)),
            }
        });
        consume(source)
    })
}

/// Hashes what is read through it.
pub(super) struct Hashing<R> {
    inner: R,
    hasher: Sha256,
    count: u64,
}

impl<R: Read> Hashing<R> {
    pub(super) fn new(inner: R) -> Self {
        Self {
            inner,
            hasher: Sha256::new(),
            count: 0,
        }
    }

    /// How many bytes were read.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// Reads the rest: the diff ID is over the whole stream, with whatever stands behind the
    /// archive's end.
    pub(super) fn finish(mut self) -> Result<LayerStream, ImageError> {
        io::copy(&mut self, &mut io::sink()).map_err(|source| ImageError::ReadStream {
            what: "the archive",
            source,
        })?;
        Ok(LayerStream {
            diff_id: DiffId(Digest::from_hasher(self.hasher)),
            size: self.count,
        })
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher.update(buffer.get(..count).unwrap_or_default());
        self.count += count as u64;
        Ok(count)
    }
}
