//! Recompressing layers. What a layer is - its diff ID - stays, and so does the config: only the
//! manifest changes. The same image gives the same bytes.

use std::io::{self, Read, Write};

use flate2::write::GzEncoder;

use crate::archive::put_manifest;
use crate::content::BlobWriter;
use crate::decode::{Compression, decoder};
use crate::document::{Descriptor, tar_layers};
use crate::error::ImageError;
use crate::lease::Lease;
use crate::platform::Platform;
use crate::progress::{Outcome, Progress, Task};
use crate::reference::Reference;
use crate::store::{Image, Store};

/// How hard gzip tries: the default of every tool.
const GZIP_LEVEL: u32 = 6;
/// How hard zstd tries: its own default.
const ZSTD_LEVEL: i32 = 3;
const BUFFER: usize = 256 * 1024;

/// What an image is converted to.
#[derive(Debug, Clone)]
pub struct ConvertOptions {
    /// The name of the result.
    pub name: Reference,
    /// How its layers are compressed; [`Compression::Xz`] is none that images have.
    pub compression: Compression,
    /// Which image of an index.
    pub platform: Option<Platform>,
}

impl Store {
    /// Makes an image with the same files and another compression.
    ///
    /// # Errors
    /// As [`Store::resolve`], and when a layer cannot be read or written.
    pub fn convert(
        &self,
        text: &str,
        options: &ConvertOptions,
        progress: &dyn Progress,
    ) -> Result<Image, ImageError> {
        let image = self.resolve(text, options.platform.as_ref())?;
        let lease = self.lease()?;
        let result = self.convert_leased(&image, options, &lease, progress);
        self.discard_leased(lease)?;
        result
    }

    fn convert_leased(
        &self,
        image: &Image,
        options: &ConvertOptions,
        lease: &Lease,
        progress: &dyn Progress,
    ) -> Result<Image, ImageError> {
        let archives = tar_layers(&image.manifest_digest, &image.manifest, &image.config)?;
        let mut layers = Vec::new();
        for layer in image.manifest.layers() {
            let layer = Descriptor::try_from(layer)?;
            let is_archive = archives.iter().any(|archive| archive.blob == layer.digest);
            layers.push(if is_archive {
                self.recompress(&layer, options.compression, lease, progress)?
            } else {
                layer
            });
        }
        let mut config = Descriptor::try_from(image.manifest.config())?;
        if config.media_type == "application/vnd.docker.container.image.v1+json" {
            "application/vnd.oci.image.config.v1+json".clone_into(&mut config.media_type);
        }
        let manifest = put_manifest(&self.content, lease, &config, &layers)?;
        self.record(std::slice::from_ref(&options.name), &manifest, None)?;
        self.resolve(&options.name.to_string(), options.platform.as_ref())
    }

    fn recompress(
        &self,
        layer: &Descriptor,
        compression: Compression,
        lease: &Lease,
        progress: &dyn Progress,
    ) -> Result<Descriptor, ImageError> {
        progress.begin(Task::Save, &layer.digest, Some(layer.size));
        let blob = self.content.open_blob(&layer.digest)?;
        let watched = crate::decode::Watched::new(blob, |bytes: &[u8]| {
            progress.advance(Task::Save, &layer.digest, bytes.len() as u64);
        });
        let (_, mut reader) = decoder(watched)?;
        let mut encoder = Encoder::new(self.content.writer(None, None)?, compression)?;
        copy(&mut reader, &mut encoder)?;
        let blob = encoder.finish()?.verify()?;
        progress.end(Task::Save, &layer.digest, Outcome::Done);
        let descriptor = Descriptor {
            media_type: media_type(compression).to_owned(),
            digest: blob.digest,
            size: blob.size,
        };
        lease.add([blob.digest])?;
        blob.sync()?;
        blob.publish()?;
        Ok(descriptor)
    }
}

fn media_type(compression: Compression) -> &'static str {
    match compression {
        Compression::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
        Compression::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
        Compression::None | Compression::Xz => "application/vnd.oci.image.layer.v1.tar",
    }
}

/// A blob, compressed while it is written.
enum Encoder {
    Plain(BlobWriter),
    Gzip(GzEncoder<BlobWriter>),
    Zstd(zstd::stream::write::Encoder<'static, BlobWriter>),
}

impl Encoder {
    fn new(blob: BlobWriter, compression: Compression) -> Result<Self, ImageError> {
        Ok(match compression {
            Compression::None | Compression::Xz => Self::Plain(blob),
            // Without a name and a time in its header.
            Compression::Gzip => {
                Self::Gzip(GzEncoder::new(blob, flate2::Compression::new(GZIP_LEVEL)))
            }
            Compression::Zstd => {
                let mut encoder =
                    zstd::stream::write::Encoder::new(blob, ZSTD_LEVEL).map_err(write_failed)?;
                encoder.include_checksum(true).map_err(write_failed)?;
                Self::Zstd(encoder)
            }
        })
    }

    fn finish(self) -> Result<BlobWriter, ImageError> {
        match self {
            Self::Plain(blob) => Ok(blob),
            Self::Gzip(encoder) => encoder.finish().map_err(write_failed),
            Self::Zstd(encoder) => encoder.finish().map_err(write_failed),
        }
    }
}

impl Write for Encoder {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(blob) => blob.write(bytes),
            Self::Gzip(encoder) => encoder.write(bytes),
            Self::Zstd(encoder) => encoder.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn copy(reader: &mut dyn Read, writer: &mut Encoder) -> Result<(), ImageError> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let count = match reader.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(source) => {
                let what = "a layer";
                return Err(ImageError::ReadStream { what, source });
            }
        };
        let bytes = buffer.get(..count).unwrap_or_default();
        writer.write_all(bytes).map_err(write_failed)?;
    }
}

fn write_failed(source: io::Error) -> ImageError {
    ImageError::WriteStream {
        what: "a layer",
        source,
    }
}
