//! Names: one small file a reference, below `images/names/`, saying what the name points to.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sys::durable::{self, Durability};

use crate::digest::Digest;
use crate::document::Descriptor;
use crate::error::ImageError;
use crate::reference::Reference;

const VERSION: u32 = 1;

/// File names longer than this are replaced by a digest (`NAME_MAX` is 255).
const MAX_FILE_NAME: usize = 200;

/// What a name points to: an index or a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NameRecord {
    version: u32,
    pub(crate) name: Reference,
    pub(crate) descriptor: Descriptor,
}

/// All names. Changes happen under the images lock; reading needs none.
#[derive(Debug, Clone)]
pub(crate) struct NameTable {
    dir: PathBuf,
}

impl NameTable {
    pub(crate) fn open(dir: PathBuf) -> Result<Self, ImageError> {
        match fs::create_dir(&dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(ImageError::Write {
                path: dir,
                source: error,
            }),
            _ => Ok(Self { dir }),
        }
    }

    fn path(&self, name: &Reference) -> PathBuf {
        self.dir.join(file_name(&name.to_string()))
    }

    pub(crate) fn get(&self, name: &Reference) -> Result<Option<NameRecord>, ImageError> {
        Ok(read_json::<NameRecord>(&self.path(name))?.filter(|record| record.name == *name))
    }

    /// Lets a name point to something. Where it does already, nothing is written, nor waited for.
    pub(crate) fn put(&self, name: &Reference, descriptor: &Descriptor) -> Result<(), ImageError> {
        // One that cannot be read is replaced.
        let old = self.get(name).ok().flatten();
        if old.is_some_and(|old| old.descriptor == *descriptor) {
            return Ok(());
        }
        let record = NameRecord {
            version: VERSION,
            name: name.clone(),
            descriptor: descriptor.clone(),
        };
        write_json(&self.path(name), &record)
    }

    pub(crate) fn remove(&self, name: &Reference) -> Result<(), ImageError> {
        let path = self.path(name);
        durable::remove_tree(&path).map_err(|source| ImageError::Write { path, source })
    }

    /// The files of all names, in no order.
    pub(crate) fn paths(&self) -> Result<Vec<PathBuf>, ImageError> {
        let failed = |source| ImageError::Read {
            path: self.dir.clone(),
            source,
        };
        let mut paths = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            // A name that is just being replaced.
            if !entry.file_name().as_encoded_bytes().starts_with(b".") {
                paths.push(entry.path());
            }
        }
        Ok(paths)
    }

    /// All names, sorted.
    pub(crate) fn list(&self) -> Result<Vec<NameRecord>, ImageError> {
        let mut records = Vec::new();
        for path in self.paths()? {
            records.extend(read_json::<NameRecord>(&path)?);
        }
        records.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(records)
    }
}

/// The name as a file name: letters, digits, `_` and `-` stay, everything else is `%XX`; a dot
/// stays where it is not the first.
fn file_name(name: &str) -> String {
    let mut encoded = String::with_capacity(name.len() + 16);
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' => encoded.push(char::from(byte)),
            b'.' if !encoded.is_empty() => encoded.push('.'),
            _ => {
                encoded.push('%');
                encoded.push_str(&hex::encode_upper([byte]));
            }
        }
    }
    if encoded.len() > MAX_FILE_NAME {
        return format!("%{}", Digest::of(name.as_bytes()).hex());
    }
    encoded
}

/// Reads a record; `None` when there is none.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, ImageError> {
    #[derive(Deserialize)]
    struct Versioned {
        version: u32,
    }
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => {
            return Err(ImageError::Read {
                path: path.to_path_buf(),
                source,
            });
        }
    };
    let invalid = |reason: String| ImageError::InvalidRecord {
        path: path.to_path_buf(),
        reason,
    };
    let Versioned { version } =
        serde_json::from_slice(&bytes).map_err(|error| invalid(error.to_string()))?;
    if version > VERSION {
        return Err(invalid("it was written by a newer ketch".to_owned()));
    }
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|error| invalid(error.to_string()))
}

/// Replaces a record, durably.
pub(crate) fn write_json(path: &Path, record: &impl Serialize) -> Result<(), ImageError> {
    let failed = |source| ImageError::Write {
        path: path.to_path_buf(),
        source,
    };
    let bytes = serde_json::to_vec_pretty(record).map_err(|error| failed(error.into()))?;
    durable::replace_file(path, &bytes, Durability::Synced).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_name_is_one_plain_component() {
        assert_eq!(
            file_name("docker.io/library/a:1"),
            "docker.io%2Flibrary%2Fa%3A1"
        );
        assert_eq!(file_name(".."), "%2E.");
        assert!(file_name(&"a/".repeat(120)).len() < 255);
    }

    #[test]
    fn table_keeps_the_last_descriptor_of_a_name() {
        let dir = tempfile::tempdir().unwrap();
        let table = NameTable::open(dir.path().join("names")).unwrap();
        let name = Reference::parse("alpine").unwrap();
        let descriptor = |bytes: &[u8]| Descriptor {
            media_type: "x/y".to_owned(),
            digest: Digest::of(bytes),
            size: 1,
        };
        assert_eq!(table.get(&name).unwrap(), None);
        table.put(&name, &descriptor(b"1")).unwrap();
        table.put(&name, &descriptor(b"2")).unwrap();
        let record = table.get(&name).unwrap().unwrap();
        assert_eq!(record.descriptor, descriptor(b"2"));
        assert_eq!(table.list().unwrap(), [record]);
        table.remove(&name).unwrap();
        table.remove(&name).unwrap();
        assert!(table.list().unwrap().is_empty());
    }

    #[test]
    fn record_of_a_newer_version_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        write_json(&path, &serde_json::json!({"version": 2})).unwrap();
        let error = read_json::<NameRecord>(&path).unwrap_err();
        assert!(matches!(error, ImageError::InvalidRecord { .. }));
    }
}
