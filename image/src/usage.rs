//! How much disk images take, as `du` counts it: blocks of files, each file once.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::digest::{DiffId, Digest};
use crate::error::ImageError;
use crate::graph::Reachable;
use crate::reference::Reference;
use crate::store::Store;

/// The unit of `st_blocks` (`stat(3type)`).
const BLOCK: u64 = 512;

/// Bytes on disk of blobs and layers.
#[derive(Debug, Default)]
pub(crate) struct Sizes {
    pub(crate) blobs: BTreeMap<Digest, u64>,
    pub(crate) layers: BTreeMap<DiffId, u64>,
}

impl Sizes {
    pub(crate) fn total(&self) -> u64 {
        self.blobs.values().chain(self.layers.values()).sum()
    }

    fn of(&self, what: &Reachable) -> u64 {
        let blobs = what.blobs.iter().filter_map(|blob| self.blobs.get(blob));
        let layers = what.layers.iter().filter_map(|id| self.layers.get(id));
        blobs.chain(layers).sum()
    }
}

/// How much disk one image takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageUsage {
    /// The image.
    pub id: Digest,
    /// Its names.
    pub names: Vec<Reference>,
    /// When it was made, as its config says (RFC 3339).
    pub created: Option<String>,
    /// Bytes of its blobs and unpacked layers.
    pub size: u64,
    /// Of these, what other images have as well.
    pub shared: u64,
}

impl ImageUsage {
    /// What its removal would free.
    #[must_use]
    pub fn unique(&self) -> u64 {
        self.size - self.shared
    }
}

/// How much disk the store takes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage {
    /// Image by image, the newest first.
    pub images: Vec<ImageUsage>,
    /// All blobs and layers, each once.
    pub total: u64,
    /// Of these, what no image has: `image prune` removes it.
    pub unreferenced: u64,
    /// Beginnings of blobs, and what waits to be deleted.
    pub unfinished: u64,
}

impl Store {
    /// How much disk images take. Walks every unpacked layer.
    ///
    /// # Errors
    /// When a file cannot be looked at.
    pub fn usage(&self) -> Result<Usage, ImageError> {
        let sizes = self.sizes()?;
        let mut reach = Vec::new();
        for image in self.list()? {
            let mut own = Reachable::default();
            if let Some(record) = self.records.get(&image.id)? {
                own.add(&self.content, &record.manifest);
            }
            reach.push((image, own));
        }
        let mut times: BTreeMap<Digest, u32> = BTreeMap::new();
        for (_, own) in &reach {
            for digest in digests(own) {
                *times.entry(digest).or_default() += 1;
            }
        }
        let is_shared = |digest: &Digest| times.get(digest).is_some_and(|times| *times > 1);
        let images = reach
            .iter()
            .map(|(image, own)| ImageUsage {
                id: image.id,
                names: image.names.clone(),
                created: image.created.clone(),
                size: sizes.of(own),
                shared: sizes.of(&Reachable {
                    blobs: own.blobs.iter().copied().filter(is_shared).collect(),
                    layers: own
                        .layers
                        .iter()
                        .copied()
                        .filter(|id| is_shared(&id.0))
                        .collect(),
                }),
            })
            .collect();
        let live = self.live()?;
        let partial = self.content.partial()?;
        let trash = tree_size(&self.layout.trash())?;
        Ok(Usage {
            images,
            total: sizes.total(),
            unreferenced: sizes.total() - sizes.of(&live),
            unfinished: partial.iter().map(|(_, size)| size).sum::<u64>() + trash,
        })
    }

    /// Bytes on disk of an unpacked layer.
    pub(crate) fn layer_size(&self, path: &Path) -> Result<u64, ImageError> {
        tree_size(path)
    }
}

fn digests(reach: &Reachable) -> BTreeSet<Digest> {
    let layers = reach.layers.iter().map(|id| id.0);
    reach.blobs.iter().copied().chain(layers).collect()
}

/// Bytes on disk of a file; nothing when it is gone.
pub(crate) fn disk_size(path: &Path) -> Result<u64, ImageError> {
    match fs::symlink_metadata(path) {
        Ok(meta) => Ok(meta.blocks() * BLOCK),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(source) => Err(ImageError::Read {
            path: path.to_path_buf(),
            source,
        }),
    }
}

/// Bytes on disk of a tree, hard links once.
fn tree_size(path: &Path) -> Result<u64, ImageError> {
    let mut linked = HashSet::new();
    let mut total = 0;
    let mut todo = vec![path.to_path_buf()];
    while let Some(path) = todo.pop() {
        let failed = |source| ImageError::Read {
            path: path.clone(),
            source,
        };
        let meta = match fs::symlink_metadata(&path) {
            Ok(meta) => meta,
            // It goes while we count.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(failed(error)),
        };
        if meta.nlink() == 1 || meta.is_dir() || linked.insert((meta.dev(), meta.ino())) {
            total += meta.blocks() * BLOCK;
        }
        if meta.is_dir() {
            let entries = match fs::read_dir(&path) {
                Ok(entries) => entries,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(failed(error)),
            };
            for entry in entries {
                todo.push(entry.map_err(failed)?.path());
            }
        }
    }
    Ok(total)
}
