//! Writing archives of images: one form that is an OCI layout and a Docker archive together. The
//! same images give the same bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use serde::Serialize;
use sys::durable::{self, Durability};

use super::docker::DockerImage;
use super::load::{NAME_ANNOTATION, REF_ANNOTATION};
use crate::digest::Digest;
use crate::document::{Descriptor, tar_layers};
use crate::error::ImageError;
use crate::graph::{Candidate, Reachable, candidates, choose, others_than};
use crate::platform::Platform;
use crate::reference::Reference;
use crate::store::{Store, Target};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// What is saved of images.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SaveOptions {
    /// The platforms of indexes; none means all that are here. The index itself stays as it is, so
    /// that its digest does.
    pub platforms: Vec<Platform>,
    /// The time of all files, in seconds since 1970.
    pub modified: u64,
}

/// Where an archive goes.
trait Sink {
    fn directory(&mut self, path: &str) -> io::Result<()>;
    fn file(&mut self, path: &str, size: u64, body: &mut dyn Read) -> io::Result<()>;
}

/// An entry of `index.json`.
#[derive(Serialize)]
struct Entry {
    #[serde(flatten)]
    descriptor: Descriptor,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<&'static str, String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Index {
    schema_version: u32,
    media_type: &'static str,
    manifests: Vec<Entry>,
}

/// An image to save: what it is, and the name it was asked for by.
type Top = (Descriptor, Option<Reference>);

impl Store {
    /// Writes the images that `texts` name as one tar archive.
    ///
    /// # Errors
    /// [`ImageError::NotFound`], [`ImageError::NoPlatform`], or when `writer` fails.
    pub fn save(
        &self,
        texts: &[String],
        options: &SaveOptions,
        writer: impl Write,
    ) -> Result<(), ImageError> {
        let mut sink = TarSink {
            archive: tar::Builder::new(writer),
            modified: options.modified,
        };
        self.save_to(texts, options, &mut sink)?;
        for text in texts {
            self.record_event("save", text, Some(text));
        }
        sink.archive
            .into_inner()
            .and_then(|mut writer| writer.flush())
            .map_err(write_failed)
    }

    /// Writes the images that `texts` name as a directory, which must not exist. It appears when
    /// it is complete.
    ///
    /// # Errors
    /// As [`Self::save`].
    pub fn save_dir(
        &self,
        texts: &[String],
        options: &SaveOptions,
        dir: &Path,
    ) -> Result<(), ImageError> {
        let parent = match dir.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        let failed = |source| ImageError::Write {
            path: dir.to_path_buf(),
            source,
        };
        let made = tempfile::Builder::new()
            .prefix(".image-")
            .permissions(fs::Permissions::from_mode(0o755))
            .tempdir_in(parent)
            .map_err(failed)?;
        self.save_to(texts, options, &mut DirSink(made.path()))?;
        durable::publish(made.path(), dir, Durability::Atomic).map_err(failed)
    }

    fn save_to(
        &self,
        texts: &[String],
        options: &SaveOptions,
        sink: &mut dyn Sink,
    ) -> Result<(), ImageError> {
        let tops = self.tops(texts)?;
        let mut reachable = Reachable::default();
        for (descriptor, name) in &tops {
            let chosen = self.chosen(descriptor, name.as_ref(), &options.platforms)?;
            let except = match options.platforms.as_slice() {
                [] => BTreeSet::new(),
                _ => others_than(&self.content, descriptor, &chosen),
            };
            reachable.add_except(&self.content, descriptor, &except);
        }
        let layout: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;
        put_bytes(sink, "oci-layout", layout)?;
        put_bytes(sink, "index.json", &json(&index_of(&tops))?)?;
        let docker = self.docker_images(&tops, &options.platforms)?;
        if !docker.is_empty() {
            put_bytes(sink, "manifest.json", &json(&docker)?)?;
        }
        for dir in ["blobs", "blobs/sha256"] {
            sink.directory(dir).map_err(write_failed)?;
        }
        for blob in &reachable.blobs {
            // Of an index, the manifests of other platforms are absent.
            if self.content.has(blob) {
                let path = format!("blobs/sha256/{}", blob.hex());
                let mut body = self.content.open_blob(blob)?;
                sink.file(&path, self.content.size(blob)?, &mut body)
                    .map_err(write_failed)?;
            }
        }
        Ok(())
    }

    /// The manifests for the platforms, each of which must be there.
    fn chosen(
        &self,
        top: &Descriptor,
        name: Option<&Reference>,
        platforms: &[Platform],
    ) -> Result<BTreeSet<Digest>, ImageError> {
        let found = candidates(&self.content, top)?;
        let name = name.map_or_else(|| top.digest.to_string(), Reference::familiar);
        let mut chosen = BTreeSet::new();
        for platform in platforms {
            let one = choose(&name, found.clone(), Some(platform))?;
            chosen.insert(one.descriptor.digest);
        }
        Ok(chosen)
    }

    fn tops(&self, texts: &[String]) -> Result<Vec<Top>, ImageError> {
        let mut tops = Vec::new();
        for text in texts {
            tops.push(match self.target(text)? {
                Target::Name(record) => (record.descriptor, Some(record.name)),
                Target::Id(record) => (record.manifest, None),
            });
        }
        tops.sort();
        tops.dedup();
        Ok(tops)
    }

    /// The images as Docker lists them: one for each name, of those that Docker can run.
    fn docker_images(
        &self,
        tops: &[Top],
        platforms: &[Platform],
    ) -> Result<Vec<DockerImage>, ImageError> {
        let mut images: BTreeMap<_, DockerImage> = BTreeMap::new();
        for (descriptor, name) in tops {
            let found = candidates(&self.content, descriptor)?;
            let first = found.first().cloned();
            let Some(chosen) = choose("", found, platforms.first()).ok().or(first) else {
                continue;
            };
            let Some(image) = docker_image(&chosen)? else {
                continue;
            };
            let image = images.entry(chosen.descriptor.digest).or_insert(image);
            image
                .repo_tags
                .get_or_insert_default()
                .extend(name.as_ref().map(Reference::familiar));
        }
        Ok(images.into_values().collect())
    }
}

fn docker_image(chosen: &Candidate) -> Result<Option<DockerImage>, ImageError> {
    let layers = tar_layers(&chosen.descriptor.digest, &chosen.manifest, &chosen.config)?;
    if layers.is_empty() {
        return Ok(None);
    }
    let path = |digest: &Digest| format!("blobs/sha256/{}", digest.hex());
    let config = Descriptor::try_from(chosen.manifest.config())?;
    Ok(Some(DockerImage {
        config: path(&config.digest),
        repo_tags: None,
        layers: layers.iter().map(|layer| path(&layer.blob)).collect(),
    }))
}

fn index_of(tops: &[Top]) -> Index {
    let entry = |(descriptor, name): &Top| {
        let mut annotations = BTreeMap::new();
        if let Some(name) = name {
            annotations.insert(NAME_ANNOTATION, name.to_string());
            if let Some(tag) = name.tag() {
                annotations.insert(REF_ANNOTATION, tag.to_owned());
            }
        }
        Entry {
            descriptor: descriptor.clone(),
            annotations,
        }
    };
    Index {
        schema_version: 2,
        media_type: INDEX,
        manifests: tops.iter().map(entry).collect(),
    }
}

fn json(value: &impl Serialize) -> Result<Vec<u8>, ImageError> {
    serde_json::to_vec(value).map_err(|error| write_failed(error.into()))
}

fn put_bytes(sink: &mut dyn Sink, path: &str, bytes: &[u8]) -> Result<(), ImageError> {
    let mut body = bytes;
    sink.file(path, bytes.len() as u64, &mut body)
        .map_err(write_failed)
}

fn write_failed(source: io::Error) -> ImageError {
    ImageError::WriteStream {
        what: "the archive",
        source,
    }
}

struct TarSink<W: Write> {
    archive: tar::Builder<W>,
    modified: u64,
}

impl<W: Write> TarSink<W> {
    fn header(&self, kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(size);
        header.set_mtime(self.modified);
        header.set_uid(0);
        header.set_gid(0);
        header
    }
}

impl<W: Write> Sink for TarSink<W> {
    fn directory(&mut self, path: &str) -> io::Result<()> {
        let mut header = self.header(tar::EntryType::Directory, 0o755, 0);
        self.archive
            .append_data(&mut header, format!("{path}/"), io::empty())
    }

    fn file(&mut self, path: &str, size: u64, body: &mut dyn Read) -> io::Result<()> {
        let mut header = self.header(tar::EntryType::Regular, 0o644, size);
        self.archive.append_data(&mut header, path, body)
    }
}

struct DirSink<'a>(&'a Path);

impl Sink for DirSink<'_> {
    fn directory(&mut self, path: &str) -> io::Result<()> {
        fs::create_dir(self.0.join(path))
    }

    fn file(&mut self, path: &str, _size: u64, body: &mut dyn Read) -> io::Result<()> {
        let mut file: File = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o644)
            .open(self.0.join(path))?;
        io::copy(body, &mut file).map(drop)
    }
}
