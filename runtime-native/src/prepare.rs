//! What the parent of a container makes before the clone, because the container may not: mounts
//! whose source a mapped user cannot reach, id-mapped mounts, clocks of a time namespace.

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use runtime::{IdMap, InitPlan, MountPlan, MountSource, RootfsPlan, UserMap};
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{WaitId, WaitIdOptions, waitid};
use sys::clone::{Side, clone_process, namespace};
use sys::mount::Depth;

use crate::layers;
use crate::start::StartError;

/// Mounts that are attached nowhere yet.
#[derive(Debug, Default)]
pub(crate) struct Prepared {
    root: Option<OwnedFd>,
    /// One entry for each mount of the plan, or none at all.
    mounts: Vec<Option<OwnedFd>>,
}

impl Prepared {
    /// Makes what `plan` needs.
    pub(crate) fn new(plan: &InitPlan) -> Result<Self, StartError> {
        // Whoever is not root makes the maps of a user namespace for its own files.
        let is_root = rustix::process::geteuid().is_root();
        let foreign = is_root && has_user_namespace(plan);
        let is_ours = |mount: &MountPlan| {
            mount.id_map.is_some() || matches!(mount.source, MountSource::OtherNamespace { .. })
        };
        if !foreign && !plan.mounts.iter().any(is_ours) {
            return Ok(Self::default());
        }
        let root = match &plan.rootfs {
            RootfsPlan::Overlay { .. } if foreign => Some(layers::mount(plan)?),
            RootfsPlan::Directory { path, .. } if foreign => {
                let tree = sys::mount::clone_tree(path, Depth::Tree).and_then(slave);
                Some(tree.map_err(|errno| failed("open the root file system", path, errno))?)
            }
            _ => None,
        };
        let mounts = plan
            .mounts
            .iter()
            .map(|mount| bind(mount, foreign))
            .collect::<Result<_, _>>()?;
        Ok(Self { root, mounts })
    }

    /// The root file system, when it was made here.
    pub(crate) fn root(&self) -> Option<BorrowedFd<'_>> {
        self.root.as_ref().map(AsFd::as_fd)
    }

    /// Mount `index`, when it was made here.
    pub(crate) fn mount(&self, index: usize) -> Option<BorrowedFd<'_>> {
        self.mounts.get(index)?.as_ref().map(AsFd::as_fd)
    }
}

fn has_user_namespace(plan: &InitPlan) -> bool {
    plan.namespaces.iter().any(|n| n.flag == namespace::USER)
}

pub(crate) fn failed(what: &str, path: &CStr, errno: Errno) -> StartError {
    let what = format!("{what} `{}`", path.to_string_lossy());
    StartError::engine(&what, &errno.into())
}

fn bind(mount: &MountPlan, foreign: bool) -> Result<Option<OwnedFd>, StartError> {
    let (path, recursive) = match &mount.source {
        MountSource::FileSystem { .. } | MountSource::Inside { .. } => return Ok(None),
        MountSource::Bind { path, recursive } => (path, recursive),
        MountSource::OtherNamespace { namespace, path } => {
            let mount = of_namespace(namespace, path);
            return mount
                .map(Some)
                .map_err(|errno| failed("share the other container's", path, errno));
        }
    };
    if !foreign && mount.id_map.is_none() {
        return Ok(None);
    }
    let depth = |deep: bool| if deep { Depth::Tree } else { Depth::One };
    let beneath = mount.beneath.as_deref();
    let tree = sys::mount::clone_tree_beneath(path, beneath, depth(*recursive))
        .and_then(slave)
        .map_err(|errno| failed("mount", path, errno))?;
    if let Some(id_map) = &mount.id_map {
        let namespace = match &id_map.namespace {
            Some(path) => {
                let flags = OFlags::RDONLY | OFlags::CLOEXEC;
                rustix::fs::open(&**path, flags, Mode::empty()).map_err(io::Error::from)
            }
            None => user_namespace(&id_map.map),
        };
        let namespace =
            namespace.map_err(|error| StartError::engine("map the ids of a mount", &error))?;
        sys::mount::map_ids(tree.as_fd(), namespace.as_fd(), depth(id_map.recursive))
            .map_err(|errno| failed("map the ids of the mount of", path, errno))?;
    }
    Ok(Some(tree))
}

/// A detached copy of the mount at `path` in another mount namespace, whose processes cannot send
/// this one elsewhere by a link.
fn of_namespace(namespace: &CStr, path: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let own = rustix::fs::open(c"/proc/self/ns/mnt", flags, Mode::empty())?;
    let other = rustix::fs::open(namespace, flags, Mode::empty())?;
    enter_mounts(other.as_fd())?;
    let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let copy = openat2(rustix::fs::CWD, path, flags, Mode::empty(), resolve)
        .and_then(|dir| sys::mount::clone_tree_of(dir.as_fd(), Depth::One));
    enter_mounts(own.as_fd())?;
    copy
}

/// Root and working directory of this process are the namespace's root afterwards (setns(2)).
pub(crate) fn enter_mounts(namespace: BorrowedFd<'_>) -> Result<(), Errno> {
    let kind = rustix::thread::LinkNameSpaceType::Mount;
    rustix::thread::move_into_link_name_space(namespace, Some(kind))
}

/// A copy of a shared mount is its peer, and would show the host what happens below it.
fn slave(tree: OwnedFd) -> Result<OwnedFd, Errno> {
    const MS_SLAVE: u64 = 1 << 19;
    sys::mount::set_attributes(tree.as_fd(), 0, 0, MS_SLAVE, Depth::Tree)?;
    Ok(tree)
}

/// A user namespace with these maps and nobody in it.
pub(crate) fn user_namespace(map: &UserMap) -> io::Result<OwnedFd> {
    let (wait, release) = pipe_with(PipeFlags::CLOEXEC)?;
    let (pid, pidfd) = match clone_process(namespace::USER, None)? {
        Side::Parent { pid, pidfd } => (pid, pidfd),
        Side::Child => {
            drop(release);
            // The end of the parent, or its word, is the same.
            let _end = rustix::io::read(&wait, &mut [0; 1]);
            sys::exec::exit_now(0);
        }
    };
    drop(wait);
    let namespace = write_maps(pid, map).and_then(|()| {
        let path = format!("/proc/{pid}/ns/user");
        Ok(rustix::fs::open(
            path,
            OFlags::RDONLY | OFlags::CLOEXEC,
            Mode::empty(),
        )?)
    });
    drop(release);
    waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED)?;
    namespace
}

/// Writes the maps of the user namespace that `pid` is in (user_namespaces(7)).
pub(crate) fn write_maps(pid: i32, map: &UserMap) -> io::Result<()> {
    let write = |file: &str, text: &str| {
        let path = format!("/proc/{pid}/{file}");
        File::options()
            .write(true)
            .open(path)?
            .write_all(text.as_bytes())
    };
    if map.deny_setgroups {
        write("setgroups", "deny")?;
    }
    write("uid_map", &map_text(&map.uid))?;
    write("gid_map", &map_text(&map.gid))
}

fn map_text(maps: &[IdMap]) -> String {
    maps.iter()
        .map(|m| format!("{} {} {}\n", m.inside, m.outside, m.count))
        .collect()
}

/// Gives the next child a time namespace with these clocks. The caller's own time namespace, to
/// return to with [`leave_time_namespace`].
pub(crate) fn enter_time_namespace(offsets: &CStr) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let own = rustix::fs::open(c"/proc/self/ns/time", flags, Mode::empty())?;
    sys::clone::unshare_time()?;
    // One write: the kernel takes all clocks at once.
    File::options()
        .write(true)
        .open("/proc/self/timens_offsets")?
        .write_all(offsets.to_bytes())?;
    Ok(own)
}

/// Gives the next child the time namespace behind `path`. The caller's own, as above.
pub(crate) fn join_time_namespace(path: &CStr) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let own = rustix::fs::open(c"/proc/self/ns/time", flags, Mode::empty())?;
    let other = rustix::fs::open(path, flags, Mode::empty())?;
    let kind = rustix::thread::LinkNameSpaceType::Time;
    rustix::thread::move_into_link_name_space(other.as_fd(), Some(kind))?;
    Ok(own)
}

/// Further children of this process have its own clocks again.
pub(crate) fn leave_time_namespace(own: BorrowedFd<'_>) -> io::Result<()> {
    let kind = rustix::thread::LinkNameSpaceType::Time;
    Ok(rustix::thread::move_into_link_name_space(own, Some(kind))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn map_text_has_one_line_for_each_range() {
        let map = |inside, outside, count| IdMap {
            inside,
            outside,
            count,
        };
        let text = map_text(&[map(0, 100_000, 1000), map(1000, 0, 1)]);
        assert_eq!(text, "0 100000 1000\n1000 0 1\n");
    }
}
