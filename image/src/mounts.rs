//! Images mounted on the host, read-only: an overlay of their layers below the run directory.

use std::ffi::CString;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use sys::mount::{FileSystem, attach};

use crate::digest::Digest;
use crate::error::ImageError;
use crate::progress::Progress;
use crate::store::{Image, Store};

/// `MOUNT_ATTR_RDONLY`, `_NOSUID` and `_NODEV` (`mount_setattr(2)`): set-user-ID programs and
/// devices of images are for containers.
const READ_ONLY: u64 = 0x1 | 0x2 | 0x4;

impl Store {
    /// Mounts an image; one that is mounted stays so. Gives where.
    ///
    /// # Errors
    /// As [`Store::ensure_unpacked`], and when the kernel refuses the mount.
    pub fn mount(&self, image: &Image, progress: &dyn Progress) -> Result<PathBuf, ImageError> {
        let mut layers = self.ensure_unpacked(image, progress)?;
        let _lock = self.lock()?;
        let path = self.mount_dir().join(image.id.hex());
        let failed = |source| ImageError::Write {
            path: path.clone(),
            source,
        };
        if is_mounted(&path).map_err(failed)? {
            return Ok(path);
        }
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&path)
            .map_err(failed)?;
        // An overlay without an upper directory needs two lower ones.
        layers.push(self.empty_root()?);
        overlay(&layers, &path)
            .map_err(io::Error::from)
            .map_err(failed)?;
        Ok(path)
    }

    /// Stacks layer directories, the uppermost first, on the directory `target`: read-only, or with an
    /// upper and a work directory. Undone by [`Store::unmount_layers`].
    ///
    /// # Errors
    /// When the kernel refuses the mount.
    pub fn mount_layers(
        &self,
        layers: &[PathBuf],
        writable: Option<(&Path, &Path)>,
        target: &Path,
    ) -> Result<(), ImageError> {
        let mut layers = layers.to_vec();
        layers.push(self.empty_root()?);
        let mut seen = std::collections::BTreeSet::new();
        layers.retain(|layer| seen.insert(layer.clone()));
        let userxattr = self.layers.mode().userns;
        overlay_on(&layers, writable, userxattr, target).map_err(|error| ImageError::Write {
            path: target.to_path_buf(),
            source: error.into(),
        })
    }

    /// Undoes [`Store::mount_layers`].
    ///
    /// # Errors
    /// When nothing is mounted there.
    pub fn unmount_layers(&self, target: &Path) -> Result<(), ImageError> {
        let flags = rustix::mount::UnmountFlags::NOFOLLOW | rustix::mount::UnmountFlags::DETACH;
        rustix::mount::unmount(target, flags).map_err(|error| ImageError::Write {
            path: target.to_path_buf(),
            source: error.into(),
        })
    }

    /// Undoes [`Store::mount`]; an image that is not mounted is no error.
    ///
    /// # Errors
    /// When somebody uses the mount.
    pub fn unmount(&self, id: &Digest) -> Result<(), ImageError> {
        let _lock = self.lock()?;
        let path = self.mount_dir().join(id.hex());
        let failed = |source| ImageError::Write {
            path: path.clone(),
            source,
        };
        let flags = rustix::mount::UnmountFlags::NOFOLLOW;
        match rustix::mount::unmount(&path, flags) {
            Ok(()) | Err(Errno::INVAL | Errno::NOENT) => {}
            Err(error) => return Err(failed(error.into())),
        }
        match fs::remove_dir(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(error)),
            _ => Ok(()),
        }
    }

    /// What is mounted, and where.
    ///
    /// # Errors
    /// When the run directory cannot be read.
    pub fn mounted(&self) -> Result<Vec<(Digest, PathBuf)>, ImageError> {
        let dir = self.mount_dir();
        let failed = |source| ImageError::Read {
            path: dir.clone(),
            source,
        };
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut mounted = Vec::new();
        for entry in entries {
            let path = entry.map_err(failed)?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            if let Some(Ok(id)) = name.map(Digest::parse_hex)
                && is_mounted(&path).map_err(failed)?
            {
                mounted.push((id, path));
            }
        }
        mounted.sort();
        Ok(mounted)
    }

    fn mount_dir(&self) -> PathBuf {
        self.layout.run().join("mounts")
    }
}

/// Whether something is mounted at `path`: it is on another device than its parent.
pub(crate) fn is_mounted(path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt as _;
    let Some(parent) = path.parent() else {
        return Ok(false);
    };
    match (fs::symlink_metadata(path), fs::symlink_metadata(parent)) {
        (Ok(own), Ok(parent)) => Ok(own.dev() != parent.dev()),
        (Err(error), _) | (_, Err(error)) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        (Err(error), _) | (_, Err(error)) => Err(error),
    }
}

/// An overlay for a build step (Linux 6.8 for more layers than fit into one string).
fn overlay_on(
    layers: &[PathBuf],
    writable: Option<(&Path, &Path)>,
    userxattr: bool,
    target: &Path,
) -> Result<(), Errno> {
    let text = |path: &Path| CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::INVAL);
    let file_system = FileSystem::open(c"overlay")?;
    for path in layers {
        file_system.set(c"lowerdir+", Some(&text(path)?))?;
    }
    let Some((upper, work)) = writable else {
        if userxattr {
            file_system.set(c"userxattr", None)?;
        }
        return place(file_system, target, READ_ONLY);
    };
    file_system.set(c"upperdir", Some(&text(upper)?))?;
    file_system.set(c"workdir", Some(&text(work)?))?;
    if userxattr {
        file_system.set(c"userxattr", None)?;
    }
    place(file_system, target, READ_ONLY & !1)
}

fn overlay(layers: &[PathBuf], target: &Path) -> Result<(), Errno> {
    let layer =
        |path: &PathBuf| CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::INVAL);
    let file_system = FileSystem::open(c"overlay")?;
    for path in layers {
        // One by one, because a single string is bounded by a page (Linux 6.8).
        match file_system.set(c"lowerdir+", Some(&layer(path)?)) {
            Err(Errno::INVAL) => return overlay_in_one(layers, target),
            other => other?,
        }
    }
    place(file_system, target, READ_ONLY)
}

/// For older kernels: all layers in one string.
fn overlay_in_one(layers: &[PathBuf], target: &Path) -> Result<(), Errno> {
    let paths: Vec<&[u8]> = layers
        .iter()
        .map(|path| path.as_os_str().as_bytes())
        .collect();
    let joined = CString::new(paths.join(&b':')).map_err(|_| Errno::INVAL)?;
    let file_system = FileSystem::open(c"overlay")?;
    file_system.set(c"lowerdir", Some(&joined))?;
    place(file_system, target, READ_ONLY)
}

fn place(file_system: FileSystem, target: &Path, attributes: u64) -> Result<(), Errno> {
    let mount = file_system.mount(attributes)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let target = rustix::fs::open(target, flags, Mode::empty())?;
    attach(mount.as_fd(), target.as_fd())
}
