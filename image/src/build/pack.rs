//! The archive of a layer directory, always with the same bytes for the same files: names sorted, times
//! in whole seconds, owners by number, marks of the overlay as whiteouts (image-spec v1.1.1 `layer.md`).

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, Stat, Timespec, Timestamps, fgetxattr, fremovexattr, openat,
    readlinkat, statat, utimensat,
};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::digest::DiffId;
use crate::fixup::read_xattrs;
use crate::lookup::LayeredRoot;
use crate::pack::names;
use crate::tarwalk::{EntryPath, Xattrs};
use crate::unpack::{is_opaque, is_whiteout};

/// How deep a tree may go: what [`EntryPath`] takes.
const MAX_DEPTH: usize = 256;

/// The longest name and link target in a header.
const MAX_NAME: usize = 100;

/// Where a layer lies whose archive can be made of its directory: beside the layer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ArchiveRecord {
    pub(crate) version: u32,
    /// The name of its directory below `layers/`.
    pub(crate) directory: String,
    /// Bytes of the archive.
    pub(crate) size: u64,
}

/// The path of a layer's archive record.
pub(crate) fn archive_record_path(layers: &Path, diff_id: &DiffId) -> PathBuf {
    layers.join(format!("{}.archive.json", diff_id.hex()))
}

/// What is done to a directory while it is packed for the first time.
pub(crate) struct Settle<'a> {
    /// No file is newer: seconds.
    pub(crate) epoch: i64,
    /// What the layer lies upon: marks that hide nothing of it are taken away.
    pub(crate) below: Option<&'a LayeredRoot>,
}

/// Writes the archive of the directory `root` to `out`.
pub(crate) fn pack(
    root: &Path,
    settle: Option<&Settle<'_>>,
    out: &mut dyn Write,
) -> io::Result<()> {
    let dir = rustix::fs::open(root, DIRECTORY, Mode::empty())?;
    let mut packer = Packer {
        out,
        settle,
        links: BTreeMap::new(),
    };
    packer.directory(&dir, &EntryPath::default(), 0)?;
    packer.out.write_all(&[0; 1024])?;
    packer.out.flush()
}

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

struct Packer<'a> {
    out: &'a mut dyn Write,
    settle: Option<&'a Settle<'a>>,
    /// The first name of each file with several.
    links: BTreeMap<(u64, u64), Vec<u8>>,
}

impl Packer<'_> {
    fn directory(&mut self, dir: &OwnedFd, path: &EntryPath, depth: usize) -> io::Result<()> {
        if depth > MAX_DEPTH {
            return Err(io::Error::other(format!(
                "`{path}` is too deep for a layer"
            )));
        }
        for name in names(dir.as_fd())? {
            self.entry(dir, &path.child(&name), &name, depth)
                .map_err(|error| {
                    io::Error::new(error.kind(), format!("{}: {error}", path.child(&name)))
                })?;
        }
        Ok(())
    }

    fn entry(
        &mut self,
        dir: &OwnedFd,
        path: &EntryPath,
        name: &[u8],
        depth: usize,
    ) -> io::Result<()> {
        let stat = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if is_whiteout(&stat) {
            let (parent, name) = path.split().ok_or(Errno::INVAL)?;
            let whiteout = parent.child(&[b".wh.", name].concat());
            return self.mark(whiteout.as_bytes());
        }
        let time = self.time(dir, name, &stat)?;
        let header = |kind| Header::new(kind, path.as_bytes(), &stat, time);
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                let own = openat(dir, name, DIRECTORY, Mode::empty())?;
                self.refuse_redirect(&own)?;
                let mut header = header(tar::EntryType::Directory);
                header.path.push(b'/');
                header.xattrs = read_xattrs(own.as_fd())?;
                self.put(&header)?;
                if self.is_opaque(&own, path)? {
                    self.mark(path.child(b".wh..wh..opq").as_bytes())?;
                }
                self.directory(&own, path, depth + 1)
            }
            FileType::RegularFile => {
                self.file(dir, name, path, &stat, header(tar::EntryType::Regular))
            }
            FileType::Symlink => {
                let mut header = header(tar::EntryType::Symlink);
                header.link = readlinkat(dir, name, Vec::new())?.into_bytes();
                self.put(&header)
            }
            FileType::Fifo => self.put(&header(tar::EntryType::Fifo)),
            FileType::CharacterDevice => self.put(&header(tar::EntryType::Char)),
            FileType::BlockDevice => self.put(&header(tar::EntryType::Block)),
            // A socket means nothing without the program that made it.
            _ => Ok(()),
        }
    }

    fn file(
        &mut self,
        dir: &OwnedFd,
        name: &[u8],
        path: &EntryPath,
        stat: &Stat,
        mut header: Header,
    ) -> io::Result<()> {
        if stat.st_nlink > 1 {
            let id = (stat.st_dev, stat.st_ino);
            if let Some(first) = self.links.get(&id) {
                header.kind = tar::EntryType::Link;
                header.link.clone_from(first);
                header.size = 0;
                return self.put(&header);
            }
            self.links.insert(id, path.as_bytes().to_vec());
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = openat(dir, name, flags, Mode::empty())?;
        header.xattrs = read_xattrs(file.as_fd())?;
        self.put(&header)?;
        let mut body = File::from(file).take(header.size);
        let copied = io::copy(&mut body, &mut self.out)?;
        if copied != header.size {
            return Err(io::Error::other("the file changed while it was read"));
        }
        self.pad(copied)
    }

    /// Brings the file's time to what the archive says of it, and gives that.
    fn time(&self, dir: &OwnedFd, name: &[u8], stat: &Stat) -> io::Result<i64> {
        let Some(settle) = self.settle else {
            return Ok(stat.st_mtime);
        };
        let seconds = stat.st_mtime.min(settle.epoch).max(0);
        if seconds != stat.st_mtime || stat.st_mtime_nsec != 0 {
            let time = Timespec {
                tv_sec: seconds,
                tv_nsec: 0,
            };
            let times = Timestamps {
                last_access: time,
                last_modification: time,
            };
            utimensat(dir, name, &times, AtFlags::SYMLINK_NOFOLLOW)?;
        }
        Ok(seconds)
    }

    /// Whether the directory hides what lies below it. overlayfs marks every new directory so, as a
    /// short cut; where nothing lies below, the mark goes.
    fn is_opaque(&self, dir: &OwnedFd, path: &EntryPath) -> io::Result<bool> {
        if !is_opaque(dir.as_fd())? {
            return Ok(false);
        }
        let Some(below) = self.settle.and_then(|settle| settle.below) else {
            return Ok(true);
        };
        if !below.layers_of(as_path(path))?.is_empty() {
            return Ok(true);
        }
        for name in ["trusted.overlay.opaque", "user.overlay.opaque"] {
            match fremovexattr(dir, name) {
                Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::PERM) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(false)
    }

    /// A directory that was renamed without its content cannot be a layer of its own.
    fn refuse_redirect(&self, dir: &OwnedFd) -> io::Result<()> {
        for name in ["trusted.overlay.redirect", "user.overlay.redirect"] {
            let mut value = [0_u8; 1];
            match fgetxattr(dir, name, &mut value) {
                Ok(_) | Err(Errno::RANGE) => {
                    return Err(io::Error::other(
                        "the kernel renamed a directory of a layer below (overlay's redirect_dir is on)",
                    ));
                }
                Err(_) => {}
            }
        }
        Ok(())
    }

    /// A mark of a whiteout: an empty file without attributes.
    fn mark(&mut self, path: &[u8]) -> io::Result<()> {
        self.put(&Header {
            kind: tar::EntryType::Regular,
            path: path.to_vec(),
            link: Vec::new(),
            mode: 0,
            uid: 0,
            gid: 0,
            size: 0,
            time: 0,
            device: (0, 0),
            xattrs: Vec::new(),
        })
    }

    fn put(&mut self, entry: &Header) -> io::Result<()> {
        let mut records = Vec::new();
        if entry.path.len() > MAX_NAME {
            record(&mut records, b"path", &entry.path);
        }
        if entry.link.len() > MAX_NAME {
            record(&mut records, b"linkpath", &entry.link);
        }
        let mut xattrs = entry.xattrs.clone();
        xattrs.sort_unstable();
        for (name, value) in &xattrs {
            record(
                &mut records,
                &[b"SCHILY.xattr.", name.as_slice()].concat(),
                value,
            );
        }
        if !records.is_empty() {
            let mut header = tar::Header::new_ustar();
            header.set_entry_type(tar::EntryType::XHeader);
            put_bytes(&mut header, 0, b"PaxHeaders.0/entry");
            header.set_mode(0o644);
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(0);
            header.set_size(records.len() as u64);
            header.set_cksum();
            self.out.write_all(header.as_bytes())?;
            self.out.write_all(&records)?;
            self.pad(records.len() as u64)?;
        }
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(entry.kind);
        put_bytes(&mut header, 0, &entry.path);
        put_bytes(&mut header, 157, &entry.link);
        header.set_mode(entry.mode);
        header.set_uid(entry.uid.into());
        header.set_gid(entry.gid.into());
        header.set_mtime(u64::try_from(entry.time).unwrap_or(0));
        header.set_size(entry.size);
        if matches!(entry.kind, tar::EntryType::Char | tar::EntryType::Block) {
            header.set_device_major(entry.device.0)?;
            header.set_device_minor(entry.device.1)?;
        }
        header.set_cksum();
        self.out.write_all(header.as_bytes())
    }

    fn pad(&mut self, size: u64) -> io::Result<()> {
        let rest = usize::try_from(size % 512).unwrap_or(0);
        if rest > 0 {
            let zeros = [0; 512];
            self.out.write_all(zeros.get(rest..).unwrap_or_default())?;
        }
        Ok(())
    }
}

struct Header {
    kind: tar::EntryType,
    path: Vec<u8>,
    link: Vec<u8>,
    mode: u32,
    uid: u32,
    gid: u32,
    size: u64,
    time: i64,
    device: (u32, u32),
    xattrs: Xattrs,
}

impl Header {
    fn new(kind: tar::EntryType, path: &[u8], stat: &Stat, time: i64) -> Self {
        let is_file = kind == tar::EntryType::Regular;
        Self {
            kind,
            path: path.to_vec(),
            link: Vec::new(),
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            size: if is_file {
                u64::try_from(stat.st_size).unwrap_or(0)
            } else {
                0
            },
            time,
            device: (
                rustix::fs::major(stat.st_rdev),
                rustix::fs::minor(stat.st_rdev),
            ),
            xattrs: Vec::new(),
        }
    }
}

/// Puts the beginning of `bytes` into a field of a header: names longer than that stand before it.
fn put_bytes(header: &mut tar::Header, at: usize, bytes: &[u8]) {
    let length = bytes.len().min(MAX_NAME);
    if let (Some(field), Some(bytes)) = (
        header.as_mut_bytes().get_mut(at..at + length),
        bytes.get(..length),
    ) {
        field.copy_from_slice(bytes);
    }
}

/// A record of an extended header: its length stands at its beginning and counts itself.
fn record(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut digits = 1;
    while (rest + digits).to_string().len() > digits {
        digits += 1;
    }
    records.extend_from_slice((rest + digits).to_string().as_bytes());
    records.push(b' ');
    records.extend_from_slice(key);
    records.push(b'=');
    records.extend_from_slice(value);
    records.push(b'\n');
}

fn as_path(path: &EntryPath) -> &Path {
    use std::os::unix::ffi::OsStrExt as _;
    Path::new(std::ffi::OsStr::from_bytes(path.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tarwalk::{EntryKind, TarWalk};
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn packed(root: &Path, epoch: i64) -> Vec<u8> {
        let mut bytes = Vec::new();
        let settle = Settle { epoch, below: None };
        pack(root, Some(&settle), &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn archive_of_a_directory_is_the_same_whenever_it_is_made() {
        let long = "n".repeat(120);
        let make = || {
            let dir = tempfile::tempdir().unwrap();
            for name in ["b", "a", long.as_str()] {
                let mut file = File::create(dir.path().join(name)).unwrap();
                file.write_all(name.as_bytes()).unwrap();
            }
            fs::set_permissions(dir.path().join("a"), fs::Permissions::from_mode(0o4755)).unwrap();
            fs::hard_link(dir.path().join("a"), dir.path().join("z")).unwrap();
            fs::create_dir(dir.path().join("d")).unwrap();
            symlink("../a", dir.path().join("d/link")).unwrap();
            dir
        };
        let (one, two) = (make(), make());
        let bytes = packed(one.path(), 1000);
        assert_eq!(bytes, packed(two.path(), 1000));
        // Packed once more, without being settled: the directory itself is what the archive says.
        let mut again = Vec::new();
        pack(one.path(), None, &mut again).unwrap();
        assert_eq!(bytes, again);
        let mut walk = TarWalk::new(bytes.as_slice());
        let mut seen = Vec::new();
        while let Some(entry) = walk.next_entry().unwrap() {
            assert_eq!(entry.mtime, (1000, 0));
            let path = String::from_utf8(entry.path.clone()).unwrap();
            if path == "a" {
                assert_eq!(entry.mode, 0o4755);
            }
            if path == "z" {
                assert!(matches!(&entry.kind, EntryKind::Hardlink(target) if target == b"a"));
            }
            seen.push(path);
        }
        assert_eq!(seen, ["a", "b", "d/", "d/link", long.as_str(), "z"]);
    }

    #[test]
    fn record_counts_its_own_length() {
        for length in [0, 1, 80, 90, 95, 100, 990] {
            let mut records = Vec::new();
            record(&mut records, b"path", &vec![b'x'; length]);
            let text = String::from_utf8(records).unwrap();
            let count: usize = text.split(' ').next().unwrap().parse().unwrap();
            assert_eq!(count, text.len());
        }
    }
}
