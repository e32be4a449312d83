//! A tmpfs that starts with what it hides (`tmpcopyup`): copied from the directory below it while
//! the new mount is still attached nowhere. Runs in the init, so there is no heap: the walk keeps
//! one buffer for each level on the stack.

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, RawDir, ResolveFlags, Stat, Uid, openat2};
use rustix::io::Errno;

/// Directories below each other. A deeper tree is refused, not half copied.
const MAX_DEPTH: u32 = 64;

/// Fills the root of `mount` with the contents of `from`; owner and mode of the directory too.
pub(super) fn fill(mount: BorrowedFd<'_>, from: BorrowedFd<'_>) -> Result<(), Errno> {
    let to = open(mount, c".", OFlags::RDONLY | OFlags::DIRECTORY)?;
    let from = open(from, c".", OFlags::RDONLY | OFlags::DIRECTORY)?;
    let stat = rustix::fs::fstat(&from)?;
    copy_directory(from.as_fd(), to.as_fd(), 0)?;
    rustix::fs::fchown(&to, Some(uid(&stat)), Some(gid(&stat)))?;
    rustix::fs::fchmod(&to, mode(&stat))
}

/// Opens a name in a directory: no link is followed and no other mount entered.
fn open(dir: BorrowedFd<'_>, name: &CStr, flags: OFlags) -> Result<OwnedFd, Errno> {
    let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    openat2(dir, name, flags, Mode::empty(), resolve)
}

fn mode(stat: &Stat) -> Mode {
    Mode::from_raw_mode(stat.st_mode & 0o7777)
}

fn uid(stat: &Stat) -> Uid {
    Uid::from_raw(stat.st_uid)
}

fn gid(stat: &Stat) -> Gid {
    Gid::from_raw(stat.st_gid)
}

fn copy_directory(from: BorrowedFd<'_>, to: BorrowedFd<'_>, depth: u32) -> Result<(), Errno> {
    if depth > MAX_DEPTH {
        return Err(Errno::LOOP);
    }
    let mut buffer = [MaybeUninit::<u8>::uninit(); 4096];
    let mut entries = RawDir::new(from, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            copy_entry(from, to, name, depth)?;
        }
    }
    Ok(())
}

fn copy_entry(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    name: &CStr,
    depth: u32,
) -> Result<(), Errno> {
    let stat = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            let below = match open(from, name, OFlags::RDONLY | OFlags::DIRECTORY) {
                // Another mount: hidden, not copied.
                Err(Errno::XDEV) => return Ok(()),
                other => other?,
            };
            rustix::fs::mkdirat(to, name, Mode::RWXU)?;
            let made = open(to, name, OFlags::RDONLY | OFlags::DIRECTORY)?;
            copy_directory(below.as_fd(), made.as_fd(), depth + 1)?;
        }
        FileType::RegularFile => {
            let source = match open(from, name, OFlags::RDONLY) {
                // Another mount, as `hosts` in `/etc`: hidden, not copied.
                Err(Errno::XDEV) => return Ok(()),
                other => other?,
            };
            copy_file(source.as_fd(), to, name)?;
        }
        FileType::Symlink => {
            // The last byte stays zero.
            let mut buffer = [0_u8; 4097];
            let room = buffer.get_mut(..4096).ok_or(Errno::INVAL)?;
            rustix::fs::readlinkat_raw(from, name, room)?;
            let target = CStr::from_bytes_until_nul(&buffer).map_err(|_| Errno::NAMETOOLONG)?;
            rustix::fs::symlinkat(target, to, name)?;
            return rustix::fs::chownat(
                to,
                name,
                Some(uid(&stat)),
                Some(gid(&stat)),
                AtFlags::SYMLINK_NOFOLLOW,
            );
        }
        kind => rustix::fs::mknodat(to, name, kind, Mode::RWXU, stat.st_rdev)?,
    }
    // Names in a mount that nobody else sees are what they were made as.
    let owner = (Some(uid(&stat)), Some(gid(&stat)));
    rustix::fs::chownat(to, name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW)?;
    rustix::fs::chmodat(to, name, mode(&stat), AtFlags::empty())
}

fn copy_file(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = rustix::fs::openat(to, name, flags, Mode::RUSR | Mode::WUSR)?;
    let mut buffer = [0_u8; 16 * 1024];
    loop {
        let length = rustix::io::retry_on_intr(|| rustix::io::read(from, &mut buffer))?;
        let mut rest = buffer.get(..length).unwrap_or_default();
        if rest.is_empty() {
            return Ok(());
        }
        while !rest.is_empty() {
            let written = rustix::io::retry_on_intr(|| rustix::io::write(&file, rest))?;
            rest = rest.get(written..).unwrap_or_default();
        }
    }
}
