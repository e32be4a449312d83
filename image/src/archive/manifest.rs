//! Manifests of images that are made here.

use serde::Serialize;

use crate::content::ContentStore;
use crate::digest::Digest;
use crate::document::Descriptor;
use crate::error::ImageError;
use crate::lease::Lease;

pub(super) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(super) const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(super) const LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

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
