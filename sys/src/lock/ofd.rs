//! Open-file-description locks (`fcntl(2)`, `F_OFD_SETLK`, Linux 3.15).

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use super::Mode;

/// Takes the lock; false when somebody else has it.
pub(super) fn set(file: &File, mode: Mode) -> io::Result<bool> {
    let lock = description(mode);
    // SAFETY: F_OFD_SETLK reads one `struct flock` with `l_pid` 0 (fcntl(2)); `lock` is one, lives
    // over the call, and the descriptor is open.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) };
    if result == 0 {
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::EACCES) => Ok(false),
        _ => Err(error),
    }
}

/// Whether somebody has a lock on the file.
pub(super) fn is_taken(file: &File) -> io::Result<bool> {
    let mut lock = description(Mode::Exclusive);
    // SAFETY: F_OFD_GETLK reads and writes one `struct flock` (fcntl(2)); `lock` is one, lives over
    // the call, and the descriptor is open.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_GETLK, &raw mut lock) };
    if result == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(i32::from(lock.l_type) != libc::F_UNLCK)
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "constants of fcntl.h that fit a short"
)]
fn description(mode: Mode) -> libc::flock {
    libc::flock {
        l_type: match mode {
            Mode::Shared => libc::F_RDLCK as libc::c_short,
            Mode::Exclusive => libc::F_WRLCK as libc::c_short,
        },
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}
