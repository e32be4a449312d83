//! The root file system: mounted detached, attached in the container's mount namespace only, and
//! made `/`.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use runtime::{InitPlan, RootChange, RootfsPlan};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use sys::clone::namespace::MOUNT;
use sys::mount::{Depth, FileSystem};

use super::At;
use crate::step::Step;

/// `MOUNT_ATTR_RDONLY`, `_NOSUID`, `_NODEV`, `_NOEXEC` (mount_setattr(2)).
const RDONLY: u64 = 0x1;
const NOSUID: u64 = 0x2;
const NODEV: u64 = 0x4;
const NOEXEC: u64 = 0x8;

/// Decides what the host sees of our mounts and we of its: without another wish, its later mounts
/// still arrive and ours never leave (mount_namespaces(7)).
pub(super) fn spread(plan: &InitPlan) -> Result<(), Errno> {
    let namespaces = &plan.namespaces;
    if plan.root_change == RootChange::Chroot || !namespaces.iter().any(|n| n.flag == MOUNT) {
        return Ok(());
    }
    let propagation = &plan.propagation;
    if propagation.flag & SHARED == 0 {
        return change(c"/", SLAVE | REC);
    }
    match &propagation.parent_mount {
        Some(parent) => change(parent, PRIVATE),
        None => Ok(()),
    }
}

/// `MS_*` of `linux/mount.h`.
const REC: u64 = 1 << 14;
const PRIVATE: u64 = 1 << 18;
const SLAVE: u64 = 1 << 19;
const SHARED: u64 = 1 << 20;

fn change(path: &CStr, flags: u64) -> Result<(), Errno> {
    let flags = u32::try_from(flags).map_err(|_| Errno::INVAL)?;
    rustix::mount::mount_change(path, MountPropagationFlags::from_bits_retain(flags))
}

/// Mounts the root and attaches it; the descriptor is its root directory. `prepared` is the
/// directory's mount where the parent has made it.
pub(super) fn mount(plan: &InitPlan, prepared: Option<BorrowedFd<'_>>) -> Result<OwnedFd, Errno> {
    if let (RootChange::Chroot, RootfsPlan::Directory { path, .. }) =
        (plan.root_change, &plan.rootfs)
    {
        return open_dir(path);
    }
    let plan = &plan.rootfs;
    match plan {
        RootfsPlan::Overlay { mountpoint, .. } => {
            if let Some(mount) = prepared {
                return attach_prepared(mount, mountpoint);
            }
            match overlay(plan) {
                Ok(mount) => {
                    sys::mount::attach(mount.as_fd(), open_dir(mountpoint)?.as_fd())?;
                    Ok(mount)
                }
                // No `lowerdir+` before Linux 6.8: one string, at most a page long.
                Err(Errno::INVAL) => overlay_by_string(plan),
                Err(errno) => Err(errno),
            }
        }
        RootfsPlan::Directory { path, .. } => {
            if let Some(mount) = prepared {
                return attach_prepared(mount, path);
            }
            let mount = sys::mount::clone_tree(path, Depth::Tree)?;
            attach_at(mount.as_fd(), path)?;
            Ok(mount)
        }
    }
}

/// A mapped root need not reach its own root's place on the host: any place does.
fn attach_at(mount: BorrowedFd<'_>, path: &CStr) -> Result<(), Errno> {
    match open_dir(path) {
        Ok(target) => sys::mount::attach(mount, target.as_fd()),
        Err(Errno::ACCESS) => sys::mount::attach(mount, open_dir(c"/")?.as_fd()),
        Err(errno) => Err(errno),
    }
}

/// What comes from a namespace with more rights is locked where it is attached, and cannot be
/// pivoted to; a copy that is made here is not.
fn attach_prepared(mount: BorrowedFd<'_>, path: &CStr) -> Result<OwnedFd, Errno> {
    attach_at(mount, path)?;
    let own = sys::mount::clone_tree_of(mount, Depth::Tree)?;
    sys::mount::attach(own.as_fd(), mount)?;
    Ok(own)
}

fn open_dir(path: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
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
    open_dir(mountpoint)
}

/// A new procfs that is attached nowhere.
pub(super) fn new_procfs() -> Result<OwnedFd, Errno> {
    FileSystem::open(c"proc")?.mount(NOSUID | NODEV | NOEXEC)
}

/// A procfs that is attached nowhere. From a user namespace that shares the host's processes none
/// can be mounted; the host's own is copied then, while its tree is still there.
pub(super) fn private_procfs() -> Result<OwnedFd, Errno> {
    match new_procfs() {
        Err(Errno::PERM) => {
            let copy = sys::mount::clone_tree(c"/proc", Depth::One)?;
            match rustix::fs::fstatfs(&copy)?.f_type {
                rustix::fs::PROC_SUPER_MAGIC => Ok(copy),
                _ => Err(Errno::PERM),
            }
        }
        other => other,
    }
}

/// Makes the mounted root `/` and lets the old one go (pivot_root(2), "." twice).
pub(super) fn enter(root: BorrowedFd<'_>, plan: &InitPlan) -> Result<(), Errno> {
    rustix::process::fchdir(root)?;
    match plan.root_change {
        RootChange::Pivot => {
            let old = open_dir(c"/")?;
            rustix::process::pivot_root(c".", c".")?;
            // The old root lies over the new one now; its unmounting must not travel to the host.
            // From there, for beneath the new root are the mounts that are to be shared.
            rustix::process::fchdir(&old)?;
            change(c".", SLAVE | REC)?;
            rustix::mount::unmount(c".", UnmountFlags::DETACH)?;
        }
        RootChange::Move => {
            for place in &plan.hidden {
                hide(place)?;
            }
            rustix::mount::mount_move(c".", c"/")?;
            rustix::process::chroot(c".")?;
        }
        RootChange::Chroot => rustix::process::chroot(c".")?,
    }
    rustix::process::chdir(c"/")
}

/// Unmounts what must not stay, or covers it where a user namespace has locked it.
fn hide(place: &CStr) -> Result<(), Errno> {
    let flags = UnmountFlags::DETACH | UnmountFlags::NOFOLLOW;
    match rustix::mount::unmount(place, flags) {
        Err(Errno::INVAL | Errno::PERM) => rustix::mount::mount(
            c"tmpfs",
            place,
            c"tmpfs",
            MountFlags::empty(),
            c"size=4k,nr_inodes=2,mode=0",
        ),
        other => other,
    }
}

/// A detached copy of the mount tree as it is now, its root read-only where the container's will be.
pub(super) fn guest_tree(root: BorrowedFd<'_>, plan: &RootfsPlan) -> Result<OwnedFd, Errno> {
    let (RootfsPlan::Overlay { readonly, .. } | RootfsPlan::Directory { readonly, .. }) = plan;
    let tree = sys::mount::clone_tree_of(root, Depth::Tree)?;
    if *readonly {
        sys::mount::set_attributes(tree.as_fd(), RDONLY, 0, 0, Depth::One)?;
    }
    Ok(tree)
}

/// Gives the new root its propagation and makes it read-only, the mounts below it not.
pub(super) fn finish(plan: &InitPlan) -> super::Result<()> {
    let flag = plan.propagation.flag;
    if flag != 0 && plan.root_change != RootChange::Chroot {
        change(c"/", flag).at(Step::Propagation)?;
    }
    let (RootfsPlan::Overlay { readonly, .. } | RootfsPlan::Directory { readonly, .. }) =
        &plan.rootfs;
    if *readonly {
        open_dir(c"/")
            .and_then(|root| sys::mount::set_attributes(root.as_fd(), RDONLY, 0, 0, Depth::One))
            .at(Step::ReadonlyRoot)?;
    }
    Ok(())
}
