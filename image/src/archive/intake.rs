//! Takes the files of an archive into the content store. Paths of the archive are keys of a map
//! and nothing else: none of them ever reaches the file system (CVE-2014-9356 and its kind).

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::mpsc::Sender;

use rustix::fs::{Dir, FileType, Mode, OFlags, fstat, openat};
use rustix::io::Errno;

use crate::content::{ContentStore, VerifiedBlob};
use crate::decode::decoder;
use crate::digest::Digest;
use crate::document::MAX_DOCUMENT;
use crate::error::ImageError;
use crate::lease::Lease;
use crate::progress::{Outcome, Progress, Task};
use crate::tarwalk::{EntryKind, EntryPath, TarWalk};

/// How many files an image archive may hold: some four for each layer.
const MAX_FILES: usize = 100_000;

/// The files of an archive that say what is in it.
const DOCUMENTS: [&[u8]; 4] = [
    b"index.json",
    b"manifest.json",
    b"oci-layout",
    b"repositories",
];

/// The longest path: two digests fit.
const MAX_PATH: usize = 255;

const COPY_BUFFER: usize = 256 * 1024;

/// How many links lead from a path to its file at most.
const MAX_LINKS: usize = 8;

/// The files of an archive, each stored as a blob.
pub(super) struct Intake<'a> {
    content: &'a ContentStore,
    progress: &'a dyn Progress,
    lease: &'a Lease,
    files: BTreeMap<EntryPath, (Digest, u64)>,
    links: BTreeMap<EntryPath, EntryPath>,
}

impl<'a> Intake<'a> {
    pub(super) fn new(
        content: &'a ContentStore,
        lease: &'a Lease,
        progress: &'a dyn Progress,
    ) -> Self {
        Self {
            content,
            progress,
            lease,
            files: BTreeMap::new(),
            links: BTreeMap::new(),
        }
    }

    /// Reads a tar archive, compressed or not.
    pub(super) fn read_tar(
        &mut self,
        reader: impl Read,
        queue: &Sender<VerifiedBlob>,
    ) -> Result<(), ImageError> {
        let (_, decoder) = decoder(reader)?;
        let mut walk = TarWalk::new(decoder);
        while let Some(entry) = walk.next_entry()? {
            let refuse = |reason| ImageError::Entry {
                entry: crate::tarwalk::printable(&entry.path),
                reason,
            };
            let path = EntryPath::parse(&entry.path).map_err(refuse)?;
            if path.as_bytes().len() > MAX_PATH {
                return Err(refuse("an image archive has no such long paths"));
            }
            match &entry.kind {
                EntryKind::Directory => {}
                EntryKind::File { size, sparse: None } => {
                    self.take(path, Some(*size), &mut walk, queue)?;
                }
                EntryKind::Symlink(target) => {
                    let from = path.split().map(|(parent, _)| parent).unwrap_or_default();
                    let target = [from.as_bytes(), target].join(&b'/');
                    let target = EntryPath::parse(&target)
                        .map_err(|_| refuse("it is a link out of the archive"))?;
                    self.links.insert(path, target);
                }
                EntryKind::Hardlink(target) => {
                    let target = EntryPath::parse(target)
                        .map_err(|_| refuse("it is a link out of the archive"))?;
                    self.links.insert(path, target);
                }
                _ => return Err(refuse("an image archive holds files only")),
            }
            self.check_count()?;
        }
        Ok(())
    }

    /// Reads an OCI layout directory.
    pub(super) fn read_dir(
        &mut self,
        dir: &Path,
        queue: &Sender<VerifiedBlob>,
    ) -> Result<(), ImageError> {
        let failed = |error: Errno| ImageError::Read {
            path: dir.to_path_buf(),
            source: error.into(),
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(dir, flags, Mode::empty()).map_err(failed)?;
        for name in ["index.json", "manifest.json"] {
            self.take_file(&root, name, name, queue)
                .map_err(flatten(&failed))?;
        }
        let flags = flags | OFlags::NOFOLLOW;
        let open = |parent: &OwnedFd, name: &str| openat(parent, name, flags, Mode::empty());
        let blobs = match open(&root, "blobs").and_then(|blobs| open(&blobs, "sha256")) {
            Err(Errno::NOENT) => return Ok(()),
            other => other.map_err(failed)?,
        };
        for entry in Dir::read_from(&blobs).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            // Only what is named like a blob: partial downloads of other programs lie here, too.
            let Ok(name) = entry.file_name().to_str() else {
                continue;
            };
            if Digest::parse_hex(name).is_ok() {
                let path = format!("blobs/sha256/{name}");
                self.take_file(&blobs, name, &path, queue)
                    .map_err(flatten(&failed))?;
                self.check_count()?;
            }
        }
        Ok(())
    }

    fn take_file(
        &mut self,
        dir: &OwnedFd,
        name: &str,
        path: &str,
        queue: &Sender<VerifiedBlob>,
    ) -> Result<(), TakeFault> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match openat(dir, name, flags, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(()),
            other => other.map_err(TakeFault::System)?,
        };
        let stat = fstat(file.as_fd()).map_err(TakeFault::System)?;
        let refuse = |reason| {
            TakeFault::Image(ImageError::Entry {
                entry: path.to_owned(),
                reason,
            })
        };
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(refuse("it is no regular file"));
        }
        let size = u64::try_from(stat.st_size).ok();
        let path = EntryPath::parse(path.as_bytes()).map_err(refuse)?;
        self.take(path, size, &mut File::from(file), queue)
            .map_err(TakeFault::Image)
    }

    fn check_count(&self) -> Result<(), ImageError> {
        if self.files.len() + self.links.len() > MAX_FILES {
            return Err(ImageError::InvalidArchive {
                reason: "it holds too many files".to_owned(),
            });
        }
        Ok(())
    }

    fn take(
        &mut self,
        path: EntryPath,
        size: Option<u64>,
        body: &mut impl Read,
        queue: &Sender<VerifiedBlob>,
    ) -> Result<(), ImageError> {
        let expected = blob_name(&path)?;
        if let Some(digest) = &expected {
            self.progress.begin(Task::Load, digest, size);
        }
        // What is read as a whole later is not even stored when it is too large.
        let is_document = DOCUMENTS.contains(&path.as_bytes());
        let most = is_document.then_some(MAX_DOCUMENT);
        let result = self.store(expected.as_ref(), most, body);
        if let Some(digest) = &expected {
            let outcome = match &result {
                Ok(_) if self.content.has(digest) => Outcome::AlreadyThere,
                Ok(_) => Outcome::Done,
                Err(_) => Outcome::Failed,
            };
            self.progress.end(Task::Load, digest, outcome);
        }
        let blob = result?;
        self.lease.add([blob.digest])?;
        self.files.insert(path, (blob.digest, blob.size));
        // Whoever reads the queue ends after it is dropped, not before.
        drop(queue.send(blob));
        Ok(())
    }

    fn store(
        &self,
        expected: Option<&Digest>,
        most: Option<u64>,
        body: &mut impl Read,
    ) -> Result<VerifiedBlob, ImageError> {
        let mut writer = self.content.writer(expected, most)?;
        let mut buffer = vec![0; COPY_BUFFER];
        loop {
            let count = match body.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => {
                    let what = "the archive";
                    return Err(ImageError::ReadStream { what, source });
                }
            };
            writer
                .write_all(buffer.get(..count).unwrap_or_default())
                .map_err(write_failed)?;
            if let Some(digest) = expected {
                self.progress.advance(Task::Load, digest, count as u64);
            }
        }
        writer.verify()
    }

    /// The blob that a path of the archive leads to.
    pub(super) fn find(&self, path: &str) -> Result<(Digest, u64), ImageError> {
        let invalid = |reason: &str| ImageError::InvalidArchive {
            reason: format!("`{}` {reason}", crate::tarwalk::printable(path.as_bytes())),
        };
        let mut path =
            EntryPath::parse(path.as_bytes()).map_err(|_| invalid("leads out of the archive"))?;
        for _ in 0..=MAX_LINKS {
            if let Some(found) = self.files.get(&path) {
                return Ok(*found);
            }
            match self.links.get(&path) {
                Some(target) => path = target.clone(),
                None => return Err(invalid("is not in the archive")),
            }
        }
        Err(invalid("is behind too many links"))
    }

    /// The bytes of a document at the top of the archive; `None` when there is none. A link in its
    /// place is refused.
    pub(super) fn document(&self, name: &str) -> Result<Option<Vec<u8>>, ImageError> {
        let path = EntryPath::parse(name.as_bytes()).unwrap_or_default();
        if self.links.contains_key(&path) {
            return Err(ImageError::Entry {
                entry: name.to_owned(),
                reason: "it must be a file",
            });
        }
        match self.files.get(&path) {
            Some((digest, _)) => self.content.read(digest, MAX_DOCUMENT).map(Some),
            None => Ok(None),
        }
    }
}

fn write_failed(error: io::Error) -> ImageError {
    // The writer's own refusals travel inside.
    error
        .downcast::<ImageError>()
        .unwrap_or_else(|source| ImageError::WriteStream {
            what: "a blob of the archive",
            source,
        })
}

/// The digest that a path of an OCI layout promises.
fn blob_name(path: &EntryPath) -> Result<Option<Digest>, ImageError> {
    let Some(name) = path.as_bytes().strip_prefix(b"blobs/") else {
        return Ok(None);
    };
    let refuse = || ImageError::Entry {
        entry: path.to_string(),
        reason: "it is named like a blob and has no SHA-256 name",
    };
    let hex = name.strip_prefix(b"sha256/").ok_or_else(refuse)?;
    let hex = std::str::from_utf8(hex).map_err(|_| refuse())?;
    Digest::parse_hex(hex).map(Some).map_err(|_| refuse())
}

enum TakeFault {
    System(Errno),
    Image(ImageError),
}

fn flatten(failed: &dyn Fn(Errno) -> ImageError) -> impl Fn(TakeFault) -> ImageError {
    move |fault| match fault {
        TakeFault::System(error) => failed(error),
        TakeFault::Image(error) => error,
    }
}
