//! The small executables: carried inside `ketch`, written once a boot to a read-only mount that
//! containers are started from, so that none can be written through `/proc` (CVE-2019-5736).

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{Mode, OFlags};
use sys::mount::{Depth, FileSystem};

/// `MOUNT_ATTR_RDONLY | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOSUID` (mount_setattr(2)).
const READ_ONLY: u64 = 0x1 | 0x4 | 0x2;

/// Held by the thread that puts an executable in place.
static PLACING: Mutex<()> = Mutex::new(());

/// The file of `ketch-pid1`: what `ps` in a container shows of it.
const PID1: &str = "init";

/// The bytes of the small executables.
#[derive(Clone, Copy)]
pub struct Executables {
    /// `ketch-init`.
    pub init: &'static [u8],
    /// `ketch-wasm-host`.
    pub wasm_host: &'static [u8],
    /// `ketch-pid1`.
    pub pid1: &'static [u8],
    /// A name that changes with the bytes, made when ketch is built.
    pub version: &'static str,
}

impl std::fmt::Debug for Executables {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Executables")
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

impl Executables {
    /// The path of `ketch-init` below `exe`, which is made when it is missing: for callers that use
    /// nothing else of the engine.
    ///
    /// # Errors
    /// When the directory or the executable cannot be made.
    pub fn init_in(&self, exe: &Path) -> io::Result<PathBuf> {
        match self.init_path(exe) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mut builder = std::fs::DirBuilder::new();
                builder.recursive(true).mode(0o700).create(exe)?;
                self.init_path(exe)
            }
            other => other,
        }
    }

    /// The path of `ketch-init`, put in place when it is missing.
    pub(crate) fn init_path(&self, exe: &Path) -> io::Result<PathBuf> {
        self.place(exe, "ketch-init", self.init)
    }

    /// The path of `ketch-wasm-host`, put in place when it is missing.
    pub(crate) fn wasm_host_path(&self, exe: &Path) -> io::Result<PathBuf> {
        self.place(exe, "ketch-wasm-host", self.wasm_host)
    }

    /// The path of `ketch-pid1`, put in place when it is missing.
    pub(crate) fn pid1_path(&self, exe: &Path) -> io::Result<PathBuf> {
        self.place(exe, PID1, self.pid1)
    }

    /// Writes all as plain files, for users who may not mount, and gives the path of `ketch-init`.
    pub(crate) fn place_files(&self, exe: &Path) -> io::Result<PathBuf> {
        let mut init = PathBuf::new();
        for (name, bytes) in [
            ("ketch-wasm-host", self.wasm_host),
            (PID1, self.pid1),
            ("ketch-init", self.init),
        ] {
            let dir = self.dir(exe, name);
            init = dir.join(name);
            if !init.exists() {
                make_dir(&dir)?;
                write_new(&init, bytes)?;
            }
        }
        Ok(init)
    }

    fn dir(&self, exe: &Path, name: &str) -> PathBuf {
        exe.join(format!("{name}-{}", self.version))
    }

    /// Each executable has a mount point of its own, so that one can follow the other.
    fn place(&self, exe: &Path, name: &str, bytes: &[u8]) -> io::Result<PathBuf> {
        let dir = self.dir(exe, name);
        let path = dir.join(name);
        if path.exists() {
            return Ok(path);
        }
        // The threads of a build start their steps at once.
        let _one = PLACING.lock().unwrap_or_else(PoisonError::into_inner);
        if path.exists() {
            return Ok(path);
        }
        make_dir(&dir)?;
        match mount(&dir, name, bytes) {
            // Another process was faster: its mount lies over the directory (move_mount(2)).
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy && path.exists() => {}
            // Without the right to mount: a file that nobody may write.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                write_new(&path, bytes)?;
            }
            other => other?,
        }
        Ok(path)
    }
}

fn make_dir(dir: &Path) -> io::Result<()> {
    match std::fs::create_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// Mounts a tmpfs with the executable over `dir`, read-only from its first moment there.
fn mount(dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let context = FileSystem::open(c"tmpfs")?;
    context.set(c"mode", Some(c"755"))?;
    let mount: OwnedFd = context.mount(0)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = rustix::fs::openat(&mount, name, flags, Mode::from_raw_mode(0o555))?;
    File::from(file).write_all(bytes)?;
    sys::mount::set_attributes(mount.as_fd(), READ_ONLY, 0, 0, Depth::One)?;
    let target = rustix::fs::open(dir, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    sys::mount::attach(mount.as_fd(), target.as_fd())?;
    Ok(())
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let dir = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let tmp = dir.join(format!(".new-{}", std::process::id()));
    let mut file = File::options()
        .write(true)
        .create_new(true)
        .mode(0o700)
        .open(&tmp)?;
    file.write_all(bytes)?;
    file.set_permissions(std::fs::Permissions::from_mode(0o555))?;
    drop(file);
    match sys::durable::publish(&tmp, path, sys::durable::Durability::Atomic) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            sys::durable::remove_tree(&tmp)
        }
        other => other,
    }
}
