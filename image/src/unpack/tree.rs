//! The directory that a layer becomes. Everything is reached by descriptor from the layer's own
//! root, no link of the archive is ever followed, and no path is put together as a string: an
//! archive cannot name anything outside (CVE-2021-41089, RUSTSEC-2021-0080 and their kind).

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, linkat, makedev, mknodat, openat, openat2, statat, symlinkat,
};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::attributes::{self, DroppedXattr};
use super::directories::{DIRECTORY, DirAttributes, IMPLIED, RESOLVE, finish_directory};
use super::fault::Fault;
use super::layer::Unpacked;
use super::marks::{self, is_whiteout};
use super::stream::UnpackMode;
use super::whiteout::{self, Meaning};
use crate::error::ImageError;
use crate::tarwalk::{Entry, EntryKind, EntryPath, Segment, printable};

/// How many skipped things a record lists.
const MAX_SKIPPED: usize = 100;

const COPY_BUFFER: usize = 128 * 1024;

/// A hard link whose target is not in the same layer: the image's fix-up layer copies it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PendingLink {
    /// Where the link is.
    pub(crate) path: EntryPath,
    /// What it is to be the same file as.
    pub(crate) target: EntryPath,
}

/// Something of the archive that this layer directory does not have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Skipped {
    /// The entry, printable.
    pub(crate) entry: String,
    /// What of it is missing, printable.
    pub(crate) what: String,
}

/// A layer directory that is being written.
pub(crate) struct LayerTree {
    pub(super) root: Rc<OwnedFd>,
    pub(super) mode: UnpackMode,
    /// The directory of the entry before: the next one is mostly in the same.
    pub(super) current: (EntryPath, Rc<OwnedFd>),
    pub(super) dirs: BTreeMap<EntryPath, DirAttributes>,
    pub(super) implied: BTreeSet<EntryPath>,
    pub(super) links: BTreeMap<EntryPath, EntryPath>,
    skipped: Vec<Skipped>,
    buffer: Vec<u8>,
    /// Names of whiteouts mean something.
    whiteouts: bool,
    /// Bytes of the paths that are kept until the end.
    pub(super) remembered: usize,
}

impl LayerTree {
    pub(crate) fn new(dir: &Path, mode: UnpackMode) -> Result<Self, ImageError> {
        let root =
            rustix::fs::open(dir, DIRECTORY, Mode::empty()).map_err(|error| ImageError::Write {
                path: dir.to_path_buf(),
                source: error.into(),
            })?;
        let root = Rc::new(root);
        Ok(Self {
            current: (EntryPath::default(), Rc::clone(&root)),
            root,
            mode,
            dirs: BTreeMap::from([(EntryPath::default(), IMPLIED)]),
            implied: BTreeSet::new(),
            links: BTreeMap::new(),
            skipped: Vec::new(),
            buffer: vec![0; COPY_BUFFER],
            whiteouts: true,
            remembered: 0,
        })
    }

    /// A directory that is no layer: names of whiteouts are names, and the root stays as it is
    /// unless the archive describes it.
    pub(super) fn plain(dir: &Path, mode: UnpackMode) -> Result<Self, ImageError> {
        Ok(Self {
            dirs: BTreeMap::new(),
            whiteouts: false,
            ..Self::new(dir, mode)?
        })
    }

    /// Writes one entry; `body` gives its stored bytes.
    pub(crate) fn put(&mut self, entry: &Entry, body: &mut impl Read) -> Result<(), ImageError> {
        self.put_any(entry, body)
            .map_err(|fault| fault.about(&entry.path))
    }

    fn put_any(&mut self, entry: &Entry, body: &mut impl Read) -> Result<(), Fault> {
        let path = EntryPath::parse(&entry.path)?;
        let meaning = match self.whiteouts {
            true => whiteout::meaning(&path)?,
            false => Meaning::Entry,
        };
        // AUFS wrote its whiteouts as hard links to one empty file.
        let may_be_whiteout = matches!(entry.kind, EntryKind::File { .. } | EntryKind::Hardlink(_));
        match meaning {
            Meaning::Entry => self.put_entry(&path, entry, body),
            Meaning::Ignored => Ok(()),
            Meaning::Opaque(_) | Meaning::Whiteout(_) if !may_be_whiteout => {
                Err(Fault::Rule("a whiteout must be a file"))
            }
            Meaning::Opaque(dir) => {
                let dir = self.enter(&dir)?;
                Ok(marks::set_opaque(dir.as_fd(), self.mode)?)
            }
            Meaning::Whiteout(target) => self.put_whiteout(&target),
        }
    }

    /// A whiteout is about the layers below only: what this layer itself has at the path stays,
    /// whichever came first.
    fn put_whiteout(&mut self, target: &EntryPath) -> Result<(), Fault> {
        let (parent, name) = target.split().ok_or("its whiteout names nothing")?;
        let dir = self.enter(&parent)?;
        match statat(&*dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => Ok(marks::make(dir.as_fd(), name)?),
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
                let own = openat(&*dir, name, DIRECTORY, Mode::empty())?;
                Ok(marks::set_opaque(own.as_fd(), self.mode)?)
            }
            Ok(_) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn put_entry(
        &mut self,
        path: &EntryPath,
        entry: &Entry,
        body: &mut impl Read,
    ) -> Result<(), Fault> {
        let Some((parent, name)) = path.split() else {
            return match entry.kind {
                EntryKind::Directory => self.put_directory_attributes(path, entry),
                _ => Err(Fault::Rule("the root of a layer must be a directory")),
            };
        };
        let dir = self.enter(&parent)?;
        self.links.remove(path);
        match &entry.kind {
            EntryKind::Directory => {
                self.make_directory(&dir, name, path)?;
                self.put_directory_attributes(path, entry)
            }
            EntryKind::File { size, sparse } => {
                let file = self.make_file(&dir, name, path)?;
                self.put_content(file, *size, sparse.as_deref(), path, entry, body)
            }
            EntryKind::Symlink(target) => {
                if target.is_empty() || target.contains(&0) {
                    return Err(Fault::Rule("its link target is empty or holds a NUL"));
                }
                self.replace(&dir, name, path, || {
                    symlinkat(target.as_slice(), &*dir, name)
                })?;
                self.put_attributes_by_name(&dir, name, path, entry)
            }
            EntryKind::Hardlink(target) => self.put_hardlink(&dir, name, path, target),
            EntryKind::Fifo => {
                self.replace(&dir, name, path, || {
                    mknodat(&*dir, name, FileType::Fifo, Mode::from(0o600), 0)
                })?;
                self.put_attributes_by_name(&dir, name, path, entry)
            }
            EntryKind::CharDevice(0, 0) => {
                Err(Fault::Rule("a character device 0:0 is a whiteout on disk"))
            }
            EntryKind::CharDevice(..) => {
                self.put_device(&dir, name, path, entry, FileType::CharacterDevice)
            }
            EntryKind::BlockDevice(..) => {
                self.put_device(&dir, name, path, entry, FileType::BlockDevice)
            }
        }
    }

    fn make_file(&mut self, dir: &OwnedFd, name: &[u8], path: &EntryPath) -> Result<File, Fault> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        self.replace(dir, name, path, || {
            openat(dir, name, flags | OFlags::CLOEXEC, Mode::from(0o600))
        })
        .map(File::from)
    }

    fn put_content(
        &mut self,
        mut file: File,
        size: u64,
        sparse: Option<&[Segment]>,
        path: &EntryPath,
        entry: &Entry,
        body: &mut impl Read,
    ) -> Result<(), Fault> {
        self.copy(&mut file, size, sparse, body)?;
        let dropped = attributes::set_on_file(file.as_fd(), entry, self.mode)?;
        self.note_xattrs(path, &dropped);
        Ok(())
    }

    fn put_directory_attributes(&mut self, path: &EntryPath, entry: &Entry) -> Result<(), Fault> {
        let own = self.enter(path)?;
        let dropped = attributes::set_owner_and_xattrs(own.as_fd(), entry, self.mode)?;
        self.note_xattrs(path, &dropped);
        let attributes = DirAttributes {
            mode: entry.mode,
            mtime: entry.mtime,
        };
        self.implied.remove(path);
        self.remember(path)?;
        self.dirs.insert(path.clone(), attributes);
        Ok(())
    }

    fn put_attributes_by_name(
        &mut self,
        dir: &OwnedFd,
        name: &[u8],
        path: &EntryPath,
        entry: &Entry,
    ) -> Result<(), Fault> {
        let dropped = attributes::set_by_name(dir.as_fd(), name, entry, self.mode)?;
        self.note_xattrs(path, &dropped);
        Ok(())
    }

    fn put_device(
        &mut self,
        dir: &OwnedFd,
        name: &[u8],
        path: &EntryPath,
        entry: &Entry,
        file_type: FileType,
    ) -> Result<(), Fault> {
        let device = match entry.kind {
            EntryKind::CharDevice(major, minor) | EntryKind::BlockDevice(major, minor) => {
                makedev(major, minor)
            }
            _ => return Err(Fault::Rule("it is no device")),
        };
        let made = self.replace(dir, name, path, || {
            mknodat(dir, name, file_type, Mode::from(0o600), device)
        });
        match made {
            Ok(()) => self.put_attributes_by_name(dir, name, path, entry),
            Err(Fault::System(error))
                if self.mode.userns && error.kind() == io::ErrorKind::PermissionDenied =>
            {
                self.note(path, "the device node".to_owned());
                Ok(())
            }
            Err(fault) => Err(fault),
        }
    }

    fn put_hardlink(
        &mut self,
        dir: &OwnedFd,
        name: &[u8],
        path: &EntryPath,
        target: &[u8],
    ) -> Result<(), Fault> {
        let target = EntryPath::parse(target)
            .map_err(|_| Fault::Rule("its link target leaves the root or is malformed"))?;
        let (parent, target_name) = target.split().ok_or("it is a hard link to a directory")?;
        if target == *path {
            return Err(Fault::Rule("it is a hard link to itself"));
        }
        let flags = DIRECTORY.union(OFlags::PATH);
        let found = openat2(
            &*self.root,
            parent.as_relative(),
            flags,
            Mode::empty(),
            RESOLVE,
        )
        .and_then(|parent| {
            statat(&parent, target_name, AtFlags::SYMLINK_NOFOLLOW).map(|stat| (parent, stat))
        });
        match found {
            Err(Errno::NOENT) => {
                // A link to a link that waits itself waits for the same file.
                let target = self.links.get(&target).cloned().unwrap_or(target);
                self.clear(dir, name, path)?;
                self.remember(path)?;
                self.links.insert(path.clone(), target);
                Ok(())
            }
            Err(Errno::LOOP | Errno::NOTDIR) => Err(Fault::Rule(
                "its link target goes through something that is no directory",
            )),
            Err(error) => Err(error.into()),
            Ok((_, stat)) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
                Err(Fault::Rule("it is a hard link to a directory"))
            }
            Ok((_, stat)) if is_whiteout(&stat) => {
                Err(Fault::Rule("it is a hard link to a whiteout"))
            }
            Ok((parent, _)) => self.replace(dir, name, path, || {
                linkat(&parent, target_name, dir, name, AtFlags::empty())
            }),
        }
    }

    fn copy(
        &mut self,
        file: &mut File,
        size: u64,
        sparse: Option<&[Segment]>,
        body: &mut impl Read,
    ) -> Result<(), Fault> {
        let Some(segments) = sparse else {
            return self.copy_bytes(file, size, body);
        };
        for segment in segments {
            file.seek(SeekFrom::Start(segment.offset))
                .map_err(Fault::System)?;
            self.copy_bytes(file, segment.length, body)?;
        }
        file.set_len(size).map_err(Fault::System)
    }

    fn copy_bytes(
        &mut self,
        file: &mut File,
        mut left: u64,
        body: &mut impl Read,
    ) -> Result<(), Fault> {
        while left > 0 {
            let most = usize::try_from(left)
                .unwrap_or(usize::MAX)
                .min(self.buffer.len());
            let buffer = self.buffer.get_mut(..most).unwrap_or_default();
            let count = match body.read(buffer) {
                Ok(0) => return Err(Fault::Read(io::ErrorKind::UnexpectedEof.into())),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Fault::Read(error)),
            };
            file.write_all(buffer.get(..count).unwrap_or_default())
                .map_err(Fault::System)?;
            left -= count as u64;
        }
        Ok(())
    }

    fn note_xattrs(&mut self, path: &EntryPath, dropped: &[DroppedXattr]) {
        for name in dropped {
            self.note(
                path,
                format!("the extended attribute `{}`", printable(name)),
            );
        }
    }

    fn note(&mut self, path: &EntryPath, what: String) {
        if self.skipped.len() < MAX_SKIPPED {
            let entry = path.to_string();
            self.skipped.push(Skipped { entry, what });
        }
    }

    /// Gives the directories their modes and times, the deepest first.
    pub(crate) fn finish(self) -> Result<Unpacked, ImageError> {
        for (path, attributes) in self.dirs.iter().rev() {
            finish_directory(&self.root, path, *attributes)
                .map_err(|error| Fault::from(error).about(path.as_relative()))?;
        }
        let links = self.links.into_iter();
        Ok(Unpacked {
            implied: self.implied.into_iter().collect(),
            links: links
                .map(|(path, target)| PendingLink { path, target })
                .collect(),
            skipped: self.skipped,
        })
    }
}
