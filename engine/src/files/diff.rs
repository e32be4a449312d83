//! What a container has changed of its image: the upper directory of its overlay beside the image's
//! tree (kernel `Documentation/filesystems/overlayfs.rst`).

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::{ffi::OsStr, os::unix::ffi::OsStrExt};

use image::{EntryPath, is_opaque, is_whiteout};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, openat, statat};
use rustix::io::Errno;

use crate::{Container, Engine, EngineError};

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// How a file of a container differs from its image's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FileChangeKind {
    /// The image does not have it.
    Added,
    /// The image has another one.
    Changed,
    /// The image has one.
    Deleted,
}

/// A file that differs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileChange {
    /// Where, absolute.
    pub path: PathBuf,
    /// How.
    pub kind: FileChangeKind,
}

impl Engine {
    /// What a container has changed of its image, by path. Content counts as changed when a file was
    /// written to, whatever was written.
    ///
    /// # Errors
    /// When a layer cannot be read.
    pub fn diff(&self, container: &Container) -> Result<Vec<FileChange>, EngineError> {
        let details = self.details_with_layers(container)?;
        let failed = |errno: Errno| {
            EngineError::io("compare the container with its image")(io::Error::from(errno))
        };
        let image = self.merged(details.layers)?;
        let image = openat(&image, ".", DIRECTORY, Mode::empty()).map_err(failed)?;
        let upper = rustix::fs::open(details.dir.join("upper"), DIRECTORY, Mode::empty());
        let mut changes = Vec::new();
        let root = EntryPath::default();
        compare(&upper.map_err(failed)?, Some(&image), &root, &mut changes).map_err(failed)?;
        changes.sort();
        let mounts = details.spec.mounts().iter().flatten();
        let targets: Vec<PathBuf> = mounts.map(|mount| mount.destination().clone()).collect();
        Ok(without_mount_points(changes, &targets))
    }
}

/// Leaves out what was made only so that something can be mounted on it: the targets of mounts, and
/// directories in which nothing else differs.
fn without_mount_points(changes: Vec<FileChange>, targets: &[PathBuf]) -> Vec<FileChange> {
    let mut kept: Vec<FileChange> = Vec::new();
    // What is in a directory follows it.
    for change in changes.into_iter().rev() {
        let is_for_mounts = targets
            .iter()
            .any(|target| target.starts_with(&change.path));
        let differs_below = kept
            .last()
            .is_some_and(|below| below.path.starts_with(&change.path));
        if change.kind == FileChangeKind::Deleted || !is_for_mounts || differs_below {
            kept.push(change);
        }
    }
    kept.reverse();
    kept
}

fn change(path: &EntryPath, kind: FileChangeKind) -> FileChange {
    let path = [b"/", path.as_bytes()].concat();
    FileChange {
        path: PathBuf::from(OsStr::from_bytes(&path)),
        kind,
    }
}

/// Compares a directory of the upper layer with the image's, if it has one there. Says whether
/// anything in it differs.
fn compare(
    upper: &OwnedFd,
    image: Option<&OwnedFd>,
    path: &EntryPath,
    changes: &mut Vec<FileChange>,
) -> Result<(), Errno> {
    let names = image::names(upper.as_fd())?;
    for name in &names {
        let own = match statat(upper, name.as_slice(), AtFlags::SYMLINK_NOFOLLOW) {
            // The container goes on meanwhile.
            Err(Errno::NOENT) => continue,
            other => other?,
        };
        let below = match image {
            Some(image) => stat_if_there(image, name)?,
            None => None,
        };
        let path = path.child(name);
        if is_whiteout(&own) {
            if below.is_some() {
                changes.push(change(&path, FileChangeKind::Deleted));
            }
            continue;
        }
        let is_directory =
            |stat: &Stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        let at = changes.len();
        if is_directory(&own) {
            let own = openat(upper, name.as_slice(), DIRECTORY, Mode::empty())?;
            let merged = below.as_ref().is_some_and(is_directory);
            let below = match image.filter(|_| merged) {
                Some(image) => Some(openat(image, name.as_slice(), DIRECTORY, Mode::empty())?),
                None => None,
            };
            compare(&own, below.as_ref(), &path, changes)?;
        }
        match below {
            None => changes.push(change(&path, FileChangeKind::Added)),
            Some(below) => {
                // A directory is copied up with each file in it that is written to.
                let same = is_directory(&own) && is_same_directory(&own, &below);
                if !same || changes.len() > at {
                    changes.push(change(&path, FileChangeKind::Changed));
                }
            }
        }
    }
    if let Some(image) = image
        && is_opaque(upper.as_fd())?
    {
        for name in image::names(image.as_fd())? {
            if names.binary_search(&name).is_err() {
                changes.push(change(&path.child(&name), FileChangeKind::Deleted));
            }
        }
    }
    Ok(())
}

fn is_same_directory(a: &Stat, b: &Stat) -> bool {
    let of = |stat: &Stat| {
        let time = (stat.st_mtime, stat.st_mtime_nsec);
        (stat.st_mode, stat.st_uid, stat.st_gid, time)
    };
    of(a) == of(b)
}

fn stat_if_there(dir: &OwnedFd, name: &[u8]) -> Result<Option<Stat>, Errno> {
    match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_and_their_directories_are_no_changes() {
        let change = |path: &str, kind| FileChange {
            path: PathBuf::from(path),
            kind,
        };
        let (added, changed) = (FileChangeKind::Added, FileChangeKind::Changed);
        let changes = vec![
            change("/dev", added),
            change("/etc", changed),
            change("/etc/hosts", added),
            change("/srv", changed),
            change("/srv/data", added),
            change("/srv/new", added),
        ];
        let targets = ["/dev", "/dev/shm", "/etc/hosts", "/srv/data"].map(PathBuf::from);
        let kept = without_mount_points(changes, &targets);
        assert_eq!(kept, [change("/srv", changed), change("/srv/new", added)]);
    }
}
