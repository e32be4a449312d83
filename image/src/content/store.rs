//! Blobs by digest.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use state::Layout;
use sys::durable;

use super::partial::{Part, SUFFIX};
use super::writer::BlobWriter;
use crate::digest::Digest;
use crate::error::ImageError;

/// Blobs by digest, below `content/sha256/`.
#[derive(Debug, Clone)]
pub struct ContentStore {
    blobs: PathBuf,
    tmp: PathBuf,
    /// Layers that were built here are blobs too: their archives are made when they are wanted.
    #[cfg(target_os = "linux")]
    pub(super) layers: PathBuf,
}

impl ContentStore {
    /// The content store of these directories.
    #[must_use]
    pub fn open(layout: &Layout) -> Self {
        Self {
            blobs: layout.content(),
            tmp: layout.tmp(),
            #[cfg(target_os = "linux")]
            layers: layout.layers(),
        }
    }

    /// The directory of the blobs.
    pub(super) fn blobs(&self) -> &Path {
        &self.blobs
    }

    /// The directory of what has no name yet.
    pub(super) fn tmp(&self) -> &Path {
        &self.tmp
    }

    /// Where the blob is, whether it exists or not.
    #[must_use]
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.blobs.join(digest.hex())
    }

    /// Whether the blob is there.
    #[must_use]
    pub fn has(&self, digest: &Digest) -> bool {
        self.path(digest).is_file() || self.archive_size(digest).is_some()
    }

    /// Opens the blob for reading.
    ///
    /// # Errors
    /// [`ImageError::BlobMissing`], or when it cannot be opened.
    pub fn open_blob(&self, digest: &Digest) -> Result<File, ImageError> {
        let path = self.path(digest);
        let opened = match File::open(&path) {
            Err(error)
                if error.kind() == io::ErrorKind::NotFound && self.make_archive(digest)? =>
            {
                File::open(&path)
            }
            other => other,
        };
        opened.map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => ImageError::BlobMissing(*digest),
            _ => ImageError::Read { path, source },
        })
    }

    /// The size of the blob in bytes.
    ///
    /// # Errors
    /// As [`Self::open_blob`].
    pub fn size(&self, digest: &Digest) -> Result<u64, ImageError> {
        let path = self.path(digest);
        match fs::metadata(&path) {
            Ok(meta) => Ok(meta.len()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => self
                .archive_size(digest)
                .ok_or(ImageError::BlobMissing(*digest)),
            Err(source) => Err(ImageError::Read { path, source }),
        }
    }

    /// Reads a whole small blob.
    ///
    /// # Errors
    /// As [`Self::open_blob`], and [`ImageError::SizeMismatch`] when it has more than `max` bytes.
    pub fn read(&self, digest: &Digest, max: u64) -> Result<Vec<u8>, ImageError> {
        let size = self.size(digest)?;
        if size > max {
            return Err(ImageError::SizeMismatch {
                expected: max,
                actual: size,
            });
        }
        let path = self.path(digest);
        fs::read(&path).map_err(|source| ImageError::Read { path, source })
    }

    /// Begins a blob. Bytes go into `tmp/` and are hashed on the way; the blob gets its name in
    /// [`BlobWriter::finish`]. `expected` is the digest that the bytes must have, `max_bytes` the
    /// size that they must not exceed.
    ///
    /// # Errors
    /// When no temporary file can be made.
    pub fn writer(
        &self,
        expected: Option<&Digest>,
        max_bytes: Option<u64>,
    ) -> Result<BlobWriter, ImageError> {
        BlobWriter::begin(self, expected, max_bytes)
    }

    /// Stores a small blob whose bytes are at hand.
    ///
    /// # Errors
    /// As [`BlobWriter::finish`].
    pub fn put(&self, bytes: &[u8]) -> Result<Digest, ImageError> {
        let digest = Digest::of(bytes);
        if self.has(&digest) {
            return Ok(digest);
        }
        let mut writer = self.writer(Some(&digest), None)?;
        writer
            .write_all(bytes)
            .map_err(|source| ImageError::Write {
                path: self.path(&digest),
                source,
            })?;
        writer.finish().map(|(digest, _)| digest)
    }

    /// Removes the blob; one that is already gone is no error.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn remove(&self, digest: &Digest) -> Result<(), ImageError> {
        let path = self.path(digest);
        durable::remove_tree(&path).map_err(|source| ImageError::Write { path, source })
    }

    /// Removes the beginnings of blobs that nobody is fetching. Gives the bytes that they had.
    pub(crate) fn remove_partial(&self) -> Result<u64, ImageError> {
        let mut freed = 0;
        for (path, size) in self.partial()? {
            if remove_part(&path)? {
                freed += size;
            }
        }
        Ok(freed)
    }

    /// Removes the beginning of one blob, unless somebody is fetching it.
    pub(crate) fn remove_partial_of(&self, digest: &Digest) -> Result<(), ImageError> {
        let path = self.partial_path(digest);
        if path.exists() {
            remove_part(&path)?;
        }
        Ok(())
    }

    /// Where a blob lies that is not complete.
    pub(super) fn partial_path(&self, digest: &Digest) -> PathBuf {
        let mut path = self.path(digest).into_os_string();
        path.push(SUFFIX);
        path.into()
    }

    /// The files of half blobs, with their sizes.
    pub(crate) fn partial(&self) -> Result<Vec<(PathBuf, u64)>, ImageError> {
        let failed = |source| ImageError::Read {
            path: self.blobs.clone(),
            source,
        };
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.blobs).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            let hex = name.to_str().and_then(|name| name.strip_suffix(SUFFIX));
            if hex.is_some_and(|hex| Digest::parse_hex(hex).is_ok()) {
                // One that was renamed meanwhile has no size any more.
                found.extend(entry.metadata().map(|meta| (entry.path(), meta.len())));
            }
        }
        found.sort();
        Ok(found)
    }

    /// The digests of all blobs.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn list(&self) -> Result<Vec<Digest>, ImageError> {
        let failed = |source| ImageError::Read {
            path: self.blobs.clone(),
            source,
        };
        let mut digests = Vec::new();
        for entry in fs::read_dir(&self.blobs).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            // Other files are not ours: nothing here makes them.
            if let Some(Ok(digest)) = name.to_str().map(Digest::parse_hex) {
                digests.push(digest);
            }
        }
        digests.sort_unstable();
        Ok(digests)
    }
}

fn remove_part(path: &Path) -> Result<bool, ImageError> {
    let failed = |source| ImageError::Write {
        path: path.to_path_buf(),
        source,
    };
    match Part::take(path.to_path_buf()).map_err(failed)? {
        Some(part) => part.remove().map_err(failed).map(|()| true),
        None => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, Layout, ContentStore) {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::open(dir.path().join("root"), dir.path().join("run")).unwrap();
        let store = ContentStore::open(&layout);
        (dir, layout, store)
    }

    fn files(dir: &Path) -> usize {
        fs::read_dir(dir).unwrap().count()
    }

    #[test]
    fn writer_right_digest_publishes_the_blob() {
        let (_dir, layout, store) = store();
        let digest = Digest::of(b"hello");
        let mut writer = store.writer(Some(&digest), Some(5)).unwrap();
        writer.write_all(b"hel").unwrap();
        writer.write_all(b"lo").unwrap();
        assert!(!store.has(&digest));
        assert_eq!(writer.finish().unwrap(), (digest, 5));
        assert_eq!(store.read(&digest, 10).unwrap(), b"hello");
        assert_eq!(store.size(&digest).unwrap(), 5);
        assert_eq!(store.put(b"hello").unwrap(), digest);
        assert_eq!(store.list().unwrap(), [digest]);
        assert_eq!(files(&layout.tmp()), 0);
        store.remove(&digest).unwrap();
        store.remove(&digest).unwrap();
        assert!(matches!(
            store.open_blob(&digest),
            Err(ImageError::BlobMissing(_))
        ));
    }

    #[test]
    fn writer_wrong_digest_leaves_nothing() {
        let (_dir, layout, store) = store();
        let mut writer = store.writer(Some(&Digest::of(b"a")), None).unwrap();
        writer.write_all(b"b").unwrap();
        assert!(matches!(
            writer.finish(),
            Err(ImageError::DigestMismatch { .. })
        ));
        assert_eq!(files(&layout.tmp()) + files(&layout.content()), 0);
    }

    #[test]
    fn writer_over_the_limit_fails_before_the_disk_fills() {
        let (_dir, layout, store) = store();
        let mut writer = store.writer(None, Some(4)).unwrap();
        writer.write_all(b"1234").unwrap();
        let error = writer.write_all(b"5").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
        drop(writer);
        assert_eq!(files(&layout.tmp()) + files(&layout.content()), 0);
    }
}
