//! Compression, found by its magic bytes: media types are claims, bytes decide.

use std::io::{self, BufRead, BufReader, Read, Write};

use flate2::bufread::MultiGzDecoder;
use flate2::write::GzEncoder;
use liblzma::bufread::XzDecoder;
use liblzma::stream::{CONCATENATED, Stream};

use crate::error::ImageError;

/// Read buffer in front of the decoders.
const BUFFER: usize = 128 * 1024;

/// What an xz decoder may allocate: `xz -9` needs 65 MiB.
const XZ_MEMORY: u64 = 128 * 1024 * 1024;

/// Zstandard's window, as a power of two: what `zstd` accepts without `--long` (RFC 8878 asks for
/// 8 MiB at least).
const ZSTD_WINDOW_LOG: u32 = 27;

/// How a stream is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// It is not.
    None,
    /// RFC 1952, also of several members.
    Gzip,
    /// RFC 8878, also of several frames.
    Zstd,
    /// The .xz format, also of several streams.
    Xz,
}

impl Compression {
    /// Recognises the first bytes of a stream.
    #[must_use]
    pub fn detect(magic: &[u8]) -> Self {
        match magic {
            [0x1f, 0x8b, ..] => Self::Gzip,
            // A skippable frame may stand first (RFC 8878 section 3.1.2).
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            _ => Self::None,
        }
    }
}

/// Compresses with Zstandard or gzip what `write` writes; `None` leaves it as it is.
///
/// # Errors
/// When `out` cannot be written, or what `write` gives.
pub fn compressed(
    mut out: impl Write,
    compression: Compression,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    match compression {
        Compression::Zstd => {
            let mut encoder = zstd::Encoder::new(out, 3)?;
            write(&mut encoder)?;
            encoder.finish()?.flush()
        }
        Compression::Gzip | Compression::Xz => {
            let mut encoder = GzEncoder::new(out, flate2::Compression::new(6));
            write(&mut encoder)?;
            encoder.finish()?.flush()
        }
        Compression::None => {
            write(&mut out)?;
            out.flush()
        }
    }
}

/// A stream, uncompressed while it is read, whatever it is compressed with.
///
/// # Errors
/// When its first bytes cannot be read.
pub fn decompressed<'a>(reader: impl Read + 'a) -> Result<Box<dyn Read + 'a>, ImageError> {
    decoder(reader).map(|(_, decoder)| decoder)
}

/// A stream, uncompressed while it is read, and what it was compressed with: its first bytes say it.
///
/// # Errors
/// When it cannot be read.
pub fn decoder<'a>(
    reader: impl Read + 'a,
) -> Result<(Compression, Box<dyn Read + 'a>), ImageError> {
    let failed = |source| ImageError::ReadStream {
        what: "compressed data",
        source,
    };
    let mut reader = BufReader::with_capacity(BUFFER, reader);
    let magic = peek(&mut reader).map_err(failed)?;
    let compression = Compression::detect(&magic);
    let decoder: Box<dyn Read + 'a> = match compression {
        Compression::None => Box::new(magic_first(magic, reader)),
        Compression::Gzip => Box::new(MultiGzDecoder::new(magic_first(magic, reader))),
        Compression::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(magic_first(magic, reader))
                .map_err(failed)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG).map_err(failed)?;
            Box::new(decoder)
        }
        Compression::Xz => {
            let stream = Stream::new_stream_decoder(XZ_MEMORY, CONCATENATED)
                .map_err(|error| failed(error.into()))?;
            Box::new(XzDecoder::new_stream(magic_first(magic, reader), stream))
        }
    };
    Ok((compression, decoder))
}

/// Six bytes, or fewer at the end of a short stream: a pipe may give them one at a time.
fn peek(reader: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut magic = Vec::with_capacity(6);
    reader.take(6).read_to_end(&mut magic)?;
    Ok(magic)
}

fn magic_first(magic: Vec<u8>, rest: impl BufRead) -> impl BufRead {
    io::Cursor::new(magic).chain(rest)
}

/// Passes bytes on and tells `watch` how many they were.
pub(crate) struct Watched<R, F> {
    inner: R,
    watch: F,
}

impl<R: Read, F: FnMut(&[u8])> Watched<R, F> {
    pub(crate) fn new(inner: R, watch: F) -> Self {
        Self { inner, watch }
    }
}

impl<R: Read, F: FnMut(&[u8])> Read for Watched<R, F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        (self.watch)(buffer.get(..count).unwrap_or_default());
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn read_all(bytes: &[u8]) -> Result<(Compression, Vec<u8>), ImageError> {
        let (compression, mut reader) = decoder(bytes)?;
        let mut out = Vec::new();
        reader
            .read_to_end(&mut out)
            .map_err(|source| ImageError::ReadStream {
                what: "test data",
                source,
            })?;
        Ok((compression, out))
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn decoder_reads_all_members_and_frames() {
        let two = [gzip(b"one "), gzip(b"two")].concat();
        assert_eq!(
            read_all(&two).unwrap(),
            (Compression::Gzip, b"one two".to_vec())
        );
        let skippable = [0x50, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 9, 9];
        let frame = |bytes: &[u8]| zstd::encode_all(bytes, 1).unwrap();
        let zst = [&skippable[..], &frame(b"one "), &skippable, &frame(b"two")].concat();
        assert_eq!(
            read_all(&zst).unwrap(),
            (Compression::Zstd, b"one two".to_vec())
        );
        let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 0);
        encoder.write_all(b"one two").unwrap();
        let xz = encoder.finish().unwrap();
        assert_eq!(
            read_all(&xz).unwrap(),
            (Compression::Xz, b"one two".to_vec())
        );
        for plain in [&b""[..], b"a", b"one two three"] {
            assert_eq!(
                read_all(plain).unwrap(),
                (Compression::None, plain.to_vec())
            );
        }
    }

    #[test]
    fn decoder_truncated_stream_fails() {
        let whole = gzip(&[7; 100_000]);
        assert!(read_all(&whole[..whole.len() - 4]).is_err());
        let whole = zstd::encode_all(&[7; 100_000][..], 1).unwrap();
        assert!(read_all(&whole[..whole.len() - 4]).is_err());
    }
}
