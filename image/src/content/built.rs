//! Layers that were built here are blobs too: their archives are made when they are wanted.

use std::fs;

use super::store::ContentStore;
use crate::build::{ArchiveRecord, archive_record_path, pack};
use crate::digest::{DiffId, Digest};
use crate::error::ImageError;

impl ContentStore {
    /// The size of the archive of a layer that was built here, when it is this blob, not compressed.
    pub(crate) fn archive_size(&self, digest: &Digest) -> Option<u64> {
        self.archive_of(digest).map(|record| record.size)
    }

    fn archive_of(&self, digest: &Digest) -> Option<ArchiveRecord> {
        let path = archive_record_path(&self.layers, &DiffId(*digest));
        let record: ArchiveRecord = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
        let is_name = !record.directory.contains('/') && record.version == 1;
        (is_name && self.layers.join(&record.directory).is_dir()).then_some(record)
    }

    /// Makes the blob of a layer that was built here. Says whether there is such a layer.
    pub(super) fn make_archive(&self, digest: &Digest) -> Result<bool, ImageError> {
        let Some(record) = self.archive_of(digest) else {
            return Ok(false);
        };
        let dir = self.layers.join(&record.directory);
        let mut writer = self.writer(Some(digest), Some(record.size))?;
        pack(&dir, None, &mut writer).map_err(|source| ImageError::Read { path: dir, source })?;
        writer.finish()?;
        Ok(true)
    }
}
