//! A container's changes become an image: its image's layers, and one more of the upper directory.

use std::io::{self, Write};
use std::path::Path;

use flate2::write::GzEncoder;
use sha2::{Digest as _, Sha256};

use crate::config::{HistoryEntry, RunConfig};
use crate::content::BlobWriter;
use crate::digest::{DiffId, Digest};
use crate::document::Descriptor;
use crate::error::ImageError;
use crate::lease::Lease;
use crate::pack::pack_layer;
use crate::reference::Reference;
use crate::store::{Image, Store, now};

const LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// What Docker calls the types of layers, and what they are called in an OCI manifest.
const DOCKER_LAYERS: [(&str, &str); 2] = [
    (
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
        LAYER_GZIP,
    ),
    (
        "application/vnd.docker.image.rootfs.diff.tar",
        "application/vnd.oci.image.layer.v1.tar",
    ),
];

/// What a committed image is to be.
#[derive(Debug, Clone, Default)]
pub struct CommitOptions {
    /// The name to give it.
    pub name: Option<Reference>,
    /// How containers of it are run.
    pub config: RunConfig,
    /// Who made it.
    pub author: Option<String>,
    /// The comment in its history.
    pub message: Option<String>,
    /// The command in its history.
    pub created_by: String,
    /// When it was made (RFC 3339); now by default. With a fixed time the same files give the same
    /// image.
    pub created: Option<String>,
    /// The latest time that a file may have, in seconds since 1970; later ones become that.
    pub latest: Option<i64>,
}

impl Store {
    /// Makes an image of `base` and what an upper directory has changed of it. Without changes it
    /// has no further layer.
    ///
    /// # Errors
    /// When the directory cannot be read or the image not be written. Then nothing is left of it.
    pub fn commit(
        &self,
        base: &Image,
        upper: &Path,
        options: &CommitOptions,
    ) -> Result<Digest, ImageError> {
        let lease = self.lease()?;
        let result = self.commit_as(base, upper, options, &lease);
        let swept = self.discard_leased(lease);
        let id = result?;
        swept?;
        Ok(id)
    }

    fn commit_as(
        &self,
        base: &Image,
        upper: &Path,
        options: &CommitOptions,
        lease: &Lease,
    ) -> Result<Digest, ImageError> {
        let mut layers = Vec::new();
        for layer in base.manifest.layers() {
            layers.push(oci_layer(Descriptor::try_from(layer)?));
        }
        lease.add(layers.iter().map(|layer| layer.digest))?;
        let created = options.created.clone().unwrap_or_else(now);
        let mut config = base.config.clone();
        let layer = self.commit_layer(upper, options.latest, lease)?;
        let is_empty = layer.is_none();
        if let Some((layer, diff_id)) = layer {
            "layers".clone_into(&mut config.rootfs.kind);
            config.rootfs.diff_ids.push(diff_id.to_string());
            layers.push(layer);
        }
        config.created = Some(created.clone());
        config.author.clone_from(&options.author);
        config.config = options.config.clone();
        config.history.push(HistoryEntry {
            created: Some(created),
            created_by: Some(options.created_by.clone()),
            author: options.author.clone(),
            comment: options.message.clone(),
            empty_layer: is_empty.then_some(true),
        });
        self.put_image(&config, &layers, options.name.as_ref(), lease)
    }

    /// Stores the layer of an upper directory; none when it is empty.
    fn commit_layer(
        &self,
        upper: &Path,
        latest: Option<i64>,
        lease: &Lease,
    ) -> Result<Option<(Descriptor, DiffId)>, ImageError> {
        let failed = |source| ImageError::WriteStream {
            what: "a layer",
            source,
        };
        let output = Layer {
            hasher: Sha256::new(),
            encoder: GzEncoder::new(
                self.content.writer(None, None)?,
                flate2::Compression::fast(),
            ),
        };
        let (output, entries) = pack_layer(upper, latest, output).map_err(failed)?;
        if entries == 0 {
            return Ok(None);
        }
        let diff_id = DiffId(Digest::from_hasher(output.hasher));
        let blob = output.encoder.finish().map_err(failed)?.verify()?;
        let (digest, size) = (blob.digest, blob.size);
        lease.add([digest])?;
        blob.sync()?;
        blob.publish()?;
        let layer = Descriptor {
            media_type: LAYER_GZIP.to_owned(),
            digest,
            size,
        };
        Ok(Some((layer, diff_id)))
    }
}

fn oci_layer(mut layer: Descriptor) -> Descriptor {
    let known = DOCKER_LAYERS
        .iter()
        .find(|(docker, _)| *docker == layer.media_type);
    if let Some((_, oci)) = known {
        (*oci).clone_into(&mut layer.media_type);
    }
    layer
}

/// Hashes and compresses what is written to it.
struct Layer {
    hasher: Sha256,
    encoder: GzEncoder<BlobWriter>,
}

impl Write for Layer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.encoder.write(bytes)?;
        self.hasher.update(bytes.get(..count).unwrap_or_default());
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.encoder.flush()
    }
}
