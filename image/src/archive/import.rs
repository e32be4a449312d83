//! Importing a root filesystem: one archive becomes an image with one layer.

use std::io::{self, Read, Write};

use flate2::write::GzEncoder;
use sha2::{Digest as _, Sha256};

use super::change::apply_change;
use super::manifest::{CONFIG, LAYER_GZIP, put_manifest};
use crate::config::{HistoryEntry, ImageConfig, RootFs};
use crate::decode::decoder;
use crate::digest::{DiffId, Digest};
use crate::document::Descriptor;
use crate::error::ImageError;
use crate::lease::Lease;
use crate::platform::Platform;
use crate::reference::Reference;
use crate::store::{Store, now};
use crate::tarwalk::{EntryPath, TarWalk};

/// What an imported image is to be.
#[derive(Debug, Clone, Default)]
pub struct ImportOptions {
    /// The name to give it.
    pub name: Option<Reference>,
    /// Dockerfile instructions for its config: `CMD ["sh"]`.
    pub changes: Vec<String>,
    /// The comment in its history.
    pub message: Option<String>,
    /// The platform it is for; the host's by default.
    pub platform: Option<Platform>,
    /// When it was made (RFC 3339); now by default. With a fixed time the same archive gives the
    /// same image.
    pub created: Option<String>,
}

impl Store {
    /// Makes an image of a tar archive, plain or compressed. The layer is kept with gzip.
    ///
    /// # Errors
    /// When the archive is malformed or a change cannot be applied. Then nothing is left of it.
    pub fn import(&self, reader: impl Read, options: &ImportOptions) -> Result<Digest, ImageError> {
        let mut config = ImageConfig::default();
        for change in &options.changes {
            apply_change(&mut config.config, change)?;
        }
        let lease = self.lease()?;
        let result = self.import_as(reader, options, config, &lease);
        let swept = self.discard_leased(lease);
        let id = result?;
        swept?;
        let name = options.name.as_ref().map(Reference::familiar);
        self.record_event("import", &id.to_string(), name.as_deref());
        Ok(id)
    }

    fn import_as(
        &self,
        reader: impl Read,
        options: &ImportOptions,
        mut config: ImageConfig,
        lease: &Lease,
    ) -> Result<Digest, ImageError> {
        let (layer, diff_id) = self.import_layer(reader, lease)?;
        let platform = options.platform.clone().unwrap_or_else(Platform::host);
        let created = options.created.clone().unwrap_or_else(now);
        config.created = Some(created.clone());
        platform.os().clone_into(&mut config.os);
        platform.architecture().clone_into(&mut config.architecture);
        config.variant = platform.variant().map(ToOwned::to_owned);
        config.rootfs = RootFs {
            kind: "layers".to_owned(),
            diff_ids: vec![diff_id.to_string()],
        };
        config.history = vec![HistoryEntry {
            created: Some(created),
            comment: options.message.clone(),
            ..HistoryEntry::default()
        }];
        let layers = std::slice::from_ref(&layer);
        self.put_image(&config, layers, options.name.as_ref(), lease)
    }

    /// Stores the documents of an image whose layers are there, and gives it a name; its id.
    pub(crate) fn put_image(
        &self,
        config: &ImageConfig,
        layers: &[Descriptor],
        name: Option<&Reference>,
        lease: &Lease,
    ) -> Result<Digest, ImageError> {
        let bytes = serde_json::to_vec(config).map_err(|error| ImageError::WriteStream {
            what: "a config",
            source: error.into(),
        })?;
        let config = Descriptor {
            media_type: CONFIG.to_owned(),
            digest: Digest::of(&bytes),
            size: bytes.len() as u64,
        };
        lease.add([config.digest])?;
        self.content.put(&bytes)?;
        let manifest = put_manifest(&self.content, lease, &config, layers)?;
        self.record(name.cloned().as_slice(), &manifest, None)?;
        Ok(config.digest)
    }

    /// Stores the archive, and reads it to its end as a layer on the way: what cannot be unpacked
    /// is refused here.
    fn import_layer(
        &self,
        reader: impl Read,
        lease: &Lease,
    ) -> Result<(Descriptor, DiffId), ImageError> {
        let (_, decoder) = decoder(reader)?;
        let blob = self.content.writer(None, None)?;
        let mut walk = TarWalk::new(Recording {
            inner: decoder,
            hasher: Sha256::new(),
            encoder: GzEncoder::new(blob, flate2::Compression::fast()),
        });
        let mut is_empty = true;
        while let Some(entry) = walk.next_entry()? {
            EntryPath::parse(&entry.path).map_err(|reason| ImageError::Entry {
                entry: crate::tarwalk::printable(&entry.path),
                reason,
            })?;
            is_empty = false;
        }
        if is_empty {
            return Err(ImageError::InvalidArchive {
                reason: "it holds no files".to_owned(),
            });
        }
        let mut recording = walk.into_inner();
        io::copy(&mut recording, &mut io::sink()).map_err(|source| ImageError::ReadStream {
            what: "the archive",
            source,
        })?;
        let diff_id = DiffId(Digest::from_hasher(recording.hasher));
        let blob = recording
            .encoder
            .finish()
            .map_err(|source| ImageError::WriteStream {
                what: "a layer",
                source,
            })?;
        let blob = blob.verify()?;
        let (digest, size) = (blob.digest, blob.size);
        lease.add([digest])?;
        blob.sync()?;
        blob.publish()?;
        let layer = Descriptor {
            media_type: LAYER_GZIP.to_owned(),
            digest,
            size,
        };
        Ok((layer, diff_id))
    }
}

/// Hashes and compresses what is read through it.
struct Recording<R, W: Write> {
    inner: R,
    hasher: Sha256,
    encoder: GzEncoder<W>,
}

impl<R: Read, W: Write> Read for Recording<R, W> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        let bytes = buffer.get(..count).unwrap_or_default();
        self.hasher.update(bytes);
        self.encoder.write_all(bytes)?;
        Ok(count)
    }
}
