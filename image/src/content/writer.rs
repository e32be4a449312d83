//! Writing a blob whose bytes are at hand or come from an archive: into `tmp/`, hashed on the way.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use sys::durable;
use sys::writeback::Writeback;
use tempfile::NamedTempFile;

use super::partial::Part;
use super::store::ContentStore;
use crate::digest::Digest;
use crate::error::ImageError;

/// A blob that is being written. Dropped before [`Self::finish`] it leaves nothing.
#[derive(Debug)]
pub struct BlobWriter {
    file: NamedTempFile,
    hasher: Sha256,
    written: u64,
    writeback: Writeback,
    expected: Option<Digest>,
    max_bytes: Option<u64>,
    blobs: PathBuf,
}

impl BlobWriter {
    pub(super) fn begin(
        store: &ContentStore,
        expected: Option<&Digest>,
        max_bytes: Option<u64>,
    ) -> Result<Self, ImageError> {
        let file = tempfile::Builder::new()
            .prefix("blob-")
            .tempfile_in(store.tmp())
            .map_err(|source| ImageError::Write {
                path: store.tmp().to_path_buf(),
                source,
            })?;
        Ok(Self {
            file,
            hasher: Sha256::new(),
            written: 0,
            writeback: Writeback::default(),
            expected: expected.copied(),
            max_bytes,
            blobs: store.blobs().to_path_buf(),
        })
    }

    /// How many bytes came so far.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Checks the digest, syncs the file and gives it its name. Returns digest and size.
    ///
    /// # Errors
    /// [`ImageError::DigestMismatch`], or when the blob cannot be written; then nothing is left.
    pub fn finish(self) -> Result<(Digest, u64), ImageError> {
        let blob = self.verify()?;
        let (digest, size) = (blob.digest, blob.size);
        blob.sync()?;
        blob.publish()?;
        Ok((digest, size))
    }

    /// Checks the digest. The blob is neither durable nor named.
    pub(crate) fn verify(self) -> Result<VerifiedBlob, ImageError> {
        let actual = Digest::from_hasher(self.hasher);
        if let Some(expected) = self.expected
            && expected != actual
        {
            return Err(ImageError::DigestMismatch { expected, actual });
        }
        Ok(VerifiedBlob {
            digest: actual,
            size: self.written,
            backing: Backing::Temporary(self.file),
            blobs: self.blobs,
        })
    }
}

impl Write for BlobWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let after = self.written.saturating_add(bytes.len() as u64);
        if let Some(max) = self.max_bytes
            && after > max
        {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                ImageError::SizeMismatch {
                    expected: max,
                    actual: after,
                },
            ));
        }
        let written = self.file.write(bytes)?;
        self.writeback.wrote(self.file.as_file(), written);
        self.hasher.update(bytes.get(..written).unwrap_or_default());
        self.written += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// A blob that is complete and has its digest. It lacks durability and its name: several of them
/// share one barrier.
#[derive(Debug)]
pub(crate) struct VerifiedBlob {
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    pub(super) backing: Backing,
    pub(super) blobs: PathBuf,
}

#[derive(Debug)]
pub(super) enum Backing {
    Temporary(NamedTempFile),
    Part(Part),
}

impl VerifiedBlob {
    /// Opens it for reading from its beginning.
    pub(crate) fn open(&self) -> Result<File, ImageError> {
        let path = self.path();
        File::open(path).map_err(|source| ImageError::Read {
            path: path.to_path_buf(),
            source,
        })
    }

    fn path(&self) -> &Path {
        match &self.backing {
            Backing::Temporary(file) => file.path(),
            Backing::Part(part) => part.path(),
        }
    }

    /// Makes its bytes durable. Not needed after a barrier over the whole file system.
    pub(crate) fn sync(&self) -> Result<(), ImageError> {
        let file = match &self.backing {
            Backing::Temporary(file) => file.as_file(),
            Backing::Part(part) => part.file(),
        };
        file.sync_all().map_err(self.failed())
    }

    /// Gives it its name. Its bytes must be durable. Says whether the blob was not there before.
    pub(crate) fn publish(self) -> Result<bool, ImageError> {
        let failed = self.failed();
        let target = self.blobs.join(self.digest.hex());
        let result = match self.backing {
            Backing::Temporary(file) => match file.persist_noclobber(&target) {
                Ok(_) => Ok(true),
                // Somebody stored the same bytes meanwhile: the same content, the same name.
                Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
                Err(error) => Err(error.error),
            },
            Backing::Part(part) => part.rename(&target),
        };
        let is_new = result.map_err(&failed)?;
        if is_new {
            durable::sync_dir(&self.blobs).map_err(&failed)?;
        }
        Ok(is_new)
    }

    fn failed(&self) -> impl Fn(io::Error) -> ImageError + use<> {
        let path = self.blobs.join(self.digest.hex());
        move |source| ImageError::Write {
            path: path.clone(),
            source,
        }
    }
}
