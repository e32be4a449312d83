//! How containers ended that are not here any more: one file each in the run directory, kept for some
//! minutes, so that whoever asks a moment too late is still told.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sys::durable::{Durability, make_private_dir, remove_tree};

use crate::{RecordError, VERSION, read_record, write_record};

/// How long a record is kept.
const KEPT: Duration = Duration::from_mins(10);

/// How a container ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitRecord {
    /// [`VERSION`].
    pub version: u32,
    /// Its id.
    pub id: String,
    /// Its last name.
    pub name: String,
    /// Its exit code.
    pub exit_code: u8,
}

impl ExitRecord {
    /// That of the container `id`.
    #[must_use]
    pub fn new(id: &str, name: &str, exit_code: u8) -> Self {
        Self {
            version: VERSION,
            id: id.to_owned(),
            name: name.to_owned(),
            exit_code,
        }
    }

    /// Writes the record into `dir`, and removes those there that are too old.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, dir: &Path) -> Result<(), RecordError> {
        make_private_dir(dir).map_err(|source| RecordError::Write {
            path: dir.to_path_buf(),
            source,
        })?;
        for path in entries(dir) {
            let age = fs::metadata(&path).and_then(|file| file.modified());
            let age = age.ok().and_then(|at| at.elapsed().ok());
            if age.is_some_and(|age| age > KEPT) {
                // The next one removes it.
                drop(remove_tree(&path));
            }
        }
        write_record(&dir.join(&self.id), self, Durability::Atomic)
    }

    /// The record in `dir` of the container with this id, or the newest with this name.
    ///
    /// # Errors
    /// When there is none, or it cannot be read.
    pub fn find(dir: &Path, reference: &str) -> io::Result<Self> {
        let mut found: Option<(std::time::SystemTime, Self)> = None;
        for path in entries(dir) {
            let Ok(record) = read_record::<Self>(&path) else {
                continue;
            };
            let is_id = reference.len() >= 4 && record.id.starts_with(reference);
            if !is_id && record.name != reference {
                continue;
            }
            let at = fs::metadata(&path)?.modified()?;
            if found.as_ref().is_none_or(|(newest, _)| at > *newest) {
                found = Some((at, record));
            }
        }
        found
            .map(|(_, record)| record)
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

fn entries(dir: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_is_found_by_id_and_name_until_it_is_too_old() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("exits");
        ExitRecord::new("0123456789", "web", 9).write(&dir).unwrap();
        assert_eq!(ExitRecord::find(&dir, "web").unwrap().exit_code, 9);
        assert_eq!(ExitRecord::find(&dir, "01234567").unwrap().exit_code, 9);
        assert!(ExitRecord::find(&dir, "other").is_err());
        let old = std::time::SystemTime::now() - 2 * KEPT;
        let file = fs::File::options().write(true).open(dir.join("0123456789"));
        file.unwrap().set_modified(old).unwrap();
        ExitRecord::new("9876543210", "db", 1).write(&dir).unwrap();
        assert!(ExitRecord::find(&dir, "web").is_err());
        assert_eq!(ExitRecord::find(&dir, "db").unwrap().exit_code, 1);
    }
}
