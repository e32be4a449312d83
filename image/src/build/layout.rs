//! Images of OCI layout directories (image-spec v1.1.1 `image-layout.md`) for builds that begin with
//! them. What is needed of one is taken into the store, under the build's hold: it gets no name, and
//! whose else the directory is gives nothing but blobs that have their digests.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, fstat, openat};
use rustix::io::Errno;

use super::session::BuildSession;
use crate::archive::{NAME_ANNOTATION, REF_ANNOTATION};
use crate::digest::Digest;
use crate::document::{Descriptor, Document, MAX_DEPTH, MAX_DOCUMENT, read_config, wasm_layers};
use crate::error::ImageError;
use crate::graph::{candidates, choose};
use crate::platform::Platform;
use crate::reference::Reference;
use crate::store::Image;

/// Which image of a layout is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LayoutReference {
    /// The one that is called `latest`, or the only one.
    Default,
    /// The one with this tag.
    Tag(String),
    /// The manifest or index with this digest.
    Digest(Digest),
}

impl LayoutReference {
    /// Reads `PATH[:TAG][@DIGEST]`; a digest says more than a tag.
    ///
    /// # Errors
    /// Says what is wrong.
    pub fn split(text: &str) -> Result<(PathBuf, Self), String> {
        let (text, digest) = match text.split_once('@') {
            Some((text, digest)) => {
                let parsed = Digest::parse(digest);
                let parsed = parsed.map_err(|_| format!("`{digest}` is no digest"))?;
                (text, Some(parsed))
            }
            None => (text, None),
        };
        let name = text.rfind('/').map_or(0, |at| at + 1);
        let colon = text.get(name..).and_then(|name| name.find(':'));
        let (path, tag) = match colon {
            Some(at) => text.split_at(name + at),
            None => (text, ""),
        };
        let tag = tag.strip_prefix(':');
        if path.is_empty() {
            return Err("it has no path".to_owned());
        }
        let reference = match (digest, tag) {
            (Some(digest), _) => Self::Digest(digest),
            (None, Some("")) => return Err("its tag is empty".to_owned()),
            (None, Some(tag)) => Self::Tag(tag.to_owned()),
            (None, None) => Self::Default,
        };
        Ok((PathBuf::from(path), reference))
    }
}

impl fmt::Display for LayoutReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => Ok(()),
            Self::Tag(tag) => write!(f, ":{tag}"),
            Self::Digest(digest) => write!(f, "@{digest}"),
        }
    }
}

impl BuildSession {
    /// Takes an image for `platform` out of the OCI layout directory `dir`.
    ///
    /// # Errors
    /// When the directory is no layout, has no such image, or a blob of it is missing or does not have
    /// its digest.
    pub fn take_layout(
        &self,
        dir: &Path,
        reference: &LayoutReference,
        platform: &Platform,
    ) -> Result<Image, ImageError> {
        let layout = Layout::open(self, dir)?;
        let top = layout.find(reference)?;
        let name = format!("{}{reference}", dir.display());
        let mut leaves = Vec::new();
        layout.leaves(&top, None, 0, &mut leaves)?;
        let mut found = Vec::new();
        for (leaf, announced) in leaves {
            if announced.as_ref().is_some_and(|own| !own.serves(platform)) {
                continue;
            }
            layout.take(&leaf, platform)?;
            for mut candidate in candidates(&self.store.content, &leaf)? {
                if let Some(own) = &announced {
                    candidate.platform = own.clone();
                }
                found.push(candidate);
            }
        }
        let chosen = choose(&name, found, Some(platform))?;
        Ok(Image {
            id: chosen.id,
            manifest_digest: chosen.descriptor.digest,
            index_digest: None,
            wasm_layers: wasm_layers(&chosen.manifest)?,
            manifest: chosen.manifest,
            config: chosen.config,
            platform: chosen.platform,
            name: None,
        })
    }
}

/// A layout that is read.
struct Layout<'a> {
    session: &'a BuildSession,
    dir: &'a Path,
    root: OwnedFd,
    blobs: OwnedFd,
}

impl<'a> Layout<'a> {
    fn open(session: &'a BuildSession, dir: &'a Path) -> Result<Self, ImageError> {
        let failed = |error: Errno| ImageError::Read {
            path: dir.to_path_buf(),
            source: error.into(),
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(dir, flags, Mode::empty()).map_err(failed)?;
        let flags = flags | OFlags::NOFOLLOW;
        let blobs = openat(&root, "blobs", flags, Mode::empty())
            .and_then(|blobs| openat(&blobs, "sha256", flags, Mode::empty()))
            .map_err(|error| match error {
                Errno::NOENT => invalid("it is no OCI layout: it has no `blobs/sha256`"),
                other => failed(other),
            })?;
        Ok(Self {
            session,
            dir,
            root,
            blobs,
        })
    }

    /// The file of this name, which is no link.
    fn file(&self, dir: &OwnedFd, name: &str) -> Result<Option<File>, ImageError> {
        let failed = |error: Errno| ImageError::Read {
            path: self.dir.join(name),
            source: error.into(),
        };
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match openat(dir, name, flags, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(None),
            other => other.map_err(failed)?,
        };
        let stat = fstat(file.as_fd()).map_err(failed)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(ImageError::Entry {
                entry: name.to_owned(),
                reason: "it is no regular file",
            });
        }
        Ok(Some(File::from(file)))
    }

    /// What the layout has under this name.
    fn find(&self, reference: &LayoutReference) -> Result<Descriptor, ImageError> {
        let file = self
            .file(&self.root, "index.json")?
            .ok_or_else(|| invalid("it is no OCI layout: it has no `index.json`"))?;
        let mut bytes = Vec::new();
        let mut bounded = io::Read::take(file, MAX_DOCUMENT + 1);
        io::Read::read_to_end(&mut bounded, &mut bytes).map_err(|source| ImageError::Read {
            path: self.dir.join("index.json"),
            source,
        })?;
        let Document::Index(index) = Document::parse(&bytes, None)? else {
            return Err(invalid("its `index.json` is no index"));
        };
        let entries = index.manifests();
        let tagged = |tag: &str| {
            entries.iter().find(|entry| {
                let annotations = entry.annotations().as_ref();
                [NAME_ANNOTATION, REF_ANNOTATION]
                    .into_iter()
                    .filter_map(|key| annotations?.get(key))
                    .any(|name| has_tag(name, tag))
            })
        };
        let entry = match reference {
            LayoutReference::Tag(tag) => tagged(tag),
            LayoutReference::Default => tagged("latest").or(match entries.as_slice() {
                [only] => Some(only),
                _ => None,
            }),
            LayoutReference::Digest(digest) => {
                let found = entries
                    .iter()
                    .find(|entry| Digest::try_from(entry.digest()).is_ok_and(|own| own == *digest));
                if found.is_none() && self.file(&self.blobs, &digest.hex())?.is_some() {
                    // One that only an index of the layout names.
                    return Ok(Descriptor {
                        media_type: String::new(),
                        digest: *digest,
                        size: MAX_DOCUMENT,
                    });
                }
                found
            }
        };
        let entry = entry
            .ok_or_else(|| ImageError::NotFound(format!("{}{reference}", self.dir.display())))?;
        Descriptor::try_from(entry)
    }

    /// The manifests that a document leads to, with what an index says that they are for.
    fn leaves(
        &self,
        top: &Descriptor,
        platform: Option<Platform>,
        depth: u32,
        leaves: &mut Vec<(Descriptor, Option<Platform>)>,
    ) -> Result<(), ImageError> {
        if depth > MAX_DEPTH {
            return Err(invalid("its indexes are nested too deeply"));
        }
        self.copy(top)?;
        match Document::read(&self.session.store.content, top)? {
            Document::Manifest(_) => leaves.push((top.clone(), platform)),
            Document::Index(index) => {
                for entry in index.manifests() {
                    let platform = entry.platform().as_ref().map(Platform::from);
                    // A statement about another entry.
                    if platform.as_ref().is_some_and(Platform::is_unknown) {
                        continue;
                    }
                    let child = Descriptor::try_from(entry)?;
                    // A layout may hold a part of what its index names.
                    if self.file(&self.blobs, &child.digest.hex())?.is_some() {
                        self.leaves(&child, platform, depth + 1, leaves)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Takes the blobs of an image, its layers only when it is for the platform.
    fn take(&self, manifest: &Descriptor, platform: &Platform) -> Result<(), ImageError> {
        let content = &self.session.store.content;
        let Document::Manifest(document) = Document::read(content, manifest)? else {
            return Ok(());
        };
        self.copy(&Descriptor::try_from(document.config())?)?;
        let own = read_config(content, &document)?.platform();
        if !own.is_unknown() && !own.serves(platform) {
            return Ok(());
        }
        for layer in document.layers() {
            self.copy(&Descriptor::try_from(layer)?)?;
        }
        Ok(())
    }

    /// Takes a blob into the store.
    fn copy(&self, blob: &Descriptor) -> Result<(), ImageError> {
        let content = &self.session.store.content;
        self.session.lease.add([blob.digest])?;
        if content.has(&blob.digest) {
            return Ok(());
        }
        let name = blob.digest.hex();
        let mut file = self
            .file(&self.blobs, &name)?
            .ok_or(ImageError::BlobMissing(blob.digest))?;
        let mut writer = content.writer(Some(&blob.digest), Some(blob.size))?;
        io::copy(&mut file, &mut writer).map_err(|error| {
            // The writer's own refusals travel inside.
            error
                .downcast::<ImageError>()
                .unwrap_or_else(|source| ImageError::Read {
                    path: self.dir.join("blobs/sha256").join(&name),
                    source,
                })
        })?;
        writer.finish().map(drop)
    }
}

fn invalid(reason: &str) -> ImageError {
    ImageError::InvalidArchive {
        reason: reason.to_owned(),
    }
}

/// Whether a name of a layout, a tag or a whole reference, has this tag.
fn has_tag(name: &str, tag: &str) -> bool {
    name == tag
        || (name.contains([':', '/'])
            && Reference::parse(name).is_ok_and(|name| name.tag() == Some(tag)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_comes_before_tag_and_digest() {
        let hex = "a".repeat(64);
        let digest = LayoutReference::Digest(Digest::parse_hex(&hex).unwrap());
        let tag = |tag: &str| LayoutReference::Tag(tag.to_owned());
        let table = [
            ("/a/b".to_owned(), "/a/b", LayoutReference::Default),
            ("/a:b/c".to_owned(), "/a:b/c", LayoutReference::Default),
            ("/a/b:1.2".to_owned(), "/a/b", tag("1.2")),
            ("rel:x".to_owned(), "rel", tag("x")),
            (format!("/a/b@sha256:{hex}"), "/a/b", digest.clone()),
            (format!("/a/b:x@sha256:{hex}"), "/a/b", digest),
        ];
        for (text, path, reference) in table {
            let expected = (PathBuf::from(path), reference);
            assert_eq!(LayoutReference::split(&text), Ok(expected), "{text}");
        }
        for bad in ["", ":x", "/a:", "/a@sha256:1", "@sha256:1"] {
            assert!(LayoutReference::split(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn tags_are_alone_or_in_references() {
        for (name, tag, expected) in [
            ("1", "1", true),
            ("docker.io/library/a:1", "1", true),
            ("a/b", "latest", true),
            ("a", "latest", false),
            ("a:1", "2", false),
        ] {
            assert_eq!(has_tag(name, tag), expected, "{name} {tag}");
        }
    }
}
