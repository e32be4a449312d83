//! A build's hold on the store: layers in the making, leases on what it uses.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use sys::durable::{self, Durability};

use super::beside::Counter;
use super::pack::{ArchiveRecord, Settle, archive_record_path, pack};
use crate::decode::decompressed;
use crate::digest::{DiffId, Digest};
use crate::document::tar_layers;
use crate::error::ImageError;
use crate::form::LayerForm;
use crate::layers::{LayerStore, StagedLayer};
use crate::lease::Lease;
use crate::lookup::LayeredRoot;
use crate::store::{Image, Store};
use crate::tarwalk::{Entry, EntryKind, TarWalk};
use crate::unpack::{LayerTree, UnpackMode};

/// Layers with so many bytes are written to the disk while they are hashed.
const WRITTEN_AHEAD: u64 = 64 << 20;

/// A build that runs. What it uses and makes stays as long as this does.
#[derive(Debug)]
pub struct BuildSession {
    pub(super) store: Store,
    pub(super) lease: Lease,
}

/// A layer that is complete and has no name yet. Dropped, it leaves nothing.
#[derive(Debug)]
pub struct BuiltLayer {
    staged: StagedLayer,
    size: u64,
}

impl BuiltLayer {
    /// What it is.
    #[must_use]
    pub fn diff_id(&self) -> DiffId {
        self.staged.diff_id
    }

    /// Bytes of its archive.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The directory to stack, as long as the layer has no name.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.staged.root()
    }
}

/// A layer that is being put together of files.
pub struct LayerDraft {
    dir: tempfile::TempDir,
    tree: LayerTree,
    /// Bytes of its files.
    bytes: u64,
}

impl std::fmt::Debug for LayerDraft {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LayerDraft")
            .field("dir", &self.dir)
            .finish_non_exhaustive()
    }
}

impl LayerDraft {
    /// Puts one file into the layer; `body` gives its content. What an earlier one put there goes.
    ///
    /// # Errors
    /// When it breaks a rule of layers or cannot be written.
    pub fn put(&mut self, entry: &Entry, body: &mut impl Read) -> Result<(), ImageError> {
        if let EntryKind::File { size, .. } = &entry.kind {
            self.bytes += size;
        }
        self.tree.put(entry, body)
    }
}

/// Writes the archive of a directory, as that of a layer: always the same for the same files.
///
/// # Errors
/// When something cannot be read or written.
pub fn pack_directory(dir: &Path, mut out: impl Write) -> io::Result<()> {
    pack(dir, None, &mut out)
}

/// Unpacks an archive of [`pack_directory`] into an empty directory, with its owners.
///
/// # Errors
/// When the archive is malformed or cannot be written.
pub fn unpack_directory(
    archive: impl Read,
    dir: &Path,
    mode: UnpackMode,
) -> Result<(), ImageError> {
    unpack_in_mode(archive, dir, mode)
}

/// Unpacks an archive of a build context, plain or compressed, into an empty directory. Its files belong
/// to who builds; devices are left out.
///
/// # Errors
/// When the archive is malformed or cannot be written.
pub fn unpack_context(archive: impl Read, dir: &Path) -> Result<(), ImageError> {
    let mode = UnpackMode {
        userns: true,
        flat_owner: true,
    };
    unpack_in_mode(archive, dir, mode)
}

fn unpack_in_mode(archive: impl Read, dir: &Path, mode: UnpackMode) -> Result<(), ImageError> {
    let mut walk = TarWalk::new(decompressed(archive)?);
    let mut tree = LayerTree::new(dir, mode)?;
    while let Some(entry) = walk.next_entry()? {
        tree.put(&entry, &mut walk)?;
    }
    tree.finish()?;
    Ok(())
}

impl Store {
    /// Begins a build.
    ///
    /// # Errors
    /// When its lease cannot be written.
    pub fn begin_build(&self) -> Result<BuildSession, ImageError> {
        Ok(BuildSession {
            store: self.clone(),
            lease: self.lease()?,
        })
    }

    /// The layers of this store as directories: what a build makes is one.
    pub(super) fn directories(&self) -> LayerStore {
        let mut layers = self.layers.clone();
        layers.form = LayerForm::Directory;
        layers
    }

    /// The directory of a layer that was built or unpacked here; `None` when it is not there.
    #[must_use]
    pub fn built_root(&self, layer: &DiffId) -> Option<PathBuf> {
        let layers = self.directories();
        let record = layers.record(layer).ok().flatten();
        record.map(|_| layers.dir(layer))
    }

    /// Bytes of the archive of a layer that is there.
    #[must_use]
    pub fn archive_size(&self, layer: &DiffId) -> Option<u64> {
        let record = self.directories().record(layer).ok().flatten()?;
        Some(record.size)
    }
}

impl BuildSession {
    /// What it holds, for what is to be left of it.
    pub(crate) fn into_lease(self) -> Lease {
        self.lease
    }

    /// Protects an image and its layers while the build goes on.
    ///
    /// # Errors
    /// When the lease cannot be written.
    pub fn hold_image(&self, image: &Image) -> Result<(), ImageError> {
        let layers = tar_layers(&image.manifest_digest, &image.manifest, &image.config)?;
        let mut digests = vec![image.manifest_digest];
        digests.extend(Digest::try_from(image.manifest.config().digest()));
        for layer in layers {
            digests.extend([layer.blob, layer.diff_id.0]);
        }
        self.lease.add(digests)
    }

    /// Protects a layer while the build goes on.
    ///
    /// # Errors
    /// When the lease cannot be written.
    pub fn hold_layers(&self, layers: &[DiffId]) -> Result<(), ImageError> {
        self.lease.add(layers.iter().map(|layer| layer.0))
    }

    /// Begins a layer that is put together of files.
    ///
    /// # Errors
    /// When its directory cannot be made.
    pub fn draft(&self) -> Result<LayerDraft, ImageError> {
        let dir = self.temporary("layer-")?;
        let root = dir.path().join(StagedLayer::ROOT);
        let failed = |source| ImageError::Write {
            path: root.clone(),
            source,
        };
        fs::create_dir(&root).map_err(failed)?;
        fs::set_permissions(&root, fs::Permissions::from_mode(0o755)).map_err(failed)?;
        let tree = LayerTree::new(&root, self.store.layers.mode())?;
        Ok(LayerDraft {
            dir,
            tree,
            bytes: 0,
        })
    }

    /// Completes a layer. No file of it is newer than `epoch`.
    ///
    /// # Errors
    /// When it cannot be read or written.
    pub fn finish(&self, draft: LayerDraft, epoch: i64) -> Result<BuiltLayer, ImageError> {
        draft.tree.finish()?;
        let settle = Settle { epoch, below: None };
        if draft.bytes < WRITTEN_AHEAD {
            return self.complete(draft.dir, &settle);
        }
        let file = fs::File::open(draft.dir.path());
        std::thread::scope(|scope| {
            // The disk writes while the processor hashes. Whether it has written everything is asked for
            // when the layer gets its name.
            scope.spawn(|| file.map(|file| rustix::fs::syncfs(&file)));
            self.complete(draft.dir, &settle)
        })
    }

    /// Makes a layer of the upper directory of an overlay, which is taken over. `below` is what the
    /// overlay lay upon.
    ///
    /// # Errors
    /// When it cannot be moved, read or written.
    pub fn adopt(
        &self,
        upper: &Path,
        below: &LayeredRoot,
        epoch: i64,
    ) -> Result<BuiltLayer, ImageError> {
        let dir = self.temporary("layer-")?;
        let root = dir.path().join(StagedLayer::ROOT);
        durable::publish(upper, &root, Durability::Atomic).map_err(|source| ImageError::Write {
            path: root.clone(),
            source,
        })?;
        let settle = Settle {
            epoch,
            below: Some(below),
        };
        self.complete(dir, &settle)
    }

    /// Unpacks the blob of a layer that was built elsewhere; its diff ID must be the expected one.
    ///
    /// # Errors
    /// When it is another layer, or cannot be written.
    pub fn receive(
        &self,
        blob: impl Read + Send,
        expected: DiffId,
    ) -> Result<BuiltLayer, ImageError> {
        let store = self.store.directories();
        let staged = store.stage(blob, Some(expected), &|_| ())?;
        let size = staged.size()?;
        Ok(BuiltLayer { staged, size })
    }

    /// A directory below `tmp/`.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn temporary(&self, prefix: &str) -> Result<tempfile::TempDir, ImageError> {
        let tmp = self.store.layout.tmp();
        tempfile::Builder::new()
            .prefix(prefix)
            .permissions(fs::Permissions::from_mode(0o700))
            .tempdir_in(&tmp)
            .map_err(|source| ImageError::Write { path: tmp, source })
    }

    fn complete(
        &self,
        dir: tempfile::TempDir,
        settle: &Settle<'_>,
    ) -> Result<BuiltLayer, ImageError> {
        let root = dir.path().join(StagedLayer::ROOT);
        let mut counter = Counter::new();
        let (hasher, size) = pack(&root, Some(settle), &mut counter)
            .and_then(|()| counter.finish())
            .map_err(|source| ImageError::Read {
                path: root.clone(),
                source,
            })?;
        let diff_id = DiffId(Digest::from_hasher(hasher));
        let staged = StagedLayer::of_tree(dir, diff_id, size, self.store.layers.mode())?;
        Ok(BuiltLayer { staged, size })
    }

    /// Makes layers durable, under one barrier, and gives them their names.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn publish(&self, layers: &[&BuiltLayer]) -> Result<(), ImageError> {
        let Some(first) = layers.first() else {
            return Ok(());
        };
        self.lease
            .add(layers.iter().map(|layer| layer.diff_id().0))?;
        first.staged.sync()?;
        let store = self.store.directories();
        for layer in layers {
            store.publish(&layer.staged)?;
            let record = ArchiveRecord {
                version: 1,
                directory: format!("{}{}", layer.diff_id().hex(), store.suffix()),
                size: layer.size,
            };
            let path = archive_record_path(&self.store.layout.layers(), &layer.diff_id());
            crate::names::write_json(&path, &record)?;
        }
        Ok(())
    }
}
