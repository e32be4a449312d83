//! A directory tree as a tar archive: owners, modes, times, links and extended attributes. Everything
//! is reached by descriptor, no link is followed and no other mount entered.

use std::collections::HashMap;
use std::ffi::{CStr, OsStr};
use std::fs::File;
use std::io::{self, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, Stat, fgetxattr, flistxattr, fstat, major, minor,
    readlinkat, statat,
};
use rustix::io::Errno;
use tar::{EntryType, Header};

use crate::error::ImageError;

/// Opened this way a file is neither followed, nor waited for, nor made our terminal.
const READ: OFlags = OFlags::RDONLY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY)
    .union(OFlags::CLOEXEC);

/// PAX key of an extended attribute, before its name.
const XATTR: &str = "SCHILY.xattr.";

/// Writes everything below `dir` to an archive. Sockets are left out, as tar does.
///
/// # Errors
/// When something cannot be read, or the archive not be written.
pub fn write_tree(dir: &Path, writer: impl Write) -> Result<(), ImageError> {
    let failed = |source| ImageError::Read {
        path: dir.to_path_buf(),
        source,
    };
    let open = || {
        let root = rustix::fs::open(dir, READ | OFlags::DIRECTORY, Mode::empty())?;
        let device = fstat(&root)?.st_dev;
        Ok::<_, Errno>((root, device))
    };
    let (root, device) = open().map_err(|errno| failed(errno.into()))?;
    let mut tree = Tree {
        archive: tar::Builder::new(writer),
        device,
        links: HashMap::new(),
    };
    tree.directory(root.as_fd(), Path::new("."))
        .and_then(|()| tree.archive.finish())
        .map_err(failed)
}

struct Tree<W: Write> {
    archive: tar::Builder<W>,
    /// Of the root: what is on another one is another mount.
    device: u64,
    /// Where a file with several names was seen first.
    links: HashMap<u64, PathBuf>,
}

impl<W: Write> Tree<W> {
    fn directory(&mut self, dir: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
        let stat = fstat(dir)?;
        let mut header = header(&stat, EntryType::Directory);
        self.attributes(dir, &stat)?;
        self.archive.append_data(&mut header, path, io::empty())?;
        let mut names = Vec::new();
        for entry in Dir::read_from(dir)? {
            let entry = entry?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                names.push(entry.file_name().to_owned());
            }
        }
        names.sort();
        for name in names {
            self.entry(dir, &name, path)?;
        }
        Ok(())
    }

    fn entry(&mut self, dir: BorrowedFd<'_>, name: &CStr, parent: &Path) -> io::Result<()> {
        let path = parent.join(OsStr::from_bytes(name.to_bytes()));
        let stat = match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            // Removed in this moment.
            Err(Errno::NOENT) => return Ok(()),
            other => other?,
        };
        if stat.st_dev != self.device {
            return Ok(());
        }
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind != FileType::Directory && stat.st_nlink > 1 {
            if let Some(first) = self.links.get(&stat.st_ino) {
                let mut header = header(&stat, EntryType::Link);
                return self.archive.append_link(&mut header, path, first);
            }
            self.links.insert(stat.st_ino, path.clone());
        }
        match kind {
            FileType::Directory => {
                let dir = rustix::fs::openat(dir, name, READ | OFlags::DIRECTORY, Mode::empty())?;
                self.directory(dir.as_fd(), &path)
            }
            FileType::RegularFile => self.file(dir, name, &path),
            FileType::Symlink => {
                let target = readlinkat(dir, name, Vec::new())?;
                let target = OsStr::from_bytes(target.to_bytes());
                let mut header = header(&stat, EntryType::Symlink);
                self.times(&stat)?;
                self.archive.append_link(&mut header, path, target)
            }
            FileType::CharacterDevice => self.special(&stat, EntryType::Char, &path),
            FileType::BlockDevice => self.special(&stat, EntryType::Block, &path),
            FileType::Fifo => self.special(&stat, EntryType::Fifo, &path),
            _ => Ok(()),
        }
    }

    fn file(&mut self, dir: BorrowedFd<'_>, name: &CStr, path: &Path) -> io::Result<()> {
        let file = rustix::fs::openat(dir, name, READ, Mode::empty())?;
        // What was opened counts, not what the name meant before.
        let stat = fstat(&file)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Ok(());
        }
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let mut header = header(&stat, EntryType::Regular);
        header.set_size(size);
        self.attributes(file.as_fd(), &stat)?;
        // A file that shrinks meanwhile ends in zeros: its size is written already.
        let content = File::from(file).chain(io::repeat(0)).take(size);
        self.archive.append_data(&mut header, path, content)
    }

    fn special(&mut self, stat: &Stat, kind: EntryType, path: &Path) -> io::Result<()> {
        let mut header = header(stat, kind);
        if kind != EntryType::Fifo {
            header.set_device_major(major(stat.st_rdev))?;
            header.set_device_minor(minor(stat.st_rdev))?;
        }
        self.times(stat)?;
        self.archive.append_data(&mut header, path, io::empty())
    }

    /// The header before an entry with what its own header cannot say: parts of a second, extended
    /// attributes.
    fn attributes(&mut self, file: BorrowedFd<'_>, stat: &Stat) -> io::Result<()> {
        let mut records = vec![("mtime".to_owned(), mtime(stat))];
        records.extend(xattrs(file)?);
        self.records(&records)
    }

    fn times(&mut self, stat: &Stat) -> io::Result<()> {
        self.records(&[("mtime".to_owned(), mtime(stat))])
    }

    fn records(&mut self, records: &[(String, Vec<u8>)]) -> io::Result<()> {
        let records = records
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_slice()));
        self.archive.append_pax_extensions(records)
    }
}

fn mtime(stat: &Stat) -> Vec<u8> {
    format!("{}.{:09}", stat.st_mtime, stat.st_mtime_nsec).into_bytes()
}

fn header(stat: &Stat, kind: EntryType) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(stat.st_mode & 0o7777);
    header.set_uid(stat.st_uid.into());
    header.set_gid(stat.st_gid.into());
    header.set_mtime(u64::try_from(stat.st_mtime).unwrap_or(0));
    header.set_size(0);
    header
}

/// The extended attributes that an archive may bring back: access control lists and labels are the
/// host's.
fn xattrs(file: BorrowedFd<'_>) -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut names = [MaybeUninit::<u8>::uninit(); 64 * 1024];
    let names = match flistxattr(file, &mut names[..]) {
        Ok((names, _)) => names,
        Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        Err(errno) => return Err(errno.into()),
    };
    let mut found = Vec::new();
    for name in names.split(|byte| *byte == 0) {
        let Ok(text) = std::str::from_utf8(name) else {
            continue;
        };
        if !(text.starts_with("user.") || text == "security.capability") {
            continue;
        }
        let mut value = vec![0; 64 * 1024];
        let length = fgetxattr(file, name, &mut value)?;
        value.truncate(length);
        found.push((format!("{XATTR}{text}"), value));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unpack::{UnpackMode, unpack_archive};
    use std::os::unix::fs::{MetadataExt, symlink};

    #[test]
    fn tree_written_and_unpacked_is_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        std::fs::create_dir_all(from.join("a/b")).unwrap();
        std::fs::create_dir(&to).unwrap();
        let long = "x".repeat(150);
        for (name, text) in [("a/file", "text"), (".wh.kept", "a name"), (&long, "long")] {
            sys::durable::replace_file(
                &from.join(name),
                text.as_bytes(),
                sys::durable::Durability::Atomic,
            )
            .unwrap();
        }
        std::fs::hard_link(from.join("a/file"), from.join("a/same")).unwrap();
        symlink("/etc", from.join("link")).unwrap();
        let mut archive = Vec::new();
        write_tree(&from, &mut archive).unwrap();
        let mode = UnpackMode {
            userns: false,
            flat_owner: true,
        };
        assert_eq!(unpack_archive(&archive[..], &to, mode).unwrap().len(), 0);
        for name in ["a/file", ".wh.kept", &long] {
            let meta = |root: &Path| std::fs::symlink_metadata(root.join(name)).unwrap();
            let facts = |meta: std::fs::Metadata| (meta.mode(), meta.len(), meta.mtime_nsec());
            assert_eq!(facts(meta(&from)), facts(meta(&to)), "{name}");
        }
        let inode = |name: &str| std::fs::metadata(to.join(name)).unwrap().ino();
        assert_eq!(inode("a/file"), inode("a/same"));
        assert_eq!(
            std::fs::read_link(to.join("link")).unwrap(),
            Path::new("/etc")
        );
    }
}
