//! Whiteouts on disk, as overlayfs reads them (kernel `Documentation/filesystems/overlayfs.rst`).

use std::os::fd::BorrowedFd;

use rustix::fs::{FileType, Mode, Stat, XattrFlags, fgetxattr, fsetxattr, mknodat};
use rustix::io::Errno;

use super::stream::UnpackMode;

/// The marks of an opaque directory: the first needs privilege in the initial user namespace, the
/// second serves overlays that are mounted with `userxattr`.
const OPAQUE_TRUSTED: &str = "trusted.overlay.opaque";
const OPAQUE_USER: &str = "user.overlay.opaque";

/// Whether this is a whiteout on disk: a character device 0:0.
#[must_use]
pub fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// Whether the directory is marked opaque.
///
/// # Errors
/// When its attributes cannot be read.
pub fn is_opaque(dir: BorrowedFd<'_>) -> Result<bool, Errno> {
    for name in [OPAQUE_TRUSTED, OPAQUE_USER] {
        let mut value = [0_u8; 4];
        match fgetxattr(dir, name, &mut value) {
            // "x" marks a directory that *holds* extended-attribute whiteouts (Linux 6.7).
            Ok(length) if value.get(..length) == Some(b"y") => return Ok(true),
            Ok(_) | Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}

/// Marks the directory opaque.
pub(super) fn set_opaque(dir: BorrowedFd<'_>, mode: UnpackMode) -> Result<(), Errno> {
    let name = if mode.userns {
        OPAQUE_USER
    } else {
        OPAQUE_TRUSTED
    };
    fsetxattr(dir, name, b"y", XattrFlags::empty())
}

/// Makes a whiteout. Needs no privilege since Linux 5.8: this device is no device.
pub(super) fn make(dir: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
    mknodat(dir, name, FileType::CharacterDevice, Mode::empty(), 0)
}
