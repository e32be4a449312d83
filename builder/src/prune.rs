//! What the builder keeps from build to build: listing it, and taking it away.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use engine::Engine;
use image::DiffId;
use sys::durable;
use sys::lock::{FileLock, Mode};

use crate::cache::{Cache, CacheEntry};
use crate::error::BuildError;
use crate::execute::cache_mounts;

/// Which of it goes.
#[derive(Debug, Clone, Default)]
pub struct PruneCache {
    /// Also what layers of images are.
    pub all: bool,
    /// Only what was not of use for so long.
    pub unused_for: Option<Duration>,
    /// Until so many bytes are left.
    pub keep_bytes: Option<u64>,
}

/// What went.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PrunedCache {
    /// Records of steps.
    pub records: Vec<CacheEntry>,
    /// Caches of mounts.
    pub mounts: Vec<CacheMountEntry>,
    /// Bytes on disk.
    pub freed: u64,
}

/// The directory of a cache mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheMountEntry {
    /// Its id.
    pub id: String,
    /// Where it is.
    pub dir: PathBuf,
    /// Bytes on disk.
    pub disk_bytes: u64,
    /// When something of it was changed last.
    pub used: SystemTime,
}

/// The records of all steps, the one that was used last first.
///
/// # Errors
/// When the cache cannot be read.
pub fn cache_entries(engine: &Engine) -> Result<Vec<CacheEntry>, BuildError> {
    Cache::open(engine)?.list()
}

/// The directories of cache mounts.
///
/// # Errors
/// When they cannot be read.
pub fn cache_mount_entries(engine: &Engine) -> Result<Vec<CacheMountEntry>, BuildError> {
    let failed = BuildError::io("list the caches of mounts");
    let mut entries = Vec::new();
    for name in dirs(&cache_mounts(engine)).map_err(&failed)? {
        let id = fs::read_to_string(name.join("id")).unwrap_or_default();
        for dir in dirs(&name).map_err(&failed)? {
            let used = fs::metadata(&dir)
                .and_then(|meta| meta.modified())
                .map_err(&failed)?;
            entries.push(CacheMountEntry {
                id: id.replace('\n', " "),
                disk_bytes: disk_bytes(&dir),
                dir,
                used,
            });
        }
    }
    Ok(entries)
}

/// Takes away what nobody needs.
///
/// # Errors
/// When something cannot be removed. What was removed before is gone.
pub fn prune_cache(engine: &Engine, options: &PruneCache) -> Result<PrunedCache, BuildError> {
    let cache = Cache::open(engine)?;
    let now = SystemTime::now();
    let is_old = |used: SystemTime| {
        options
            .unused_for
            .is_none_or(|limit| now.duration_since(used).is_ok_and(|age| age >= limit))
    };
    let entries = cache.list()?;
    let mounts = cache_mount_entries(engine)?;
    let mut left: u64 = distinct(&entries).values().sum::<u64>()
        + mounts.iter().map(|mount| mount.disk_bytes).sum::<u64>();
    let mut pruned = PrunedCache::default();
    // The one that was used longest ago goes first.
    for entry in entries.iter().rev() {
        let is_enough = options.keep_bytes.is_some_and(|keep| left <= keep);
        if is_enough || !is_old(entry.used) {
            continue;
        }
        left = left.saturating_sub(entry.disk_bytes);
        pruned.records.push(entry.clone());
    }
    pruned.freed += cache.remove(&pruned.records)?;
    for mount in mounts {
        let is_enough = options.keep_bytes.is_some_and(|keep| left <= keep);
        if is_enough || !is_old(mount.used) || !remove_mount(engine, &mount)? {
            continue;
        }
        left = left.saturating_sub(mount.disk_bytes);
        pruned.freed += mount.disk_bytes;
        pruned.mounts.push(mount);
    }
    if options.all {
        for name in ["contexts", "urls"] {
            let dir = engine.layout().build().join(name);
            durable::remove_tree(&dir)
                .map_err(BuildError::io("remove what is known of contexts and URLs"))?;
        }
    }
    Ok(pruned)
}

/// Removes the directory of a cache that no step has.
fn remove_mount(engine: &Engine, mount: &CacheMountEntry) -> Result<bool, BuildError> {
    let failed = BuildError::io("remove the cache of a mount");
    let (Some(number), Some(name)) = (
        mount.dir.file_name(),
        mount.dir.parent().and_then(Path::file_name),
    ) else {
        return Ok(false);
    };
    let lock = format!(
        "cache-mount-{}-{}.lock",
        name.to_string_lossy(),
        number.to_string_lossy()
    );
    let lock = FileLock::try_acquire(&engine.layout().locks().join(lock), Mode::Exclusive)
        .map_err(&failed)?;
    let Some(_lock) = lock else {
        return Ok(false);
    };
    let trashed = durable::discard(&mount.dir, &engine.layout().trash()).map_err(&failed)?;
    if let Some(trashed) = trashed {
        durable::remove_tree(&trashed).map_err(&failed)?;
    }
    Ok(true)
}

fn distinct(entries: &[CacheEntry]) -> BTreeMap<DiffId, u64> {
    entries
        .iter()
        .map(|entry| (entry.record.layer, entry.disk_bytes))
        .collect()
}

fn dirs(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(all),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            all.push(entry.path());
        }
    }
    all.sort();
    Ok(all)
}

/// What a tree takes. What cannot be read counts nothing.
fn disk_bytes(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let mut sum = 0;
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let Ok(meta) = entry.metadata() else { continue };
        sum += meta.blocks() * 512;
        if meta.is_dir() {
            sum += disk_bytes(&entry.path());
        }
    }
    sum
}
