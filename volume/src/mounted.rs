//! What drivers have mounted for one start of a container: written down in its run directory before
//! they are asked, and struck out when they have it back. Each start has a record of its own, so that
//! one that comes too late gives back nothing but its own.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use state::{RecordError, read_record, write_record};
use sys::durable::{Durability, remove_tree};

use crate::{Driver, DriverError};

/// What the names of records begin with.
const PREFIX: &str = "volumes-";

/// A volume that a driver has mounted, or was about to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mounted {
    /// Who has it.
    pub driver: Driver,
    /// Its name.
    pub volume: String,
    /// Who needs it, as the driver knows it.
    pub id: String,
    /// Where it is; nothing before the driver has said so.
    pub mountpoint: Option<PathBuf>,
}

/// Where the record of a start is.
#[must_use]
pub fn record_path(run_dir: &Path, id: &str) -> PathBuf {
    run_dir.join(format!("{PREFIX}{id}.json"))
}

/// The records in a container's run directory. When the container does not run, nobody needs what
/// they name.
#[must_use]
pub fn records(run_dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(run_dir).into_iter().flatten().flatten();
    let is_record = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name.starts_with(PREFIX) && name.ends_with(".json"))
    };
    entries
        .map(|entry| entry.path())
        .filter(is_record)
        .collect()
}

/// What a record says; nothing without one.
///
/// # Errors
/// When the record cannot be read.
pub fn mounted(record: &Path) -> Result<Vec<Mounted>, DriverError> {
    match read_record(record) {
        Err(error) if error.is_absent() => Ok(Vec::new()),
        other => Ok(other?),
    }
}

/// Writes a record.
///
/// # Errors
/// When it cannot be written.
pub fn write_mounted(record: &Path, all: &[Mounted]) -> Result<(), DriverError> {
    Ok(write_record(record, &all, Durability::Atomic)?)
}

/// Gives everything back that drivers have mounted, and removes the record. What a driver does not
/// take stays written down for the next who looks, as long as the run directory is there.
pub fn give_back(record: &Path, all: Vec<Mounted>) -> Vec<DriverError> {
    let mut errors = Vec::new();
    let mut left = Vec::new();
    for one in all {
        if let Err(error) = one.driver.unmount(&one.volume, &one.id) {
            errors.push(error);
            left.push(one);
        }
    }
    if left.is_empty() {
        let removed = remove_tree(record).map_err(|source| RecordError::Write {
            path: record.to_path_buf(),
            source,
        });
        errors.extend(removed.map_err(DriverError::Record).err());
    } else if record.parent().is_some_and(Path::is_dir) {
        errors.extend(write_mounted(record, &left).err());
    }
    errors
}
