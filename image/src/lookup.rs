//! Paths in an image's root filesystem, resolved through its layers the way the overlay mount
//! would, without mounting: for the first bytes of an entrypoint and for `/etc/passwd`.
//!
//! Layers are shared, read-only and ours, yet what they hold was written by others: links are
//! resolved by this module inside the stack, component by component on descriptors, and only
//! regular files are opened.

use std::collections::{BTreeSet, VecDeque};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, fstat, openat, readlinkat, statat};
use rustix::io::Errno;

use crate::error::ImageError;
use crate::fixup::read_xattrs;
use crate::tarwalk::Xattrs;
use crate::unpack::{is_opaque, is_whiteout};

/// How many links one lookup follows (`path_resolution(7)`).
const MAX_LINKS: u32 = 40;

/// The longest path after all links were put in.
const MAX_COMPONENTS: usize = 4096;

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// Whether a link at the end of a path is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LastLink {
    Follow,
    Keep,
}

/// A stack of layer directories, looked at as one tree.
#[derive(Debug, Clone)]
pub struct LayeredRoot {
    dirs: Vec<PathBuf>,
}

/// Something that a lookup found.
#[derive(Debug)]
pub struct Found {
    /// Where it is in the image: absolute, without links.
    pub path: PathBuf,
    /// Where it is on the host, in the layer that shows it.
    pub host_path: PathBuf,
    /// Which layer shows it, counted from the uppermost.
    pub layer: usize,
    /// Type and permission bits, as `st_mode`.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Size in bytes.
    pub size: u64,
    /// Modification time in seconds.
    pub mtime: i64,
    /// Major and minor number of a device.
    pub device: (u32, u32),
    parent: Option<Rc<OwnedFd>>,
    name: Vec<u8>,
}

impl Found {
    /// Whether it is a regular file.
    #[must_use]
    pub fn is_file(&self) -> bool {
        FileType::from_raw_mode(self.mode) == FileType::RegularFile
    }

    /// Whether it is a directory.
    #[must_use]
    pub fn is_dir(&self) -> bool {
        FileType::from_raw_mode(self.mode) == FileType::Directory
    }
}

/// One directory of the tree: the layers that have a part of it, the uppermost first.
#[derive(Clone)]
struct Merged {
    parts: Vec<(usize, Rc<OwnedFd>)>,
    name: Vec<u8>,
}

/// A component, looked up in a merged directory.
enum Step {
    Absent,
    Directory(Merged),
    Other(usize, Rc<OwnedFd>, Box<Stat>),
}

impl LayeredRoot {
    /// The tree of these directories, the uppermost first.
    #[must_use]
    pub fn new(dirs: Vec<PathBuf>) -> Self {
        Self { dirs }
    }

    /// The layer directories, the uppermost first.
    #[must_use]
    pub fn dirs(&self) -> &[PathBuf] {
        &self.dirs
    }

    /// Finds `path`, following links, also the last one.
    ///
    /// # Errors
    /// [`ImageError::Lookup`]: not found, no directory, too many links.
    pub fn lookup(&self, path: &Path) -> Result<Found, ImageError> {
        self.find(path, LastLink::Follow)
            .map_err(|error| lookup_failed(path, error))
    }

    /// Finds `path`; a link at its end is what is found.
    ///
    /// # Errors
    /// As [`Self::lookup`].
    pub fn lookup_link(&self, path: &Path) -> Result<Found, ImageError> {
        self.find(path, LastLink::Keep)
            .map_err(|error| lookup_failed(path, error))
    }

    /// The names in the directory at `path`, sorted; links on the way count as no directory.
    ///
    /// # Errors
    /// As [`Self::lookup`].
    pub fn names(&self, path: &Path) -> Result<Vec<Vec<u8>>, ImageError> {
        self.names_in(path)
            .map_err(|error| lookup_failed(path, error))
    }

    fn names_in(&self, path: &Path) -> Result<Vec<Vec<u8>>, Errno> {
        let mut merged = self.root()?;
        for name in components(path.as_os_str().as_bytes()) {
            match merged.step(&name)? {
                Step::Directory(next) => merged = next,
                Step::Absent => return Err(Errno::NOENT),
                Step::Other(..) => return Err(Errno::NOTDIR),
            }
        }
        let mut names = BTreeSet::new();
        for (_, dir) in &merged.parts {
            for entry in Dir::read_from(&**dir)? {
                let entry = entry?;
                let name = entry.file_name().to_bytes();
                if !matches!(name, b"." | b"..") {
                    names.insert(name.to_vec());
                }
            }
        }
        let mut seen = Vec::new();
        for name in names {
            if !matches!(merged.step(&name)?, Step::Absent) {
                seen.push(name);
            }
        }
        Ok(seen)
    }

    /// The capabilities and `user.*` attributes of an open file.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn xattrs(file: &File) -> io::Result<Xattrs> {
        Ok(read_xattrs(file.as_fd())?)
    }

    /// The target of the link that was found.
    ///
    /// # Errors
    /// [`ImageError::RootPath`] when it is no link.
    pub fn read_link(&self, found: &Found) -> Result<Vec<u8>, ImageError> {
        let target = found
            .parent
            .as_ref()
            .map(|parent| readlinkat(&**parent, found.name.as_slice(), Vec::new()));
        match target {
            Some(Ok(target)) => Ok(target.into_bytes()),
            _ => Err(ImageError::RootPath {
                path: found.path.clone(),
                reason: "it is no symbolic link",
            }),
        }
    }

    /// Opens the regular file at `path` for reading.
    ///
    /// # Errors
    /// As [`Self::lookup`], and [`ImageError::RootPath`] when it is no regular file.
    pub fn open(&self, path: &Path) -> Result<File, ImageError> {
        let found = self.lookup(path)?;
        self.open_found(&found)
    }

    /// Opens the regular file that was found.
    ///
    /// # Errors
    /// [`ImageError::RootPath`] when it is no regular file.
    pub fn open_found(&self, found: &Found) -> Result<File, ImageError> {
        let refuse = || ImageError::RootPath {
            path: found.path.clone(),
            reason: "it is no regular file",
        };
        let (Some(parent), true) = (&found.parent, found.is_file()) else {
            return Err(refuse());
        };
        // A named pipe that were swapped in would block the open, a device would be driven.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = openat(&**parent, found.name.as_slice(), flags, Mode::empty())
            .map_err(|error| lookup_failed(&found.path, error))?;
        let stat = fstat(&file).map_err(|error| lookup_failed(&found.path, error))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(refuse());
        }
        Ok(File::from(file))
    }

    /// Reads at most `max` bytes from the beginning of the regular file at `path`.
    ///
    /// # Errors
    /// As [`Self::open`], and when it cannot be read.
    pub fn read_bounded(&self, path: &Path, max: u64) -> Result<Vec<u8>, ImageError> {
        let mut bytes = Vec::new();
        self.open(path)?
            .take(max)
            .read_to_end(&mut bytes)
            .map_err(|source| ImageError::Lookup {
                path: path.to_path_buf(),
                source,
            })?;
        Ok(bytes)
    }

    pub(crate) fn find(&self, path: &Path, last: LastLink) -> Result<Found, Errno> {
        let mut stack = vec![self.root()?];
        let mut todo = components(path.as_os_str().as_bytes());
        let mut links = 0;
        let ends_as_directory = path.as_os_str().as_bytes().ends_with(b"/");
        while let Some(name) = todo.pop_front() {
            if name == b".." {
                if stack.len() > 1 {
                    stack.pop();
                }
                continue;
            }
            let current = stack.last().ok_or(Errno::NOENT)?;
            match current.step(&name)? {
                Step::Absent => return Err(Errno::NOENT),
                Step::Directory(merged) => stack.push(merged),
                Step::Other(layer, parent, stat) => {
                    let is_link = FileType::from_raw_mode(stat.st_mode) == FileType::Symlink;
                    let is_last = todo.is_empty() && !ends_as_directory;
                    if is_link && !(is_last && last == LastLink::Keep) {
                        links += 1;
                        if links > MAX_LINKS {
                            return Err(Errno::LOOP);
                        }
                        follow(&parent, &name, &mut stack, &mut todo)?;
                        continue;
                    }
                    if !is_last {
                        return Err(Errno::NOTDIR);
                    }
                    return Ok(self.found(&stack, layer, Some(parent), name, &stat));
                }
            }
        }
        self.found_directory(&stack)
    }

    /// The layers that have a part of the directory at `path`, the uppermost first; none when
    /// there is no directory. Links on the way count as none.
    pub(crate) fn layers_of(&self, path: &Path) -> Result<Vec<usize>, Errno> {
        let mut merged = self.root()?;
        for name in components(path.as_os_str().as_bytes()) {
            match merged.step(&name)? {
                Step::Directory(next) => merged = next,
                Step::Absent | Step::Other(..) => return Ok(Vec::new()),
            }
        }
        Ok(merged.parts.iter().map(|(layer, _)| *layer).collect())
    }

    fn root(&self) -> Result<Merged, Errno> {
        let mut parts = Vec::new();
        for (layer, dir) in self.dirs.iter().enumerate() {
            let dir = rustix::fs::open(dir, DIRECTORY, Mode::empty())?;
            let opaque = is_opaque(dir.as_fd())?;
            parts.push((layer, Rc::new(dir)));
            if opaque {
                break;
            }
        }
        let name = Vec::new();
        Ok(Merged { parts, name })
    }

    fn found_directory(&self, stack: &[Merged]) -> Result<Found, Errno> {
        let (own, parents) = stack.split_last().ok_or(Errno::NOENT)?;
        let (layer, dir) = own.parts.first().ok_or(Errno::NOENT)?;
        let stat = fstat(&**dir)?;
        Ok(self.found(parents, *layer, None, own.name.clone(), &stat))
    }

    fn found(
        &self,
        parents: &[Merged],
        layer: usize,
        parent: Option<Rc<OwnedFd>>,
        name: Vec<u8>,
        stat: &Stat,
    ) -> Found {
        let mut path = PathBuf::from("/");
        for component in parents.iter().map(|merged| merged.name.as_slice()) {
            path.push(OsStr::from_bytes(component));
        }
        path.push(OsStr::from_bytes(&name));
        let base = self.dirs.get(layer).cloned().unwrap_or_default();
        let host_path = base.join(path.strip_prefix("/").unwrap_or(&path));
        Found {
            path,
            host_path,
            layer,
            mode: stat.st_mode,
            uid: stat.st_uid,
            gid: stat.st_gid,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            mtime: stat.st_mtime,
            device: (
                rustix::fs::major(stat.st_rdev),
                rustix::fs::minor(stat.st_rdev),
            ),
            parent,
            name,
        }
    }
}

impl Merged {
    /// Looks `name` up as overlayfs does: the uppermost layer that knows it decides what it is;
    /// directories of the layers below join until one is opaque, or no directory, or a whiteout.
    fn step(&self, name: &[u8]) -> Result<Step, Errno> {
        let mut parts: Vec<(usize, Rc<OwnedFd>)> = Vec::new();
        for (layer, dir) in &self.parts {
            let stat = match statat(&**dir, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => continue,
                Err(error) => return Err(error),
            };
            if is_whiteout(&stat) {
                break;
            }
            if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
                if parts.is_empty() {
                    return Ok(Step::Other(*layer, Rc::clone(dir), Box::new(stat)));
                }
                break;
            }
            let own = openat(&**dir, name, DIRECTORY, Mode::empty())?;
            let opaque = is_opaque(own.as_fd())?;
            parts.push((*layer, Rc::new(own)));
            if opaque {
                break;
            }
        }
        if parts.is_empty() {
            return Ok(Step::Absent);
        }
        let name = name.to_vec();
        Ok(Step::Directory(Self { parts, name }))
    }
}

fn follow(
    parent: &OwnedFd,
    name: &[u8],
    stack: &mut Vec<Merged>,
    todo: &mut VecDeque<Vec<u8>>,
) -> Result<(), Errno> {
    let target = readlinkat(parent, name, Vec::new())?.into_bytes();
    if target.is_empty() {
        return Err(Errno::NOENT);
    }
    if target.starts_with(b"/") {
        stack.truncate(1);
    }
    for component in components(&target).into_iter().rev() {
        todo.push_front(component);
    }
    if todo.len() > MAX_COMPONENTS {
        return Err(Errno::NAMETOOLONG);
    }
    Ok(())
}

fn components(path: &[u8]) -> VecDeque<Vec<u8>> {
    path.split(|byte| *byte == b'/')
        .filter(|name| !name.is_empty() && *name != b".")
        .map(<[u8]>::to_vec)
        .collect()
}

fn lookup_failed(path: &Path, error: Errno) -> ImageError {
    ImageError::Lookup {
        path: path.to_path_buf(),
        source: io::Error::from(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{XattrFlags, mkfifoat, mknodat, setxattr};
    use std::fs;
    use std::os::unix::fs::symlink;

    struct Stack {
        dir: tempfile::TempDir,
    }

    impl Stack {
        /// Three layers, `0` the uppermost.
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            for layer in 0..3 {
                fs::create_dir(dir.path().join(layer.to_string())).unwrap();
            }
            Self { dir }
        }

        fn at(&self, layer: usize, path: &str) -> PathBuf {
            let path = self.dir.path().join(layer.to_string()).join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            path
        }

        fn file(&self, layer: usize, path: &str) {
            let mut file = File::create(self.at(layer, path)).unwrap();
            io::Write::write_all(&mut file, format!("{layer}:{path}").as_bytes()).unwrap();
        }

        fn whiteout(&self, layer: usize, path: &str) {
            let path = self.at(layer, path);
            let kind = FileType::CharacterDevice;
            mknodat(rustix::fs::CWD, &path, kind, Mode::empty(), 0).unwrap();
        }

        fn opaque(&self, layer: usize, path: &str) {
            let path = self.at(layer, path);
            fs::create_dir_all(&path).unwrap();
            setxattr(&path, "user.overlay.opaque", b"y", XattrFlags::empty()).unwrap();
        }

        fn root(&self) -> LayeredRoot {
            let dir = |layer: usize| self.dir.path().join(layer.to_string());
            LayeredRoot::new((0..3).map(dir).collect())
        }

        fn read(&self, path: &str) -> Result<String, Errno> {
            match self.root().read_bounded(Path::new(path), 100) {
                Ok(bytes) => Ok(String::from_utf8(bytes).unwrap()),
                Err(ImageError::Lookup { source, .. }) => {
                    Err(Errno::from_io_error(&source).unwrap())
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    #[test]
    fn read_through_the_stack_is_as_overlay_shows_it() {
        let stack = Stack::new();
        stack.file(2, "etc/passwd");
        stack.file(2, "etc/group");
        stack.file(1, "etc/group");
        stack.file(2, "gone/file");
        stack.whiteout(0, "gone");
        stack.file(2, "etc/removed");
        stack.whiteout(1, "etc/removed");
        stack.file(2, "var/old");
        stack.opaque(1, "var");
        stack.file(1, "var/new");
        stack.file(2, "swap/inner");
        stack.file(1, "swap");
        stack.file(2, "again/low");
        stack.file(1, "again");
        stack.file(0, "again/high");
        symlink("/etc/passwd", stack.at(0, "absolute")).unwrap();
        symlink("../../../etc/passwd", stack.at(0, "a/relative")).unwrap();
        symlink("etc", stack.at(1, "link")).unwrap();
        symlink("loop", stack.at(0, "loop")).unwrap();
        let table = [
            ("/etc/passwd", Ok("2:etc/passwd")),
            ("etc/./group", Ok("1:etc/group")),
            ("/../../etc/passwd", Ok("2:etc/passwd")),
            ("/gone/file", Err(Errno::NOENT)),
            ("/etc/removed", Err(Errno::NOENT)),
            ("/var/old", Err(Errno::NOENT)),
            ("/var/new", Ok("1:var/new")),
            ("/swap", Ok("1:swap")),
            ("/swap/inner", Err(Errno::NOTDIR)),
            ("/again/low", Err(Errno::NOENT)),
            ("/again/high", Ok("0:again/high")),
            ("/absolute", Ok("2:etc/passwd")),
            ("/a/relative", Ok("2:etc/passwd")),
            ("/link/group", Ok("1:etc/group")),
            ("/loop", Err(Errno::LOOP)),
            ("/etc/passwd/", Err(Errno::NOTDIR)),
            ("/none", Err(Errno::NOENT)),
        ];
        for (path, expected) in table {
            assert_eq!(stack.read(path), expected.map(str::to_owned), "{path}");
        }
        let found = stack.root().lookup(Path::new("/link/group")).unwrap();
        assert_eq!(found.path, Path::new("/etc/group"));
        assert_eq!(found.host_path, stack.at(1, "etc/group"));
        assert!(stack.root().lookup(Path::new("/")).unwrap().is_dir());
    }

    #[test]
    fn open_special_file_is_refused_without_blocking() {
        let stack = Stack::new();
        mkfifoat(rustix::fs::CWD, stack.at(0, "pipe"), Mode::from(0o600)).unwrap();
        let error = stack.root().open(Path::new("/pipe")).unwrap_err();
        assert!(matches!(error, ImageError::RootPath { .. }));
        let error = stack.root().open(Path::new("/")).unwrap_err();
        assert!(matches!(error, ImageError::RootPath { .. }));
    }
}
