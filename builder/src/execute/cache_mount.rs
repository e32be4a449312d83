//! Directories that stay from build to build (`RUN --mount=type=cache`).
//!
//! One is named by its id and by what it was filled with, and holds nothing but its files: a path in it
//! is never looked up by the builder, so nothing that a program puts there can lead away.

use std::fs::{self, DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown};
use std::path::PathBuf;
use std::time::Duration;

use engine::Engine;
use image::Digest;
use sys::durable::{self, Durability};
use sys::lock::{FileLock, Mode};

use crate::dockerfile::Sharing;
use crate::error::BuildError;

/// How often a cache that another build has is asked for.
const PAUSE: Duration = Duration::from_millis(50);

/// How many builds at once have a private one.
const MAX_PRIVATE: usize = 1000;

/// A cache for one step.
#[derive(Debug)]
pub(super) struct CacheMount {
    pub(super) dir: PathBuf,
    /// Held as long as the step runs.
    _lock: FileLock,
}

/// What a new one is like.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// The directory of all caches.
pub(crate) fn all(engine: &Engine) -> PathBuf {
    engine.layout().build().join("mounts")
}

/// Takes a cache, and makes it when it is new: `fill` puts a directory at the path that it is given, or
/// does nothing.
pub(super) fn take(
    engine: &Engine,
    id: &str,
    sharing: Sharing,
    look: Look,
    fill: impl FnOnce(&std::path::Path) -> Result<(), BuildError>,
    is_stopped: impl Fn() -> bool,
) -> Result<CacheMount, BuildError> {
    let failed = BuildError::io("use the cache of a mount");
    let name = Digest::of(id.as_bytes()).hex();
    let lock_path = |number: usize| {
        engine
            .layout()
            .locks()
            .join(format!("cache-mount-{name}-{number}.lock"))
    };
    let attempt = |number: usize, mode: Mode| {
        FileLock::try_acquire(&lock_path(number), mode).map_err(&failed)
    };
    let (number, lock) = match sharing {
        Sharing::Shared => (0, wait(|| attempt(0, Mode::Shared), &is_stopped)?),
        Sharing::Locked => (0, wait(|| attempt(0, Mode::Exclusive), &is_stopped)?),
        Sharing::Private => {
            let mut found = None;
            for number in 0..MAX_PRIVATE {
                if let Some(lock) = attempt(number, Mode::Exclusive)? {
                    found = Some((number, lock));
                    break;
                }
            }
            found.ok_or(BuildError::Stopped)?
        }
    };
    let dir = all(engine).join(&name).join(number.to_string());
    if !dir.is_dir() {
        let parent = all(engine).join(&name);
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&parent)
            .map_err(&failed)?;
        let made = tempfile::Builder::new()
            .prefix("cache-")
            .tempdir_in(engine.layout().tmp())
            .map_err(&failed)?;
        let root = made.path().join("root");
        fill(&root)?;
        if !root.is_dir() {
            fs::create_dir(&root).map_err(&failed)?;
        }
        chown(&root, Some(look.uid), Some(look.gid)).map_err(&failed)?;
        fs::set_permissions(&root, Permissions::from_mode(look.mode)).map_err(&failed)?;
        durable::replace_file(&parent.join("id"), id.as_bytes(), Durability::Atomic)
            .map_err(&failed)?;
        match durable::publish(&root, &dir, Durability::Atomic) {
            // Another build has just made it.
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            other => other.map_err(&failed)?,
        }
    }
    Ok(CacheMount { dir, _lock: lock })
}

fn wait(
    attempt: impl Fn() -> Result<Option<FileLock>, BuildError>,
    is_stopped: &impl Fn() -> bool,
) -> Result<FileLock, BuildError> {
    loop {
        if let Some(lock) = attempt()? {
            return Ok(lock);
        }
        if is_stopped() {
            return Err(BuildError::Stopped);
        }
        std::thread::sleep(PAUSE);
    }
}
