//! Paths that read as empty or cannot be written, and writes into procfs.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;
use sys::mount::{Depth, FileSystem};

use super::{At, Result, devices};
use crate::step::Step;

/// `MOUNT_ATTR_RDONLY` (mount_setattr(2)).
const RDONLY: u64 = 0x1;

/// Writes `value` to `key`, below our own procfs: no link, no other mount.
pub(super) fn write_proc(
    procfs: BorrowedFd<'_>,
    key: &CStr,
    value: &[u8],
) -> std::result::Result<(), Errno> {
    let file = open_proc(procfs, key)?;
    let written = rustix::io::write(&file, value)?;
    if written == value.len() {
        Ok(())
    } else {
        Err(Errno::IO)
    }
}

/// Writes `value` to `file` in this process's own directory, through our own procfs. By number:
/// `self` is a link.
pub(super) fn write_own(
    procfs: BorrowedFd<'_>,
    file: &CStr,
    value: &[u8],
) -> std::result::Result<(), Errno> {
    let mut buffer = [0; 12];
    let pid = rustix::process::getpid().as_raw_nonzero().get();
    let dir = decimal(pid, &mut buffer);
    let dir = CStr::from_bytes_until_nul(dir).map_err(|_| Errno::INVAL)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS;
    let dir = openat2(procfs, dir, flags, Mode::empty(), resolve)?;
    write_proc(dir.as_fd(), file, value)
}

/// A number in decimal and NUL, without the heap.
pub(super) fn decimal(value: i32, buffer: &mut [u8; 12]) -> &[u8] {
    let mut rest = value.unsigned_abs();
    let mut at = buffer.len() - 1;
    buffer[at] = 0;
    loop {
        at -= 1;
        buffer[at] = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if value < 0 {
        at -= 1;
        buffer[at] = b'-';
    }
    &buffer[at..]
}

fn open_proc(procfs: BorrowedFd<'_>, path: &CStr) -> std::result::Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS;
    openat2(
        procfs,
        path,
        OFlags::WRONLY | OFlags::CLOEXEC,
        Mode::empty(),
        resolve,
    )
}

/// Hides each path that exists: a file behind `/dev/null`, a directory behind one shared, empty,
/// read-only tmpfs.
pub(super) fn mask(root: BorrowedFd<'_>, paths: &[CString]) -> Result<()> {
    if paths.is_empty() {
        return Ok(());
    }
    let null = devices::open_null(root).at(Step::MaskPath)?;
    let mut empty: Option<OwnedFd> = None;
    for (index, path) in paths.iter().enumerate() {
        let Some(target) = open_existing(root, path).at_item(Step::MaskPath, index)? else {
            continue;
        };
        let stat = rustix::fs::fstat(&target).at_item(Step::MaskPath, index)?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            cover_directory(&mut empty, target.as_fd())
        } else {
            cover(null.as_fd(), target.as_fd())
        }
        .at_item(Step::MaskPath, index)?;
    }
    Ok(())
}

/// The first directory gets the tmpfs itself: before Linux 6.15 what is not attached cannot be
/// copied. From then on `empty` is an attached mount, and the others get copies of it.
fn cover_directory(
    empty: &mut Option<OwnedFd>,
    target: BorrowedFd<'_>,
) -> std::result::Result<(), Errno> {
    if let Some(attached) = empty {
        return cover(attached.as_fd(), target);
    }
    let tmpfs = empty_tmpfs()?;
    sys::mount::attach(tmpfs.as_fd(), target)?;
    *empty = Some(tmpfs);
    Ok(())
}

fn cover(with: BorrowedFd<'_>, target: BorrowedFd<'_>) -> std::result::Result<(), Errno> {
    let copy = sys::mount::clone_tree_of(with, Depth::One)?;
    sys::mount::attach(copy.as_fd(), target)
}

fn empty_tmpfs() -> std::result::Result<OwnedFd, Errno> {
    let context = FileSystem::open(c"tmpfs")?;
    context.set(c"size", Some(c"0"))?;
    context.set(c"mode", Some(c"755"))?;
    context.mount(RDONLY)
}

/// Binds each path that exists onto itself, read-only with all below it.
pub(super) fn make_readonly(root: BorrowedFd<'_>, paths: &[CString]) -> Result<()> {
    for (index, path) in paths.iter().enumerate() {
        let Some(target) = open_existing(root, path).at_item(Step::ReadonlyPath, index)? else {
            continue;
        };
        sys::mount::clone_tree_of(target.as_fd(), Depth::Tree)
            .and_then(|mount| {
                sys::mount::set_attributes(mount.as_fd(), RDONLY, 0, 0, Depth::Tree)?;
                sys::mount::attach(mount.as_fd(), target.as_fd())
            })
            .at_item(Step::ReadonlyPath, index)?;
    }
    Ok(())
}

fn open_existing(root: BorrowedFd<'_>, path: &CStr) -> std::result::Result<Option<OwnedFd>, Errno> {
    match sys::path::open_in_root(root, path, OFlags::PATH, Mode::empty()) {
        Ok(target) => Ok(Some(target)),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS) => Ok(None),
        Err(errno) => Err(errno),
    }
}
