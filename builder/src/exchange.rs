//! Caches that go from one machine to another: a directory with records, their layers as compressed
//! archives named by digest (or an artifact of a registry, or the image itself), and the caches of mounts
//! as archives.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use engine::Engine;
use image::{
    Bundle, Compression, Descriptor, DiffId, Digest, Platform, Reference, RegistryOptions,
    RemoteBundle, pack_directory, unpack_directory,
};
use serde::{Deserialize, Serialize};
use sys::durable::{self, Durability};

use crate::cache::CacheRecord;
use crate::error::BuildError;
use crate::options::CacheSource;

const VERSION: u32 = 1;

/// The list of records in the directory of a cache.
const INDEX: &str = "ketch-cache.json";

/// The largest list that is read.
const MAX_INDEX: u64 = 64 << 20;

/// What a cache in a registry is.
const ARTIFACT: &str = "application/vnd.ketch.buildcache.v1";
const DOCUMENT: &str = "application/vnd.ketch.buildcache.v1+json";

/// The list of a cache: records by key.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Index {
    version: u32,
    records: BTreeMap<String, CacheRecord>,
    /// In a registry: what its layers unpack to, in their order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    layers: Vec<DiffId>,
}

/// What of an image's config is looked at.
#[derive(Deserialize)]
struct Config {
    #[serde(rename = "ketch.buildcache.v1")]
    cache: Option<Index>,
    rootfs: Option<RootFs>,
}

#[derive(Deserialize)]
struct RootFs {
    diff_ids: Vec<String>,
}

/// A cache that another build wrote.
#[derive(Debug, Default)]
pub(crate) struct Foreign {
    records: BTreeMap<String, CacheRecord>,
    layers: Layers,
}

/// Where the layers of a cache are.
#[derive(Debug, Default)]
enum Layers {
    #[default]
    Nowhere,
    Directory(PathBuf),
    Registry(Box<RemoteBundle>, BTreeMap<DiffId, Descriptor>),
}

fn layer_path(dir: &Path, layer: &DiffId) -> PathBuf {
    dir.join("layers")
        .join(format!("{}.tar.zst", layer.0.hex()))
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

impl Index {
    fn check(self) -> io::Result<Self> {
        if self.version != VERSION {
            return Err(io::Error::other("it has another version"));
        }
        Ok(self)
    }
}

impl Foreign {
    /// Reads the list. A cache that is not there is an empty one: the first build of a pipeline has none.
    pub(crate) fn open(
        source: &CacheSource,
        platform: &Platform,
        options: &RegistryOptions,
    ) -> Result<Self, BuildError> {
        match source {
            CacheSource::Directory(dir) => Self::in_directory(dir),
            CacheSource::Registry(reference) => {
                let Some(bundle) = RemoteBundle::open(reference, platform, options)? else {
                    return Ok(Self::default());
                };
                let invalid = |source: io::Error| BuildError::Context {
                    what: format!("the cache `{}` is malformed", reference.familiar()),
                    source: Some(source.into()),
                };
                Self::in_registry(bundle).map_err(invalid)
            }
        }
    }

    fn in_directory(dir: &Path) -> Result<Self, BuildError> {
        let path = dir.join(INDEX);
        let failed = |source| BuildError::Read {
            path: path.clone(),
            source,
        };
        let index = match fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(failed(error)),
            Ok(meta) if meta.len() > MAX_INDEX => {
                return Err(failed(io::ErrorKind::FileTooLarge.into()));
            }
            Ok(_) => {
                let bytes = fs::read(&path).map_err(failed)?;
                let index: Index =
                    serde_json::from_slice(&bytes).map_err(|error| failed(error.into()))?;
                index.check().map_err(failed)?
            }
        };
        Ok(Self {
            records: index.records,
            layers: Layers::Directory(dir.to_path_buf()),
        })
    }

    fn in_registry(bundle: RemoteBundle) -> io::Result<Self> {
        let (index, diff_ids) = if bundle.document_type == DOCUMENT {
            let mut index: Index = serde_json::from_slice(&bundle.document)?;
            let layers = std::mem::take(&mut index.layers);
            (index.check()?, layers)
        } else {
            let config: Config = serde_json::from_slice(&bundle.document)?;
            let diff_ids = config.rootfs.map(|rootfs| rootfs.diff_ids);
            let diff_ids = diff_ids.into_iter().flatten();
            let diff_ids = diff_ids.map(|text| Digest::parse(&text).map(DiffId));
            let diff_ids = diff_ids.collect::<Result<_, _>>();
            match config.cache {
                // An image that was built without one.
                None => return Ok(Self::default()),
                Some(index) => (index.check()?, diff_ids.map_err(io::Error::other)?),
            }
        };
        if diff_ids.len() != bundle.layers.len() {
            return Err(io::Error::other("its layers are not those of its list"));
        }
        let layers = diff_ids.into_iter().zip(bundle.layers.clone()).collect();
        Ok(Self {
            records: index.records,
            layers: Layers::Registry(Box::new(bundle), layers),
        })
    }

    /// The record of a key, with the archive of its layer, for which `tmp` may be used.
    pub(crate) fn get(
        &self,
        key: &Digest,
        tmp: &Path,
    ) -> Option<Result<(CacheRecord, File), BuildError>> {
        let record = self.records.get(&key.hex())?;
        let file = match &self.layers {
            Layers::Nowhere => return None,
            Layers::Directory(dir) => File::open(layer_path(dir, &record.layer)).ok()?,
            Layers::Registry(bundle, layers) => {
                match bundle.layer(layers.get(&record.layer)?, tmp) {
                    Ok(file) => file,
                    Err(error) => return Some(Err(error.into())),
                }
            }
        };
        Some(Ok((record.clone(), file)))
    }
}

/// The records as a list; what they took is of this machine.
fn index(records: &BTreeMap<Digest, CacheRecord>) -> Index {
    let record = |(key, record): (&Digest, &CacheRecord)| {
        let mut record = record.clone();
        record.took_ms = 0;
        (key.hex(), record)
    };
    Index {
        version: VERSION,
        records: records.iter().map(record).collect(),
        layers: Vec::new(),
    }
}

/// The records of an image's layers as a part of its config.
pub(crate) fn inline(records: &BTreeMap<Digest, CacheRecord>) -> Option<serde_json::Value> {
    serde_json::to_value(index(records)).ok()
}

/// Sends records and their layers to a registry.
pub(crate) fn send(
    engine: &Engine,
    reference: &Reference,
    records: &BTreeMap<Digest, CacheRecord>,
    options: &RegistryOptions,
) -> Result<(), BuildError> {
    let mut index = index(records);
    let store = engine.store();
    index
        .records
        .retain(|_, record| store.built_root(&record.layer).is_some());
    let layers: BTreeSet<DiffId> = index.records.values().map(|record| record.layer).collect();
    index.layers = layers.into_iter().collect();
    let document = serde_json::to_vec(&index)
        .map_err(|error| BuildError::io("write the list of a cache")(error.into()))?;
    let bundle = Bundle {
        artifact_type: ARTIFACT.to_owned(),
        document,
        document_type: DOCUMENT.to_owned(),
        layers: index.layers,
    };
    store.push_bundle(&bundle, reference, options, &())?;
    Ok(())
}

/// Writes records and their layers; what is there already stays.
pub(crate) fn export(
    engine: &Engine,
    dir: &Path,
    records: &BTreeMap<Digest, CacheRecord>,
) -> Result<(), BuildError> {
    let failed = output_failed(dir);
    make_dir(&dir.join("layers")).map_err(&failed)?;
    let mut index = index(records);
    let store = engine.store();
    index
        .records
        .retain(|_, record| store.built_root(&record.layer).is_some());
    for record in index.records.values() {
        let path = layer_path(dir, &record.layer);
        let Some(root) = store.built_root(&record.layer) else {
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
