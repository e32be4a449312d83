//! From a name's descriptor to images: walking indexes, choosing a platform, finding what is
//! reachable.

use std::collections::BTreeSet;

use oci_spec::image::ImageManifest;

use crate::config::ImageConfig;
use crate::content::ContentStore;
use crate::digest::{DiffId, Digest};
use crate::document::{
    Descriptor, Document, MAX_DEPTH, image_id, read_config, tar_layers, wasm_layers,
};
use crate::error::ImageError;
use crate::platform::Platform;

/// An image that a name leads to, complete in the content store.
#[derive(Debug, Clone)]
pub(crate) struct Candidate {
    pub(crate) id: Digest,
    pub(crate) platform: Platform,
    pub(crate) descriptor: Descriptor,
    pub(crate) manifest: ImageManifest,
    pub(crate) config: ImageConfig,
    pub(crate) index: Option<Digest>,
}

/// All complete images that `top` leads to, in the order of the index.
pub(crate) fn candidates(
    content: &ContentStore,
    top: &Descriptor,
) -> Result<Vec<Candidate>, ImageError> {
    let mut found = Vec::new();
    collect(content, top, None, None, 0, &mut found)?;
    Ok(found)
}

fn collect(
    content: &ContentStore,
    descriptor: &Descriptor,
    platform: Option<Platform>,
    index: Option<Digest>,
    depth: u32,
    found: &mut Vec<Candidate>,
) -> Result<(), ImageError> {
    // Of an index that was fetched for one platform, the other manifests are absent.
    if !content.has(&descriptor.digest) {
        return Ok(());
    }
    match Document::read(content, descriptor)? {
        Document::Manifest(manifest) => {
            found.extend(candidate(content, descriptor, *manifest, platform, index)?);
        }
        Document::Index(document) => {
            if depth >= MAX_DEPTH {
                return Err(ImageError::InvalidDocument {
                    document: "index",
                    digest: descriptor.digest,
                    reason: "it is nested too deeply".to_owned(),
                });
            }
            for entry in document.manifests() {
                let platform = entry.platform().as_ref().map(Platform::from);
                if platform.as_ref().is_some_and(Platform::is_unknown) {
                    continue;
                }
                let child = Descriptor::try_from(entry)?;
                let index = Some(descriptor.digest);
                collect(content, &child, platform, index, depth + 1, found)?;
            }
        }
    }
    Ok(())
}

fn candidate(
    content: &ContentStore,
    descriptor: &Descriptor,
    manifest: ImageManifest,
    platform: Option<Platform>,
    index: Option<Digest>,
) -> Result<Option<Candidate>, ImageError> {
    for blob in std::iter::once(manifest.config()).chain(manifest.layers()) {
        if !content.has(&Digest::try_from(blob.digest())?) {
            return Ok(None);
        }
    }
    let config = read_config(content, &manifest)?;
    let mut platform = platform.unwrap_or_else(|| config.platform());
    if platform.is_unknown() && !wasm_layers(&manifest)?.is_empty() {
        platform = Platform::wasi();
    }
    Ok(Some(Candidate {
        id: image_id(&descriptor.digest, &manifest, &config)?,
        platform,
        descriptor: descriptor.clone(),
        manifest,
        config,
        index,
    }))
}

/// Chooses the image for a platform: the wanted one, or without a wish the host's, then WASI.
pub(crate) fn choose(
    name: &str,
    candidates: Vec<Candidate>,
    wanted: Option<&Platform>,
) -> Result<Candidate, ImageError> {
    let wishes = match wanted {
        Some(wanted) => vec![wanted.clone()],
        None => vec![Platform::host(), Platform::wasi()],
    };
    let chosen = wishes.iter().find_map(|wish| {
        candidates
            .iter()
            .position(|candidate| candidate.platform.serves(wish))
    });
    let present = candidates
        .iter()
        .map(|candidate| candidate.platform.to_string())
        .collect();
    chosen
        .and_then(|at| candidates.into_iter().nth(at))
        .ok_or_else(|| ImageError::NoPlatform {
            name: name.to_owned(),
            wanted: wishes
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(" or "),
            present,
        })
}

/// The manifests below `top` that are not among `chosen`.
pub(crate) fn others_than(
    content: &ContentStore,
    top: &Descriptor,
    chosen: &BTreeSet<Digest>,
) -> BTreeSet<Digest> {
    let mut others = BTreeSet::new();
    let mut todo = vec![(top.clone(), 0)];
    while let Some((descriptor, depth)) = todo.pop() {
        match Document::read(content, &descriptor) {
            Ok(Document::Index(index)) if depth <= MAX_DEPTH => {
                let entries = index.manifests().iter().map(Descriptor::try_from);
                todo.extend(entries.flatten().map(|entry| (entry, depth + 1)));
            }
            Ok(Document::Manifest(_)) if !chosen.contains(&descriptor.digest) => {
                others.insert(descriptor.digest);
            }
            // What is absent has nothing to be left out.
            _ => {}
        }
    }
    others
}

/// What is reachable from a set of descriptors.
#[derive(Debug, Default)]
pub(crate) struct Reachable {
    pub(crate) blobs: BTreeSet<Digest>,
    pub(crate) layers: BTreeSet<DiffId>,
}

impl Reachable {
    /// Adds everything below `top`. What is absent or unreadable leads nowhere, but stays named.
    pub(crate) fn add(&mut self, content: &ContentStore, top: &Descriptor) {
        self.add_except(content, top, &BTreeSet::new());
    }

    /// As [`Self::add`], without these manifests and what only they lead to.
    pub(crate) fn add_except(
        &mut self,
        content: &ContentStore,
        top: &Descriptor,
        except: &BTreeSet<Digest>,
    ) {
        self.add_at(content, top, except, 0);
    }

    fn add_at(
        &mut self,
        content: &ContentStore,
        descriptor: &Descriptor,
        except: &BTreeSet<Digest>,
        depth: u32,
    ) {
        let is_excepted = except.contains(&descriptor.digest);
        if is_excepted || !self.blobs.insert(descriptor.digest) || depth > MAX_DEPTH {
            return;
        }
        match Document::read(content, descriptor) {
            Err(_) => {}
            Ok(Document::Index(index)) => {
                for entry in index.manifests() {
                    if let Ok(child) = Descriptor::try_from(entry) {
                        self.add_at(content, &child, except, depth + 1);
                    }
                }
            }
            Ok(Document::Manifest(manifest)) => {
                self.add_manifest(content, &descriptor.digest, &manifest);
            }
        }
    }

    fn add_manifest(&mut self, content: &ContentStore, digest: &Digest, manifest: &ImageManifest) {
        for blob in std::iter::once(manifest.config()).chain(manifest.layers()) {
            self.blobs.extend(Digest::try_from(blob.digest()));
        }
        let layers =
            read_config(content, manifest).and_then(|config| tar_layers(digest, manifest, &config));
        for layer in layers.unwrap_or_default() {
            self.layers.insert(layer.diff_id);
        }
    }
}
