//! One layer blob into a directory of the layer store.

use std::io::Read;
use std::path::Path;

use super::stream::{Hashing, LayerStream, UnpackMode, inflated};
use super::tree::{LayerTree, PendingLink, Skipped};
use crate::error::ImageError;
use crate::tarwalk::{EntryPath, TarWalk};

/// What was learnt while unpacking.
#[derive(Debug, Default)]
pub(crate) struct Unpacked {
    /// Directories that the archive uses and does not describe.
    pub(crate) implied: Vec<EntryPath>,
    /// Hard links to files that are in a layer below.
    pub(crate) links: Vec<PendingLink>,
    /// What could not be kept.
    pub(crate) skipped: Vec<Skipped>,
}

/// Unpacks `blob` into `dir`, which exists and is empty. The caller checks the diff ID.
///
/// `advance` hears of each piece of the compressed blob, on another thread. After an error `dir`
/// holds a part of the layer, and its owner removes it.
pub(crate) fn unpack_layer(
    blob: impl Read + Send,
    dir: &Path,
    mode: UnpackMode,
    advance: &(dyn Fn(u64) + Sync),
) -> Result<(LayerStream, Unpacked), ImageError> {
    inflated(blob, advance, |stream| {
        let mut walk = TarWalk::new(Hashing::new(stream));
        let mut tree = LayerTree::new(dir, mode)?;
        while let Some(entry) = walk.next_entry()? {
            tree.put(&entry, &mut walk)?;
        }
        let stream = walk.into_inner().finish()?;
        Ok((stream, tree.finish()?))
    })
}
