//! The builder's cache: what a step gave, by everything that it was made from.
//!
//! A record is a small file `build/cache/<key>`; its modification time says when it was last of use. It
//! names a layer, which is pinned as long as a record knows it. Records are looked up by key and listed
//! as a whole, and nothing else: that needs no database.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use engine::Engine;
use image::{DiffId, Digest};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use sys::durable::{self, Durability};

use crate::error::BuildError;

const VERSION: u32 = 1;

/// What a step gave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheRecord {
    version: u32,
    /// The layer.
    pub layer: DiffId,
    /// Bytes of its archive.
    pub size: u64,
    /// RUN, COPY, ADD or WORKDIR.
    pub kind: String,
    /// The instruction as it is written.
    pub description: String,
    /// What the step took, in milliseconds.
    pub took_ms: u64,
}

/// A line of the list of records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheEntry {
    /// Its key.
    pub key: Digest,
    /// What it says.
    pub record: CacheRecord,
    /// When it was last of use.
    pub used: SystemTime,
    /// What its layer takes on disk, 0 when it is gone.
    pub disk_bytes: u64,
}

/// A key, made of everything that a step depends on.
#[derive(Debug, Clone)]
pub(crate) struct KeyBuilder(Sha256);

impl KeyBuilder {
    pub(crate) fn new(kind: &str) -> Self {
        let mut key = Self(Sha256::new());
        key.add("kind", kind);
        key
    }

    /// Adds a field. Lengths stand before names and values: no two lists of fields are one text.
    pub(crate) fn add(&mut self, name: &str, value: &str) {
        for text in [name, value] {
            self.0.update((text.len() as u64).to_le_bytes());
            self.0.update(text.as_bytes());
        }
    }

    pub(crate) fn add_all<'a>(&mut self, name: &str, values: impl IntoIterator<Item = &'a String>) {
        for value in values {
            self.add(name, value);
        }
        self.add(name, "end");
    }

    pub(crate) fn finish(self) -> Digest {
        Digest::from_hasher(self.0)
    }
}

/// The records of one root.
#[derive(Debug)]
pub(crate) struct Cache<'a> {
    engine: &'a Engine,
    dir: PathBuf,
}

impl<'a> Cache<'a> {
    pub(crate) fn open(engine: &'a Engine) -> Result<Self, BuildError> {
        let dir = engine.layout().build().join("cache");
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&dir)
            .map_err(BuildError::io("make the directory of the build cache"))?;
        Ok(Self { engine, dir })
    }

    fn path(&self, key: &Digest) -> PathBuf {
        self.dir.join(key.hex())
    }

    /// The record of a key whose layer is there.
    pub(crate) fn get(&self, key: &Digest) -> Option<CacheRecord> {
        let path = self.path(key);
        let record: CacheRecord = serde_json::from_slice(&fs::read(&path).ok()?).ok()?;
        let usable =
            record.version == VERSION && self.engine.store().built_root(&record.layer).is_some();
        if !usable {
            return None;
        }
        // That it was of use matters for pruning only.
        if let Ok(file) = File::options().write(true).open(&path) {
            drop(file.set_modified(SystemTime::now()));
        }
        Some(record)
    }

    /// Writes records of layers that have their names, and pins those.
    pub(crate) fn put(&self, records: &[(Digest, CacheRecord)]) -> Result<(), BuildError> {
        let layers: Vec<DiffId> = records.iter().map(|(_, record)| record.layer).collect();
        self.engine.store().pin_layers(&layers)?;
        let failed = BuildError::io("write the build cache");
        for (key, record) in records {
            let json = serde_json::to_vec(record).map_err(|error| failed(error.into()))?;
            durable::replace_file(&self.path(key), &json, Durability::Atomic).map_err(&failed)?;
        }
        Ok(())
    }

    /// All records, the one that was used last first.
    pub(crate) fn list(&self) -> Result<Vec<CacheEntry>, BuildError> {
        let failed = BuildError::io("read the build cache");
        let mut entries = Vec::new();
        let mut sizes: BTreeMap<DiffId, u64> = BTreeMap::new();
        for entry in fs::read_dir(&self.dir).map_err(&failed)? {
            let entry = entry.map_err(&failed)?;
            let name = entry.file_name();
            let Some(Ok(key)) = name.to_str().map(Digest::parse_hex) else {
                continue;
            };
            let read =
                fs::read(entry.path()).and_then(|bytes| Ok((bytes, entry.metadata()?.modified()?)));
            let (bytes, used) = match read {
                Ok(read) => read,
                // Somebody prunes.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(failed(error)),
            };
            let Ok(record) = serde_json::from_slice::<CacheRecord>(&bytes) else {
                continue;
            };
            let store = self.engine.store();
            let disk_bytes = *sizes
                .entry(record.layer)
                .or_insert_with(|| store.layer_disk_size(&record.layer).unwrap_or(0));
            entries.push(CacheEntry {
                key,
                record,
                used,
                disk_bytes,
            });
        }
        entries.sort_by(|a, b| (b.used, a.key).cmp(&(a.used, b.key)));
        Ok(entries)
    }

    /// Removes records, and the layers that no other record and no image needs. Gives the bytes.
    pub(crate) fn remove(&self, gone: &[CacheEntry]) -> Result<u64, BuildError> {
        for entry in gone {
            durable::remove_tree(&self.path(&entry.key))
                .map_err(BuildError::io("remove a record of the build cache"))?;
        }
        let kept: BTreeSet<DiffId> = self
            .list()?
            .into_iter()
            .map(|entry| entry.record.layer)
            .collect();
        let layers: BTreeSet<DiffId> = gone.iter().map(|entry| entry.record.layer).collect();
        let free: Vec<DiffId> = layers.difference(&kept).copied().collect();
        Ok(self.engine.unpin_layers(&free)?)
    }
}

impl CacheRecord {
    pub(crate) fn new(
        layer: DiffId,
        size: u64,
        kind: &str,
        description: &str,
        took: Duration,
    ) -> Self {
        Self {
            version: VERSION,
            layer,
            size,
            kind: kind.to_owned(),
            description: description.chars().take(200).collect(),
            took_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_different_fields_differ() {
        let key = |fields: &[(&str, &str)]| {
            let mut key = KeyBuilder::new("run");
            for (name, value) in fields {
                key.add(name, value);
            }
            key.finish()
        };
        assert_ne!(key(&[("a", "bc")]), key(&[("ab", "c")]));
        assert_ne!(key(&[("a", "b"), ("c", "d")]), key(&[("a", "bcd")]));
        assert_eq!(key(&[("a", "b")]), key(&[("a", "b")]));
    }
}
