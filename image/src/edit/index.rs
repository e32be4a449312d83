//! Indexes made by hand: several images under one name, each for its platform.

use serde::Serialize;

use crate::digest::Digest;
use crate::document::{Descriptor, Document};
use crate::error::ImageError;
use crate::graph::{Candidate, candidates};
use crate::platform::Platform;
use crate::reference::Reference;
use crate::store::{Store, Target};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// One image of an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexEntry {
    /// Its manifest.
    pub manifest: Descriptor,
    /// What it is for.
    pub platform: Platform,
}

/// A change to the entry of an index: what is given replaces what is there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EntryChange {
    /// The operating system.
    pub os: Option<String>,
    /// The architecture.
    pub architecture: Option<String>,
    /// The variant of the architecture.
    pub variant: Option<String>,
}

#[derive(Serialize)]
struct PlatformLine<'a> {
    architecture: &'a str,
    os: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    variant: Option<&'a str>,
}

#[derive(Serialize)]
struct Line<'a> {
    #[serde(flatten)]
    descriptor: &'a Descriptor,
    platform: PlatformLine<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Index<'a> {
    schema_version: u32,
    media_type: &'static str,
    manifests: Vec<Line<'a>>,
}

impl Store {
    /// Makes an index of local images and gives it a name.
    ///
    /// # Errors
    /// [`ImageError::NotFound`] for an image that is not here, [`ImageError::InUse`] when the name
    /// is taken and `replace` is not asked for.
    pub fn create_index(
        &self,
        name: &Reference,
        images: &[String],
        replace: bool,
    ) -> Result<Digest, ImageError> {
        if !replace && self.names.get(name)?.is_some() {
            return Err(ImageError::InUse {
                image: name.familiar(),
                reason: "the name is taken".to_owned(),
                force_helps: false,
            });
        }
        let mut entries: Vec<IndexEntry> = Vec::new();
        for image in images {
            for found in self.candidates_of(image)? {
                let entry = IndexEntry {
                    manifest: found.descriptor,
                    platform: found.platform,
                };
                if !entries.contains(&entry) {
                    entries.push(entry);
                }
            }
        }
        self.put_index(name, &entries)
    }

    /// The images of the index that `name` means.
    ///
    /// # Errors
    /// [`ImageError::NotFound`], or when it is no index.
    pub fn index_entries(&self, name: &Reference) -> Result<Vec<IndexEntry>, ImageError> {
        let record = self
            .names
            .get(name)?
            .ok_or_else(|| ImageError::NotFound(name.familiar()))?;
        let invalid = || ImageError::InvalidDocument {
            document: "manifest",
            digest: record.descriptor.digest,
            reason: "it is no index".to_owned(),
        };
        let Document::Index(index) = Document::read(&self.content, &record.descriptor)? else {
            return Err(invalid());
        };
        let mut entries = Vec::new();
        for entry in index.manifests() {
            let platform = entry.platform().as_ref().map(Platform::from);
            entries.push(IndexEntry {
                manifest: Descriptor::try_from(entry)?,
                platform: platform.unwrap_or_else(|| Platform::new("", "", None)),
            });
        }
        Ok(entries)
    }

    /// Changes what the index says about the entries that `image` means.
    ///
    /// # Errors
    /// [`ImageError::NotFound`] when the index has no such entry.
    pub fn annotate_index(
        &self,
        name: &Reference,
        image: &str,
        change: &EntryChange,
    ) -> Result<Digest, ImageError> {
        let mut entries = self.index_entries(name)?;
        let wanted = self.manifests_of(image)?;
        let mut found = false;
        for entry in &mut entries {
            if wanted.contains(&entry.manifest.digest) {
                found = true;
                entry.platform = changed(&entry.platform, change);
            }
        }
        if !found {
            return Err(ImageError::NotFound(format!(
                "{image} in {}",
                name.familiar()
            )));
        }
        self.put_index(name, &entries)
    }

    /// The manifests that a text means: a digest, or what an image has.
    fn manifests_of(&self, image: &str) -> Result<Vec<Digest>, ImageError> {
        if let Ok(digest) = Digest::parse(image)
            && self.content.has(&digest)
        {
            return Ok(vec![digest]);
        }
        let found = self.candidates_of(image)?.into_iter();
        Ok(found.map(|found| found.descriptor.digest).collect())
    }

    fn candidates_of(&self, image: &str) -> Result<Vec<Candidate>, ImageError> {
        let top = match self.target(image)? {
            Target::Name(record) => record.descriptor,
            Target::Id(record) => record.manifest,
        };
        candidates(&self.content, &top)
    }

    fn put_index(&self, name: &Reference, entries: &[IndexEntry]) -> Result<Digest, ImageError> {
        let index = Index {
            schema_version: 2,
            media_type: INDEX,
            manifests: entries.iter().map(line).collect(),
        };
        let bytes = serde_json::to_vec(&index).map_err(|error| ImageError::WriteStream {
            what: "an index",
            source: error.into(),
        })?;
        let top = Descriptor {
            media_type: INDEX.to_owned(),
            digest: Digest::of(&bytes),
            size: bytes.len() as u64,
        };
        let lease = self.lease()?;
        lease.add([top.digest])?;
        self.content.put(&bytes)?;
        let recorded = self.record(std::slice::from_ref(name), &top, None);
        self.discard_leased(lease)?;
        recorded.map(|_| top.digest)
    }

    /// The document that a name here means, as its bytes are.
    ///
    /// # Errors
    /// [`ImageError::NotFound`].
    pub fn raw_manifest(&self, name: &Reference) -> Result<Vec<u8>, ImageError> {
        let record = self
            .names
            .get(name)?
            .ok_or_else(|| ImageError::NotFound(name.familiar()))?;
        self.content
            .read(&record.descriptor.digest, crate::document::MAX_DOCUMENT)
    }
}

fn line(entry: &IndexEntry) -> Line<'_> {
    Line {
        descriptor: &entry.manifest,
        platform: PlatformLine {
            architecture: entry.platform.architecture(),
            os: entry.platform.os(),
            variant: entry.platform.variant(),
        },
    }
}

fn changed(platform: &Platform, change: &EntryChange) -> Platform {
    Platform::new(
        change.os.as_deref().unwrap_or(platform.os()),
        change
            .architecture
            .as_deref()
            .unwrap_or(platform.architecture()),
        change.variant.as_deref().or(platform.variant()),
    )
}
