//! The layer store: unpacked layers by diff ID, below `layers/`.
//!
//! A layer is keyed by what it is and by how it was unpacked ([`UnpackMode`]), never by what stands
//! below it: layers unpack in any order and are shared by all images that have them. Beside each
//! directory lies its record; the record is written first, so a directory with its final name is
//! complete.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use state::Layout;
use sys::durable::{self, Durability};
use sys::lock::{FileLock, Mode};

use crate::build::archive_record_path;
use crate::content::ContentStore;
use crate::digest::{DiffId, Digest};
use crate::document::LayerBlob;
use crate::error::ImageError;
use crate::form::{LayerForm, mount_erofs};
use crate::mounts::is_mounted;
use crate::progress::{Outcome, Progress, Task};
use crate::tarwalk::EntryPath;
use crate::unpack::{
    LayerStream, PendingLink, Skipped, UnpackMode, Unpacked, Written, archive_of, unpack_layer,
    write_layer,
};

/// How many layers are unpacked at once: each has one thread that inflates and one that writes, and
/// while one waits for the disk the others compute.
pub(crate) const PARALLEL: usize = 2;

/// How long a layer waits for its name.
const LOCK_TIMEOUT: Duration = Duration::from_secs(60);

/// What is known of an unpacked layer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct LayerRecord {
    version: u32,
    /// The layer.
    pub(crate) diff_id: DiffId,
    /// Bytes of its uncompressed archive.
    pub(crate) size: u64,
    /// How it was unpacked.
    pub(crate) mode: UnpackMode,
    /// Directories that the archive did not describe.
    pub(crate) implied: Vec<EntryPath>,
    /// Hard links to files of layers below.
    pub(crate) links: Vec<PendingLink>,
    /// What this directory does not have of the archive.
    pub(crate) skipped: Vec<Skipped>,
}

const VERSION: u32 = 1;

/// The names of a layer and its record before they have their own.
const STAGED_ROOT: &str = StagedLayer::ROOT;
const STAGED_RECORD: &str = "record.json";

/// A layer that is unpacked and has no name yet. Dropped, it leaves nothing.
#[derive(Debug)]
pub(crate) struct StagedLayer {
    dir: tempfile::TempDir,
    form: LayerForm,
    pub(crate) diff_id: DiffId,
}

impl StagedLayer {
    /// The name of the layer's directory in its temporary one.
    pub(crate) const ROOT: &'static str = "root";

    /// A layer whose directory was made as the layer: every directory of it is described.
    pub(crate) fn of_tree(
        dir: tempfile::TempDir,
        diff_id: DiffId,
        size: u64,
        mode: UnpackMode,
    ) -> Result<Self, ImageError> {
        let record = LayerRecord {
            version: VERSION,
            diff_id,
            size,
            mode,
            implied: Vec::new(),
            links: Vec::new(),
            skipped: Vec::new(),
        };
        let path = dir.path().join(STAGED_RECORD);
        let json = serde_json::to_vec(&record).map_err(io::Error::from);
        json.and_then(|json| durable::replace_file(&path, &json, Durability::Atomic))
            .map_err(|source| ImageError::Write { path, source })?;
        Ok(Self {
            dir,
            form: LayerForm::Directory,
            diff_id,
        })
    }

    /// Bytes of its archive.
    pub(crate) fn size(&self) -> Result<u64, ImageError> {
        let path = self.dir.path().join(STAGED_RECORD);
        let read = fs::read(&path).and_then(|bytes| {
            let record: LayerRecord = serde_json::from_slice(&bytes)?;
            Ok(record.size)
        });
        read.map_err(|source| ImageError::Read { path, source })
    }

    /// The layer's directory, as long as it has no name.
    pub(crate) fn root(&self) -> PathBuf {
        self.dir.path().join(Self::ROOT)
    }

    /// One barrier for all its files, and for everything else that was written before.
    pub(crate) fn sync(&self) -> Result<(), ImageError> {
        durable::sync_filesystem(self.dir.path()).map_err(|source| ImageError::Write {
            path: self.dir.path().to_path_buf(),
            source,
        })
    }
}

/// Unpacked layers of one mode and form.
#[derive(Debug, Clone)]
pub(crate) struct LayerStore {
    pub(crate) form: LayerForm,
    mounts: PathBuf,
    layers: PathBuf,
    tmp: PathBuf,
    trash: PathBuf,
    lock: PathBuf,
    mode: UnpackMode,
    content: ContentStore,
}

impl LayerStore {
    pub(crate) fn open(layout: &Layout, mode: UnpackMode) -> Self {
        Self {
            form: LayerForm::default(),
            mounts: layout.run().join("layers"),
            layers: layout.layers(),
            tmp: layout.tmp(),
            trash: layout.trash(),
            lock: layout.locks().join("layers.lock"),
            mode,
            content: ContentStore::open(layout),
        }
    }

    pub(crate) fn mode(&self) -> UnpackMode {
        self.mode
    }

    /// What the names of directories end with that were unpacked in this mode.
    pub(crate) fn suffix(&self) -> &'static str {
        match (self.mode.userns, self.mode.flat_owner) {
            (false, false) if self.form == LayerForm::Erofs => ".erofs",
            (false, false) => "",
            (true, false) => ".userns",
            (false, true) => ".flat",
            (true, true) => ".userns-flat",
        }
    }

    /// Where the layer is, whether it was unpacked or not.
    pub(crate) fn dir(&self, diff_id: &DiffId) -> PathBuf {
        self.layers
            .join(format!("{}{}", diff_id.hex(), self.suffix()))
    }

    fn record_path(&self, diff_id: &DiffId) -> PathBuf {
        let mut path = self.dir(diff_id).into_os_string();
        path.push(".json");
        path.into()
    }

    /// The layers that are unpacked, in any mode, with the path of each.
    pub(crate) fn list(&self) -> Result<Vec<(DiffId, PathBuf)>, ImageError> {
        let failed = |source| ImageError::Read {
            path: self.layers.clone(),
            source,
        };
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.layers).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            let Some((hex, rest)) = name.to_str().and_then(|name| name.split_at_checked(64)) else {
                continue;
            };
            // Records lie beside their layers.
            if let (Ok(digest), false) = (Digest::parse_hex(hex), rest.ends_with(".json")) {
                found.push((DiffId(digest), entry.path()));
            }
        }
        found.sort();
        Ok(found)
    }

    /// The record of an unpacked layer; `None` when it is not (usably) there.
    pub(crate) fn record(&self, diff_id: &DiffId) -> Result<Option<LayerRecord>, ImageError> {
        Ok(self.holding(diff_id)?.map(|(_, record)| record))
    }

    /// The layers in the form in which an unpacked one is there, with its record. What is there as a
    /// directory is used as that, whatever new layers are.
    pub(crate) fn holding(
        &self,
        diff_id: &DiffId,
    ) -> Result<Option<(Self, LayerRecord)>, ImageError> {
        let forms: &[LayerForm] = match self.form {
            LayerForm::Erofs => &[LayerForm::Erofs, LayerForm::Directory],
            LayerForm::Directory => &[LayerForm::Directory],
        };
        for form in forms {
            let layers = self.in_form(*form);
            if let Some(record) = layers.own_record(diff_id)? {
                return Ok(Some((layers, record)));
            }
        }
        Ok(None)
    }

    fn in_form(&self, form: LayerForm) -> Self {
        Self {
            form,
            ..self.clone()
        }
    }

    /// The record of the layer in our form.
    fn own_record(&self, diff_id: &DiffId) -> Result<Option<LayerRecord>, ImageError> {
        if !self.dir(diff_id).exists() {
            return Ok(None);
        }
        let path = self.record_path(diff_id);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(ImageError::Read { path, source }),
        };
        // A layer with a record that cannot be read is unpacked again.
        let Ok(record) = serde_json::from_slice::<LayerRecord>(&bytes) else {
            return Ok(None);
        };
        if record.version > VERSION {
            let reason = "it was written by a newer ketch".to_owned();
            return Err(ImageError::InvalidRecord { path, reason });
        }
        let is_ours = record.diff_id == *diff_id && record.mode == self.mode;
        Ok(is_ours.then_some(record))
    }

    /// Unpacks what is missing of `layers`, several at a time.
    pub(crate) fn ensure(
        &self,
        layers: &[LayerBlob],
        progress: &dyn Progress,
    ) -> Result<(), ImageError> {
        let mut missing = BTreeSet::new();
        for layer in layers {
            if self.record(&layer.diff_id)?.is_none() {
                missing.insert(*layer);
            } else {
                progress.end(Task::Unpack, &layer.blob, Outcome::AlreadyThere);
            }
        }
        let workers = missing.len().min(PARALLEL);
        // The largest first, so that no thread is left with it at the end.
        let mut queue: Vec<_> = missing.into_iter().collect();
        queue.sort_by_key(|layer| self.content.size(&layer.blob).unwrap_or(0));
        let queue = Mutex::new(queue);
        let next = || queue.lock().ok().and_then(|mut queue| queue.pop());
        let work = || -> Result<(), ImageError> {
            while let Some(layer) = next() {
                if let Err(error) = self.unpack(layer, progress) {
                    // The others end with what they are at.
                    while next().is_some() {}
                    return Err(error);
                }
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let others: Vec<_> = (1..workers).map(|_| scope.spawn(work)).collect();
            let mut result = work();
            for other in others {
                let ended = other.join().unwrap_or_else(|panic| {
                    std::panic::resume_unwind(panic);
                });
                result = result.and(ended);
            }
            result
        })
    }

    fn unpack(&self, layer: LayerBlob, progress: &dyn Progress) -> Result<(), ImageError> {
        let total = self.content.size(&layer.blob).ok();
        progress.begin(Task::Unpack, &layer.blob, total);
        let result = self.unpack_blob(layer, progress);
        let outcome = if result.is_ok() {
            Outcome::Done
        } else {
            Outcome::Failed
        };
        progress.end(Task::Unpack, &layer.blob, outcome);
        result.map_err(|error| ImageError::Unpack {
            layer: layer.diff_id,
            source: Box::new(error),
        })
    }

    fn unpack_blob(&self, layer: LayerBlob, progress: &dyn Progress) -> Result<(), ImageError> {
        let blob: File = self.content.open_blob(&layer.blob)?;
        let advance = |bytes| progress.advance(Task::Unpack, &layer.blob, bytes);
        let staged = self.stage(blob, Some(layer.diff_id), &advance)?;
        staged.sync()?;
        self.publish(&staged).map(drop)
    }

    /// Unpacks a blob below `tmp/`. It is neither durable nor named.
    pub(crate) fn stage(
        &self,
        blob: impl Read + Send,
        expected: Option<DiffId>,
        advance: &(dyn Fn(u64) + Sync),
    ) -> Result<StagedLayer, ImageError> {
        let failed = |source| ImageError::Write {
            path: self.tmp.clone(),
            source,
        };
        let dir = tempfile::Builder::new()
            .prefix("layer-")
            .permissions(fs::Permissions::from_mode(0o700))
            .tempdir_in(&self.tmp)
            .map_err(failed)?;
        let root = dir.path().join(STAGED_ROOT);
        let (form, (stream, unpacked)) = match self.form {
            LayerForm::Erofs => self.write_file(blob, &root, advance)?,
            form @ LayerForm::Directory => {
                fs::create_dir(&root).map_err(failed)?;
                (form, unpack_layer(blob, &root, self.mode, advance)?)
            }
        };
        if let Some(expected) = expected
            && expected != stream.diff_id
        {
            return Err(ImageError::DigestMismatch {
                expected: expected.0,
                actual: stream.diff_id.0,
            });
        }
        let record = LayerRecord {
            version: VERSION,
            diff_id: stream.diff_id,
            size: stream.size,
            mode: self.mode,
            implied: unpacked.implied,
            links: unpacked.links,
            skipped: unpacked.skipped,
        };
        // Beside the files, so that one barrier covers it too.
        let json = serde_json::to_vec(&record).map_err(|error| failed(error.into()))?;
        durable::replace_file(&dir.path().join(STAGED_RECORD), &json, Durability::Atomic)
            .map_err(failed)?;
        Ok(StagedLayer {
            dir,
            form,
            diff_id: stream.diff_id,
        })
    }

    /// Writes a blob as a file; a layer that does not fit into that form becomes a directory.
    fn write_file(
        &self,
        blob: impl Read + Send,
        root: &Path,
        advance: &(dyn Fn(u64) + Sync),
    ) -> Result<(LayerForm, (LayerStream, Unpacked)), ImageError> {
        let failed = |source| ImageError::Write {
            path: root.to_path_buf(),
            source,
        };
        let mut options = File::options();
        options.read(true).write(true).create_new(true);
        let file = options.open(root).map_err(failed)?;
        let written = file.try_clone().map_err(failed)?;
        let stream = match write_layer(blob, file, advance)? {
            Written::Image(stream, unpacked) => return Ok((LayerForm::Erofs, (stream, unpacked))),
            Written::Archive(stream) => stream,
        };
        let archive = archive_of(written, stream.size).map_err(failed)?;
        fs::remove_file(root)
            .and_then(|()| fs::create_dir(root))
            .map_err(failed)?;
        let unpacked = unpack_layer(archive, root, self.mode, &|_| ())?;
        Ok((LayerForm::Directory, unpacked))
    }

    /// Gives a durable layer its name. Says whether it was not there before.
    pub(crate) fn publish(&self, staged: &StagedLayer) -> Result<bool, ImageError> {
        let own = self.in_form(staged.form);
        let target = own.dir(&staged.diff_id);
        let failed = |path: &Path| {
            let path = path.to_path_buf();
            move |source| ImageError::Write { path, source }
        };
        let path = own.record_path(&staged.diff_id);
        let _lock = self.lock()?;
        if self.record(&staged.diff_id)?.is_some() {
            // Somebody unpacked the same layer meanwhile; ours goes with its temporary directory.
            return Ok(false);
        }
        // A directory without its record is what a removal left that was cut off.
        durable::discard(&target, &self.trash).map_err(failed(&target))?;
        durable::remove_tree(&path).map_err(failed(&path))?;
        let staged_path = |name| staged.dir.path().join(name);
        durable::publish(&staged_path(STAGED_RECORD), &path, Durability::Atomic)
            .map_err(failed(&path))?;
        durable::publish(&staged_path(STAGED_ROOT), &target, Durability::Atomic)
            .map_err(failed(&target))?;
        durable::sync_dir(&self.layers).map_err(failed(&self.layers))?;
        Ok(true)
    }

    /// Guards the moments in which a layer gets or loses its name. Taken after the images lock.
    fn lock(&self) -> Result<FileLock, ImageError> {
        FileLock::acquire(&self.lock, Mode::Exclusive, LOCK_TIMEOUT).map_err(|source| {
            ImageError::Lock {
                path: self.lock.clone(),
                source,
            }
        })
    }

    /// The directory with the layer's files: the layer itself, or where it is mounted.
    pub(crate) fn root(&self, diff_id: &DiffId) -> Result<PathBuf, ImageError> {
        if self.form == LayerForm::Directory {
            return Ok(self.dir(diff_id));
        }
        let (file, root) = (self.dir(diff_id), self.mounts.join(diff_id.hex()));
        if !file.exists() {
            return Ok(self.in_form(LayerForm::Directory).dir(diff_id));
        }
        self.mount(&file, &root)?;
        Ok(root)
    }

    /// Mounts again what `dirs`, which [`Self::root`] gave in another boot, need to be mounted.
    pub(crate) fn attach(&self, dirs: &[PathBuf]) -> Result<(), ImageError> {
        for root in dirs
            .iter()
            .filter(|dir| dir.parent() == Some(self.mounts.as_path()))
        {
            let name = root.file_name().and_then(OsStr::to_str);
            if let Some(Ok(digest)) = name.map(Digest::parse_hex) {
                let file = self.in_form(LayerForm::Erofs).dir(&DiffId(digest));
                self.mount(&file, root)?;
            }
        }
        Ok(())
    }

    fn mount(&self, file: &Path, root: &Path) -> Result<(), ImageError> {
        let failed = |source| ImageError::Write {
            path: root.to_path_buf(),
            source,
        };
        if is_mounted(root).map_err(failed)? {
            return Ok(());
        }
        let _lock = self.lock()?;
        if !is_mounted(root).map_err(failed)? {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(root)
                .map_err(failed)?;
            mount_erofs(file, root)
                .map_err(io::Error::from)
                .map_err(failed)?;
        }
        Ok(())
    }

    fn unmount(&self, diff_id: &DiffId) -> io::Result<()> {
        let root = self.mounts.join(diff_id.hex());
        if is_mounted(&root)? {
            // A container that still has it keeps its own.
            rustix::mount::unmount(&root, rustix::mount::UnmountFlags::DETACH)?;
        }
        match fs::remove_dir(&root) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Removes the layer in every mode; one that is already gone is no error.
    pub(crate) fn remove(&self, diff_id: &DiffId) -> Result<(), ImageError> {
        let _lock = self.lock()?;
        let mode = |userns, flat_owner| UnpackMode { userns, flat_owner };
        for (form, mode) in [
            (LayerForm::Erofs, mode(false, false)),
            (LayerForm::Directory, mode(false, false)),
            (LayerForm::Directory, mode(true, false)),
            (LayerForm::Directory, mode(false, true)),
            (LayerForm::Directory, mode(true, true)),
        ] {
            let store = Self {
                form,
                mode,
                ..self.clone()
            };
            let dir = store.dir(diff_id);
            let failed = |source| ImageError::Write {
                path: dir.clone(),
                source,
            };
            if form == LayerForm::Erofs {
                store.unmount(diff_id).map_err(failed)?;
            }
            // Thousands of files: from the trash they are deleted when nobody waits.
            durable::discard(&dir, &self.trash).map_err(failed)?;
            durable::remove_tree(&store.record_path(diff_id)).map_err(failed)?;
        }
        let path = archive_record_path(&self.layers, diff_id);
        durable::remove_tree(&path).map_err(|source| ImageError::Write { path, source })?;
        Ok(())
    }
}
