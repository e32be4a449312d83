//! Device nodes and links in `/dev`, which is a fresh tmpfs by then.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd};

use runtime::DevicePlan;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, makedev, mknodat};
use rustix::io::Errno;
use sys::mount::Depth;
use sys::path::Missing;

use super::{At, Result};
use crate::step::Step;

/// Makes every node; where nodes are not allowed (user namespaces), the host's is bound.
pub(super) fn make(root: BorrowedFd<'_>, devices: &[DevicePlan]) -> Result<()> {
    for (index, device) in devices.iter().enumerate() {
        match node(root, device) {
            Err(Errno::PERM) => bind(root, device).at_item(Step::Device, index)?,
            other => other.at_item(Step::Device, index)?,
        }
    }
    Ok(())
}

/// Standard streams that are the host's `/dev/null` become the container's: a descriptor of a mount
/// that is not the container's cannot be saved by criu, nor opened again by `/proc/self/fd`.
pub(super) fn reopen_null() -> std::result::Result<(), Errno> {
    use rustix::stdio::{stderr, stdin, stdout};
    for (number, stream) in (0..).zip([stdin(), stdout(), stderr()]) {
        // A closed one stays closed.
        if !rustix::fs::fstat(stream).is_ok_and(|stat| is_null(&stat)) {
            continue;
        }
        let null = rustix::fs::open(c"/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
        // An image may have something else there, or nothing: the host's is as good.
        let Ok(null) = null else { return Ok(()) };
        if rustix::fs::fstat(&null).is_ok_and(|stat| is_null(&stat)) {
            sys::exec::place_descriptor(null.as_fd(), number)?;
        }
    }
    Ok(())
}

fn is_null(stat: &rustix::fs::Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
        && stat.st_rdev == makedev(1, 3)
}

/// The directory that holds `path` (opened beneath the root), and the last name.
fn parent<'a>(
    root: BorrowedFd<'_>,
    path: &'a CString,
    buffer: &mut [u8; 256],
) -> std::result::Result<(std::os::fd::OwnedFd, &'a std::ffi::CStr), Errno> {
    let bytes = path.to_bytes_with_nul();
    let slash = bytes.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
    let (dir, name) = bytes.split_at(slash);
    let room = buffer.get_mut(..=dir.len()).ok_or(Errno::NAMETOOLONG)?;
    let (body, end) = room.split_at_mut(dir.len());
    body.copy_from_slice(dir);
    end[0] = 0;
    let dir = std::ffi::CStr::from_bytes_with_nul(room).map_err(|_| Errno::INVAL)?;
    let name = name.strip_prefix(b"/").unwrap_or(name);
    let name = std::ffi::CStr::from_bytes_with_nul(name).map_err(|_| Errno::INVAL)?;
    let dir = if dir.is_empty() { c"/" } else { dir };
    Ok((
        sys::path::make_in_root(root, dir, Missing::Directory)?,
        name,
    ))
}

fn node(root: BorrowedFd<'_>, device: &DevicePlan) -> std::result::Result<(), Errno> {
    let mut buffer = [0; 256];
    let (dir, name) = parent(root, &device.path, &mut buffer)?;
    let kind = FileType::from_raw_mode(device.mode);
    let mode = Mode::from_raw_mode(device.mode & 0o7777);
    match mknodat(&dir, name, kind, mode, makedev(device.major, device.minor)) {
        Ok(()) => {}
        Err(Errno::EXIST) => return Ok(()),
        Err(errno) => return Err(errno),
    }
    // The umask took bits away.
    rustix::fs::chmodat(&dir, name, mode, AtFlags::empty())?;
    if device.uid != 0 || device.gid != 0 {
        rustix::fs::chownat(
            &dir,
            name,
            Some(rustix::fs::Uid::from_raw(device.uid)),
            Some(rustix::fs::Gid::from_raw(device.gid)),
            AtFlags::SYMLINK_NOFOLLOW,
        )?;
    }
    Ok(())
}

fn bind(root: BorrowedFd<'_>, device: &DevicePlan) -> std::result::Result<(), Errno> {
    let mount = sys::mount::clone_tree(&device.path, Depth::One)?;
    let stat = rustix::fs::fstat(&mount)?;
    if stat.st_rdev != makedev(device.major, device.minor) {
        return Err(Errno::NODEV);
    }
    let target = sys::path::make_in_root(root, &device.path, Missing::File)?;
    sys::mount::attach(mount.as_fd(), target.as_fd())
}

/// Makes the links; what exists stays.
pub(super) fn link(root: BorrowedFd<'_>, links: &[(CString, CString)]) -> Result<()> {
    for (index, (target, path)) in links.iter().enumerate() {
        let mut buffer = [0; 256];
        let result = parent(root, path, &mut buffer).and_then(|(dir, name)| {
            match rustix::fs::symlinkat(&**target, &dir, name) {
                Err(Errno::EXIST) => Ok(()),
                other => other,
            }
        });
        result.at_item(Step::Symlink, index)?;
    }
    Ok(())
}

/// Opens the root's `/dev/null` and checks that it is the null device (CVE-2025-31133).
pub(super) fn open_null(root: BorrowedFd<'_>) -> std::result::Result<std::os::fd::OwnedFd, Errno> {
    let null = sys::path::open_in_root(
        root,
        c"/dev/null",
        OFlags::PATH | OFlags::NOFOLLOW,
        Mode::empty(),
    )?;
    let stat = rustix::fs::fstat(&null)?;
    if is_null(&stat) {
        Ok(null)
    } else {
        Err(Errno::NODEV)
    }
}
