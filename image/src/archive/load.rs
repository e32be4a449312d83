//! Reading archives of images.

use std::collections::HashMap;
use std::io::Read;
use std::path::Path;

use super::docker::{DockerImage, manifest_of};
use super::intake::Intake;
use crate::digest::Digest;
use crate::document::{Descriptor, Document};
use crate::error::ImageError;
use crate::platform::Platform;
use crate::progress::Progress;
use crate::reference::Reference;
use crate::store::Store;

/// Complete names, as containerd and Docker write them.
pub(super) const NAME_ANNOTATION: &str = "io.containerd.image.name";
/// A tag or a name (image-spec v1.1.1 `annotations.md`).
pub(super) const REF_ANNOTATION: &str = "org.opencontainers.image.ref.name";

/// What an archive brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// The names that the archive gives.
    pub names: Vec<Reference>,
    /// The images, one for each platform.
    pub ids: Vec<Digest>,
}

impl Store {
    /// Loads images from an OCI layout or a Docker archive, as tar, plain or compressed. With
    /// `platform`, only images for it are kept.
    ///
    /// # Errors
    /// When the archive is malformed, a blob does not have its digest, or no image is complete.
    /// Then nothing is left of it.
    pub fn load(
        &self,
        reader: impl Read,
        platform: Option<&Platform>,
        progress: &dyn Progress,
    ) -> Result<Vec<Loaded>, ImageError> {
        let mut intake = Intake::new(&self.content, progress);
        let read = intake.read_tar(reader);
        self.finish_load(intake, read, platform)
    }

    /// Loads images from an OCI layout directory, as [`Self::load`].
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_dir(
        &self,
        dir: &Path,
        platform: Option<&Platform>,
        progress: &dyn Progress,
    ) -> Result<Vec<Loaded>, ImageError> {
        let mut intake = Intake::new(&self.content, progress);
        let read = intake.read_dir(dir);
        self.finish_load(intake, read, platform)
    }

    fn finish_load(
        &self,
        mut intake: Intake<'_>,
        read: Result<(), ImageError>,
        platform: Option<&Platform>,
    ) -> Result<Vec<Loaded>, ImageError> {
        let result = read.and_then(|()| self.record_all(&mut intake, platform));
        let swept = self.discard_unreferenced(&intake.added);
        let loaded = result?;
        swept?;
        Ok(loaded)
    }

    fn record_all(
        &self,
        intake: &mut Intake<'_>,
        platform: Option<&Platform>,
    ) -> Result<Vec<Loaded>, ImageError> {
        let tops = if let Some(bytes) = intake.document("index.json")? {
            tops_of_index(&bytes)?
        } else if let Some(bytes) = intake.document("manifest.json")? {
            self.tops_of_docker(intake, &bytes)?
        } else {
            return Err(ImageError::InvalidArchive {
                reason: "it has neither `index.json` nor `manifest.json`".to_owned(),
            });
        };
        if tops.is_empty() {
            return Err(ImageError::InvalidArchive {
                reason: "it holds no image".to_owned(),
            });
        }
        let mut loaded = Vec::new();
        for (top, names) in tops {
            let ids = self.record(&names, &top, platform).map_err(incomplete)?;
            loaded.push(Loaded { names, ids });
        }
        Ok(loaded)
    }

    fn tops_of_docker(
        &self,
        intake: &mut Intake<'_>,
        bytes: &[u8],
    ) -> Result<Vec<(Descriptor, Vec<Reference>)>, ImageError> {
        let images: Vec<DockerImage> =
            serde_json::from_slice(bytes).map_err(|source| ImageError::ParseDocument {
                document: "archive manifest",
                digest: Digest::of(bytes),
                source,
            })?;
        let mut tops = Vec::new();
        for image in &images {
            let top = manifest_of(&self.content, intake, image)?;
            intake.added.push(top.digest);
            let names = image.repo_tags.iter().flatten();
            let names = names
                .map(|name| Reference::parse(name))
                .collect::<Result<_, _>>()?;
            tops.push((top, names));
        }
        Ok(tops)
    }
}

/// A blob that is missing is missing in the archive.
fn incomplete(error: ImageError) -> ImageError {
    match error {
        ImageError::BlobMissing(digest) => ImageError::InvalidArchive {
            reason: format!("it does not hold all blobs of `{digest}`"),
        },
        other => other,
    }
}

fn tops_of_index(bytes: &[u8]) -> Result<Vec<(Descriptor, Vec<Reference>)>, ImageError> {
    let Document::Index(index) = Document::parse(bytes, None)? else {
        return Err(ImageError::InvalidArchive {
            reason: "its `index.json` is no index".to_owned(),
        });
    };
    let mut tops: Vec<(Descriptor, Vec<Reference>)> = Vec::new();
    for entry in index.manifests() {
        let is_attestation = entry
            .platform()
            .as_ref()
            .is_some_and(|platform| Platform::from(platform).is_unknown());
        if is_attestation {
            continue;
        }
        let top = Descriptor::try_from(entry)?;
        let name = entry.annotations().as_ref().and_then(name_of);
        match tops.iter_mut().find(|(known, _)| *known == top) {
            Some((_, names)) => names.extend(name),
            None => tops.push((top, name.into_iter().collect())),
        }
    }
    Ok(tops)
}

/// The name that the annotations give. The specification lets `ref.name` be any text: one that is
/// no reference leaves the image without a name.
fn name_of(annotations: &HashMap<String, String>) -> Option<Reference> {
    annotations
        .get(NAME_ANNOTATION)
        .or_else(|| annotations.get(REF_ANNOTATION))
        .and_then(|name| Reference::parse(name).ok())
}
