//! Pins: layers that no image has and that stay all the same, because the builder's cache knows them.
//! A pin is an empty file below `build/pins/`, named by the layer.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;

use sys::durable::{self, Durability};

use crate::digest::{DiffId, Digest};
use crate::error::ImageError;
use crate::graph::Reachable;
use crate::store::Store;

impl Store {
    fn pins(&self) -> PathBuf {
        self.layout.build().join("pins")
    }

    /// Keeps layers until they are unpinned.
    ///
    /// # Errors
    /// When a pin cannot be written.
    pub fn pin_layers(&self, layers: &[DiffId]) -> Result<(), ImageError> {
        let dir = self.pins();
        let failed = |source| ImageError::Write {
            path: dir.clone(),
            source,
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&dir)
            .map_err(failed)?;
        for layer in layers {
            match durable::claim_file(&dir.join(layer.hex()), b"", Durability::Atomic) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(failed(error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Lets go of layers, and removes those that nothing else needs. Gives the bytes that were freed.
    ///
    /// # Errors
    /// When something cannot be removed.
    pub fn unpin_layers(&self, layers: &[DiffId]) -> Result<u64, ImageError> {
        let before: u64 = layers
            .iter()
            .filter_map(|id| self.layer_disk_size(id))
            .sum();
        for layer in layers {
            let path = self.pins().join(layer.hex());
            durable::remove_tree(&path).map_err(|source| ImageError::Write { path, source })?;
        }
        let candidates = Reachable {
            // The blob of an uncompressed layer has its diff ID as its digest.
            blobs: layers.iter().map(|layer| layer.0).collect(),
            layers: layers.iter().copied().collect(),
        };
        let _lock = self.lock()?;
        self.sweep(&candidates)?;
        let after: u64 = layers
            .iter()
            .filter_map(|id| self.layer_disk_size(id))
            .sum();
        Ok(before.saturating_sub(after))
    }

    /// What a layer takes on disk; `None` when it is not there.
    #[must_use]
    pub fn layer_disk_size(&self, layer: &DiffId) -> Option<u64> {
        let dir = self.built_root(layer)?;
        self.layer_size(&dir).ok()
    }

    /// The layers that are pinned.
    pub(crate) fn pinned(&self) -> Result<BTreeSet<DiffId>, ImageError> {
        let dir = self.pins();
        let failed = |source| ImageError::Read {
            path: dir.clone(),
            source,
        };
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut pinned = BTreeSet::new();
        for entry in entries {
            let name = entry.map_err(failed)?.file_name();
            if let Some(Ok(digest)) = name.to_str().map(Digest::parse_hex) {
                pinned.insert(DiffId(digest));
            }
        }
        Ok(pinned)
    }
}
