//! Records: JSON files that are replaced as a whole.

use std::fs;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;
use sys::durable::{Durability, replace_file};

use crate::RecordError;

/// Replaces the record at `path`.
///
/// # Errors
/// When the file cannot be replaced.
pub fn write_record<T: Serialize>(
    path: &Path,
    record: &T,
    durability: Durability,
) -> Result<(), RecordError> {
    let bytes = serde_json::to_vec(record).map_err(|source| RecordError::Parse {
        path: path.to_path_buf(),
        source,
    })?;
    replace_file(path, &bytes, durability).map_err(|source| RecordError::Write {
        path: path.to_path_buf(),
        source,
    })
}

/// Reads the record at `path`.
///
/// # Errors
/// When it is absent or not such a record.
pub fn read_record<T: DeserializeOwned>(path: &Path) -> Result<T, RecordError> {
    let bytes = fs::read(path).map_err(|source| RecordError::Read {
        path: path.to_path_buf(),
        source,
    })?;
    serde_json::from_slice(&bytes).map_err(|source| RecordError::Parse {
        path: path.to_path_buf(),
        source,
    })
}

impl RecordError {
    /// Whether there is no such file.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Read { source, .. } if source.kind() == std::io::ErrorKind::NotFound)
    }
}
