//! What files are copied from: a directory of the host as a build may see it, or stacked layers.
//! Neither leads outside of itself, whatever links say.

use std::collections::VecDeque;
use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use image::{LayeredRoot, Xattrs};
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat, openat2, readlinkat, statat,
};
use rustix::io::Errno;

use crate::ignore::Ignore;

/// How many links one lookup follows (`path_resolution(7)`).
const MAX_LINKS: u32 = 40;

/// How deep directories are walked: what layers take.
pub(crate) const MAX_DEPTH: usize = 256;

const BENEATH: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS);

/// Reads a file of a directory that somebody else made: links lead nowhere but into it. `None` when it
/// is not there.
///
/// # Errors
/// When it is no file, cannot be read, or is larger than `max` bytes.
pub fn read_beneath(dir: &Path, path: &Path, max: u64) -> io::Result<Option<Vec<u8>>> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let root = rustix::fs::open(dir, flags | OFlags::DIRECTORY, Mode::empty())?;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let found = openat2(
        &root,
        path,
        flags | OFlags::NONBLOCK,
        Mode::empty(),
        resolve,
    );
    let file = match found {
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
        other => File::from(other?),
    };
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut bytes = Vec::new();
    file.take(max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(Some(bytes))
}

/// A file of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) kind: NodeKind,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) size: u64,
    pub(crate) mtime: i64,
    /// What tells versions of a host's file apart without reading it.
    pub(crate) stamp: Option<Stamp>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NodeKind {
    File,
    Directory,
    Symlink(Vec<u8>),
    Fifo,
    /// A device: whether it is a block device, major, minor.
    Device(bool, u32, u32),
    Socket,
}

/// Device, inode, size and both times of a file, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) dev: u64,
    pub(crate) ino: u64,
    pub(crate) size: u64,
    pub(crate) mtime: i128,
    pub(crate) ctime: i128,
}

/// Files to copy from.
#[derive(Debug)]
pub(crate) enum Tree {
    Host(HostTree),
    Layers(LayeredRoot),
}

/// A directory of the host, less what is ignored.
#[derive(Debug)]
pub(crate) struct HostTree {
    root: OwnedFd,
    pub(crate) path: PathBuf,
    pub(crate) ignore: Ignore,
}

impl HostTree {
    pub(crate) fn open(path: &Path, ignore: Ignore) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self {
            root: rustix::fs::open(path, flags, Mode::empty())?,
            path: path.to_path_buf(),
            ignore,
        })
    }

    fn open_beneath(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        let path = if path.is_empty() {
            b".".as_slice()
        } else {
            path
        };
        let path = CString::new(path).map_err(|_| Errno::INVAL)?;
        openat2(
            &self.root,
            path.as_c_str(),
            flags | OFlags::CLOEXEC | OFlags::NOFOLLOW,
            Mode::empty(),
            BENEATH,
        )
    }

    /// Type and attributes of a path without links on the way; its own link is not followed.
    fn stat(&self, path: &[u8]) -> Result<Option<Node>, Errno> {
        let (parent, name) = split(path);
        let dir = match self.open_beneath(parent, OFlags::PATH | OFlags::DIRECTORY) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
            other => other?,
        };
        let name = if name.is_empty() {
            b".".as_slice()
        } else {
            name
        };
        stat_in(&dir, name)
    }
}

/// Type and attributes of a name in a directory of the host; its own link is not followed.
fn stat_in(dir: &OwnedFd, name: &[u8]) -> Result<Option<Node>, Errno> {
    let stat = match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
        other => other?,
    };
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Symlink => match readlinkat(dir, name, Vec::new()) {
            // It has been replaced just now.
            Err(Errno::NOENT | Errno::INVAL) => return Ok(None),
            other => NodeKind::Symlink(other?.into_bytes()),
        },
        other => kind_of(other, &stat),
    };
    Ok(Some(Node {
        kind,
        mode: stat.st_mode & 0o7777,
        // Who has the files on the host is nothing of the image.
        uid: 0,
        gid: 0,
        size: u64::try_from(stat.st_size).unwrap_or(0),
        mtime: stat.st_mtime,
        stamp: Some(stamp(&stat)),
    }))
}

/// A directory of a tree that is looked through: of the host's it is opened once, however many files it
/// has.
pub(crate) struct OpenDir<'t> {
    tree: &'t Tree,
    path: Vec<u8>,
    fd: Option<OwnedFd>,
}

impl OpenDir<'_> {
    /// Its names, sorted.
    pub(crate) fn names(&self) -> io::Result<Vec<Vec<u8>>> {
        match (&self.fd, self.tree) {
            (Some(fd), _) => Ok(image::names(fd.as_fd())?),
            (None, tree) => tree.names(&self.path),
        }
    }

    /// What has a name in it.
    pub(crate) fn node(&self, name: &[u8]) -> io::Result<Option<Node>> {
        match (&self.fd, self.tree) {
            (Some(fd), _) => Ok(stat_in(fd, name)?),
            (None, tree) => tree.node(&join(&self.path, name)),
        }
    }
}

fn kind_of(file_type: FileType, stat: &Stat) -> NodeKind {
    let device = || {
        (
            rustix::fs::major(stat.st_rdev),
            rustix::fs::minor(stat.st_rdev),
        )
    };
    match file_type {
        FileType::Directory => NodeKind::Directory,
        FileType::RegularFile => NodeKind::File,
        FileType::Fifo => NodeKind::Fifo,
        FileType::CharacterDevice => NodeKind::Device(false, device().0, device().1),
        FileType::BlockDevice => NodeKind::Device(true, device().0, device().1),
        _ => NodeKind::Socket,
    }
}

fn stamp(stat: &Stat) -> Stamp {
    let time = |seconds: i64, nanoseconds: i128| i128::from(seconds) * 1_000_000_000 + nanoseconds;
    Stamp {
        dev: stat.st_dev,
        ino: stat.st_ino,
        size: u64::try_from(stat.st_size).unwrap_or(0),
        mtime: time(stat.st_mtime, i128::from(stat.st_mtime_nsec)),
        ctime: time(stat.st_ctime, i128::from(stat.st_ctime_nsec)),
    }
}

/// Why a path of a tree cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Missing {
    Absent,
    /// It is there, and `.dockerignore` hides it.
    Ignored,
}

impl Tree {
    /// What is at `path`, which has no links on the way.
    pub(crate) fn node(&self, path: &[u8]) -> io::Result<Option<Node>> {
        match self {
            Self::Host(host) => Ok(host.stat(path)?),
            Self::Layers(root) => {
                let found = match root.lookup_link(&absolute(path)) {
                    Ok(found) => found,
                    Err(error) if is_absent(&error) => return Ok(None),
                    Err(error) => return Err(io::Error::other(error)),
                };
                let (major, minor) = found.device;
                let kind = match FileType::from_raw_mode(found.mode) {
                    FileType::Directory => NodeKind::Directory,
                    FileType::RegularFile => NodeKind::File,
                    FileType::Symlink => {
                        NodeKind::Symlink(root.read_link(&found).map_err(io::Error::other)?)
                    }
                    FileType::Fifo => NodeKind::Fifo,
                    FileType::CharacterDevice => NodeKind::Device(false, major, minor),
                    FileType::BlockDevice => NodeKind::Device(true, major, minor),
                    _ => NodeKind::Socket,
                };
                Ok(Some(Node {
                    kind,
                    mode: found.mode & 0o7777,
                    uid: found.uid,
                    gid: found.gid,
                    size: found.size,
                    mtime: found.mtime,
                    stamp: None,
                }))
            }
        }
    }

    /// Opens a directory whose path has no links on the way.
    pub(crate) fn open_dir(&self, path: &[u8]) -> io::Result<OpenDir<'_>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let fd = match self {
            Self::Host(host) => Some(host.open_beneath(path, flags)?),
            Self::Layers(_) => None,
        };
        Ok(OpenDir {
            tree: self,
            path: path.to_vec(),
            fd,
        })
    }

    /// The names in a directory, sorted.
    pub(crate) fn names(&self, path: &[u8]) -> io::Result<Vec<Vec<u8>>> {
        match self {
            Self::Host(host) => {
                let dir = host.open_beneath(path, OFlags::RDONLY | OFlags::DIRECTORY)?;
                Ok(image::names(dir.as_fd())?)
            }
            Self::Layers(root) => root.names(&absolute(path)).map_err(io::Error::other),
        }
    }

    /// Opens a regular file.
    pub(crate) fn open(&self, path: &[u8]) -> io::Result<File> {
        match self {
            Self::Host(host) => {
                let file = host.open_beneath(path, OFlags::RDONLY | OFlags::NONBLOCK)?;
                let stat = rustix::fs::fstat(&file)?;
                if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
                    return Err(io::Error::other("it is no regular file any more"));
                }
                Ok(File::from(file))
            }
            Self::Layers(root) => root.open(&absolute(path)).map_err(io::Error::other),
        }
    }

    /// What of a file's extended attributes goes with it: capabilities, for files of images.
    pub(crate) fn xattrs(&self, file: &File) -> io::Result<Xattrs> {
        match self {
            Self::Host(_) => Ok(Vec::new()),
            Self::Layers(_) => LayeredRoot::xattrs(file),
        }
    }

    /// Whether a path is hidden.
    pub(crate) fn is_ignored(&self, path: &[u8]) -> bool {
        match self {
            Self::Host(host) if !host.ignore.is_empty() => {
                host.ignore.ignores(&String::from_utf8_lossy(path))
            }
            _ => false,
        }
    }

    /// Whether a hidden directory may hold something that is not.
    pub(crate) fn may_keep_below(&self, path: &[u8]) -> bool {
        match self {
            Self::Host(host) => host.ignore.may_keep_below(&String::from_utf8_lossy(path)),
            Self::Layers(_) => true,
        }
    }

    /// Follows links to what `path` is: a path without links. `..` does not lead out.
    pub(crate) fn resolve(&self, path: &[u8]) -> io::Result<Result<Vec<u8>, Missing>> {
        let mut todo: VecDeque<Vec<u8>> = names_of(path).collect();
        let mut at: Vec<u8> = Vec::new();
        let mut links = 0;
        let mut hidden = false;
        while let Some(name) = todo.pop_front() {
            if name == b".." {
                at = split(&at).0.to_vec();
                continue;
            }
            let next = join(&at, &name);
            hidden |= self.is_ignored(&next) && !self.may_keep_below(&next);
            let Some(node) = self.node(&next)? else {
                return Ok(Err(Missing::Absent));
            };
            match node.kind {
                NodeKind::Symlink(target) => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(Errno::LOOP.into());
                    }
                    if target.starts_with(b"/") {
                        at.clear();
                    }
                    for name in names_of(&target).collect::<Vec<_>>().into_iter().rev() {
                        todo.push_front(name);
                    }
                }
                _ => at = next,
            }
        }
        if hidden {
            return Ok(Err(Missing::Ignored));
        }
        Ok(Ok(at))
    }
}

fn is_absent(error: &image::ImageError) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if let Some(io) = cause.downcast_ref::<io::Error>() {
            let errno = Errno::from_io_error(io);
            return matches!(errno, Some(Errno::NOENT | Errno::NOTDIR));
        }
        source = cause.source();
    }
    false
}

fn absolute(path: &[u8]) -> PathBuf {
    Path::new("/").join(OsStr::from_bytes(path))
}

/// The names of a path, without empty ones and `.`.
pub(crate) fn names_of(path: &[u8]) -> impl Iterator<Item = Vec<u8>> + '_ {
    path.split(|byte| *byte == b'/')
        .filter(|name| !name.is_empty() && *name != b".")
        .map(<[u8]>::to_vec)
}

/// A path in a directory.
pub(crate) fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    if dir.is_empty() {
        return name.to_vec();
    }
    if name.is_empty() {
        return dir.to_vec();
    }
    [dir, b"/", name].concat()
}

/// Parent and name of a path.
pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (
            path.get(..at).unwrap_or_default(),
            path.get(at + 1..).unwrap_or_default(),
        ),
        None => (b"", path),
    }
}

impl AsFd for HostTree {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.root.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_do_not_lead_out_of_a_context() {
        let dir = tempfile::tempdir().unwrap();
        let context = dir.path().join("context");
        std::fs::create_dir_all(context.join("sub")).unwrap();
        File::create(dir.path().join("secret")).unwrap();
        File::create(context.join("file")).unwrap();
        symlink("/etc", context.join("absolute")).unwrap();
        symlink("../../..", context.join("sub/up")).unwrap();
        symlink("sub", context.join("link")).unwrap();
        symlink("loop", context.join("loop")).unwrap();
        let tree = Tree::Host(HostTree::open(&context, Ignore::default()).unwrap());
        let resolve = |path: &str| tree.resolve(path.as_bytes());
        assert_eq!(resolve("absolute/passwd").unwrap(), Err(Missing::Absent));
        assert_eq!(resolve("sub/up/secret").unwrap(), Err(Missing::Absent));
        assert_eq!(resolve("sub/up/file").unwrap().unwrap(), b"file");
        assert_eq!(resolve("../../file").unwrap().unwrap(), b"file");
        assert_eq!(resolve("link/./up/sub").unwrap().unwrap(), b"sub");
        assert!(resolve("loop").is_err());
        // A path with a link on the way is never opened as it stands.
        assert!(tree.open(b"sub/up/secret").is_err());
    }
}
