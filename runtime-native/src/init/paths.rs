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

/// Writes `value` to `key`, below `/proc/sys`, through our own procfs: no link, no other mount.
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
        let cover = if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            if empty.is_none() {
                empty = Some(empty_tmpfs().at_item(Step::MaskPath, index)?);
            }
            let tmpfs = empty.as_ref().map(AsFd::as_fd).ok_or(Errno::IO);
            tmpfs.and_then(|tmpfs| sys::mount::clone_tree_of(tmpfs, Depth::One))
        } else {
            sys::mount::clone_tree_of(null.as_fd(), Depth::One)
        };
        cover
            .and_then(|cover| sys::mount::attach(cover.as_fd(), target.as_fd()))
            .at_item(Step::MaskPath, index)?;
    }
    Ok(())
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
