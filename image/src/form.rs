//! What a layer is on disk, and which of the forms this kernel and this file system can take.
//!
//! Tried before EROFS files became the first choice: an overlay over them nests as deep as one over
//! directories; files keep their inode numbers when they are copied up; `-xdev` walks find all files.
//! What differs: files of layers have another `st_dev` than directories, because the layers are other
//! file systems than the upper directory. overlayfs's `xino=on` would hide that, and was left out: its
//! inode numbers have the highest bit, which 32-bit programs cannot take (`EOVERFLOW`) and those that
//! keep numbers as floating point confuse.

use std::ffi::CString;
use std::fmt;
use std::fs;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fd::OwnedFd;
use rustix::fs::OFlags;
use rustix::io::Errno;
use state::Layout;
use sys::durable::{self, Durability};
use sys::mount::{FileSystem, attach};

use crate::unpack::write_layer;

/// `MOUNT_ATTR_RDONLY` (`mount_setattr(2)`).
const MOUNT_ATTR_RDONLY: u64 = 1;

/// The file in the run directory that remembers what was tried.
const REMEMBERED: &str = "layer-form";

/// An archive without entries: two blocks of zeros.
const EMPTY_ARCHIVE: [u8; 1024] = [0; 1024];

/// What a layer is on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LayerForm {
    /// A directory with its files.
    #[default]
    Directory,
    /// One EROFS file, mounted below the run directory when it is used: written, synced and deleted
    /// at once. Needs root and Linux 6.12.
    Erofs,
}

impl fmt::Display for LayerForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Directory => "directory",
            Self::Erofs => "erofs",
        })
    }
}

impl LayerForm {
    /// The best form that can be used in `layout`: EROFS files where one can be mounted. That is
    /// tried, not guessed: the kernel must be able to (Linux 6.12 with
    /// `CONFIG_EROFS_FS_BACKED_BY_FILE`), this process allowed to, and the file system below the
    /// root fit for it (a tmpfs is not). Tried once a boot and kernel, and remembered in the run
    /// directory.
    #[must_use]
    pub fn best(layout: &Layout) -> Self {
        let system = rustix::system::uname();
        let kernel = system.release().to_string_lossy();
        let path = layout.run().join(REMEMBERED);
        let root = layout.layers();
        let line = |form: Self| format!("{form} {kernel} {}\n", root.display());
        let known = fs::read_to_string(&path).unwrap_or_default();
        for form in [Self::Erofs, Self::Directory] {
            if known == line(form) {
                return form;
            }
        }
        let form = match try_erofs(&layout.tmp()) {
            Ok(()) => Self::Erofs,
            Err(error) => {
                tracing::debug!(%error, "layers are directories");
                let kind = error.kind();
                if matches!(kind, io::ErrorKind::StorageFull | io::ErrorKind::NotFound) {
                    // That says nothing about the kernel.
                    return Self::Directory;
                }
                Self::Directory
            }
        };
        let line = line(form);
        // What is not remembered is tried again.
        if let Err(error) = durable::replace_file(&path, line.as_bytes(), Durability::Atomic) {
            tracing::debug!(%error, "cannot remember the form of layers");
        }
        form
    }
}

/// Writes an empty layer in `tmp` and mounts it nowhere.
fn try_erofs(tmp: &Path) -> io::Result<()> {
    let file = tempfile::Builder::new().prefix("form-").tempfile_in(tmp)?;
    let out = file.reopen()?;
    write_layer(EMPTY_ARCHIVE.as_slice(), out, &|_| ()).map_err(io::Error::other)?;
    let _mount = open(file.path())?;
    Ok(())
}

/// Mounts an EROFS file on the directory `target`, read-only, without a loop device (Linux 6.12).
pub(crate) fn mount_erofs(file: &Path, target: &Path) -> Result<(), Errno> {
    let mount = open(file)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let target = rustix::fs::open(target, flags, rustix::fs::Mode::empty())?;
    attach(mount.as_fd(), target.as_fd())
}

/// A mount of the file that is nowhere yet.
fn open(file: &Path) -> Result<OwnedFd, Errno> {
    let source = CString::new(file.as_os_str().as_bytes()).map_err(|_| Errno::INVAL)?;
    let file_system = FileSystem::open(c"erofs")?;
    file_system.set(c"source", Some(&source))?;
    file_system.set(c"ro", None)?;
    file_system.mount(MOUNT_ATTR_RDONLY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn best_is_remembered_and_tried_again_for_another_kernel() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::open(dir.path().join("root"), dir.path().join("run")).unwrap();
        let remembered = layout.run().join(REMEMBERED);
        let first = LayerForm::best(&layout);
        let line = fs::read_to_string(&remembered).unwrap();
        let (name, rest) = line.split_once(' ').unwrap();
        assert_eq!(name == "erofs", first == LayerForm::Erofs);
        // What is remembered counts, not what could be.
        let put = |text: String| {
            durable::replace_file(&remembered, text.as_bytes(), Durability::Atomic).unwrap();
        };
        for (name, form) in [
            ("erofs", LayerForm::Erofs),
            ("directory", LayerForm::Directory),
        ] {
            put(format!("{name} {rest}"));
            assert_eq!(LayerForm::best(&layout), form);
        }
        put(format!("erofs 1.0 {}\n", layout.layers().display()));
        assert_eq!(LayerForm::best(&layout), first);
        assert_eq!(fs::read_dir(layout.tmp()).unwrap().count(), 0);
    }
}
