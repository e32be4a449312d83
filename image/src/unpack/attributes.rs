//! Owner, mode, times and extended attributes of what was unpacked.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::{ffi::OsStr, path::PathBuf};

use rustix::fs::{
    AtFlags, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags, chmodat, chownat, fchmod, fchown,
    fsetxattr, futimens, lsetxattr, utimensat,
};
use rustix::io::Errno;

use super::stream::UnpackMode;
use crate::tarwalk::{Entry, EntryKind};

/// An extended attribute that could not be kept.
pub(super) type DroppedXattr = Vec<u8>;

/// Sets everything on an open file. The order matters: a change of owner clears set-user-ID bits
/// and capabilities (`chown(2)`).
pub(super) fn set_on_file(
    file: BorrowedFd<'_>,
    entry: &Entry,
    mode: UnpackMode,
) -> Result<Vec<DroppedXattr>, Errno> {
    let dropped = set_owner_and_xattrs(file, entry, mode)?;
    fchmod(file, Mode::from_raw_mode(entry.mode))?;
    futimens(file, &times(entry.mtime))?;
    Ok(dropped)
}

/// Sets what a directory gets at once: its mode and its time come when it is complete.
pub(super) fn set_owner_and_xattrs(
    file: BorrowedFd<'_>,
    entry: &Entry,
    mode: UnpackMode,
) -> Result<Vec<DroppedXattr>, Errno> {
    if !mode.flat_owner {
        let (owner, group) = owner(entry);
        fchown(file, owner, group)?;
    }
    set_xattrs(entry, mode, |name, value| {
        fsetxattr(file, name, value, XattrFlags::empty())
    })
}

/// Sets everything on `name`, which was just made and is not opened: a link or a special file.
pub(super) fn set_by_name(
    dir: BorrowedFd<'_>,
    name: &[u8],
    entry: &Entry,
    mode: UnpackMode,
) -> Result<Vec<DroppedXattr>, Errno> {
    if !mode.flat_owner {
        let (owner, group) = owner(entry);
        chownat(dir, name, owner, group, AtFlags::SYMLINK_NOFOLLOW)?;
    }
    // There is no `fsetxattrat` before Linux 6.13: the parent is named by its descriptor, and the
    // last component is not followed.
    let mut path = PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd()));
    path.push(OsStr::from_bytes(name));
    let dropped = set_xattrs(entry, mode, |name, value| {
        lsetxattr(&path, name, value, XattrFlags::empty())
    })?;
    if !matches!(entry.kind, EntryKind::Symlink(_)) {
        // `chmodat` follows links. This is none: it was made by us, exclusively, in a directory
        // that nobody else can reach.
        chmodat(dir, name, Mode::from_raw_mode(entry.mode), AtFlags::empty())?;
    }
    utimensat(dir, name, &times(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(dropped)
}

/// Both times of a file: archives tell one.
pub(super) fn times((seconds, nanoseconds): (i64, u32)) -> Timestamps {
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: nanoseconds.into(),
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

fn owner(entry: &Entry) -> (Option<Uid>, Option<Gid>) {
    (
        Some(Uid::from_raw(entry.uid)),
        Some(Gid::from_raw(entry.gid)),
    )
}

/// Which attributes an image may bring. `trusted.overlay.*` and `user.overlay.*` would speak to
/// the overlay mount in our name; access control lists and labels belong to the host.
pub(super) fn is_allowed(name: &[u8]) -> bool {
    name == b"security.capability"
        || (name.starts_with(b"user.") && !name.starts_with(b"user.overlay."))
}

fn set_xattrs(
    entry: &Entry,
    mode: UnpackMode,
    set: impl Fn(&[u8], &[u8]) -> Result<(), Errno>,
) -> Result<Vec<DroppedXattr>, Errno> {
    let mut dropped = Vec::new();
    for (name, value) in &entry.xattrs {
        if !is_allowed(name) {
            dropped.push(name.clone());
            continue;
        }
        match set(name, value) {
            Ok(()) => {}
            Err(Errno::OPNOTSUPP) => dropped.push(name.clone()),
            // `user.*` is for files and directories only (`xattr(7)`).
            Err(Errno::PERM) if mode.userns || name.starts_with(b"user.") => {
                dropped.push(name.clone());
            }
            Err(error) => return Err(error),
        }
    }
    Ok(dropped)
}
