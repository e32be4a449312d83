//! The image store: names, images and their layers, as the engine uses them.

use std::collections::BTreeMap;
use std::time::Duration;

use oci_spec::image::ImageManifest;
use state::Layout;
use sys::lock::{FileLock, Mode};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::config::ImageConfig;
use crate::content::ContentStore;
use crate::digest::Digest;
use crate::document::{Descriptor, tar_layers, wasm_layers};
use crate::error::ImageError;
use crate::graph::{Candidate, candidates, choose};
use crate::layers::LayerStore;
use crate::names::{NameRecord, NameTable};
use crate::platform::Platform;
use crate::records::{ImageRecord, LayerLine, NAMES, RecordTable, VERSION};
use crate::reference::Reference;
use crate::unpack::UnpackMode;

/// How long a change of names waits for another one. Nothing slow happens under the lock.
const LOCK_TIMEOUT: Duration = Duration::from_secs(60);

/// The store of one root directory.
#[derive(Debug, Clone)]
pub struct Store {
    pub(crate) layout: Layout,
    pub(crate) content: ContentStore,
    #[cfg(target_os = "linux")]
    pub(crate) layers: LayerStore,
    pub(crate) names: NameTable,
    pub(crate) records: RecordTable,
}

/// An image for one platform, with everything that starting it needs to know.
#[derive(Debug, Clone)]
pub struct Image {
    /// The identifier: the digest of the config, or of the manifest of an artifact without one.
    pub id: Digest,
    /// The digest of its manifest.
    pub manifest_digest: Digest,
    /// The index that led to it.
    pub index_digest: Option<Digest>,
    /// Its manifest.
    pub manifest: ImageManifest,
    /// Its config.
    pub config: ImageConfig,
    /// The platform it is for.
    pub platform: Platform,
    /// The name that it was found by. [`Store::names_of`] finds all of them.
    pub name: Option<Reference>,
    /// Its layers that are WebAssembly instead of archives: the first is the entry.
    pub wasm_layers: Vec<Descriptor>,
}

/// A line of the list of images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageSummary {
    /// The identifier.
    pub id: Digest,
    /// The digest of its manifest.
    pub manifest_digest: Digest,
    /// The names that lead to it, sorted; none for a dangling image.
    pub names: Vec<Reference>,
    /// The platform it is for.
    pub platform: Platform,
    /// When it was made, as its config says (RFC 3339).
    pub created: Option<String>,
    /// When it came here (RFC 3339).
    pub added: String,
    /// Bytes of all its blobs.
    pub size: u64,
}

/// A name, if they have one, and the images that it leads to.
pub type NamedImages = (Option<Reference>, Vec<ImageSummary>);

/// What a text given by a user means.
pub(crate) enum Target {
    Name(NameRecord),
    Id(Box<ImageRecord>),
}

impl Store {
    /// Opens the store. Layers are unpacked and used in `mode`.
    ///
    /// # Errors
    /// When the directory of names cannot be made.
    pub fn open(layout: &Layout, mode: UnpackMode) -> Result<Self, ImageError> {
        #[cfg(not(target_os = "linux"))]
        let _nothing_is_unpacked = mode;
        Ok(Self {
            content: ContentStore::open(layout),
            #[cfg(target_os = "linux")]
            layers: LayerStore::open(layout, mode),
            names: NameTable::open(layout.images().join(NAMES))?,
            records: RecordTable::new(layout.images(), layout.trash()),
            layout: layout.clone(),
        })
    }

    /// The layer store, on systems that can stack layers. On others layers stay blobs, and
    /// [`Self::assemble`] makes one directory of them.
    pub(crate) fn layer_store(&self) -> Option<&LayerStore> {
        #[cfg(target_os = "linux")]
        {
            Some(&self.layers)
        }
        #[cfg(not(target_os = "linux"))]
        {
            None
        }
    }

    /// The blobs.
    #[must_use]
    pub fn content(&self) -> &ContentStore {
        &self.content
    }

    /// Finds an image by name or by the beginning of its identifier. A name that leads to several
    /// images is resolved by `platform`, or without one to the host's, then to WASI.
    ///
    /// # Errors
    /// [`ImageError::NotFound`], [`ImageError::AmbiguousId`], [`ImageError::NoPlatform`].
    pub fn resolve(&self, text: &str, platform: Option<&Platform>) -> Result<Image, ImageError> {
        let (top, name, own) = match self.target(text)? {
            Target::Name(record) => (record.descriptor, Some(record.name), None),
            // An identifier names one platform already.
            Target::Id(record) => (record.manifest, None, Some(record.platform)),
        };
        let mut found = candidates(&self.content, &top)?;
        if let [only] = found.as_mut_slice()
            && let Some(own) = &own
        {
            only.platform = own.clone();
        }
        let wanted = platform.or(own.as_ref());
        if found.is_empty() {
            return Err(ImageError::NotFound(text.to_owned()));
        }
        let chosen = choose(text, found, wanted)?;
        Ok(Image {
            id: chosen.id,
            manifest_digest: chosen.descriptor.digest,
            index_digest: chosen.index,
            wasm_layers: wasm_layers(&chosen.manifest)?,
            manifest: chosen.manifest,
            config: chosen.config,
            platform: chosen.platform,
            name,
        })
    }

    /// All names that lead to the image, sorted. Reads every name's manifest: not for the start of
    /// a container.
    ///
    /// # Errors
    /// When a record cannot be read.
    pub fn names_of(&self, image: &Image) -> Result<Vec<Reference>, ImageError> {
        let names = self.names_by_image()?.remove(&image.id);
        Ok(names.unwrap_or_default())
    }

    /// All images, the newest first.
    ///
    /// # Errors
    /// When a record cannot be read.
    pub fn list(&self) -> Result<Vec<ImageSummary>, ImageError> {
        let mut names = self.names_by_image()?;
        let mut list: Vec<_> = self
            .records
            .list()?
            .into_iter()
            .map(|record| ImageSummary {
                names: names.remove(&record.id).unwrap_or_default(),
                id: record.id,
                manifest_digest: record.manifest.digest,
                platform: record.platform,
                created: record.created,
                added: record.added,
                size: record.size,
            })
            .collect();
        list.sort_by(|a, b| (&b.created, &a.id).cmp(&(&a.created, &b.id)));
        Ok(list)
    }

    /// Every name with the images that it leads to, sorted; then those without a name.
    ///
    /// # Errors
    /// When a record cannot be read.
    pub fn list_by_name(&self) -> Result<Vec<NamedImages>, ImageError> {
        let images = self.list()?;
        let mut groups: BTreeMap<Reference, Vec<ImageSummary>> = BTreeMap::new();
        for image in &images {
            for name in &image.names {
                groups.entry(name.clone()).or_default().push(image.clone());
            }
        }
        let unnamed = images.into_iter().filter(|image| image.names.is_empty());
        let named = groups
            .into_iter()
            .map(|(name, images)| (Some(name), images));
        Ok(named
            .chain(unnamed.map(|image| (None, vec![image])))
            .collect())
    }

    /// Gives the image (or all images) that `source` names another name.
    ///
    /// # Errors
    /// As [`Self::resolve`], and when the name cannot be written.
    pub fn tag(&self, source: &str, name: &Reference) -> Result<(), ImageError> {
        let _lock = self.lock()?;
        let descriptor = match self.target(source)? {
            Target::Name(record) => record.descriptor,
            Target::Id(record) => record.manifest,
        };
        self.names.put(name, &descriptor)?;
        let found = candidates(&self.content, &descriptor)?;
        let ids: Vec<Digest> = found.into_iter().map(|candidate| candidate.id).collect();
        self.record_named("tag", &ids, name);
        Ok(())
    }

    /// Records what was fetched: `name` points to `top` from now on, and every complete image
    /// below it is known. Called when all blobs are in the content store.
    ///
    /// # Errors
    /// [`ImageError::BlobMissing`] when no image below `top` is complete.
    pub fn record_pulled(
        &self,
        name: &Reference,
        top: &Descriptor,
    ) -> Result<Vec<Digest>, ImageError> {
        self.record(std::slice::from_ref(name), top, None)
    }

    /// Records the complete images below `top` and gives them their names.
    pub(crate) fn record(
        &self,
        names: &[Reference],
        top: &Descriptor,
        platform: Option<&Platform>,
    ) -> Result<Vec<Digest>, ImageError> {
        let _lock = self.lock()?;
        let mut found = candidates(&self.content, top)?;
        if found.is_empty() {
            return Err(ImageError::BlobMissing(top.digest));
        }
        if let Some(wanted) = platform {
            let name = names
                .first()
                .map_or_else(|| top.digest.to_string(), Reference::familiar);
            choose(&name, found.clone(), Some(wanted))?;
            found.retain(|found| found.platform.serves(wanted));
        }
        let mut ids = Vec::new();
        for candidate in &found {
            self.records.put(&record_of(candidate)?)?;
            ids.push(candidate.id);
        }
        for name in names {
            self.names.put(name, top)?;
        }
        Ok(ids)
    }

    pub(crate) fn lock(&self) -> Result<FileLock, ImageError> {
        let path = self.layout.locks().join("images.lock");
        FileLock::acquire(&path, Mode::Exclusive, LOCK_TIMEOUT)
            .map_err(|source| ImageError::Lock { path, source })
    }

    /// What `text` means: a name first, then the beginning of an identifier.
    pub(crate) fn target(&self, text: &str) -> Result<Target, ImageError> {
        let reference = Reference::parse(text);
        if let Ok(reference) = &reference
            && let Some(record) = self.named(reference)?
        {
            return Ok(Target::Name(record));
        }
        let prefix = text.strip_prefix("sha256:").unwrap_or(text);
        let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if (2..=64).contains(&prefix.len()) && prefix.bytes().all(is_hex) {
            let ids = self.records.ids(prefix)?;
            match ids.as_slice() {
                [] => {}
                [id] => {
                    if let Some(record) = self.records.get(id)? {
                        return Ok(Target::Id(Box::new(record)));
                    }
                }
                several => {
                    return Err(ImageError::AmbiguousId {
                        prefix: prefix.to_owned(),
                        count: several.len(),
                    });
                }
            }
            return Err(ImageError::NotFound(text.to_owned()));
        }
        // What can be no name is reported as such.
        reference?;
        Err(ImageError::NotFound(text.to_owned()))
    }

    /// The record of a name. `repository@digest` also finds any name of the repository that
    /// points to the digest.
    fn named(&self, reference: &Reference) -> Result<Option<NameRecord>, ImageError> {
        if let Some(record) = self.names.get(reference)? {
            return Ok(Some(record));
        }
        let Some(digest) = reference.digest() else {
            return Ok(None);
        };
        let points_there = |record: &NameRecord| {
            record.descriptor.digest == *digest && record.name.name() == reference.name()
        };
        Ok(self.names.list()?.into_iter().find(points_there))
    }

    /// Which names lead to which image.
    pub(crate) fn names_by_image(&self) -> Result<BTreeMap<Digest, Vec<Reference>>, ImageError> {
        let mut by_image: BTreeMap<Digest, Vec<Reference>> = BTreeMap::new();
        for record in self.names.list()? {
            for candidate in candidates(&self.content, &record.descriptor)? {
                let names = by_image.entry(candidate.id).or_default();
                if !names.contains(&record.name) {
                    names.push(record.name.clone());
                }
            }
        }
        Ok(by_image)
    }
}

fn record_of(candidate: &Candidate) -> Result<ImageRecord, ImageError> {
    let archives = tar_layers(
        &candidate.descriptor.digest,
        &candidate.manifest,
        &candidate.config,
    )?;
    let mut layers = Vec::new();
    for layer in candidate.manifest.layers() {
        let blob = Descriptor::try_from(layer)?;
        let archive = archives.iter().find(|archive| archive.blob == blob.digest);
        let diff_id = archive.map(|archive| archive.diff_id);
        layers.push(LayerLine { blob, diff_id });
    }
    let config = Descriptor::try_from(candidate.manifest.config())?;
    let sizes = layers.iter().map(|layer| layer.blob.size);
    let size = sizes
        .chain([config.size, candidate.descriptor.size])
        .fold(0, u64::saturating_add);
    Ok(ImageRecord {
        version: VERSION,
        id: candidate.id,
        size,
        manifest: candidate.descriptor.clone(),
        index: candidate.index,
        config: config.digest,
        platform: candidate.platform.clone(),
        layers,
        created: candidate.config.created.clone(),
        added: now(),
    })
}

/// The time as records hold it.
pub(crate) fn now() -> String {
    // Formatting fails only for years beyond 9999.
    OffsetDateTime::now_utc()
        .format(&Rfc3339)
        .unwrap_or_default()
}
