//! Mounts by descriptor (Linux 5.2, `mount_setattr` 5.12): nothing is attached to a path before
//! it is complete, and what is not attached goes with its descriptor.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};

/// A file system that is being configured.
#[derive(Debug)]
pub struct FileSystem {
    context: OwnedFd,
}

impl FileSystem {
    /// `fsopen(2)`.
    ///
    /// # Errors
    /// `ENODEV` when this kernel has no such file system.
    pub fn open(kind: &CStr) -> Result<Self, Errno> {
        Ok(Self {
            context: fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?,
        })
    }

    /// A key with a value, or a flag.
    ///
    /// # Errors
    /// `EINVAL` for what the file system does not know.
    pub fn set(&self, key: &CStr, value: Option<&CStr>) -> Result<(), Errno> {
        match value {
            Some(value) => fsconfig_set_string(self.context.as_fd(), key, value),
            None => fsconfig_set_flag(self.context.as_fd(), key),
        }
    }

    /// Creates the mount, attached nowhere.
    ///
    /// # Errors
    /// As `fsconfig(2)` and `fsmount(2)`.
    pub fn mount(self, attributes: u64) -> Result<OwnedFd, Errno> {
        fsconfig_create(self.context.as_fd())?;
        let attributes = u32::try_from(attributes).map_err(|_| Errno::INVAL)?;
        fsmount(
            self.context.as_fd(),
            FsMountFlags::FSMOUNT_CLOEXEC,
            MountAttrFlags::from_bits_retain(attributes),
        )
    }
}

/// How much of a tree is taken or changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// The mount alone.
    One,
    /// With all mounts below it.
    Tree,
}

/// A detached copy of the mount at `path`: what a bind mount is made of.
///
/// # Errors
/// As `open_tree(2)`.
pub fn clone_tree(path: &CStr, depth: Depth) -> Result<OwnedFd, Errno> {
    open_tree(rustix::fs::CWD, path, tree_flags(depth))
}

/// As [`clone_tree`], of what a descriptor points to.
///
/// # Errors
/// As `open_tree(2)`.
pub fn clone_tree_of(file: BorrowedFd<'_>, depth: Depth) -> Result<OwnedFd, Errno> {
    open_tree(file, c"", tree_flags(depth) | OpenTreeFlags::AT_EMPTY_PATH)
}

/// As [`clone_tree`], of what lies at `beneath` in the directory at `path`: links stay inside of it.
///
/// # Errors
/// As `openat2(2)` and `open_tree(2)`.
pub fn clone_tree_beneath(
    path: &CStr,
    beneath: Option<&CStr>,
    depth: Depth,
) -> Result<OwnedFd, Errno> {
    let Some(beneath) = beneath else {
        return clone_tree(path, depth);
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(path, flags, Mode::empty())?;
    let part = crate::path::open_in_root(root.as_fd(), beneath, OFlags::PATH, Mode::empty())?;
    clone_tree_of(part.as_fd(), depth)
}

fn tree_flags(depth: Depth) -> OpenTreeFlags {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    match depth {
        Depth::One => flags,
        Depth::Tree => flags | OpenTreeFlags::AT_RECURSIVE,
    }
}

/// Attaches a detached mount onto what `target` points to.
///
/// # Errors
/// As `move_mount(2)`.
pub fn attach(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Result<(), Errno> {
    move_mount(
        mount,
        c"",
        target,
        c"",
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH,
    )
}

/// Sets and clears `MOUNT_ATTR_*` of a mount, and its propagation (`MS_PRIVATE` …, 0 leaves it).
///
/// # Errors
/// As `mount_setattr(2)`: `EPERM` for a flag that is locked in a user namespace.
pub fn set_attributes(
    mount: BorrowedFd<'_>,
    set: u64,
    clear: u64,
    propagation: u64,
    depth: Depth,
) -> Result<(), Errno> {
    // SAFETY: `mount_attr` is a C struct of integers, for which zero is a valid value.
    let mut attributes: libc::mount_attr = unsafe { std::mem::zeroed() };
    attributes.attr_set = set;
    attributes.attr_clr = clear;
    // mount_setattr takes the kind alone; how deep it goes is AT_RECURSIVE.
    attributes.propagation = propagation & !libc::MS_REC;
    apply_attributes(mount, &attributes, depth)
}

/// Shows the owners of a detached mount's files as the user namespace behind `user_namespace` maps
/// them (`MOUNT_ATTR_IDMAP`, Linux 5.12).
///
/// # Errors
/// As `mount_setattr(2)`: `EINVAL` for a file system that cannot be mapped, or one that is mapped.
pub fn map_ids(
    mount: BorrowedFd<'_>,
    user_namespace: BorrowedFd<'_>,
    depth: Depth,
) -> Result<(), Errno> {
    // SAFETY: `mount_attr` is a C struct of integers, for which zero is a valid value.
    let mut attributes: libc::mount_attr = unsafe { std::mem::zeroed() };
    attributes.attr_set = libc::MOUNT_ATTR_IDMAP;
    attributes.userns_fd = u64::try_from(user_namespace.as_raw_fd()).map_err(|_| Errno::BADF)?;
    apply_attributes(mount, &attributes, depth)
}

fn apply_attributes(
    mount: BorrowedFd<'_>,
    attributes: &libc::mount_attr,
    depth: Depth,
) -> Result<(), Errno> {
    let flags = match depth {
        Depth::One => libc::AT_EMPTY_PATH,
        Depth::Tree => libc::AT_EMPTY_PATH | libc::AT_RECURSIVE,
    };
    // SAFETY: the descriptor is open, the path is an empty string, and the size of `attributes`,
    // which lives over the call, is passed (mount_setattr(2)).
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            std::ptr::from_ref(attributes),
            size_of::<libc::mount_attr>(),
        )
    };
    if result == -1 {
        return Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO));
    }
    Ok(())
}
