//! What processes left that were killed: half-made things below `tmp/`. Every engine holds the lock
//! of `tmp/` together with the others for as long as it lives; one that gets it alone knows that
//! nobody is making anything.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use state::Layout;
use sys::durable;
use sys::lock::{FileLock, Mode};

use crate::EngineError;

/// Nobody holds the lock alone for longer than it takes to rename leftovers.
const TIMEOUT: Duration = Duration::from_secs(120);

/// Clears leftovers away when nobody else is here, then takes the lock with the others.
pub(crate) fn share_tmp(layout: &Layout) -> Result<FileLock, EngineError> {
    let path = layout.locks().join("tmp.lock");
    let failed = EngineError::io("take the lock of the directory for half-made things");
    let mut trashed = Vec::new();
    if let Some(_alone) = FileLock::try_acquire(&path, Mode::Exclusive).map_err(&failed)? {
        // Renamed only: others wait for the lock, and thousands of files take a while.
        trashed = discard_all(&layout.tmp(), &layout.trash());
    }
    let shared = FileLock::acquire(&path, Mode::Shared, TIMEOUT).map_err(failed)?;
    for path in trashed {
        drop(durable::remove_tree(&path));
    }
    Ok(shared)
}

/// What cannot be moved now stays for the next one.
fn discard_all(dir: &Path, trash: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| durable::discard(&entry.path(), trash).ok().flatten())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leftovers_go_and_what_a_living_engine_makes_stays() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::open(dir.path().join("root"), dir.path().join("run")).unwrap();
        let left = layout.tmp().join("left");
        fs::create_dir(&left).unwrap();
        let first = share_tmp(&layout).unwrap();
        assert!(!left.exists());
        fs::create_dir(&left).unwrap();
        let second = share_tmp(&layout).unwrap();
        assert!(left.exists());
        drop((first, second));
        drop(share_tmp(&layout).unwrap());
        assert!(!left.exists());
    }
}
