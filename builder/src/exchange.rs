//! Caches that go from one machine to another: a directory with records, their layers as compressed
//! archives named by digest, and the caches of mounts as archives.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use engine::Engine;
use image::{Compression, Digest, pack_directory, unpack_directory};
use serde::{Deserialize, Serialize};
use sys::durable::{self, Durability};

use crate::cache::CacheRecord;
use crate::error::BuildError;

const VERSION: u32 = 1;

/// The list of records in the directory of a cache.
const INDEX: &str = "ketch-cache.json";

/// The largest list that is read.
const MAX_INDEX: u64 = 64 << 20;

#[derive(Debug, Serialize, Deserialize)]
struct Index {
    version: u32,
    records: BTreeMap<String, CacheRecord>,
}

/// A cache that another build wrote.
#[derive(Debug)]
pub(crate) struct Foreign {
    dir: PathBuf,
    records: BTreeMap<String, CacheRecord>,
}

fn layer_path(dir: &Path, record: &CacheRecord) -> PathBuf {
    dir.join("layers")
        .join(format!("{}.tar.zst", record.layer.0.hex()))
}

fn output_failed(path: &Path) -> impl Fn(io::Error) -> BuildError + use<> {
    let path = path.to_path_buf();
    move |source| BuildError::Output {
        path: path.clone(),
        source,
    }
}

fn make_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o755).create(path)
}

impl Foreign {
    /// Reads the list. A directory that is not there is an empty cache: the first build of a pipeline
    /// has none.
    pub(crate) fn open(dir: &Path) -> Result<Self, BuildError> {
        let path = dir.join(INDEX);
        let failed = |source| BuildError::Read {
            path: path.clone(),
            source,
        };
        let records = match fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => return Err(failed(error)),
            Ok(meta) if meta.len() > MAX_INDEX => {
                return Err(failed(io::ErrorKind::FileTooLarge.into()));
            }
            Ok(_) => {
                let bytes = fs::read(&path).map_err(failed)?;
                let index: Index =
                    serde_json::from_slice(&bytes).map_err(|error| failed(error.into()))?;
                if index.version != VERSION {
                    return Err(failed(io::Error::other("it has another version")));
                }
                index.records
            }
        };
        Ok(Self {
            dir: dir.to_path_buf(),
            records,
        })
    }

    /// The record of a key, with the archive of its layer.
    pub(crate) fn get(&self, key: &Digest) -> Option<(CacheRecord, File)> {
        let record = self.records.get(&key.hex())?;
        let file = File::open(layer_path(&self.dir, record)).ok()?;
        Some((record.clone(), file))
    }
}

/// Writes records and their layers; what is there already stays.
pub(crate) fn export(
    engine: &Engine,
    dir: &Path,
    records: &BTreeMap<Digest, CacheRecord>,
) -> Result<(), BuildError> {
    let failed = output_failed(dir);
    make_dir(&dir.join("layers")).map_err(&failed)?;
    let mut index = Index {
        version: VERSION,
        records: BTreeMap::new(),
    };
    for (key, record) in records {
        let path = layer_path(dir, record);
        let Some(root) = engine.store().built_root(&record.layer) else {
            continue;
        };
        if !path.exists() {
            let file = tempfile::Builder::new()
                .prefix(".layer-")
                .tempfile_in(dir)
                .map_err(&failed)?;
            let compression = Compression::Zstd;
            image::compressed(file.as_file(), compression, |out| {
                pack_directory(&root, out)
            })
            .map_err(&failed)?;
            file.persist(&path).map_err(|error| failed(error.error))?;
        }
        index.records.insert(key.hex(), record.clone());
    }
    let json = serde_json::to_vec(&index).map_err(|error| failed(error.into()))?;
    durable::replace_file(&dir.join(INDEX), &json, Durability::Atomic).map_err(failed)
}

fn mount_path(dir: &Path, id: &str) -> PathBuf {
    dir.join(format!("{}.tar.zst", Digest::of(id.as_bytes()).hex()))
}

/// Writes the caches of mounts, each as one archive.
pub(crate) fn export_mounts(
    dir: &Path,
    mounts: &BTreeMap<String, PathBuf>,
) -> Result<(), BuildError> {
    let failed = output_failed(dir);
    make_dir(dir).map_err(&failed)?;
    for (id, root) in mounts {
        let file = tempfile::Builder::new()
            .prefix(".mount-")
            .tempfile_in(dir)
            .map_err(&failed)?;
        let mut out = BufWriter::new(file.as_file());
        image::compressed(&mut out, Compression::Zstd, |out| pack_directory(root, out))
            .map_err(&failed)?;
        out.flush().map_err(&failed)?;
        drop(out);
        file.persist(mount_path(dir, id))
            .map_err(|error| failed(error.error))?;
    }
    Ok(())
}

/// Makes the cache of a mount of what another machine wrote. Says whether there was something.
pub(crate) fn import_mount(
    engine: &Engine,
    dir: &Path,
    id: &str,
    root: &Path,
) -> Result<bool, BuildError> {
    let path = mount_path(dir, id);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(source) => return Err(BuildError::Read { path, source }),
    };
    fs::create_dir(root).map_err(BuildError::io("fill the cache of a mount"))?;
    unpack_directory(file, root, engine.store().unpack_mode())?;
    Ok(true)
}
