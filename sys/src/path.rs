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
/// place inside the root or to an error, never outside (CVE-2024-45310).
///
/// Uses no heap: it runs between `clone3` and `execve`.
///
/// # Errors
/// As `openat2(2)`, `mkdirat(2)`; `ELOOP` for a dangling link that would have to be made.
pub fn make_in_root(root: BorrowedFd<'_>, path: &CStr, missing: Missing) -> Result<OwnedFd, Errno> {
    match open_in_root(root, path, OFlags::PATH, Mode::empty()) {
        Err(Errno::NOENT) => {}
        other => return other,
    }
    let mut current = open_in_root(root, c".", OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?;
    let bytes = path.to_bytes();
    let mut prefix = [0_u8; libc::PATH_MAX as usize];
    if bytes.len() + 2 > prefix.len() {
        return Err(Errno::NAMETOOLONG);
    }
    let mut at = 0;
    while at < bytes.len() {
        let rest = bytes.get(at..).unwrap_or_default();
        let skip = rest.iter().take_while(|byte| **byte == b'/').count();
        let rest = rest.get(skip..).unwrap_or_default();
        let length = rest.iter().take_while(|byte| **byte != b'/').count();
        let end = at + skip + length;
        if length > 0 {
            let is_last = bytes
                .get(end..)
                .is_none_or(|tail| tail.iter().all(|byte| *byte == b'/'));
            let upto = prefix.get_mut(..=end).ok_or(Errno::NAMETOOLONG)?;
            upto[..end].copy_from_slice(bytes.get(..end).unwrap_or_default());
            upto[end] = 0;
            let upto = CStr::from_bytes_with_nul(upto).map_err(|_| Errno::INVAL)?;
            let name = rest.get(..length).unwrap_or_default();
            let what = if is_last { missing } else { Missing::Directory };
            current = step(root, current.as_fd(), upto, name, what)?;
        }
        at = end.max(at + 1);
    }
    Ok(current)
}

/// Opens the component that `upto` ends with, making `name` in `parent` when it is missing.
fn step(
    root: BorrowedFd<'_>,
    parent: BorrowedFd<'_>,
    upto: &CStr,
    name: &[u8],
    missing: Missing,
) -> Result<OwnedFd, Errno> {
    match open_in_root(root, upto, OFlags::PATH, Mode::empty()) {
        Err(Errno::NOENT) => {}
        other => return other,
    }
    let mut buffer = [0_u8; 256];
    let name = c_name(name, &mut buffer)?;
    match missing {
        Missing::Directory => match rustix::fs::mkdirat(parent, name, Mode::from(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error),
        },
        Missing::File => {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
            match rustix::fs::openat(parent, name, flags, Mode::from(0o644)) {
                Ok(file) => drop(file),
                Err(Errno::EXIST) => {}
                Err(error) => return Err(error),
            }
        }
    }
    // A dangling link is there and leads nowhere: refuse it rather than guess what it means.
    match open_in_root(root, upto, OFlags::PATH, Mode::empty()) {
        Err(Errno::NOENT) => Err(Errno::LOOP),
        other => other,
    }
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

fn c_name<'a>(name: &[u8], buffer: &'a mut [u8; 256]) -> Result<&'a CStr, Errno> {
    let room = buffer.get_mut(..=name.len()).ok_or(Errno::NAMETOOLONG)?;
    let (body, end) = room.split_at_mut(name.len());
    body.copy_from_slice(name);
    end[0] = 0;
    CStr::from_bytes_with_nul(room).map_err(|_| Errno::INVAL)
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
    fn make_in_root_dangling_link_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        symlink("/nowhere/at/all", dir.path().join("l")).unwrap();
        let root = open_root(dir.path()).unwrap();
        let error = make_in_root(root.as_fd(), c"/l/new", Missing::Directory).unwrap_err();
        assert_eq!(error, Errno::LOOP);
        assert!(!dir.path().join("nowhere").exists());
    }
}
