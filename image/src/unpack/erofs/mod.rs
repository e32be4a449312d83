//! A layer as one EROFS file (kernel `Documentation/filesystems/erofs.rst`): the tar stream as it
//! is, with an index behind it. Files are not copied out of the stream, the index points into it:
//! one sequential write, one file to sync and to delete, read-only by nature, and the diff ID can be
//! checked again at any time.
//!
//! ```text
//! 0        1024                4096           tar        data              inodes
//! | nothing | superblock (128) | tar, verbatim | links, sparse, directories | …
//! ```
//! Blocks have 512 bytes, the unit of tar. Rules for entries are those of the directory back end;
//! a test holds one against the other.

mod index;
mod writer;

use std::fs::File;
use std::io::{self, BufWriter, Read, Seek as _, SeekFrom, Write};

use sys::writeback::WriteBehind;

use super::layer::Unpacked;
use super::stream::{LayerStream, inflated};
use crate::error::ImageError;
use crate::tarwalk::TarWalk;
use index::LayerIndex;

/// Where the tar stream begins in the file.
const TAR_START: u64 = 4096;

/// Buffer in front of the file.
const BUFFER: usize = 256 * 1024;

/// What was written of a layer.
pub(crate) enum Written {
    /// An image.
    Image(LayerStream, Unpacked),
    /// The archive alone, which [`archive_of`] reads: its index does not fit into the form, or would
    /// take too much memory. As a directory the layer may be fine.
    Archive(LayerStream),
}

/// Writes `blob` into `file`, which is empty, as an EROFS image. The caller checks the diff ID.
pub(crate) fn write_layer(
    blob: impl Read + Send,
    file: File,
    advance: &(dyn Fn(u64) + Sync),
) -> Result<Written, ImageError> {
    inflated(blob, advance, |stream| {
        let mut out = BufWriter::with_capacity(BUFFER, WriteBehind::new(file));
        let start = vec![0; usize::try_from(TAR_START).unwrap_or_default()];
        out.write_all(&start).map_err(write_failed)?;
        let mut walk = TarWalk::new(Tee {
            inner: super::stream::Hashing::new(stream),
            out,
            failure: None,
        });
        let mut index = LayerIndex::new();
        while let Some(entry) = walk.next_entry()? {
            let offset = TAR_START + walk.get_ref().inner.count();
            index
                .put(&entry, offset)
                .map_err(|reason| ImageError::Entry {
                    entry: crate::tarwalk::printable(&entry.path),
                    reason,
                })?;
            if !index.fits() {
                break;
            }
        }
        let mut tee = walk.into_inner();
        let drained = io::copy(&mut tee, &mut io::sink());
        if let Some(source) = tee.failure.take() {
            return Err(write_failed(source));
        }
        drained.map_err(|source| ImageError::ReadStream {
            what: "the archive",
            source,
        })?;
        let layer = tee.inner.finish()?;
        let file = tee
            .out
            .into_inner()
            .map_err(|error| write_failed(error.into_error()))?
            .into_inner();
        if !index.fits() {
            return Ok(Written::Archive(layer));
        }
        match writer::write(&index, &file, TAR_START + layer.size) {
            Ok(()) => Ok(Written::Image(layer, index.into_unpacked())),
            Err(error) if error.kind() == io::ErrorKind::FileTooLarge => {
                Ok(Written::Archive(layer))
            }
            Err(error) => Err(write_failed(error)),
        }
    })
}

/// The archive of `size` bytes in a file that [`write_layer`] has written.
pub(crate) fn archive_of(mut file: File, size: u64) -> io::Result<io::Take<File>> {
    file.seek(SeekFrom::Start(TAR_START))?;
    Ok(file.take(size))
}

fn write_failed(source: io::Error) -> ImageError {
    ImageError::WriteStream {
        what: "the layer",
        source,
    }
}

/// Writes what is read through it.
struct Tee<R, W> {
    inner: R,
    out: W,
    /// Why writing failed: the reader above would call it a failure to read.
    failure: Option<io::Error>,
}

impl<R: Read, W: Write> Read for Tee<R, W> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        let bytes = buffer.get(..count).unwrap_or_default();
        if let Err(error) = self.out.write_all(bytes) {
            let kind = error.kind();
            self.failure.get_or_insert(error);
            return Err(kind.into());
        }
        Ok(count)
    }
}
