//! The root file system: mounted detached, attached in the container's mount namespace only, and
//! made `/`.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use runtime::RootfsPlan;
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use sys::mount::{Depth, FileSystem};

/// `MOUNT_ATTR_RDONLY`, `_NOSUID`, `_NODEV`, `_NOEXEC` (mount_setattr(2)).
const RDONLY: u64 = 0x1;
const NOSUID: u64 = 0x2;
const NODEV: u64 = 0x4;
const NOEXEC: u64 = 0x8;

/// Makes every mount a slave of the host's.
pub(super) fn isolate_propagation() -> Result<(), Errno> {
    rustix::mount::mount_change(
        c"/",
        MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC,
    )
}

/// Mounts the root and attaches it; the descriptor is its root directory.
pub(super) fn mount(plan: &RootfsPlan) -> Result<OwnedFd, Errno> {
    match plan {
        RootfsPlan::Overlay { mountpoint, .. } => {
            match overlay(plan) {
                Ok(mount) => {
                    let target = rustix::fs::open(
                        &**mountpoint,
                        rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC,
                        rustix::fs::Mode::empty(),
                    )?;
                    sys::mount::attach(mount.as_fd(), target.as_fd())?;
                    Ok(mount)
                }
                // No `lowerdir+` before Linux 6.8: one string, at most a page long.
                Err(Errno::INVAL) => overlay_by_string(plan),
                Err(errno) => Err(errno),
            }
        }
        RootfsPlan::Directory { path, .. } => {
            let mount = sys::mount::clone_tree(path, Depth::Tree)?;
            let target = rustix::fs::open(
                &**path,
                rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC,
                rustix::fs::Mode::empty(),
            )?;
            sys::mount::attach(mount.as_fd(), target.as_fd())?;
            Ok(mount)
        }
    }
}

fn overlay(plan: &RootfsPlan) -> Result<OwnedFd, Errno> {
    let RootfsPlan::Overlay {
        lower,
        upper,
        work,
        volatile,
        userxattr,
        ..
    } = plan
    else {
        return Err(Errno::INVAL);
    };
    let context = FileSystem::open(c"overlay")?;
    for layer in lower {
        context.set(c"lowerdir+", Some(layer))?;
    }
    context.set(c"upperdir", Some(upper))?;
    context.set(c"workdir", Some(work))?;
    if *volatile {
        context.set(c"volatile", None)?;
    }
    if *userxattr {
        context.set(c"userxattr", None)?;
    }
    context.mount(0)
}

fn overlay_by_string(plan: &RootfsPlan) -> Result<OwnedFd, Errno> {
    let RootfsPlan::Overlay {
        mountpoint,
        options,
        ..
    } = plan
    else {
        return Err(Errno::INVAL);
    };
    rustix::mount::mount(
        c"overlay",
        &**mountpoint,
        c"overlay",
        MountFlags::empty(),
        &**options,
    )?;
    let flags =
        rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
    rustix::fs::open(&**mountpoint, flags, rustix::fs::Mode::empty())
}

/// A procfs that is attached nowhere.
pub(super) fn private_procfs() -> Result<OwnedFd, Errno> {
    FileSystem::open(c"proc")?.mount(NOSUID | NODEV | NOEXEC)
}

/// Makes the mounted root `/` and lets the old one go (pivot_root(2), "." twice).
pub(super) fn enter(root: BorrowedFd<'_>) -> Result<(), Errno> {
    rustix::process::fchdir(root)?;
    rustix::process::pivot_root(c".", c".")?;
    // The old root lies over the new one now; its unmounting must not travel to the host.
    rustix::mount::mount_change(
        c".",
        MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC,
    )?;
    rustix::mount::unmount(c".", UnmountFlags::DETACH)?;
    rustix::process::chdir(c"/")
}

/// A detached copy of the mount tree as it is now, its root read-only where the container's will be.
pub(super) fn clone(root: BorrowedFd<'_>, readonly: bool) -> Result<OwnedFd, Errno> {
    let tree = sys::mount::clone_tree_of(root, Depth::Tree)?;
    if readonly {
        sys::mount::set_attributes(tree.as_fd(), RDONLY, 0, 0, Depth::One)?;
    }
    Ok(tree)
}

/// Whether the root is to be read-only.
pub(super) fn is_readonly(plan: &RootfsPlan) -> bool {
    match plan {
        RootfsPlan::Overlay { readonly, .. } | RootfsPlan::Directory { readonly, .. } => *readonly,
    }
}

/// Makes `/` read-only, the mounts below it not.
pub(super) fn set_readonly() -> Result<(), Errno> {
    let root = rustix::fs::open(
        c"/",
        rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )?;
    sys::mount::set_attributes(root.as_fd(), RDONLY, 0, 0, Depth::One)
}
