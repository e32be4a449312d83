//! One layer blob, streamed: decompressed, hashed, walked, written.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::tree::{LayerTree, PendingLink, Skipped};
use crate::decode::decoder;
use crate::digest::{DiffId, Digest};
use crate::error::ImageError;
use crate::tarwalk::{EntryPath, TarWalk};

/// With which rights layers are unpacked. A layer that was unpacked in one mode is not used in
/// another: bits and owners that one of them had to drop would be missing, or trusted wrongly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct UnpackMode {
    /// Inside a user namespace: no device nodes, opaque marks in `user.overlay.*`.
    pub userns: bool,
    /// A user namespace with a single user: every file belongs to it.
    pub flat_owner: bool,
}

/// What was learnt while unpacking.
#[derive(Debug, Default)]
pub(crate) struct Unpacked {
    /// Bytes of the uncompressed stream.
    pub(crate) size: u64,
    /// Directories that the archive uses and does not describe.
    pub(crate) implied: Vec<EntryPath>,
    /// Hard links to files that are in a layer below.
    pub(crate) links: Vec<PendingLink>,
    /// What could not be kept.
    pub(crate) skipped: Vec<Skipped>,
}

/// Unpacks `blob` into `dir`, which exists and is empty, and checks the diff ID.
///
/// `advance` hears of each piece of the compressed blob. After an error `dir` holds a part of the
/// layer, and its owner removes it.
pub(crate) fn unpack_layer(
    blob: File,
    diff_id: DiffId,
    dir: &Path,
    mode: UnpackMode,
    advance: &dyn Fn(u64),
) -> Result<Unpacked, ImageError> {
    let watched = crate::decode::Watched::new(blob, |bytes: &[u8]| advance(bytes.len() as u64));
    let (_, decoder) = decoder(watched)?;
    let mut walk = TarWalk::new(Hashing::new(decoder));
    let mut tree = LayerTree::new(dir, mode)?;
    while let Some(entry) = walk.next_entry()? {
        tree.put(&entry, &mut walk)?;
    }
    // The diff ID is over the whole stream, with whatever stands behind the archive's end.
    let mut hashing = walk.into_inner();
    io::copy(&mut hashing, &mut io::sink()).map_err(|source| ImageError::ReadStream {
        what: "the archive",
        source,
    })?;
    let actual = Digest::from_hasher(hashing.hasher);
    if actual != diff_id.0 {
        return Err(ImageError::DigestMismatch {
            expected: diff_id.0,
            actual,
        });
    }
    let mut unpacked = tree.finish()?;
    unpacked.size = hashing.count;
    Ok(unpacked)
}

/// Hashes what is read through it.
struct Hashing<R> {
    inner: R,
    hasher: Sha256,
    count: u64,
}

impl<R> Hashing<R> {
    fn new(inner: R) -> Self {
        Self {
            inner,
            hasher: Sha256::new(),
            count: 0,
        }
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
