//! Docker's `save` format: `manifest.json` lists images, each with a config and layers by path.

use std::io::Read;

use serde::{Deserialize, Serialize};

use super::intake::Intake;
use super::manifest::{CONFIG, LAYER_GZIP, put_manifest};
use crate::content::ContentStore;
use crate::decode::Compression;
use crate::digest::Digest;
use crate::document::Descriptor;
use crate::error::ImageError;
use crate::lease::Lease;

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
