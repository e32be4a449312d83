//! Leases: what a running pull or load needs, although no name leads to it yet. A lease is a file
//! below the run directory with one digest a line, of blobs and of layers, locked by its owner for
//! as long as that runs. Who collects garbage reads the leases; one that nobody locks is garbage
//! itself.
//!
//! A digest enters a lease, and garbage is collected, under the images lock: what was found to be
//! there after it entered stays.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use sys::durable;
use sys::lock::{FileLock, Mode};

use crate::digest::Digest;
use crate::error::ImageError;
use crate::store::Store;

/// What the names of leases end with.
const SUFFIX: &str = ".lease";

/// A lease that is held. Dropping it gives everything free.
#[derive(Debug)]
pub(crate) struct Lease {
    store: Store,
    lock: FileLock,
    path: PathBuf,
}

impl Lease {
    /// Protects these from now on, whether they are there or come.
    pub(crate) fn add(&self, digests: impl IntoIterator<Item = Digest>) -> Result<(), ImageError> {
        let mut lines = String::new();
        for digest in digests {
            lines.push_str(&digest.hex());
            lines.push('\n');
        }
        let _lock = self.store.lock()?;
        self.lock
            .file()
            .write_all(lines.as_bytes())
            .map_err(write_failed(&self.path))
    }

    /// What it protects.
    pub(crate) fn digests(&self) -> Result<BTreeSet<Digest>, ImageError> {
        read(&self.path)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Err(error) = durable::remove_tree(&self.path) {
            tracing::debug!(%error, "a lease stays until garbage is collected");
        }
    }
}

impl Store {
    /// Begins a lease that protects nothing yet.
    pub(crate) fn lease(&self) -> Result<Lease, ImageError> {
        let dir = self.lease_dir();
        durable::make_private_dir(&dir).map_err(write_failed(&dir))?;
        // Nobody takes it away between its making and its locking.
        let _lock = self.lock()?;
        let file = tempfile::Builder::new()
            .suffix(SUFFIX)
            .tempfile_in(&dir)
            .map_err(write_failed(&dir))?;
        let (_, path) = file
            .keep()
            .map_err(|error| write_failed(&dir)(error.error))?;
        let lock = FileLock::try_acquire(&path, Mode::Exclusive)
            .and_then(|lock| lock.ok_or_else(|| io::ErrorKind::WouldBlock.into()))
            .map_err(write_failed(&path))?;
        Ok(Lease {
            store: self.clone(),
            lock,
            path,
        })
    }

    fn lease_dir(&self) -> PathBuf {
        self.layout.run().join("leases")
    }

    /// What is leased now. The caller holds the images lock. Leases of the dead are removed.
    pub(crate) fn leased(&self) -> Result<BTreeSet<Digest>, ImageError> {
        let dir = self.lease_dir();
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
            Err(error) => return Err(read_failed(&dir)(error)),
        };
        let mut leased = BTreeSet::new();
        for entry in entries {
            let path = entry.map_err(read_failed(&dir))?.path();
            if sys::lock::is_held(&path).map_err(read_failed(&path))? {
                leased.extend(read(&path)?);
            } else {
                durable::remove_tree(&path).map_err(write_failed(&path))?;
            }
        }
        Ok(leased)
    }
}

fn read(path: &Path) -> Result<BTreeSet<Digest>, ImageError> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        // Its owner has just ended.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        Err(error) => return Err(read_failed(path)(error)),
    };
    Ok(text
        .lines()
        .filter_map(|line| Digest::parse_hex(line).ok())
        .collect())
}

fn read_failed(path: &Path) -> impl Fn(io::Error) -> ImageError + use<> {
    let path = path.to_path_buf();
    move |source| ImageError::Read {
        path: path.clone(),
        source,
    }
}

fn write_failed(path: &Path) -> impl Fn(io::Error) -> ImageError + use<> {
    let path = path.to_path_buf();
    move |source| ImageError::Write {
        path: path.clone(),
        source,
    }
}
