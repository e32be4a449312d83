//! Whether what is on disk is what its name says: blobs are hashed, layers are unpacked once more
//! and compared.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::digest::{DiffId, Digest};
use crate::error::ImageError;
use crate::layers::LayerStore;
use crate::names::{NameRecord, read_json};
use crate::pack::{Visited, walk_tree};
use crate::store::Store;
use crate::tarwalk::Entry;

/// Something in the store that is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Damage {
    /// A blob has other bytes than its digest says.
    Blob(Digest),
    /// An unpacked layer differs from its archive.
    Layer {
        /// The layer.
        layer: DiffId,
        /// The first path that differs.
        path: String,
    },
    /// An image lacks a blob.
    Missing {
        /// The image.
        image: Digest,
        /// The blob.
        blob: Digest,
    },
    /// What is recorded of a name or an image cannot be read.
    Record {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

impl Damage {
    fn record(path: PathBuf, error: &ImageError) -> Self {
        let reason = match error {
            ImageError::InvalidRecord { reason, .. } => reason.clone(),
            other => other.to_string(),
        };
        Self::Record { path, reason }
    }
}

/// Whether damage is repaired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repair {
    /// It is reported.
    No,
    /// A damaged blob is removed, and can be pulled again; a damaged layer is unpacked again.
    Yes,
}

impl Store {
    /// Looks at every blob and every unpacked layer. Takes as long as hashing and unpacking all of
    /// them does.
    ///
    /// # Errors
    /// When something cannot be read. What is damaged is no error.
    pub fn check(&self, repair: Repair) -> Result<Vec<Damage>, ImageError> {
        let mut damage = Vec::new();
        for digest in self.content.list()? {
            if !self.is_whole(&digest)? {
                if repair == Repair::Yes {
                    self.content.remove(&digest)?;
                }
                damage.push(Damage::Blob(digest));
            }
        }
        let layers = self.check_records(&mut damage)?;
        for (layer, blob) in layers {
            let is_damaged = damage.contains(&Damage::Blob(blob));
            if !is_damaged
                && let Some((layers, _)) = self.layers.holding(&layer)?
                && let Some(path) = self.check_layer(&layers, layer, &blob, repair)?
            {
                damage.push(Damage::Layer { layer, path });
            }
        }
        Ok(damage)
    }

    /// What is recorded of names and images, without a look into documents: one that is damaged
    /// must not hide the rest. Gives the layers of all images, with blobs that are here.
    fn check_records(
        &self,
        damage: &mut Vec<Damage>,
    ) -> Result<BTreeMap<DiffId, Digest>, ImageError> {
        for path in self.names.paths()? {
            let record = read_json::<NameRecord>(&path);
            damage.extend(record.err().map(|error| Damage::record(path, &error)));
        }
        let mut layers = BTreeMap::new();
        for id in self.records.ids("")? {
            let record = match self.records.get(&id) {
                Ok(Some(record)) => record,
                Ok(None) => continue,
                Err(error) => {
                    let path = self.records.dir(&id).join("image.json");
                    damage.push(Damage::record(path, &error));
                    continue;
                }
            };
            let own = record.layers.iter().map(|line| line.blob.digest);
            for blob in [record.manifest.digest, record.config]
                .into_iter()
                .chain(own)
            {
                let is_known = damage.contains(&Damage::Blob(blob));
                if !is_known && !self.content.has(&blob) {
                    damage.push(Damage::Missing { image: id, blob });
                }
            }
            for line in record.layers {
                if let Some(layer) = line.diff_id.filter(|_| self.content.has(&line.blob.digest)) {
                    layers.insert(layer, line.blob.digest);
                }
            }
        }
        Ok(layers)
    }

    fn is_whole(&self, digest: &Digest) -> Result<bool, ImageError> {
        let mut hasher = Sha256::new();
        let mut blob = self.content.open_blob(digest)?;
        io::copy(&mut blob, &mut hasher).map_err(|source| ImageError::Read {
            path: self.content.path(digest),
            source,
        })?;
        Ok(Digest::from_hasher(hasher) == *digest)
    }

    /// The first path at which a layer differs from its archive.
    fn check_layer(
        &self,
        layers: &LayerStore,
        layer: DiffId,
        blob: &Digest,
        repair: Repair,
    ) -> Result<Option<String>, ImageError> {
        let archive: File = self.content.open_blob(blob)?;
        let staged = layers.stage(archive, Some(layer), &|_| {})?;
        let is = layers.dir(&layer);
        let difference = match staged.root().is_dir() {
            true => {
                let (mut should, mut is) = (tree(&staged.root())?, tree(&is)?);
                // The archive of a directory that was built does not describe that directory itself.
                if self.content.archive_size(blob).is_some() {
                    should.remove(ROOT);
                    is.remove(ROOT);
                }
                first_difference(&should, &is)
            }
            false => (hash_of(&staged.root())? != hash_of(&is)?).then(|| is.display().to_string()),
        };
        if difference.is_some() && repair == Repair::Yes {
            staged.sync()?;
            layers.remove(&layer)?;
            layers.publish(&staged)?;
        }
        Ok(difference)
    }
}

/// The path of a layer's own directory.
const ROOT: &[u8] = b"";

type Tree = BTreeMap<Vec<u8>, (Entry, Vec<u8>)>;

/// Every file with its attributes and the hash of its content.
fn tree(dir: &Path) -> Result<Tree, ImageError> {
    let mut tree = Tree::new();
    let walked = walk_tree(dir, &mut |visited, body: &mut dyn Read| {
        if let Visited::Entry(entry) = visited {
            let mut hasher = Sha256::new();
            io::copy(body, &mut hasher)?;
            tree.insert(entry.path.clone(), (entry, hasher.finalize().to_vec()));
        }
        Ok(())
    });
    walked.map_err(|source| ImageError::Read {
        path: dir.to_path_buf(),
        source,
    })?;
    Ok(tree)
}

fn hash_of(path: &Path) -> Result<Vec<u8>, ImageError> {
    let mut hasher = Sha256::new();
    File::open(path)
        .and_then(|mut file| io::copy(&mut file, &mut hasher))
        .map_err(|source| ImageError::Read {
            path: path.to_path_buf(),
            source,
        })?;
    Ok(hasher.finalize().to_vec())
}

fn first_difference(should: &Tree, is: &Tree) -> Option<String> {
    let differs = |path: &&Vec<u8>| should.get(*path) != is.get(*path);
    let path = should.keys().chain(is.keys()).filter(differs).min()?;
    Some(format!("/{}", String::from_utf8_lossy(path)))
}
