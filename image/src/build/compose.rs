//! An image of layers that are here: config, manifest, names.

use std::collections::BTreeMap;
use std::io::{self, Write as _};

use flate2::write::GzEncoder;
use serde::Serialize;

use super::session::BuildSession;
use crate::config::ImageConfig;
use crate::decode::Compression;
use crate::digest::{DiffId, Digest};
use crate::document::Descriptor;
use crate::error::ImageError;
use crate::platform::Platform;
use crate::reference::Reference;
use crate::store::Image;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// An image to be made.
#[derive(Debug, Clone, Default)]
pub struct NewImage {
    /// Its config; `rootfs` is filled in here.
    pub config: ImageConfig,
    /// Layers that were made here, on top of those of `base`.
    pub layers: Vec<DiffId>,
    /// Annotations of the manifest.
    pub annotations: BTreeMap<String, String>,
    /// How its own layers are compressed, at once.
    pub compression: Option<Compression>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Manifest<'a> {
    schema_version: u32,
    media_type: &'a str,
    config: &'a Descriptor,
    layers: &'a [Descriptor],
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: &'a BTreeMap<String, String>,
}

#[derive(Serialize)]
struct IndexEntry<'a> {
    #[serde(flatten)]
    descriptor: &'a Descriptor,
    platform: &'a Platform,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Index<'a> {
    schema_version: u32,
    media_type: &'a str,
    manifests: Vec<IndexEntry<'a>>,
}

impl BuildSession {
    /// Writes the config and the manifest of an image that has the layers of `base` and its own.
    /// It is known and named only after [`BuildSession::record`]. Gives the manifest and the image's
    /// identifier.
    ///
    /// # Errors
    /// When a layer is not here or something cannot be written.
    pub fn compose(
        &self,
        base: Option<&Image>,
        image: &NewImage,
    ) -> Result<(Descriptor, Digest), ImageError> {
        let content = &self.store.content;
        let mut layers = Vec::new();
        let mut config = image.config.clone();
        config.rootfs.kind = "layers".to_owned();
        config.rootfs.diff_ids = Vec::new();
        if let Some(base) = base {
            for layer in base.manifest.layers() {
                let mut descriptor = Descriptor::try_from(layer)?;
                descriptor.media_type = oci_layer(&descriptor.media_type);
                layers.push(descriptor);
            }
            config
                .rootfs
                .diff_ids
                .clone_from(&base.config.rootfs.diff_ids);
        }
        for layer in &image.layers {
            layers.push(self.layer(layer, image.compression)?);
            config.rootfs.diff_ids.push(layer.to_string());
        }
        self.lease.add(layers.iter().map(|layer| layer.digest))?;
        let bytes = json(&config, "a config")?;
        let config = self.document(CONFIG, &bytes)?;
        let manifest = Manifest {
            schema_version: 2,
            media_type: MANIFEST,
            config: &config,
            layers: &layers,
            annotations: &image.annotations,
        };
        let descriptor = self.document(MANIFEST, &json(&manifest, "a manifest")?)?;
        debug_assert!(content.has(&descriptor.digest));
        // An image without a layer is told apart by its manifest, as everywhere in the store.
        let id = if layers.is_empty() {
            descriptor.digest
        } else {
            config.digest
        };
        Ok((descriptor, id))
    }

    /// Writes an index of images.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn compose_index(
        &self,
        images: &[(Descriptor, Platform)],
    ) -> Result<Descriptor, ImageError> {
        let index = Index {
            schema_version: 2,
            media_type: INDEX,
            manifests: images
                .iter()
                .map(|(descriptor, platform)| IndexEntry {
                    descriptor,
                    platform,
                })
                .collect(),
        };
        self.document(INDEX, &json(&index, "an index")?)
    }

    /// Makes the image (or the images of an index) known and gives it its names.
    ///
    /// # Errors
    /// When a record cannot be written.
    pub fn record(&self, top: &Descriptor, names: &[Reference]) -> Result<Vec<Digest>, ImageError> {
        self.store.record(names, top, None)
    }

    pub(crate) fn document(
        &self,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<Descriptor, ImageError> {
        let digest = Digest::of(bytes);
        self.lease.add([digest])?;
        self.store.content.put(bytes)?;
        Ok(Descriptor {
            media_type: media_type.to_owned(),
            digest,
            size: bytes.len() as u64,
        })
    }

    /// The descriptor of a layer that was made here.
    pub(crate) fn layer(
        &self,
        layer: &DiffId,
        compression: Option<Compression>,
    ) -> Result<Descriptor, ImageError> {
        let content = &self.store.content;
        let size = self
            .store
            .archive_size(layer)
            .ok_or(ImageError::BlobMissing(layer.0))?;
        let suffix = match compression {
            None | Some(Compression::None) => {
                return Ok(Descriptor {
                    media_type: LAYER.to_owned(),
                    digest: layer.0,
                    size,
                });
            }
            Some(Compression::Zstd) => "+zstd",
            Some(_) => "+gzip",
        };
        let mut blob = content.writer(None, None)?;
        let failed = |source: io::Error| ImageError::WriteStream {
            what: "a layer",
            source,
        };
        let dir = self
            .store
            .built_root(layer)
            .ok_or(ImageError::BlobMissing(layer.0))?;
        if suffix == "+zstd" {
            let mut encoder = zstd::Encoder::new(&mut blob, 3).map_err(failed)?;
            super::pack(&dir, None, &mut encoder).map_err(failed)?;
            encoder.finish().map_err(failed)?;
        } else {
            let mut encoder = GzEncoder::new(&mut blob, flate2::Compression::new(6));
            super::pack(&dir, None, &mut encoder).map_err(failed)?;
            encoder.finish().map_err(failed)?;
        }
        blob.flush().map_err(failed)?;
        let blob = blob.verify()?;
        let (digest, size) = (blob.digest, blob.size);
        self.lease.add([digest])?;
        blob.sync()?;
        blob.publish()?;
        Ok(Descriptor {
            media_type: format!("{LAYER}{suffix}"),
            digest,
            size,
        })
    }
}

fn json(value: &impl Serialize, what: &'static str) -> Result<Vec<u8>, ImageError> {
    serde_json::to_vec(value).map_err(|error| ImageError::WriteStream {
        what,
        source: error.into(),
    })
}

/// The OCI spelling of a layer's media type: the bytes are the same.
fn oci_layer(media_type: &str) -> String {
    match media_type {
        "application/vnd.docker.image.rootfs.diff.tar.gzip" => format!("{LAYER}+gzip"),
        "application/vnd.docker.image.rootfs.diff.tar" => LAYER.to_owned(),
        "application/vnd.docker.image.rootfs.diff.tar.zstd" => format!("{LAYER}+zstd"),
        other => other.to_owned(),
    }
}
