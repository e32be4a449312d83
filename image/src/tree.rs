//! The files of an image as one tree, and how two trees differ.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags};

use crate::error::ImageError;
use crate::platform::Platform;
use crate::progress::Progress;
use crate::store::Store;
use crate::unpack::is_opaque;

/// How a path of one image is in another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ChangeKind {
    /// Only the other has it.
    Added,
    /// Both have it, and it is not the same.
    Changed,
    /// The other does not have it.
    Deleted,
}

/// A difference between two images.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PathChange {
    /// Where, absolute.
    pub path: PathBuf,
    /// What.
    pub kind: ChangeKind,
}

/// What is compared of a file. Content counts by size and time, as `diff` of containers does it,
/// unless it is in a layer that both have.
#[derive(Debug, PartialEq, Eq)]
struct Node {
    mode: u32,
    owner: (u32, u32),
    device: u64,
    size: u64,
    modified: (i64, i64),
    link: Option<PathBuf>,
    identity: (u64, u64),
}

impl Node {
    fn is_same(&self, other: &Self) -> bool {
        if self.identity == other.identity {
            return true;
        }
        let attributes = |node: &Self| (node.mode, node.owner, node.device);
        // A directory changes with what is in it, and that is listed itself.
        let is_directory = FileType::from_raw_mode(self.mode) == FileType::Directory;
        attributes(self) == attributes(other)
            && (is_directory
                || (self.size == other.size
                    && self.modified == other.modified
                    && self.link == other.link))
    }
}

impl Store {
    /// How the files of `other` differ from those of `base`. Both are unpacked for it.
    ///
    /// # Errors
    /// As [`Store::resolve`] and [`Store::ensure_unpacked`].
    pub fn diff(
        &self,
        base: &str,
        other: &str,
        platform: Option<&Platform>,
        progress: &dyn Progress,
    ) -> Result<Vec<PathChange>, ImageError> {
        let base = self.tree(base, platform, progress)?;
        let other = self.tree(other, platform, progress)?;
        let change = |path: &PathBuf, kind| PathChange {
            path: Path::new("/").join(path),
            kind,
        };
        let mut changes = Vec::new();
        for (path, node) in &other {
            match base.get(path) {
                None => changes.push(change(path, ChangeKind::Added)),
                Some(old) if !old.is_same(node) => {
                    changes.push(change(path, ChangeKind::Changed));
                }
                Some(_) => {}
            }
        }
        let gone = base.keys().filter(|path| !other.contains_key(*path));
        changes.extend(gone.map(|path| change(path, ChangeKind::Deleted)));
        changes.sort();
        Ok(changes)
    }

    fn tree(
        &self,
        text: &str,
        platform: Option<&Platform>,
        progress: &dyn Progress,
    ) -> Result<BTreeMap<PathBuf, Node>, ImageError> {
        let image = self.resolve(text, platform)?;
        let mut layers = self.ensure_unpacked(&image, progress)?;
        layers.reverse();
        let mut tree = BTreeMap::new();
        for layer in layers {
            apply(&layer, Path::new(""), &mut tree).map_err(|source| ImageError::Read {
                path: layer.clone(),
                source,
            })?;
        }
        Ok(tree)
    }
}

/// Lays a layer over what is there. Links are never followed: `dir` is put together from names
/// that were read from real directories.
fn apply(layer: &Path, dir: &Path, tree: &mut BTreeMap<PathBuf, Node>) -> io::Result<()> {
    let here = layer.join(dir);
    if opaque(&here)? && !dir.as_os_str().is_empty() {
        remove_below(tree, dir);
    }
    for entry in fs::read_dir(&here)? {
        let entry = entry?;
        let path = dir.join(entry.file_name());
        let meta = entry.metadata()?;
        if meta.file_type().is_char_device() && meta.rdev() == 0 {
            tree.remove(&path);
            remove_below(tree, &path);
            continue;
        }
        if !meta.is_dir() {
            remove_below(tree, &path);
        }
        let link = meta
            .is_symlink()
            .then(|| fs::read_link(entry.path()))
            .transpose()?;
        tree.insert(path.clone(), node(&meta, link));
        if meta.is_dir() {
            apply(layer, &path, tree)?;
        }
    }
    Ok(())
}

fn node(meta: &fs::Metadata, link: Option<PathBuf>) -> Node {
    Node {
        mode: meta.mode(),
        owner: (meta.uid(), meta.gid()),
        device: meta.rdev(),
        size: meta.size(),
        modified: (meta.mtime(), meta.mtime_nsec()),
        link,
        identity: (meta.dev(), meta.ino()),
    }
}

fn opaque(dir: &Path) -> io::Result<bool> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let dir = rustix::fs::open(dir, flags, Mode::empty())?;
    Ok(is_opaque(std::os::fd::AsFd::as_fd(&dir))?)
}

/// Removes everything below `dir`, which itself stays. Paths are ordered by component, so what is
/// below a directory follows it at once.
fn remove_below(tree: &mut BTreeMap<PathBuf, Node>, dir: &Path) {
    let below: Vec<_> = tree
        .range(dir.to_path_buf()..)
        .map(|(path, _)| path.clone())
        .take_while(|path| path.starts_with(dir))
        .filter(|path| path != dir)
        .collect();
    for path in below {
        tree.remove(&path);
    }
}
