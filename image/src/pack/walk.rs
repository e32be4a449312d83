//! A tree of files, entry by entry, in the order of their names. Every file is reached from its
//! directory by descriptor and without following a link, and opened only after it was seen to be a
//! regular one: who changes the tree meanwhile can lead nobody elsewhere.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    Dir, FileType, Mode, OFlags, Stat, fgetxattr, flistxattr, fstat, fstatfs, major, minor, open,
    openat, readlinkat,
};
use rustix::io::Errno;

use crate::tarwalk::{Entry, EntryKind, EntryPath, Xattrs};

/// How deep a tree may be: each level costs a descriptor.
const MAX_DEPTH: usize = 256;

/// The longest value of an extended attribute, and the longest list of their names (`xattr(7)`).
const MAX_XATTR: usize = 64 * 1024;

/// What the kernel shows as files and nobody means to copy: procfs, sysfs, control groups, message
/// queues, pseudo-terminals, and its other windows (`statfs(2)`).
const KERNEL_FILE_SYSTEMS: [u64; 10] = [
    0x9fa0,
    0x6265_6572,
    0x0027_e0eb,
    0x6367_7270,
    0x1980_0202,
    0x1cd1,
    0x6462_6720,
    0x7472_6163,
    0x7363_6673,
    0xcafe_4a11,
];

/// What a walk comes by.
#[derive(Debug)]
pub enum Visited<'a> {
    /// Something that an archive can hold.
    Entry(Entry),
    /// A socket, which lives with its process only.
    Socket(&'a EntryPath),
}

type Visit<'a> = &'a mut dyn FnMut(Visited<'_>, &mut dyn Read) -> io::Result<()>;

/// Walks what `top` (opened with `O_PATH`) is and, if it is a directory, what is below it. The
/// entries' paths begin with `prefix`; one without a path is the directory itself. Directories of
/// the kernel's own file systems are empty.
///
/// # Errors
/// When something cannot be read, or `visit` fails.
pub fn walk(top: BorrowedFd<'_>, prefix: &EntryPath, visit: Visit<'_>) -> io::Result<()> {
    let mut walker = Walker {
        visit,
        links: HashMap::new(),
    };
    walker.one(top, prefix, 0, None)
}

/// Walks the directory at `path` of the host.
///
/// # Errors
/// As [`walk`].
pub fn walk_tree(path: &std::path::Path, visit: Visit<'_>) -> io::Result<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let top = open(path, flags, Mode::empty())?;
    walk(top.as_fd(), &EntryPath::default(), visit)
}

struct Walker<'a> {
    visit: Visit<'a>,
    /// Where files with several names were first met: device, inode.
    links: HashMap<(u64, u64), EntryPath>,
}

impl Walker<'_> {
    fn one(
        &mut self,
        file: BorrowedFd<'_>,
        path: &EntryPath,
        depth: usize,
        parent_device: Option<u64>,
    ) -> io::Result<()> {
        let stat = fstat(file)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        let mut nothing = io::empty();
        let kind = match kind {
            FileType::Directory => return self.directory(file, path, &stat, depth, parent_device),
            FileType::Socket => return (self.visit)(Visited::Socket(path), &mut nothing),
            _ => match self.linked(path, &stat) {
                Some(first) => EntryKind::Hardlink(first.as_bytes().to_vec()),
                None => match kind {
                    FileType::RegularFile => return self.file(file, path, &stat),
                    FileType::Symlink => {
                        EntryKind::Symlink(readlinkat(file, c"", Vec::new())?.into_bytes())
                    }
                    FileType::Fifo => EntryKind::Fifo,
                    FileType::CharacterDevice => {
                        EntryKind::CharDevice(major(stat.st_rdev), minor(stat.st_rdev))
                    }
                    _ => EntryKind::BlockDevice(major(stat.st_rdev), minor(stat.st_rdev)),
                },
            },
        };
        let entry = entry(path, kind, &stat, Vec::new());
        (self.visit)(Visited::Entry(entry), &mut nothing)
    }

    /// The first path of a file that has several names.
    fn linked(&mut self, path: &EntryPath, stat: &Stat) -> Option<EntryPath> {
        if stat.st_nlink < 2 {
            return None;
        }
        let first = self.links.entry((stat.st_dev, stat.st_ino));
        match first {
            std::collections::hash_map::Entry::Occupied(first) => Some(first.get().clone()),
            std::collections::hash_map::Entry::Vacant(place) => {
                place.insert(path.clone());
                None
            }
        }
    }

    fn file(&mut self, file: BorrowedFd<'_>, path: &EntryPath, stat: &Stat) -> io::Result<()> {
        let file = reopen(file, OFlags::NONBLOCK)?;
        let kind = EntryKind::File {
            size: u64::try_from(stat.st_size).unwrap_or(0),
            sparse: None,
        };
        let entry = entry(path, kind, stat, xattrs(file.as_fd())?);
        (self.visit)(Visited::Entry(entry), &mut File::from(file))
    }

    fn directory(
        &mut self,
        dir: BorrowedFd<'_>,
        path: &EntryPath,
        stat: &Stat,
        depth: usize,
        parent_device: Option<u64>,
    ) -> io::Result<()> {
        if depth > MAX_DEPTH {
            return Err(io::Error::other("the directories are too deep"));
        }
        let is_mount = parent_device.is_some_and(|parent| parent != stat.st_dev);
        let dir = reopen(dir, OFlags::DIRECTORY)?;
        let entry = entry(path, EntryKind::Directory, stat, xattrs(dir.as_fd())?);
        (self.visit)(Visited::Entry(entry), &mut io::empty())?;
        if (is_mount || depth == 0) && is_kernels(dir.as_fd())? {
            return Ok(());
        }
        for name in names(dir.as_fd())? {
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let child = match openat(&dir, name.as_slice(), flags, Mode::empty()) {
                // Gone since the directory was read.
                Err(Errno::NOENT) => continue,
                other => other?,
            };
            self.one(
                child.as_fd(),
                &path.child(&name),
                depth + 1,
                Some(stat.st_dev),
            )?;
        }
        Ok(())
    }
}

/// Whether a directory is of a file system that only shows what the kernel knows.
fn is_kernels(dir: BorrowedFd<'_>) -> Result<bool, Errno> {
    let kind = fstatfs(dir)?.f_type;
    Ok(u64::try_from(kind).is_ok_and(|kind| KERNEL_FILE_SYSTEMS.contains(&(kind & 0xffff_ffff))))
}

/// Opens for reading what an `O_PATH` descriptor points to, and nothing else, whatever has its name
/// now.
pub(super) fn reopen(file: BorrowedFd<'_>, flags: OFlags) -> Result<OwnedFd, Errno> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    open(
        path,
        OFlags::RDONLY | OFlags::CLOEXEC | flags,
        Mode::empty(),
    )
}

/// The names in a directory, sorted.
///
/// # Errors
/// When it cannot be read.
pub fn names(dir: BorrowedFd<'_>) -> Result<Vec<Vec<u8>>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if !matches!(name, b"." | b"..") {
            names.push(name.to_vec());
        }
    }
    names.sort_unstable();
    Ok(names)
}

pub(super) fn entry(path: &EntryPath, kind: EntryKind, stat: &Stat, xattrs: Xattrs) -> Entry {
    Entry {
        path: path.as_bytes().to_vec(),
        kind,
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime: (
            stat.st_mtime,
            u32::try_from(stat.st_mtime_nsec).unwrap_or(0),
        ),
        xattrs,
    }
}

/// Those attributes of an open file that belong to it, and not to the host or to an overlay.
pub(super) fn xattrs(file: BorrowedFd<'_>) -> Result<Xattrs, Errno> {
    let mut list = vec![0; MAX_XATTR];
    let length = match flistxattr(file, &mut list) {
        Err(Errno::OPNOTSUPP) => 0,
        other => other?,
    };
    let names = list
        .get(..length)
        .unwrap_or_default()
        .split(|byte| *byte == 0);
    let mut found: Vec<&[u8]> = names.filter(|name| is_own(name)).collect();
    found.sort_unstable();
    let mut xattrs = Vec::new();
    for name in found {
        let mut value = vec![0; MAX_XATTR];
        match fgetxattr(file, name, &mut value) {
            Ok(length) => {
                value.truncate(length);
                xattrs.push((name.to_vec(), value));
            }
            Err(Errno::NODATA) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(xattrs)
}

fn is_own(name: &[u8]) -> bool {
    name == b"security.capability"
        || (name.starts_with(b"user.") && !name.starts_with(b"user.overlay."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn paths(dir: &std::path::Path) -> Vec<(String, EntryKind)> {
        let mut seen = Vec::new();
        walk_tree(dir, &mut |visited, body| {
            let mut bytes = Vec::new();
            body.read_to_end(&mut bytes)?;
            if let Visited::Entry(entry) = visited {
                seen.push((String::from_utf8(entry.path).unwrap(), entry.kind));
            }
            Ok(())
        })
        .unwrap();
        seen
    }

    #[test]
    fn walk_gives_names_in_order_and_one_file_once() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("b")).unwrap();
        fs::copy("/etc/hostname", dir.path().join("b/file")).unwrap();
        fs::hard_link(dir.path().join("b/file"), dir.path().join("z")).unwrap();
        symlink("/nowhere", dir.path().join("a")).unwrap();
        let seen = paths(dir.path());
        let names: Vec<&str> = seen.iter().map(|(path, _)| path.as_str()).collect();
        assert_eq!(names, ["", "a", "b", "b/file", "z"]);
        assert_eq!(seen[1].1, EntryKind::Symlink(b"/nowhere".to_vec()));
        assert_eq!(seen[4].1, EntryKind::Hardlink(b"b/file".to_vec()));
    }

    #[test]
    fn directory_of_the_kernel_is_empty() {
        let seen = paths(std::path::Path::new("/proc"));
        assert_eq!(seen, [(String::new(), EntryKind::Directory)]);
    }
}
