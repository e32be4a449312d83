//! The root file system of a container that has users of its own while its image belongs to the
//! host's: each layer is shown with the container's ids (overlayfs with id-mapped layers, Linux
//! 5.19), so that nothing of the image is copied or given to somebody else. What the container
//! writes has its own ids on the disk.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use runtime::{InitPlan, RootfsPlan, UserMap};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, mount_change};
use sys::mount::{Depth, FileSystem};

use crate::prepare::{enter_mounts, failed, user_namespace};
use crate::start::StartError;

/// Mounts it, attached nowhere. The layers have to be attached somewhere for that: in a mount
/// namespace that is gone again afterwards.
pub(crate) fn mount(plan: &InitPlan) -> Result<OwnedFd, StartError> {
    let RootfsPlan::Overlay { mountpoint, .. } = &plan.rootfs else {
        return Err(failed("mount the layers on", c"/", Errno::INVAL));
    };
    let error = |errno| failed("mount the layers on", mountpoint, errno);
    let users = match plan.user_map.as_ref().filter(|map| !is_identity(map)) {
        Some(map) => Some(
            user_namespace(map)
                .map_err(|error| StartError::engine("map the ids of the layers", &error))?,
        ),
        None => None,
    };
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let own = rustix::fs::open(c"/proc/self/ns/mnt", flags, Mode::empty()).map_err(error)?;
    sys::clone::unshare_mounts().map_err(error)?;
    let mounted = overlay(&plan.rootfs, mountpoint, users.as_ref().map(AsFd::as_fd));
    enter_mounts(own.as_fd()).map_err(error)?;
    mounted.map_err(error)
}

/// Every id is itself: nothing needs to be shown otherwise.
fn is_identity(map: &UserMap) -> bool {
    let mut all = map.uid.iter().chain(&map.gid);
    all.all(|range| range.inside == range.outside)
}

fn overlay(
    plan: &RootfsPlan,
    mountpoint: &CStr,
    users: Option<BorrowedFd<'_>>,
) -> Result<OwnedFd, Errno> {
    let RootfsPlan::Overlay {
        lower,
        upper,
        work,
        volatile,
        ..
    } = plan
    else {
        return Err(Errno::INVAL);
    };
    // What is attached here must not be seen outside.
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change(c"/", private)?;
    let context = FileSystem::open(c"overlay")?;
    match users {
        None => {
            for layer in lower {
                context.set(c"lowerdir+", Some(layer))?;
            }
        }
        Some(users) => {
            let places = FileSystem::open(c"tmpfs")?.mount(0)?;
            let target =
                rustix::fs::open(mountpoint, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
            sys::mount::attach(places.as_fd(), target.as_fd())?;
            for (index, layer) in lower.iter().enumerate() {
                let name = c_string(index.to_string())?;
                show(layer, places.as_fd(), &name, users)?;
                let path = format!("{}/{index}", mountpoint.to_string_lossy());
                context.set(c"lowerdir+", Some(&c_string(path)?))?;
            }
        }
    }
    context.set(c"upperdir", Some(upper))?;
    context.set(c"workdir", Some(work))?;
    if *volatile {
        context.set(c"volatile", None)?;
    }
    context.mount(0)
}

/// Shows a layer with the container's ids at `name`.
fn show(
    layer: &CStr,
    places: BorrowedFd<'_>,
    name: &CStr,
    users: BorrowedFd<'_>,
) -> Result<(), Errno> {
    let mount = sys::mount::clone_tree(layer, Depth::One)?;
    sys::mount::map_ids(mount.as_fd(), users, Depth::One)?;
    rustix::fs::mkdirat(places, name, Mode::RWXU)?;
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let place = rustix::fs::openat(places, name, flags, Mode::empty())?;
    sys::mount::attach(mount.as_fd(), place.as_fd())
}

fn c_string(text: String) -> Result<CString, Errno> {
    CString::new(text).map_err(|_| Errno::INVAL)
}
