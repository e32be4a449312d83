//! Docker's `save` format: `manifest.json` lists images, each with a config and layers by path.

use std::io::Read;

use serde::{Deserialize, Serialize};

use super::intake::Intake;
use crate::content::ContentStore;
use crate::decode::Compression;
use crate::digest::Digest;
use crate::document::Descriptor;
use crate::error::ImageError;
use crate::lease::Lease;

pub(super) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(super) const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(super) const LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// One image of `manifest.json`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct DockerImage {
    pub(super) config: String,
    #[serde(default)]
    pub(super) repo_tags: Option<Vec<String>>,
    #[serde(default)]
    pub(super) layers: Vec<String>,
}

/// A manifest, as written here: the fields in the order of the specification.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Manifest<'a> {
    schema_version: u32,
    media_type: &'a str,
    config: &'a Descriptor,
    layers: &'a [Descriptor],
}

/// Writes a manifest into the content store, under the lease.
pub(crate) fn put_manifest(
    content: &ContentStore,
    lease: &Lease,
    config: &Descriptor,
    layers: &[Descriptor],
) -> Result<Descriptor, ImageError> {
    let manifest = Manifest {
        schema_version: 2,
        media_type: MANIFEST,
        config,
        layers,
    };
    let bytes = serde_json::to_vec(&manifest).map_err(|error| ImageError::WriteStream {
        what: "a manifest",
        source: error.into(),
    })?;
    let digest = Digest::of(&bytes);
    lease.add([digest])?;
    content.put(&bytes)?;
    Ok(Descriptor {
        media_type: MANIFEST.to_owned(),
        digest,
        size: bytes.len() as u64,
    })
}

/// Makes the manifest that Docker's format does not have.
pub(super) fn manifest_of(
    content: &ContentStore,
    lease: &Lease,
    intake: &Intake<'_>,
    image: &DockerImage,
) -> Result<Descriptor, ImageError> {
    let (digest, size) = intake.find(&image.config)?;
    let config = Descriptor {
        media_type: CONFIG.to_owned(),
        digest,
        size,
    };
    let mut layers = Vec::new();
    for path in &image.layers {
        let (digest, size) = intake.find(path)?;
        layers.push(Descriptor {
            media_type: layer_type(content, &digest)?.to_owned(),
            digest,
            size,
        });
    }
    put_manifest(content, lease, &config, &layers)
}

fn layer_type(content: &ContentStore, digest: &Digest) -> Result<&'static str, ImageError> {
    let mut magic = Vec::new();
    content
        .open_blob(digest)?
        .take(6)
        .read_to_end(&mut magic)
        .map_err(|source| ImageError::Read {
            path: content.path(digest),
            source,
        })?;
    Ok(match Compression::detect(&magic) {
        Compression::Gzip => LAYER_GZIP,
        Compression::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
        // There is no media type for xz; the bytes decide anyway.
        Compression::None | Compression::Xz => "application/vnd.oci.image.layer.v1.tar",
    })
}
