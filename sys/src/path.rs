//! Paths that an image, a container or a client can influence: resolved beneath a root with
//! `openat2(2)` (Linux 5.6) and used as descriptors, never as strings (DESIGN invariant 4).

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;

/// As if `root` were `/`: absolute links and `..` stay inside; `/proc` magic links are refused.
const IN_ROOT: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);

/// How often a lookup that raced with a rename is tried again (`EAGAIN` of `openat2(2)`).
const RACE_RETRIES: u32 = 128;

/// Opens a directory to be the root of later lookups.
///
/// # Errors
/// When it is absent or no directory.
pub fn open_root(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map_err(io::Error::from)
}

/// Opens `path` as a process chrooted to `root` would. `O_CLOEXEC` is added.
///
/// # Errors
/// As `openat2(2)`.
pub fn open_in_root(
    root: BorrowedFd<'_>,
    path: &CStr,
    flags: OFlags,
    mode: Mode,
) -> Result<OwnedFd, Errno> {
    let mut tries = 0;
    loop {
        match openat2(root, path, flags | OFlags::CLOEXEC, mode, IN_ROOT) {
            Err(Errno::AGAIN | Errno::INTR) if tries < RACE_RETRIES => tries += 1,
            other => return other,
        }
    }
}

/// What [`make_in_root`] makes when the last component is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// A directory.
    Directory,
    /// An empty file: the mount point of a file.
    File,
}

/// Opens `path` beneath `root` with `O_PATH`, making what is missing of it (mode 0755, files 0644)
/// component by component, each by descriptor: a link that is swapped in meanwhile leads to a
/// place inside the root or to an error, never outside (CVE-2024-45310). A dangling link is
/// followed, and what it names is made, beneath the root too: `/etc/resolv.conf` of many images is
/// one.
///
/// Uses no heap: it runs between `clone3` and `execve`.
///
/// # Errors
/// As `openat2(2)`, `mkdirat(2)`; `ELOOP` for too many dangling links.
pub fn make_in_root(root: BorrowedFd<'_>, path: &CStr, missing: Missing) -> Result<OwnedFd, Errno> {
    match open_in_root(root, path, OFlags::PATH, Mode::empty()) {
        Err(Errno::NOENT) => {}
        other => return other,
    }
    let mut whole = Buffer::new(path.to_bytes())?;
    let mut link = Buffer::new(b"")?;
    // As the kernel: MAXSYMLINKS of linux/namei.h.
    for _ in 0..40 {
        match make_components(root, whole.as_bytes(), missing, &mut link)? {
            Made::All(made) => return Ok(made),
            Made::UpTo { parent, end } => {
                let mut next = Buffer::new(b"")?;
                if !link.as_bytes().starts_with(b"/") {
                    next.push(whole.as_bytes().get(..parent).unwrap_or_default())?;
                    next.push(b"/")?;
                }
                next.push(link.as_bytes())?;
                next.push(whole.as_bytes().get(end..).unwrap_or_default())?;
                whole = next;
            }
        }
    }
    Err(Errno::LOOP)
}

/// A path without a heap.
struct Buffer {
    bytes: [u8; libc::PATH_MAX as usize],
    length: usize,
}

impl Buffer {
    fn new(bytes: &[u8]) -> Result<Self, Errno> {
        let mut buffer = Self {
            bytes: [0; libc::PATH_MAX as usize],
            length: 0,
        };
        buffer.push(bytes)?;
        Ok(buffer)
    }

    fn push(&mut self, more: &[u8]) -> Result<(), Errno> {
        let end = self.length + more.len();
        // The last byte stays 0.
        if end >= self.bytes.len() {
            return Err(Errno::NAMETOOLONG);
        }
        let room = self.bytes.get_mut(self.length..end);
        room.ok_or(Errno::NAMETOOLONG)?.copy_from_slice(more);
        self.length = end;
        Ok(())
    }

    fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }

    fn as_c_str(&self) -> Result<&CStr, Errno> {
        CStr::from_bytes_until_nul(&self.bytes).map_err(|_| Errno::NAMETOOLONG)
    }
}

/// How far [`make_components`] came.
enum Made {
    /// To the end.
    All(OwnedFd),
    /// To a dangling link, the component from `parent` to `end`.
    UpTo { parent: usize, end: usize },
}

/// Makes the components of `path` in turn; a dangling link among them is read into `link`.
fn make_components(
    root: BorrowedFd<'_>,
    path: &[u8],
    missing: Missing,
    link: &mut Buffer,
) -> Result<Made, Errno> {
    let mut current = open_in_root(root, c".", OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?;
    let mut at = 0;
    while at < path.len() {
        let rest = path.get(at..).unwrap_or_default();
        let skip = rest.iter().take_while(|byte| **byte == b'/').count();
        let rest = rest.get(skip..).unwrap_or_default();
        let length = rest.iter().take_while(|byte| **byte != b'/').count();
        let end = at + skip + length;
        if length > 0 {
            let tail = path.get(end..).unwrap_or_default();
            let is_last = tail.iter().all(|byte| *byte == b'/');
            let upto = Buffer::new(path.get(..end).unwrap_or_default())?;
            let name = rest.get(..length).unwrap_or_default();
            let what = if is_last { missing } else { Missing::Directory };
            match step(root, current.as_fd(), upto.as_c_str()?, (name, what), link)? {
                Some(next) => current = next,
                None => return Ok(Made::UpTo { parent: at, end }),
            }
        }
        at = end.max(at + 1);
    }
    Ok(Made::All(current))
}

/// Opens the component that `upto` ends with, making `name` in `parent` when it is missing; none for
/// a link that leads to nothing yet, which is read into `link`.
fn step(
    root: BorrowedFd<'_>,
    parent: BorrowedFd<'_>,
    upto: &CStr,
    (name, missing): (&[u8], Missing),
    link: &mut Buffer,
) -> Result<Option<OwnedFd>, Errno> {
    match open_in_root(root, upto, OFlags::PATH, Mode::empty()) {
        Err(Errno::NOENT) => {}
        other => return other.map(Some),
    }
    let name = Buffer::new(name)?;
    let name = name.as_c_str()?;
    let made = match missing {
        Missing::Directory => rustix::fs::mkdirat(parent, name, Mode::from(0o755)),
        Missing::File => {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
            rustix::fs::openat(parent, name, flags, Mode::from(0o644)).map(drop)
        }
    };
    match made {
        Ok(()) => {}
        // Somebody was faster, or it is a link.
        Err(Errno::EXIST) => match read_link(parent, name, link) {
            Ok(()) => return Ok(None),
            Err(Errno::INVAL) => {}
            Err(errno) => return Err(errno),
        },
        Err(errno) => return Err(errno),
    }
    open_in_root(root, upto, OFlags::PATH, Mode::empty()).map(Some)
}

/// What a link says; `EINVAL` for anything else.
fn read_link(parent: BorrowedFd<'_>, name: &CStr, link: &mut Buffer) -> Result<(), Errno> {
    // One byte less than there is room for: the last one stays 0.
    let room = link.bytes.len() - 1;
    let bytes = link.bytes.get_mut(..room).unwrap_or_default();
    bytes.fill(0);
    link.length = rustix::fs::readlinkat_raw(parent, name, bytes)?;
    Ok(())
}

/// Whether the working directory is below this process's root: getcwd(2) starts with `/` then, and
/// with `(unreachable)` otherwise. Uses no heap.
///
/// # Errors
/// As `getcwd(2)`: `ENOENT` when the directory was removed.
pub fn current_dir_is_inside() -> Result<bool, Errno> {
    let mut buffer = [0_u8; libc::PATH_MAX as usize];
    // SAFETY: the kernel writes at most the length that is passed into `buffer`, which lives over
    // the call (getcwd(2), the system call, not the C library's).
    let length = unsafe { libc::syscall(libc::SYS_getcwd, buffer.as_mut_ptr(), buffer.len()) };
    if length == -1 {
        return Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO));
    }
    Ok(buffer[0] == b'/')
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn open_in_root_absolute_link_stays_inside() {
        let dir = tempfile::tempdir().unwrap();
        symlink("/etc", dir.path().join("etc-link")).unwrap();
        let root = open_root(dir.path()).unwrap();
        let result = open_in_root(
            root.as_fd(),
            c"etc-link/passwd",
            OFlags::PATH,
            Mode::empty(),
        );
        assert_eq!(result.unwrap_err(), Errno::NOENT);
    }

    #[test]
    fn make_in_root_makes_each_missing_component() {
        let dir = tempfile::tempdir().unwrap();
        let root = open_root(dir.path()).unwrap();
        make_in_root(root.as_fd(), c"/a//b/c", Missing::Directory).unwrap();
        make_in_root(root.as_fd(), c"a/b/file", Missing::File).unwrap();
        assert!(dir.path().join("a/b/c").is_dir());
        assert!(dir.path().join("a/b/file").is_file());
    }

    #[test]
    fn make_in_root_through_link_to_root_stays_inside() {
        let dir = tempfile::tempdir().unwrap();
        let root_dir = dir.path().join("root");
        std::fs::create_dir_all(root_dir.join("canary")).unwrap();
        std::fs::create_dir(dir.path().join("canary")).unwrap();
        symlink("/canary", root_dir.join("w")).unwrap();
        symlink("../../canary", root_dir.join("x")).unwrap();
        let root = open_root(&root_dir).unwrap();
        make_in_root(root.as_fd(), c"/w/new", Missing::Directory).unwrap();
        make_in_root(root.as_fd(), c"/x/other", Missing::Directory).unwrap();
        assert!(root_dir.join("canary/new").is_dir());
        assert!(root_dir.join("canary/other").is_dir());
        assert_eq!(
            std::fs::read_dir(dir.path().join("canary"))
                .unwrap()
                .count(),
            0
        );
    }

    #[test]
    fn make_in_root_makes_what_a_dangling_link_names_beneath_the_root() {
        let dir = tempfile::tempdir().unwrap();
        let root_dir = dir.path().join("root");
        std::fs::create_dir_all(root_dir.join("etc")).unwrap();
        symlink("/nowhere/at/all", root_dir.join("l")).unwrap();
        symlink(
            "../../../run/resolve/stub.conf",
            root_dir.join("etc/resolv.conf"),
        )
        .unwrap();
        symlink("resolv.conf", root_dir.join("etc/twice")).unwrap();
        let root = open_root(&root_dir).unwrap();
        make_in_root(root.as_fd(), c"/l/new", Missing::Directory).unwrap();
        make_in_root(root.as_fd(), c"/etc/twice", Missing::File).unwrap();
        assert!(root_dir.join("nowhere/at/all/new").is_dir());
        assert!(root_dir.join("run/resolve/stub.conf").is_file());
        assert!(!dir.path().join("run").exists());
    }

    #[test]
    fn make_in_root_links_in_a_circle_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        symlink("b/x", dir.path().join("a")).unwrap();
        symlink("a/x", dir.path().join("b")).unwrap();
        let root = open_root(dir.path()).unwrap();
        let error = make_in_root(root.as_fd(), c"/a", Missing::Directory).unwrap_err();
        assert_eq!(error, Errno::LOOP);
    }
}
