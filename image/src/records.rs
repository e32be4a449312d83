//! Image records: one directory an image, below `images/`, named by the image's identifier. It
//! holds `image.json` and, where the image needs one, its fix-up layer.

use std::fs;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use sys::durable;

use crate::digest::{DiffId, Digest};
use crate::document::Descriptor;
use crate::error::ImageError;
use crate::names::{read_json, write_json};
use crate::platform::Platform;

pub(crate) const VERSION: u32 = 1;

/// The subdirectory of names, which is no image.
pub(crate) const NAMES: &str = "names";

/// What is known of an image without reading its blobs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ImageRecord {
    pub(crate) version: u32,
    pub(crate) id: Digest,
    pub(crate) manifest: Descriptor,
    /// The index that the manifest came with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) index: Option<Digest>,
    pub(crate) config: Digest,
    pub(crate) platform: Platform,
    pub(crate) layers: Vec<LayerLine>,
    /// When the image was made, as its config says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) created: Option<String>,
    /// When it came here, RFC 3339.
    pub(crate) added: String,
    /// Bytes of all its blobs.
    pub(crate) size: u64,
}

/// A layer of an image: the blob, and for an archive what it unpacks to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LayerLine {
    #[serde(flatten)]
    pub(crate) blob: Descriptor,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) diff_id: Option<DiffId>,
}

/// All image records. Changes happen under the images lock; reading needs none.
#[derive(Debug, Clone)]
pub(crate) struct RecordTable {
    dir: PathBuf,
    trash: PathBuf,
}

impl RecordTable {
    pub(crate) fn new(dir: PathBuf, trash: PathBuf) -> Self {
        Self { dir, trash }
    }

    /// The directory of an image.
    pub(crate) fn dir(&self, id: &Digest) -> PathBuf {
        self.dir.join(id.hex())
    }

    pub(crate) fn get(&self, id: &Digest) -> Result<Option<ImageRecord>, ImageError> {
        read_json(&self.dir(id).join("image.json"))
    }

    /// Makes an image known. One that is known stays as it is, also when it came: nothing is written
    /// then, nor waited for.
    pub(crate) fn put(&self, record: &ImageRecord) -> Result<(), ImageError> {
        // One that cannot be read is replaced.
        if let Some(old) = self.get(&record.id).ok().flatten() {
            let same = ImageRecord {
                added: old.added.clone(),
                ..record.clone()
            };
            if same == old {
                return Ok(());
            }
        }
        let dir = self.dir(&record.id);
        durable::make_private_dir(&dir).map_err(|source| ImageError::Write {
            path: dir.clone(),
            source,
        })?;
        write_json(&dir.join("image.json"), record)
    }

    /// Removes the record and everything beside it; one that is already gone is no error.
    pub(crate) fn remove(&self, id: &Digest) -> Result<(), ImageError> {
        let dir = self.dir(id);
        let failed = |source| ImageError::Write {
            path: dir.clone(),
            source,
        };
        if let Some(gone) = durable::discard(&dir, &self.trash).map_err(failed)? {
            durable::remove_tree(&gone).map_err(failed)?;
        }
        Ok(())
    }

    /// The identifiers that begin with `prefix` (hexadecimal digits), sorted.
    pub(crate) fn ids(&self, prefix: &str) -> Result<Vec<Digest>, ImageError> {
        let failed = |source| ImageError::Read {
            path: self.dir.clone(),
            source,
        };
        let mut ids = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let Some(name) = name.to_str().filter(|name| name.starts_with(prefix)) else {
                continue;
            };
            if let Ok(id) = Digest::parse_hex(name) {
                ids.push(id);
            }
        }
        ids.sort_unstable();
        Ok(ids)
    }

    pub(crate) fn list(&self) -> Result<Vec<ImageRecord>, ImageError> {
        let mut records = Vec::new();
        for id in self.ids("")? {
            records.extend(self.get(&id)?);
        }
        Ok(records)
    }
}
