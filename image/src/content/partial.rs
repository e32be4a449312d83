//! A blob that comes from a registry. Until it is complete it lies beside the others as
//! `<hex>.part`: a download that was cut off, also by the end of ketch, goes on from there. Whoever
//! writes holds a lock on the file; one that is not locked is garbage or a beginning.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use sys::durable::{self, Durability};
use sys::lock::{FileLock, Mode};
use sys::writeback::Writeback;

use super::growth::{End, GrowingReader, Growth};
use super::store::ContentStore;
use super::writer::{Backing, VerifiedBlob};
use crate::digest::Digest;
use crate::error::ImageError;

/// What the names of half blobs end with.
pub(super) const SUFFIX: &str = ".part";

/// Read buffer for what is there already.
const BUFFER: usize = 256 * 1024;

/// The file of a half blob, locked.
#[derive(Debug)]
pub(super) struct Part {
    lock: FileLock,
    path: PathBuf,
}

impl Part {
    /// Takes the file at `path`, made when it is absent; `None` when somebody else writes it.
    pub(super) fn take(path: PathBuf) -> io::Result<Option<Self>> {
        loop {
            let Some(lock) = FileLock::try_acquire(&path, Mode::Exclusive)? else {
                return Ok(None);
            };
            // Between opening and locking its writer may have renamed or removed it.
            if sys::file::is_at(lock.file(), &path)? {
                return Ok(Some(Self { lock, path }));
            }
        }
    }

    pub(super) fn file(&self) -> &File {
        self.lock.file()
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Gives the file another name; `false`, and gone, when that is taken.
    pub(super) fn rename(self, target: &Path) -> io::Result<bool> {
        match durable::publish(&self.path, target, Durability::Atomic) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.remove().map(|()| false)
            }
            Err(error) => Err(error),
        }
    }

    pub(super) fn remove(self) -> io::Result<()> {
        durable::remove_tree(&self.path)
    }
}

/// What there is to do for a blob.
#[derive(Debug)]
pub(crate) enum Begin {
    /// Nothing: it is there.
    AlreadyThere,
    /// To wait: another ketch fetches it.
    Busy,
    /// To fetch what is missing.
    Fetch(Box<PartialBlob>),
}

/// A blob that is being fetched. Dropped, it stays as a beginning.
#[derive(Debug)]
pub(crate) struct PartialBlob {
    part: Part,
    digest: Digest,
    size: u64,
    hasher: Sha256,
    written: u64,
    writeback: Writeback,
    growth: Arc<Growth>,
    blobs: PathBuf,
}

impl PartialBlob {
    /// Takes up the blob where an earlier download ended.
    pub(crate) fn begin(
        store: &ContentStore,
        digest: &Digest,
        size: u64,
    ) -> Result<Begin, ImageError> {
        let path = store.partial_path(digest);
        let failed = |source| ImageError::Write {
            path: path.clone(),
            source,
        };
        let Some(part) = Part::take(path.clone()).map_err(failed)? else {
            return Ok(Begin::Busy);
        };
        if store.has(digest) {
            part.remove().map_err(failed)?;
            return Ok(Begin::AlreadyThere);
        }
        let mut blob = Self {
            part,
            digest: *digest,
            size,
            hasher: Sha256::new(),
            written: 0,
            writeback: Writeback::default(),
            growth: Arc::default(),
            blobs: store.blobs().to_path_buf(),
        };
        blob.read_beginning().map_err(failed)?;
        Ok(Begin::Fetch(Box::new(blob)))
    }

    /// Hashes what is there. More than the blob can have is the beginning of something else.
    fn read_beginning(&mut self) -> io::Result<()> {
        let mut file = self.part.file();
        if file.metadata()?.len() > self.size {
            file.set_len(0)?;
        }
        let mut buffer = vec![0; BUFFER];
        loop {
            let count = match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            self.hasher.update(buffer.get(..count).unwrap_or_default());
            self.written += count as u64;
        }
        self.writeback = Writeback::from(self.written);
        self.growth.grow(self.written);
        Ok(())
    }

    /// How many bytes are there.
    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    /// Reads the blob from its beginning, while it grows.
    pub(crate) fn reader(&self) -> Result<GrowingReader, ImageError> {
        let path = self.part.path();
        let file = File::open(path).map_err(|source| ImageError::Read {
            path: path.to_path_buf(),
            source,
        })?;
        Ok(GrowingReader::new(file, Arc::clone(&self.growth)))
    }

    /// Checks the digest. A blob that does not have it is removed: no beginning of it is right.
    pub(crate) fn verify(self: Box<Self>) -> Result<VerifiedBlob, ImageError> {
        let actual = Digest::from_hasher(self.hasher);
        if actual != self.digest {
            self.growth.end(End::Broken);
            let path = self.part.path().to_path_buf();
            self.part
                .remove()
                .map_err(|source| ImageError::Write { path, source })?;
            return Err(ImageError::DigestMismatch {
                expected: self.digest,
                actual,
            });
        }
        self.growth.end(End::Complete);
        Ok(VerifiedBlob {
            digest: actual,
            size: self.written,
            backing: Backing::Part(self.part),
            blobs: self.blobs,
        })
    }
}

/// Ends the waiting of readers however the fetching ended.
#[derive(Debug)]
pub(crate) struct BreakOnDrop(Arc<Growth>);

impl Drop for BreakOnDrop {
    fn drop(&mut self) {
        self.0.end(End::Broken);
    }
}

impl PartialBlob {
    /// As long as this lives, readers wait for more. After [`Self::verify`] it changes nothing.
    pub(crate) fn waiting_readers(&self) -> BreakOnDrop {
        BreakOnDrop(Arc::clone(&self.growth))
    }
}

impl Write for PartialBlob {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let after = self.written.saturating_add(bytes.len() as u64);
        if after > self.size {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                ImageError::SizeMismatch {
                    expected: self.size,
                    actual: after,
                },
            ));
        }
        let written = self.part.file().write(bytes)?;
        self.writeback.wrote(self.part.file(), written);
        self.hasher.update(bytes.get(..written).unwrap_or_default());
        self.written += written as u64;
        self.growth.grow(self.written);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use state::Layout;
    use std::fs;

    fn store() -> (tempfile::TempDir, ContentStore) {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::open(dir.path().join("root"), dir.path().join("run")).unwrap();
        let store = ContentStore::open(&layout);
        (dir, store)
    }

    fn fetch(begin: Begin) -> Box<PartialBlob> {
        match begin {
            Begin::Fetch(blob) => blob,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn partial_goes_on_where_it_was_dropped() {
        let (_dir, store) = store();
        let digest = Digest::of(b"hello world");
        let mut blob = fetch(PartialBlob::begin(&store, &digest, 11).unwrap());
        blob.write_all(b"hello ").unwrap();
        let busy = PartialBlob::begin(&store, &digest, 11).unwrap();
        assert!(matches!(busy, Begin::Busy));
        drop(blob);
        let mut blob = fetch(PartialBlob::begin(&store, &digest, 11).unwrap());
        assert_eq!(blob.written(), 6);
        let mut reader = blob.reader().unwrap();
        blob.write_all(b"world").unwrap();
        let verified = blob.verify().unwrap();
        let mut read = String::new();
        reader.read_to_string(&mut read).unwrap();
        assert_eq!(read, "hello world");
        assert!(!store.has(&digest));
        assert!(verified.publish().unwrap());
        assert_eq!(store.read(&digest, 100).unwrap(), b"hello world");
        let there = PartialBlob::begin(&store, &digest, 11).unwrap();
        assert!(matches!(there, Begin::AlreadyThere));
        assert_eq!(store.list().unwrap(), [digest]);
        assert_eq!(fs::read_dir(store.blobs()).unwrap().count(), 1);
    }

    #[test]
    fn partial_with_a_wrong_digest_is_removed() {
        let (_dir, store) = store();
        let digest = Digest::of(b"right");
        let mut blob = fetch(PartialBlob::begin(&store, &digest, 5).unwrap());
        assert!(blob.write_all(b"wrong!").is_err());
        blob.write_all(b"wrong").unwrap();
        let error = blob.verify().unwrap_err();
        assert!(matches!(error, ImageError::DigestMismatch { .. }));
        assert_eq!(fs::read_dir(store.blobs()).unwrap().count(), 0);
    }

    #[test]
    fn partial_longer_than_the_blob_begins_anew() {
        let (_dir, store) = store();
        let digest = Digest::of(b"ab");
        let mut blob = fetch(PartialBlob::begin(&store, &digest, 9).unwrap());
        blob.write_all(b"something").unwrap();
        drop(blob);
        let blob = fetch(PartialBlob::begin(&store, &digest, 2).unwrap());
        assert_eq!(blob.written(), 0);
    }
}
