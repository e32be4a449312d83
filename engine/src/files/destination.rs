//! Where copied things are put. Each appears complete under its name: it is made under another name
//! beside it, and renamed.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use image::{Entry, EntryKind, EntryPath};
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags, chownat, fchmod,
    fchown, fsetxattr, fstat, futimens, linkat, makedev, mkdirat, mknodat, open, openat, renameat,
    statat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;
use sys::path::{Missing, make_in_root, open_in_root};

/// Set-user-ID, set-group-ID: not for files that get another owner on the host.
const SET_IDS: u32 = 0o6000;

/// How names of what is being made begin.
const TEMPORARY: &str = ".ketch-cp-";

/// Whose tree it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// A container's: its links lead within it, and what it means by them is followed.
    Container,
    /// The host's: nothing below the destination is followed.
    Host,
}

/// Who owns what is copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// Root of the container, or who copies to the host.
    Receiver,
    /// As at the source.
    Source,
}

/// A directory that things are put into.
#[derive(Debug)]
pub(super) struct Destination<'a> {
    pub(super) root: BorrowedFd<'a>,
    /// The directory, from the root.
    pub(super) base: Vec<u8>,
    pub(super) place: Place,
    pub(super) owner: Owner,
    /// Directories with the modes and times that they get at the end.
    directories: Vec<(EntryPath, Entry)>,
    counter: u32,
    /// Bytes of files.
    pub(super) bytes: u64,
    /// What cannot be there, one line each.
    pub(super) skipped: Vec<String>,
}

impl<'a> Destination<'a> {
    pub(super) fn new(root: BorrowedFd<'a>, base: Vec<u8>, place: Place, owner: Owner) -> Self {
        Self {
            root,
            base,
            place,
            owner,
            directories: Vec::new(),
            counter: 0,
            bytes: 0,
            skipped: Vec::new(),
        }
    }

    fn whole(&self, path: &EntryPath) -> Result<CString, Errno> {
        let mut whole = self.base.clone();
        if !path.is_root() {
            whole.push(b'/');
            whole.extend_from_slice(path.as_bytes());
        }
        CString::new(whole).map_err(|_| Errno::INVAL)
    }

    /// The directory at `path`, made with its parents when it is missing.
    fn directory(&self, path: &EntryPath) -> Result<OwnedFd, Errno> {
        let whole = self.whole(path)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        if self.place == Place::Container {
            return match open_in_root(self.root, &whole, flags, Mode::empty()) {
                Err(Errno::NOENT) => {
                    make_in_root(self.root, &whole, Missing::Directory)?;
                    open_in_root(self.root, &whole, flags, Mode::empty())
                }
                other => other,
            };
        }
        let mut dir = openat(self.root, ".", flags | OFlags::CLOEXEC, Mode::empty())?;
        for name in path.components() {
            let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            dir = match openat(&dir, name, flags, Mode::empty()) {
                Err(Errno::NOENT) => {
                    mkdirat(&dir, name, Mode::from(0o755))?;
                    openat(&dir, name, flags, Mode::empty())?
                }
                other => other?,
            };
        }
        Ok(dir)
    }

    /// Puts one entry; of a regular file `body` gives the stored bytes.
    pub(super) fn put(&mut self, entry: &Entry, body: &mut dyn Read) -> io::Result<()> {
        let path = EntryPath::parse(&entry.path).map_err(io::Error::other)?;
        let Some((parent, name)) = path.split() else {
            return match entry.kind {
                // What is in a directory is put into one that is there already.
                EntryKind::Directory => Ok(()),
                _ => Err(io::Error::other("it is the root, and no directory")),
            };
        };
        if self.is_left_out(&path, entry) {
            return Ok(());
        }
        if entry.kind == EntryKind::Directory {
            return self.put_directory(&parent, name, &path, entry);
        }
        let dir = self.directory(&parent)?;
        if let Ok(stat) = statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW)
            && FileType::from_raw_mode(stat.st_mode) == FileType::Directory
        {
            let text = format!("`{path}` is a directory, and cannot be replaced by a file");
            return Err(io::Error::new(io::ErrorKind::IsADirectory, text));
        }
        self.counter += 1;
        let temporary = format!("{TEMPORARY}{}-{}", std::process::id(), self.counter);
        let made = self.make(&dir, &temporary, entry, body);
        let placed = made.and_then(|()| match renameat(&dir, temporary.as_str(), &dir, name) {
            Ok(()) => Ok(true),
            // Something is mounted on it, as on a container's `/etc/hosts`.
            Err(Errno::BUSY) => write_through(&dir, &temporary, name).map(|()| false),
            Err(error) => Err(error.into()),
        });
        if !matches!(placed, Ok(true)) {
            // It is not there when it could not be made.
            drop(unlinkat(&dir, temporary.as_str(), AtFlags::empty()));
        }
        placed.map(drop)
    }

    /// Device nodes of a container are nothing for the host: who may open them there is decided by
    /// their modes alone.
    fn is_left_out(&mut self, path: &EntryPath, entry: &Entry) -> bool {
        let is_device = matches!(
            entry.kind,
            EntryKind::CharDevice(..) | EntryKind::BlockDevice(..)
        );
        if is_device && self.place == Place::Host {
            self.skipped.push(format!("`{path}`: it is a device"));
            return true;
        }
        false
    }

    fn put_directory(
        &mut self,
        parent: &EntryPath,
        name: &[u8],
        path: &EntryPath,
        entry: &Entry,
    ) -> io::Result<()> {
        let dir = self.directory(parent)?;
        match mkdirat(&dir, name, Mode::from(0o700)) {
            Ok(()) => {}
            Err(Errno::EXIST) => {
                // In a container a link to a directory is as good as one.
                if let Err(Errno::NOTDIR | Errno::LOOP | Errno::NOENT) = self.directory(path) {
                    let text = format!("`{path}` is no directory, and cannot become one");
                    return Err(io::Error::new(io::ErrorKind::NotADirectory, text));
                }
            }
            Err(error) => return Err(error.into()),
        }
        let own = self.directory(path)?;
        self.set_owner(own.as_fd(), entry)?;
        set_xattrs(own.as_fd(), entry, self.keeps_privileges())?;
        self.directories.push((path.clone(), entry.clone()));
        Ok(())
    }

    fn keeps_privileges(&self) -> bool {
        self.place == Place::Container || self.owner == Owner::Source
    }

    fn mode(&self, entry: &Entry) -> Mode {
        let mode = entry.mode & 0o7777;
        Mode::from_raw_mode(match self.keeps_privileges() {
            true => mode,
            false => mode & !SET_IDS,
        })
    }

    fn set_owner(&self, file: BorrowedFd<'_>, entry: &Entry) -> Result<(), Errno> {
        match self.owner {
            Owner::Source => fchown(
                file,
                Some(Uid::from_raw(entry.uid)),
                Some(Gid::from_raw(entry.gid)),
            ),
            Owner::Receiver => Ok(()),
        }
    }

    /// Makes something that is no directory under the name `temporary`.
    fn make(
        &mut self,
        dir: &OwnedFd,
        temporary: &str,
        entry: &Entry,
        body: &mut dyn Read,
    ) -> io::Result<()> {
        let private = Mode::from(0o600);
        match &entry.kind {
            EntryKind::File { size, sparse } => {
                let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
                let file = openat(dir, temporary, flags | OFlags::CLOEXEC, private)?;
                let mut file = File::from(file);
                match sparse {
                    None => copy_exactly(body, &mut file, *size)?,
                    Some(segments) => {
                        for segment in segments {
                            file.seek(SeekFrom::Start(segment.offset))?;
                            copy_exactly(body, &mut file, segment.length)?;
                        }
                        file.set_len(*size)?;
                    }
                }
                self.bytes = self.bytes.saturating_add(*size);
                self.set_owner(file.as_fd(), entry)?;
                set_xattrs(file.as_fd(), entry, self.keeps_privileges())?;
                fchmod(&file, self.mode(entry))?;
                return Ok(futimens(&file, &times(entry))?);
            }
            EntryKind::Hardlink(target) => {
                let target = EntryPath::parse(target).map_err(io::Error::other)?;
                let (parent, name) = target
                    .split()
                    .ok_or_else(|| io::Error::other("it is a hard link to a directory"))?;
                let from = self.directory(&parent)?;
                return Ok(linkat(&from, name, dir, temporary, AtFlags::empty())?);
            }
            EntryKind::Symlink(target) => symlinkat(target.as_slice(), dir, temporary)?,
            EntryKind::Fifo => mknodat(dir, temporary, FileType::Fifo, private, 0)?,
            EntryKind::CharDevice(major, minor) => {
                let device = makedev(*major, *minor);
                mknodat(dir, temporary, FileType::CharacterDevice, private, device)?;
            }
            EntryKind::BlockDevice(major, minor) => {
                let device = makedev(*major, *minor);
                mknodat(dir, temporary, FileType::BlockDevice, private, device)?;
            }
            EntryKind::Directory => return Err(io::Error::other("it is a directory")),
        }
        self.finish_special(dir, temporary, entry)
    }

    /// Owner, mode and time of what cannot be opened.
    fn finish_special(&self, dir: &OwnedFd, name: &str, entry: &Entry) -> io::Result<()> {
        if self.owner == Owner::Source {
            let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
            chownat(dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        }
        if !matches!(entry.kind, EntryKind::Symlink(_)) {
            // `fchmodat` follows links, and `fchmod` takes no `O_PATH`: the descriptor's own name
            // is what is neither.
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = openat(dir, name, flags, Mode::empty())?;
            if FileType::from_raw_mode(fstat(&file)?.st_mode) != FileType::Symlink {
                let path = format!("/proc/self/fd/{}", file.as_raw_fd());
                rustix::fs::chmod(path, self.mode(entry))?;
            }
        }
        Ok(utimensat(
            dir,
            name,
            &times(entry),
            AtFlags::SYMLINK_NOFOLLOW,
        )?)
    }

    /// Gives the directories their modes and times, the deepest first.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        for (path, entry) in std::mem::take(&mut self.directories).iter().rev() {
            let dir = self.directory(path)?;
            fchmod(&dir, self.mode(entry))?;
            futimens(&dir, &times(entry))?;
        }
        Ok(())
    }
}

/// Writes the file `from` over the content of the file `to`, which keeps its place.
fn write_through(dir: &OwnedFd, from: &str, to: &[u8]) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mut from = File::from(openat(dir, from, flags, Mode::empty())?);
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let to = openat(dir, to, flags, Mode::empty())?;
    let both = [from.as_fd(), to.as_fd()];
    for file in both {
        if FileType::from_raw_mode(fstat(file)?.st_mode) != FileType::RegularFile {
            return Err(Errno::BUSY.into());
        }
    }
    let path = format!("/proc/self/fd/{}", to.as_raw_fd());
    let flags = OFlags::WRONLY | OFlags::TRUNC | OFlags::CLOEXEC;
    let mut to = File::from(open(path, flags, Mode::empty())?);
    io::copy(&mut from, &mut to).map(drop)
}

fn copy_exactly(body: &mut dyn Read, file: &mut File, length: u64) -> io::Result<()> {
    if io::copy(&mut body.take(length), file)? < length {
        let text = "the file was cut while it was read";
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
    }
    Ok(())
}

fn times(entry: &Entry) -> Timestamps {
    let time = Timespec {
        tv_sec: entry.mtime.0,
        tv_nsec: entry.mtime.1.into(),
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

/// Sets extended attributes; those that give rights only where they are kept. What the file system
/// does not have is left out.
fn set_xattrs(file: BorrowedFd<'_>, entry: &Entry, privileges: bool) -> Result<(), Errno> {
    for (name, value) in &entry.xattrs {
        let wanted = match name.as_slice() {
            b"security.capability" => privileges,
            name => name.starts_with(b"user.") && !name.starts_with(b"user.overlay."),
        };
        if !wanted {
            continue;
        }
        match fsetxattr(file, name.as_slice(), value, XattrFlags::empty()) {
            Err(Errno::OPNOTSUPP) => {}
            other => other?,
        }
    }
    Ok(())
}

/// Opens a directory of the host to put things into.
pub(super) fn open_host(path: &std::path::Path) -> Result<OwnedFd, Errno> {
    open(
        path,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
}

/// Opens `path` in a container's root with `O_PATH`, the last link followed or not.
pub(super) fn find(
    root: BorrowedFd<'_>,
    path: &std::path::Path,
    follow: bool,
) -> Result<OwnedFd, Errno> {
    use std::os::unix::ffi::OsStrExt;
    let path = CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::INVAL)?;
    let flags = match follow {
        true => OFlags::PATH,
        false => OFlags::PATH | OFlags::NOFOLLOW,
    };
    open_in_root(root, &path, flags, Mode::empty())
}
