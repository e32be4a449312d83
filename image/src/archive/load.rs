//! Reading archives of images.

use std::collections::HashMap;
use std::io::Read;
use std::path::Path;
use std::sync::Mutex;
use std::sync::mpsc::Sender;

use super::docker::{DockerImage, manifest_of};
use super::intake::Intake;
use super::settle::{Ahead, Settler};
use crate::content::VerifiedBlob;
use crate::digest::Digest;
use crate::document::{Descriptor, Document, tar_layers};
use crate::error::ImageError;
use crate::graph::candidates;
use crate::lease::Lease;
use crate::platform::Platform;
use crate::progress::{OnlyNew, Progress};
use crate::reference::Reference;
use crate::store::Store;

/// Complete names, as containerd and Docker write them.
pub(crate) const NAME_ANNOTATION: &str = "io.containerd.image.name";
/// A tag or a name (image-spec v1.1.1 `annotations.md`).
pub(crate) const REF_ANNOTATION: &str = "org.opencontainers.image.ref.name";

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
        self.load_by(platform, progress, |intake, queue| {
            intake.read_tar(reader, queue)
        })
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
        self.load_by(platform, progress, |intake, queue| {
            intake.read_dir(dir, queue)
        })
    }

    fn load_by(
        &self,
        platform: Option<&Platform>,
        progress: &dyn Progress,
        read: impl FnOnce(&mut Intake<'_>, &Sender<VerifiedBlob>) -> Result<(), ImageError>,
    ) -> Result<Vec<Loaded>, ImageError> {
        let lease = self.lease()?;
        let result = self.load_leased(&lease, platform, progress, read);
        // What no image of the archive needs, and after a failure all of it.
        let swept = self.discard_leased(lease);
        let loaded = result?;
        swept?;
        for image in &loaded {
            let name = image.names.first().map(Reference::familiar);
            for id in &image.ids {
                self.record_event("load", &id.to_string(), name.as_deref());
            }
        }
        Ok(loaded)
    }

    fn load_leased(
        &self,
        lease: &Lease,
        platform: Option<&Platform>,
        progress: &dyn Progress,
        read: impl FnOnce(&mut Intake<'_>, &Sender<VerifiedBlob>) -> Result<(), ImageError>,
    ) -> Result<Vec<Loaded>, ImageError> {
        let mut intake = Intake::new(&self.content, lease, progress);
        let settler = Settler {
            content: &self.content,
            layers: &self.layers,
            lease,
            progress,
            // Of several platforms one would be unpacked for nothing.
            ahead: platform.map_or(Ahead::Unpack, |_| Ahead::No),
            failure: Mutex::default(),
        };
        let read = std::thread::scope(|scope| {
            let queue = settler.start(scope);
            read(&mut intake, &queue)
        });
        read?;
        settler.into_result()?;
        self.record_all(&intake, lease, platform, progress)
    }

    fn record_all(
        &self,
        intake: &Intake<'_>,
        lease: &Lease,
        platform: Option<&Platform>,
        progress: &dyn Progress,
    ) -> Result<Vec<Loaded>, ImageError> {
        let tops = if let Some(bytes) = intake.document("index.json")? {
            tops_of_index(&bytes)?
        } else if let Some(bytes) = intake.document("manifest.json")? {
            self.tops_of_docker(intake, lease, &bytes)?
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
        for (top, _) in &tops {
            self.unpack_runnable(top, platform, progress)?;
        }
        let mut loaded = Vec::new();
        for (top, names) in tops {
            let ids = self.record(&names, &top, platform).map_err(incomplete)?;
            loaded.push(Loaded { names, ids });
        }
        Ok(loaded)
    }

    /// Unpacks the images below `top` that this machine can run, or of the platform that is wanted:
    /// what cannot be unpacked is no image.
    fn unpack_runnable(
        &self,
        top: &Descriptor,
        platform: Option<&Platform>,
        progress: &dyn Progress,
    ) -> Result<(), ImageError> {
        let ours = match platform {
            Some(platform) => vec![platform.clone()],
            None => vec![Platform::host(), Platform::wasi()],
        };
        for found in candidates(&self.content, top)? {
            let is_ours = ours.iter().any(|ours| found.platform.serves(ours));
            if is_ours || found.platform.is_unknown() {
                let layers = tar_layers(&found.descriptor.digest, &found.manifest, &found.config)?;
                self.layers.ensure(&layers, &OnlyNew(progress))?;
            }
        }
        Ok(())
    }

    fn tops_of_docker(
        &self,
        intake: &Intake<'_>,
        lease: &Lease,
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
            let top = manifest_of(&self.content, lease, intake, image)?;
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
