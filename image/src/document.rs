//! Manifests and indexes, read with suspicion: bounded, of one kind only, all digests SHA-256.

use oci_spec::image::{ImageIndex, ImageManifest, MediaType};
use serde::Deserialize;
use serde::Serialize;
use serde::de::IgnoredAny;

use crate::config::ImageConfig;
use crate::content::ContentStore;
use crate::digest::{DiffId, Digest};
use crate::error::ImageError;

/// The largest manifest, index or config that is read: what registries accept, too.
pub const MAX_DOCUMENT: u64 = 4 * 1024 * 1024;

/// How deep indexes may hold indexes.
pub(crate) const MAX_DEPTH: u32 = 4;

/// overlayfs takes 500 lower directories.
const MAX_LAYERS: usize = 500;

const MAX_INDEX_ENTRIES: usize = 4096;

/// What something is, where it is and how big it is (image-spec v1.1.1 `descriptor.md`), reduced
/// to what names point to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Descriptor {
    /// The media type.
    #[serde(rename = "mediaType")]
    pub media_type: String,
    /// The digest.
    pub digest: Digest,
    /// The size in bytes.
    pub size: u64,
}

impl TryFrom<&oci_spec::image::Descriptor> for Descriptor {
    type Error = ImageError;

    fn try_from(descriptor: &oci_spec::image::Descriptor) -> Result<Self, ImageError> {
        Ok(Self {
            media_type: descriptor.media_type().to_string(),
            digest: Digest::try_from(descriptor.digest())?,
            size: descriptor.size(),
        })
    }
}

/// What a name can point to.
#[derive(Debug, Clone)]
pub enum Document {
    /// Images for several platforms.
    Index(Box<ImageIndex>),
    /// One image.
    Manifest(Box<ImageManifest>),
}

/// The fields that tell the kinds apart.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shape {
    media_type: Option<String>,
    manifests: Option<IgnoredAny>,
    layers: Option<IgnoredAny>,
    fs_layers: Option<IgnoredAny>,
    config: Option<IgnoredAny>,
}

impl Document {
    /// Parses a manifest or an index. `media_type` is what the descriptor or the registry said it
    /// is; a document that calls itself something else is refused, and so is one that is both.
    ///
    /// # Errors
    /// [`ImageError::InvalidDocument`] or [`ImageError::ParseDocument`].
    pub fn parse(bytes: &[u8], media_type: Option<&str>) -> Result<Self, ImageError> {
        let digest = Digest::of(bytes);
        let invalid = |reason: String| ImageError::InvalidDocument {
            document: "manifest",
            digest,
            reason,
        };
        let parse_failed = |source| ImageError::ParseDocument {
            document: "manifest",
            digest,
            source,
        };
        if bytes.len() as u64 > MAX_DOCUMENT {
            return Err(invalid("it is larger than 4 MiB".to_owned()));
        }
        let shape: Shape = serde_json::from_slice(bytes).map_err(parse_failed)?;
        if let (Some(said), Some(is)) = (media_type, &shape.media_type)
            && said != is
        {
            return Err(invalid(
                "its media type is not the one that it was announced with".to_owned(),
            ));
        }
        if shape.manifests.is_some() && (shape.layers.is_some() || shape.config.is_some()) {
            return Err(invalid("it is both an index and a manifest".to_owned()));
        }
        if shape.fs_layers.is_some() {
            return Err(invalid(
                "it has Docker's first manifest format, which is not supported".to_owned(),
            ));
        }
        let document = if shape.manifests.is_some() {
            Self::Index(serde_json::from_slice(bytes).map_err(parse_failed)?)
        } else {
            Self::Manifest(serde_json::from_slice(bytes).map_err(parse_failed)?)
        };
        document.check(media_type.or(shape.media_type.as_deref()), &invalid)?;
        Ok(document)
    }

    fn check(
        &self,
        media_type: Option<&str>,
        invalid: &dyn Fn(String) -> ImageError,
    ) -> Result<(), ImageError> {
        let is_index_type = |media_type: &str| {
            media_type.contains("image.index") || media_type.contains("manifest.list")
        };
        if let Some(media_type) = media_type
            && is_index_type(media_type) != matches!(self, Self::Index(_))
        {
            return Err(invalid(format!("it is no `{media_type}`")));
        }
        match self {
            Self::Index(index) => {
                if index.manifests().len() > MAX_INDEX_ENTRIES {
                    return Err(invalid("it has too many entries".to_owned()));
                }
                for entry in index.manifests() {
                    Digest::try_from(entry.digest())?;
                }
            }
            Self::Manifest(manifest) => {
                if manifest.layers().len() > MAX_LAYERS {
                    return Err(invalid(format!("it has more than {MAX_LAYERS} layers")));
                }
                for blob in manifest.layers() {
                    Digest::try_from(blob.digest())?;
                }
                Digest::try_from(manifest.config().digest())?;
            }
        }
        Ok(())
    }

    /// Reads and parses a document of the content store.
    ///
    /// # Errors
    /// As [`Self::parse`], and when the blob is not there.
    pub fn read(content: &ContentStore, descriptor: &Descriptor) -> Result<Self, ImageError> {
        let bytes = content.read(&descriptor.digest, MAX_DOCUMENT)?;
        let media_type = Some(descriptor.media_type.as_str()).filter(|text| !text.is_empty());
        Self::parse(&bytes, media_type)
    }
}

/// Reads the config of a manifest. What is no JSON object (an empty artifact config) is an empty
/// config.
pub(crate) fn read_config(
    content: &ContentStore,
    manifest: &ImageManifest,
) -> Result<ImageConfig, ImageError> {
    let digest = Digest::try_from(manifest.config().digest())?;
    let bytes = content.read(&digest, MAX_DOCUMENT)?;
    if !is_image_config(manifest.config().media_type()) && bytes.trim_ascii().is_empty() {
        return Ok(ImageConfig::default());
    }
    serde_json::from_slice(&bytes).map_err(|source| ImageError::ParseDocument {
        document: "config",
        digest,
        source,
    })
}

fn is_image_config(media_type: &MediaType) -> bool {
    match media_type {
        MediaType::ImageConfig => true,
        other => other.to_string() == "application/vnd.docker.container.image.v1+json",
    }
}

/// The image's identifier: the digest of its config, or of its manifest when the config does not
/// tell images apart (wasm artifacts with an empty one).
pub(crate) fn image_id(
    manifest_digest: &Digest,
    manifest: &ImageManifest,
    config: &ImageConfig,
) -> Result<Digest, ImageError> {
    if config.rootfs.diff_ids.is_empty() && config.layer_digests.is_empty() {
        return Ok(*manifest_digest);
    }
    Digest::try_from(manifest.config().digest())
}

/// Whether layers of this media type are archives of files.
fn is_tar(media_type: &MediaType) -> bool {
    let text = media_type.to_string();
    text.starts_with("application/vnd.oci.image.layer.")
        || text.starts_with("application/vnd.docker.image.rootfs.")
}

/// Whether layers of this media type are WebAssembly.
fn is_wasm(media_type: &MediaType) -> bool {
    matches!(
        media_type.to_string().as_str(),
        "application/wasm"
            | "application/vnd.wasm.content.layer.v1+wasm"
            | "application/vnd.module.wasm.content.layer.v1+wasm"
            | "application/vnd.bytecodealliance.wasm.component.layer.v0+wasm"
    )
}

/// The layers of a manifest that are WebAssembly, in order.
pub(crate) fn wasm_layers(manifest: &ImageManifest) -> Result<Vec<Descriptor>, ImageError> {
    manifest
        .layers()
        .iter()
        .filter(|layer| is_wasm(layer.media_type()))
        .map(Descriptor::try_from)
        .collect()
}

/// A layer that is wanted: what it is, and the blob that holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LayerBlob {
    pub(crate) diff_id: DiffId,
    pub(crate) blob: Digest,
}

/// The layers of a manifest that are archives, the lowest first, each with its diff ID.
pub(crate) fn tar_layers(
    manifest_digest: &Digest,
    manifest: &ImageManifest,
    config: &ImageConfig,
) -> Result<Vec<LayerBlob>, ImageError> {
    let diff_ids = &config.rootfs.diff_ids;
    let all = manifest.layers();
    let tars: Vec<_> = all
        .iter()
        .filter(|layer| is_tar(layer.media_type()))
        .collect();
    // Some artifacts list diff IDs for all layers, some for the archives only.
    let pairs: Vec<_> = if all.len() == diff_ids.len() {
        let is_archive =
            |(layer, _): &(&oci_spec::image::Descriptor, &String)| is_tar(layer.media_type());
        all.iter().zip(diff_ids).filter(is_archive).collect()
    } else if tars.len() == diff_ids.len() || tars.is_empty() {
        tars.into_iter().zip(diff_ids).collect()
    } else {
        return Err(ImageError::InvalidDocument {
            document: "manifest",
            digest: *manifest_digest,
            reason: format!(
                "it has {} layers and its config {} diff IDs",
                tars.len(),
                diff_ids.len()
            ),
        });
    };
    pairs
        .into_iter()
        .map(|(layer, diff_id)| {
            Ok(LayerBlob {
                diff_id: DiffId::parse(diff_id)?,
                blob: Digest::try_from(layer.digest())?,
            })
        })
        .collect()
}
