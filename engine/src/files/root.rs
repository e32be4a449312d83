//! A container's root directory as one descriptor: through its init while it runs, else mounted
//! anew, with what is bound into it, in a mount namespace of this process.

use std::fs::DirBuilder;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::time::Duration;

use oci_spec::runtime::Spec;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, mount_change};
use sys::lock::{self, FileLock};
use sys::mount::{Depth, FileSystem, attach, clone_tree, set_attributes};
use sys::path::{Missing, make_in_root, open_in_root, open_root};

use crate::start::c_path;
use crate::{Container, Engine, EngineError};

/// `MOUNT_ATTR_RDONLY` (`mount_setattr(2)`).
const READ_ONLY: u64 = 1;

/// How long a container's earlier owner has to let go of it.
const LOCK_TIMEOUT: Duration = Duration::from_secs(2);

/// A container's root. While this lives, a container that does not run cannot be started.
#[derive(Debug)]
pub struct ContainerRoot {
    root: OwnedFd,
    pub(super) name: String,
    _lock: Option<FileLock>,
}

impl ContainerRoot {
    /// The root directory.
    #[must_use]
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }
}

impl Engine {
    /// Opens the root of a container. For one that does not run this process gets a mount namespace
    /// of its own; an ordinary user's process stands in one already.
    ///
    /// # Errors
    /// When the container is just being started, or its files cannot be mounted.
    pub fn open_root(&self, container: &Container) -> Result<ContainerRoot, EngineError> {
        let name = container.config.name.clone();
        if container.is_running() {
            return Ok(ContainerRoot {
                root: self.running_root(container)?,
                name,
                _lock: None,
            });
        }
        let failed = EngineError::io("keep the container from being started meanwhile");
        let run = self.layout.container_run(&container.config.id);
        match DirBuilder::new().mode(0o700).create(&run) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(failed(error));
            }
            _ => {}
        }
        let lock = FileLock::acquire(&run.join("lock"), lock::Mode::Exclusive, LOCK_TIMEOUT);
        let lock = lock.map_err(failed)?;
        let root = self.mount_stopped(container)?;
        Ok(ContainerRoot {
            root,
            name,
            _lock: Some(lock),
        })
    }

    /// The root of the container's init, which sees what is mounted.
    fn running_root(&self, container: &Container) -> Result<OwnedFd, EngineError> {
        let stopped = || EngineError::NotRunning(container.config.name.clone());
        let pid = container.state.pid.ok_or_else(stopped)?;
        let root = open_root(Path::new(&format!("/proc/{pid}/root")));
        let root = root.map_err(EngineError::io("open the container's root"))?;
        // The number is the container's init as long as its monitor lives; asked after the root was
        // opened, the answer holds for it.
        if !self.container(&container.config.id)?.is_running() {
            return Err(stopped());
        }
        Ok(root)
    }

    fn mount_stopped(&self, container: &Container) -> Result<OwnedFd, EngineError> {
        let failed = |errno: Errno| EngineError::io("mount the container's files")(errno.into());
        let details = self.details_with_layers(container)?;
        if self.user_namespace.is_none() {
            sys::clone::unshare_mounts().map_err(failed)?;
            // What is mounted here must not reach the host.
            let flags = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
            mount_change("/", flags).map_err(failed)?;
        }
        let file_system = FileSystem::open(c"overlay").map_err(failed)?;
        for layer in &details.layers {
            let set = file_system.set(c"lowerdir+", Some(&c_path(layer)?));
            set.map_err(failed)?;
        }
        for (key, name) in [(c"upperdir", "upper"), (c"workdir", "work")] {
            let path = c_path(&details.dir.join(name))?;
            file_system.set(key, Some(&path)).map_err(failed)?;
        }
        if self.user_namespace.is_some() {
            file_system.set(c"userxattr", None).map_err(failed)?;
        }
        let root = file_system.mount(0).map_err(failed)?;
        let place = self.layout.run().join("rootfs");
        match DirBuilder::new().mode(0o700).create(&place) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(EngineError::io("make the mount point of root file systems")(error));
            }
            _ => {}
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let place = rustix::fs::open(&place, flags, Mode::empty()).map_err(failed)?;
        attach(root.as_fd(), place.as_fd()).map_err(failed)?;
        bind_all(root.as_fd(), &details.spec)?;
        let is_read_only = details
            .spec
            .root()
            .as_ref()
            .and_then(oci_spec::runtime::Root::readonly);
        if is_read_only.unwrap_or(false) {
            set_attributes(root.as_fd(), READ_ONLY, 0, 0, Depth::One).map_err(failed)?;
        }
        Ok(root)
    }
}

/// Binds what the specification binds, as the container's init would.
fn bind_all(root: BorrowedFd<'_>, spec: &Spec) -> Result<(), EngineError> {
    for mount in spec.mounts().iter().flatten() {
        if mount.typ().as_deref() != Some("bind") {
            continue;
        }
        let Some(source) = mount.source() else {
            continue;
        };
        let options = mount.options().as_deref().unwrap_or_default();
        let has = |names: &[&str]| {
            options
                .iter()
                .any(|option| names.contains(&option.as_str()))
        };
        let bound = bind(
            root,
            source,
            mount.destination(),
            has(&["rbind"]),
            has(&["ro", "rro"]),
        );
        match bound {
            // A source that is gone has no files.
            Err(EngineError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            other => other?,
        }
    }
    Ok(())
}

fn bind(
    root: BorrowedFd<'_>,
    source: &Path,
    target: &Path,
    recursive: bool,
    read_only: bool,
) -> Result<(), EngineError> {
    let failed = |errno: Errno| EngineError::io("mount what the container has")(errno.into());
    let depth = if recursive { Depth::Tree } else { Depth::One };
    let missing = if source.is_dir() {
        Missing::Directory
    } else {
        Missing::File
    };
    let mount = clone_tree(&c_path(source)?, depth).map_err(failed)?;
    if read_only {
        set_attributes(mount.as_fd(), READ_ONLY, 0, 0, depth).map_err(failed)?;
    }
    let target = c_path(target)?;
    // A link at the end is followed, as the init does it.
    let place = match open_in_root(root, &target, OFlags::PATH, Mode::empty()) {
        Err(Errno::NOENT) => make_in_root(root, &target, missing),
        other => other,
    };
    attach(mount.as_fd(), place.map_err(failed)?.as_fd()).map_err(failed)
}
