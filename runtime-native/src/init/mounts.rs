//! The mounts below the root, each made detached and attached to a descriptor that was resolved
//! beneath the root (CVE-2021-30465).

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use runtime::{MountPlan, MountSource};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use sys::mount::{Depth, FileSystem};
use sys::path::Missing;

use super::{At, Result, copy_up};
use crate::step::Step;

/// Makes mount `index` of the plan; `prepared` is a bind mount that the parent has made.
pub(super) fn mount(
    root: BorrowedFd<'_>,
    plan: &MountPlan,
    index: usize,
    prepared: Option<BorrowedFd<'_>>,
) -> Result<()> {
    let depth = if plan.recursive_flags {
        Depth::Tree
    } else {
        Depth::One
    };
    let (mount, missing) = match &plan.source {
        MountSource::FileSystem {
            kind,
            options,
            name,
        } => {
            let inherited = match needs_mode(kind, options) {
                true => mode_of(root, &plan.target),
                false => None,
            };
            // What is made in `/dev` comes after it.
            let flags = if is_dev(plan) {
                plan.set_flags & !RDONLY
            } else {
                plan.set_flags
            };
            let mount = file_system(kind, options, name, inherited.as_ref(), flags);
            // Without a network namespace of its own, a user namespace may not mount sysfs.
            let mount = match mount {
                Err(Errno::PERM) if kind.as_c_str() == c"sysfs" => bind_sysfs(plan),
                other => other,
            };
            let mut mount = mount.at_item(Step::Mount, index)?;
            let mut missing = Missing::Directory;
            if let Some(beneath) = &plan.beneath {
                // Of a mount that is attached nowhere since Linux 6.15.
                mount = part(mount.as_fd(), beneath).at_item(Step::Mount, index)?;
                missing = kind_of(mount.as_fd()).at_item(Step::Mount, index)?;
            }
            if plan.propagation != 0 {
                sys::mount::set_attributes(mount.as_fd(), 0, 0, plan.propagation, spread(plan))
                    .at_item(Step::Mount, index)?;
            }
            (mount, missing)
        }
        MountSource::Bind { path, recursive } => {
            let tree = if *recursive { Depth::Tree } else { Depth::One };
            let mount = match prepared {
                Some(mount) => rustix::io::fcntl_dupfd_cloexec(mount, 0),
                None => sys::mount::clone_tree_beneath(path, plan.beneath.as_deref(), tree),
            };
            let mount = mount.at_item(Step::Mount, index)?;
            let missing = kind_of(mount.as_fd()).at_item(Step::Mount, index)?;
            set_flags(&mount, plan, depth).at_item(Step::Mount, index)?;
            (mount, missing)
        }
        MountSource::Inside { path, recursive } => {
            let tree = if *recursive { Depth::Tree } else { Depth::One };
            let mount = sys::path::open_in_root(root, path, OFlags::PATH, Mode::empty())
                .and_then(|source| sys::mount::clone_tree_of(source.as_fd(), tree))
                .at_item(Step::Mount, index)?;
            let missing = kind_of(mount.as_fd()).at_item(Step::Mount, index)?;
            set_flags(&mount, plan, depth).at_item(Step::Mount, index)?;
            (mount, missing)
        }
        MountSource::OtherNamespace { .. } => {
            let mount = prepared.ok_or(Errno::BADF);
            let mount = mount.and_then(|mount| rustix::io::fcntl_dupfd_cloexec(mount, 0));
            let mount = mount.at_item(Step::Mount, index)?;
            set_flags(&mount, plan, depth).at_item(Step::Mount, index)?;
            (mount, Missing::Directory)
        }
    };
    let target = target(root, plan, missing).at_item(Step::MountTarget, index)?;
    if plan.copy_up {
        copy_up::fill(mount.as_fd(), target.as_fd()).at_item(Step::CopyUp, index)?;
    }
    sys::mount::attach(mount.as_fd(), target.as_fd()).at_item(Step::MountAttach, index)
}

/// `MOUNT_ATTR_RDONLY` (mount_setattr(2)).
const RDONLY: u64 = 0x1;

fn is_dev(plan: &MountPlan) -> bool {
    let is_new = matches!(&plan.source, MountSource::FileSystem { .. });
    is_new && plan.target.as_c_str() == c"/dev"
}

/// Makes a `/dev` read-only that is to be so, from inside.
pub(super) fn finish(mounts: &[MountPlan]) -> Result<()> {
    for (index, mount) in mounts.iter().enumerate() {
        if is_dev(mount) && mount.set_flags & RDONLY != 0 {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            rustix::fs::open(c"/dev", flags, Mode::empty())
                .and_then(|dev| sys::mount::set_attributes(dev.as_fd(), RDONLY, 0, 0, Depth::One))
                .at_item(Step::Mount, index)?;
        }
    }
    Ok(())
}

/// A tmpfs without a mode of its own.
fn needs_mode(kind: &CStr, options: &[(std::ffi::CString, Option<std::ffi::CString>)]) -> bool {
    kind == c"tmpfs" && !options.iter().any(|(key, _)| key.as_c_str() == c"mode")
}

/// The mode of the directory that is mounted over, in octal digits and a zero byte; none where there
/// is no directory yet.
fn mode_of(root: BorrowedFd<'_>, target: &CStr) -> Option<[u8; 5]> {
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    let dir = sys::path::open_in_root(root, target, flags, Mode::empty()).ok()?;
    let mode = rustix::fs::fstat(&dir).ok()?.st_mode;
    let digit = |shift: u32| b'0' + u8::try_from((mode >> shift) & 7).unwrap_or(0);
    Some([digit(9), digit(6), digit(3), digit(0), 0])
}

/// Whether a mount shows the kernel's view of processes and devices, or lies where one does.
pub(super) fn shows_the_kernel(plan: &MountPlan) -> bool {
    let target = plan.target.to_bytes();
    let below = |dir: &[u8]| {
        let rest = target.strip_prefix(dir);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
    };
    let kernels = match &plan.source {
        MountSource::FileSystem { kind, .. } => {
            [c"proc", c"sysfs", c"cgroup", c"cgroup2"].contains(&kind.as_c_str())
        }
        MountSource::Bind { .. }
        | MountSource::Inside { .. }
        | MountSource::OtherNamespace { .. } => false,
    };
    kernels || below(b"/proc") || below(b"/sys")
}

fn set_flags(mount: &OwnedFd, plan: &MountPlan, depth: Depth) -> std::result::Result<(), Errno> {
    if plan.set_flags != 0 || plan.clear_flags != 0 {
        sys::mount::set_attributes(mount.as_fd(), plan.set_flags, plan.clear_flags, 0, depth)?;
    }
    if plan.propagation != 0 {
        sys::mount::set_attributes(mount.as_fd(), 0, 0, plan.propagation, spread(plan))?;
    }
    Ok(())
}

/// How deep the propagation goes: `MS_REC` of `linux/mount.h`.
fn spread(plan: &MountPlan) -> Depth {
    const MS_REC: u64 = 1 << 14;
    if plan.propagation & MS_REC != 0 {
        Depth::Tree
    } else {
        Depth::One
    }
}

fn bind_sysfs(plan: &MountPlan) -> std::result::Result<OwnedFd, Errno> {
    let mount = sys::mount::clone_tree(c"/sys", Depth::Tree)?;
    sys::mount::set_attributes(mount.as_fd(), plan.set_flags, 0, 0, Depth::Tree)?;
    Ok(mount)
}

fn file_system(
    kind: &CStr,
    options: &[(std::ffi::CString, Option<std::ffi::CString>)],
    name: &CStr,
    mode: Option<&[u8; 5]>,
    flags: u64,
) -> std::result::Result<OwnedFd, Errno> {
    let context = FileSystem::open(kind)?;
    context.set(c"source", Some(name))?;
    for (key, value) in options {
        context.set(key, value.as_deref())?;
    }
    if let Some(mode) = mode {
        let mode = CStr::from_bytes_with_nul(mode).map_err(|_| Errno::INVAL)?;
        context.set(c"mode", Some(mode))?;
    }
    context.mount(flags)
}

/// A part of a file system, resolved beneath its root.
fn part(mount: BorrowedFd<'_>, beneath: &CStr) -> std::result::Result<OwnedFd, Errno> {
    let part = sys::path::open_in_root(mount, beneath, OFlags::PATH, Mode::empty())?;
    sys::mount::clone_tree_of(part.as_fd(), Depth::One)
}

/// What has to be mounted over: a file over a file, a directory over a directory.
fn kind_of(mount: BorrowedFd<'_>) -> std::result::Result<Missing, Errno> {
    let stat = rustix::fs::fstat(mount)?;
    Ok(match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => Missing::Directory,
        _ => Missing::File,
    })
}

fn target(
    root: BorrowedFd<'_>,
    plan: &MountPlan,
    missing: Missing,
) -> std::result::Result<OwnedFd, Errno> {
    // A link in the image must not decide where procfs, sysfs or /dev is (CVE-2019-16884).
    if !matches!(
        &plan.source,
        MountSource::Bind { .. } | MountSource::Inside { .. }
    ) {
        let flags = OFlags::PATH | OFlags::NOFOLLOW;
        let found = sys::path::open_in_root(root, &plan.target, flags, Mode::empty());
        if let Ok(found) = found {
            let stat = rustix::fs::fstat(&found)?;
            if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
                return Err(Errno::LOOP);
            }
        }
    }
    sys::path::make_in_root(root, &plan.target, missing)
}
