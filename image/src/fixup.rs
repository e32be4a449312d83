//! The fix-up layer of an image: what single layers cannot know, because they are unpacked without
//! the layers below them. It lies on top of the image's layers and holds
//!
//! - directories that a layer's archive used without describing them: overlayfs would show the
//!   attributes of that layer's directory, so those of the layer below are repeated here;
//! - hard links to files of layers below, as copies.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat, fgetxattr, flistxattr, fstat, openat2,
    readlinkat, statat,
};
use rustix::io::Errno;
use sys::durable::{self, Durability};

use crate::digest::{DiffId, Digest};
use crate::error::ImageError;
use crate::layers::LayerRecord;
use crate::lookup::{LastLink, LayeredRoot};
use crate::store::Store;
use crate::tarwalk::{Entry, EntryKind, EntryPath, Xattrs};
use crate::unpack::{LayerTree, is_opaque, is_whiteout};

/// The largest value of an extended attribute that is copied (`XATTR_SIZE_MAX`).
const MAX_XATTR: usize = 64 * 1024;

const RESOLVE: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS);

/// Where the content of a fix-up entry is: a layer (counted from the uppermost) and a path in it.
pub(crate) type Source = (usize, EntryPath);

/// The fix-up directory of an image whose layers are unpacked, made when it is missing. `None` for
/// an image that needs none, which most are.
pub(crate) fn ensure(
    store: &Store,
    image: &Digest,
    layers: &[DiffId],
) -> Result<Option<PathBuf>, ImageError> {
    let mut records = Vec::new();
    for layer in layers {
        records.extend(store.layers.record(layer)?);
    }
    if records
        .iter()
        .all(|record| record.implied.is_empty() && record.links.is_empty())
    {
        return Ok(None);
    }
    let target = store
        .records
        .dir(image)
        .join(format!("fixup{}", store.layers.suffix()));
    if target.is_dir() {
        return Ok(Some(target));
    }
    let roots = layers.iter().map(|id| store.layers.root(id));
    let dirs = roots.collect::<Result<Vec<_>, _>>()?;
    let plan = Plan::new(&dirs, &records)?;
    if plan.0.is_empty() {
        return Ok(None);
    }
    plan.build(store, &dirs, &target, |_| ())?;
    Ok(Some(target))
}

/// What the fix-up layer holds, by path: parents before children.
pub(crate) struct Plan(pub(crate) BTreeMap<EntryPath, Source>);

impl Plan {
    fn new(dirs: &[PathBuf], records: &[LayerRecord]) -> Result<Self, ImageError> {
        let root = LayeredRoot::new(dirs.to_vec());
        let mut links = BTreeMap::new();
        for (layer, record) in records.iter().enumerate() {
            for link in &record.links {
                let path = &link.path;
                let uppers = dirs.get(..layer).unwrap_or_default();
                if !links.contains_key(path) && !any_decides(uppers, path)? {
                    let source = link_target(dirs, layer, path, &link.target)?;
                    links.insert(path.clone(), source);
                }
            }
        }
        let mut plan = links.clone();
        for (layer, record) in records.iter().enumerate() {
            for path in &record.implied {
                let hidden = links.keys().any(|link| path.is_within(link));
                if let Some(source) = described_below(&root, dirs, records, layer, path)?
                    && !hidden
                {
                    plan.insert(path.clone(), (source, path.clone()));
                }
            }
        }
        Self(plan).with_parents(&root)
    }

    /// Adds the directories on the way, as they are now.
    pub(crate) fn with_parents(mut self, root: &LayeredRoot) -> Result<Self, ImageError> {
        let paths: Vec<_> = self.0.keys().cloned().collect();
        for path in paths {
            let mut next = path.split().map(|(parent, _)| parent);
            while let Some(parent) = next {
                if self.0.contains_key(&parent) {
                    break;
                }
                let layers = layers_of(root, &parent)?;
                let Some(uppermost) = layers.first() else {
                    break;
                };
                self.0.insert(parent.clone(), (*uppermost, parent.clone()));
                next = parent.split().map(|(parent, _)| parent);
            }
        }
        Ok(self)
    }

    /// Writes the layer; `adapt` has its say about each entry.
    pub(crate) fn build(
        &self,
        store: &Store,
        dirs: &[PathBuf],
        target: &Path,
        adapt: impl Fn(&mut Entry),
    ) -> Result<(), ImageError> {
        let tmp = store.layout.tmp();
        let failed = |path: &Path| {
            let path = path.to_path_buf();
            move |source| ImageError::Write { path, source }
        };
        let dir = tempfile::Builder::new()
            .prefix("fixup-")
            .permissions(fs::Permissions::from_mode(0o700))
            .tempdir_in(&tmp)
            .map_err(failed(&tmp))?;
        let mut tree = LayerTree::new(dir.path(), store.layers.mode())?;
        for (path, (layer, source)) in &self.0 {
            let layer = dirs.get(*layer).cloned().unwrap_or_default();
            let (mut entry, mut body) =
                read_entry(&layer, source, path).map_err(|error| ImageError::Lookup {
                    path: path.to_string().into(),
                    source: error.into(),
                })?;
            adapt(&mut entry);
            tree.put(&entry, &mut body)?;
        }
        tree.finish()?;
        match durable::publish(dir.path(), target, Durability::Synced) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            result => result.map_err(failed(target)),
        }
    }
}

fn parse(raw: &[u8]) -> Result<EntryPath, ImageError> {
    EntryPath::parse(raw).map_err(|reason| ImageError::Entry {
        entry: crate::tarwalk::printable(raw),
        reason,
    })
}

fn lookup_failed(path: &EntryPath) -> impl Fn(Errno) -> ImageError {
    let path = PathBuf::from(path.to_string());
    move |error| ImageError::Lookup {
        path: path.clone(),
        source: error.into(),
    }
}

fn layers_of(root: &LayeredRoot, path: &EntryPath) -> Result<Vec<usize>, ImageError> {
    root.layers_of(as_path(path)).map_err(lookup_failed(path))
}

fn as_path(path: &EntryPath) -> &Path {
    Path::new(std::ffi::OsStr::from_bytes(path.as_bytes()))
}

/// The layer below `layer` that describes the directory which `layer` implies, when `layer` is the
/// one whose attributes would be shown.
fn described_below(
    root: &LayeredRoot,
    dirs: &[PathBuf],
    records: &[LayerRecord],
    layer: usize,
    path: &EntryPath,
) -> Result<Option<usize>, ImageError> {
    if layers_of(root, path)?.first() != Some(&layer) {
        return Ok(None);
    }
    let describes = |layer: &usize| {
        let implied = records.get(*layer).map(|record| &record.implied);
        implied.is_some_and(|implied| !implied.contains(path))
    };
    let mut above = 0;
    loop {
        let lowers = LayeredRoot::new(dirs.get(above..).unwrap_or_default().to_vec());
        let shown = layers_of(&lowers, path)?;
        let shown: Vec<usize> = shown.into_iter().map(|layer| above + layer).collect();
        if let Some(found) = shown.iter().copied().find(describes) {
            return Ok(Some(found));
        }
        // An opaque directory hides what is in those below, not what they are themselves.
        match shown.last() {
            Some(last) if is_opaque_itself(&dirs[*last], path).map_err(lookup_failed(path))? => {
                above = last + 1;
            }
            _ => return Ok(None),
        }
    }
}

/// Whether the directory is opaque in this layer, and none that it is in.
fn is_opaque_itself(layer: &Path, path: &EntryPath) -> Result<bool, Errno> {
    let root = open_layer(layer)?;
    let mut upto = EntryPath::default();
    for name in path.components() {
        if is_opaque(open_beneath(&root, &upto, OFlags::DIRECTORY)?.as_fd())? {
            return Ok(false);
        }
        upto = upto.child(name);
    }
    is_opaque(open_beneath(&root, &upto, OFlags::DIRECTORY)?.as_fd())
}

/// Whether one of these layers decides what is at `path`: it has something there, or hides it.
fn any_decides(layers: &[PathBuf], path: &EntryPath) -> Result<bool, ImageError> {
    for layer in layers {
        if decides(layer, path).map_err(lookup_failed(path))? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn decides(layer: &Path, path: &EntryPath) -> Result<bool, Errno> {
    let root = open_layer(layer)?;
    let mut upto = EntryPath::default();
    for name in path.components() {
        if is_opaque(open_beneath(&root, &upto, OFlags::DIRECTORY)?.as_fd())? {
            return Ok(true);
        }
        upto = upto.child(name);
        let stat = match statat(&root, upto.as_relative(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(false),
            Err(error) => return Err(error),
        };
        let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        if is_whiteout(&stat) || !is_directory || upto == *path {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Where the file is that a hard link of `layer` means: in the layers below.
fn link_target(
    dirs: &[PathBuf],
    layer: usize,
    path: &EntryPath,
    target: &EntryPath,
) -> Result<Source, ImageError> {
    let refuse = |reason| ImageError::Entry {
        entry: path.to_string(),
        reason,
    };
    let lowers = LayeredRoot::new(dirs.get(layer..).unwrap_or_default().to_vec());
    match lowers.find(as_path(target), LastLink::Keep) {
        Ok(found) if found.is_dir() => Err(refuse("it is a hard link to a directory")),
        Ok(found) => Ok((
            layer + found.layer,
            parse(found.path.as_os_str().as_bytes())?,
        )),
        Err(Errno::NOENT | Errno::NOTDIR) => Err(refuse(
            "it is a hard link to a file that is in no layer below",
        )),
        Err(error) => Err(lookup_failed(target)(error)),
    }
}

fn open_layer(layer: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(layer, flags, Mode::empty())
}

fn open_beneath(root: &OwnedFd, path: &EntryPath, flags: OFlags) -> Result<OwnedFd, Errno> {
    let flags = flags | OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    openat2(root, path.as_relative(), flags, Mode::empty(), RESOLVE)
}

/// Reads what is at `source` in a layer as an entry for `path`.
fn read_entry(
    layer: &Path,
    source: &EntryPath,
    path: &EntryPath,
) -> Result<(Entry, Box<dyn Read>), Errno> {
    let root = open_layer(layer)?;
    let stat = match source.split() {
        None => fstat(&root)?,
        Some((parent, name)) => {
            let parent = open_beneath(&root, &parent, OFlags::DIRECTORY)?;
            statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW)?
        }
    };
    let mut body: Box<dyn Read> = Box::new(io::empty());
    let mut xattrs = Vec::new();
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            let dir = open_beneath(&root, source, OFlags::DIRECTORY)?;
            xattrs = read_xattrs(dir.as_fd())?;
            EntryKind::Directory
        }
        FileType::RegularFile => {
            let file = open_beneath(&root, source, OFlags::NOFOLLOW)?;
            xattrs = read_xattrs(file.as_fd())?;
            body = Box::new(fs::File::from(file));
            EntryKind::File {
                size: u64::try_from(stat.st_size).unwrap_or(0),
                sparse: None,
            }
        }
        FileType::Symlink => {
            let (parent, name) = source.split().ok_or(Errno::INVAL)?;
            let parent = open_beneath(&root, &parent, OFlags::DIRECTORY)?;
            EntryKind::Symlink(readlinkat(&parent, name, Vec::new())?.into_bytes())
        }
        FileType::Fifo => EntryKind::Fifo,
        _ => return Err(Errno::OPNOTSUPP),
    };
    Ok((entry(path, kind, &stat, xattrs), body))
}

fn entry(path: &EntryPath, kind: EntryKind, stat: &Stat, xattrs: Xattrs) -> Entry {
    Entry {
        path: path.as_relative().to_vec(),
        kind,
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime: (
            stat.st_mtime,
            u32::try_from(stat.st_mtime_nsec).unwrap_or(0),
        ),
        xattrs,
    }
}

/// The extended attributes of a file that belong to an image: capabilities and `user.*`.
pub(crate) fn read_xattrs(file: BorrowedFd<'_>) -> Result<Xattrs, Errno> {
    // Most files have none, and are not worth the buffers.
    if matches!(flistxattr(file, &mut [0_u8; 0]), Ok(0)) {
        return Ok(Vec::new());
    }
    let mut names = vec![0; MAX_XATTR];
    let length = match flistxattr(file, &mut names) {
        Err(Errno::OPNOTSUPP) => 0,
        other => other?,
    };
    let mut xattrs = Vec::new();
    let mut value = vec![0; MAX_XATTR];
    for name in names
        .get(..length)
        .unwrap_or_default()
        .split(|byte| *byte == 0)
    {
        // The overlay's own marks are about the layer they are in.
        let is_image = name == b"security.capability"
            || (name.starts_with(b"user.") && !name.starts_with(b"user.overlay."));
        if is_image {
            let length = fgetxattr(file, name, &mut value)?;
            let value = value.get(..length).unwrap_or_default().to_vec();
            xattrs.push((name.to_vec(), value));
        }
    }
    Ok(xattrs)
}
