//! Locks on one byte far behind every content: locks of Windows keep others from reading what they
//! cover, and what lock files hold is to be read.

use std::fs::File;
use std::io;
use std::os::windows::io::AsRawHandle;

use windows_sys::Win32::Foundation::ERROR_LOCK_VIOLATION;
use windows_sys::Win32::Storage::FileSystem::{
    LOCKFILE_EXCLUSIVE_LOCK, LOCKFILE_FAIL_IMMEDIATELY, LockFileEx, UnlockFileEx,
};
use windows_sys::Win32::System::IO::{OVERLAPPED, OVERLAPPED_0, OVERLAPPED_0_0};

use super::Mode;

/// The upper half of the byte's offset.
const FAR: u32 = 0x4000_0000;

/// Takes the lock; false when somebody else has it.
pub(super) fn set(file: &File, mode: Mode) -> io::Result<bool> {
    let flags = match mode {
        Mode::Shared => LOCKFILE_FAIL_IMMEDIATELY,
        Mode::Exclusive => LOCKFILE_FAIL_IMMEDIATELY | LOCKFILE_EXCLUSIVE_LOCK,
    };
    let mut place = place();
    // SAFETY: the handle is open, and `place` lives over the call, which returns at once.
    let done = unsafe { LockFileEx(file.as_raw_handle(), flags, 0, 1, 0, &raw mut place) };
    if done != 0 {
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    let code = error.raw_os_error().map(i32::cast_unsigned);
    if code == Some(ERROR_LOCK_VIOLATION) {
        return Ok(false);
    }
    Err(error)
}

/// Whether somebody has a lock on the file. The only way to know is to take it.
pub(super) fn is_taken(file: &File) -> io::Result<bool> {
    if !set(file, Mode::Exclusive)? {
        return Ok(true);
    }
    let mut place = place();
    // SAFETY: as for taking it.
    let done = unsafe { UnlockFileEx(file.as_raw_handle(), 0, 1, 0, &raw mut place) };
    if done == 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(false)
}

fn place() -> OVERLAPPED {
    OVERLAPPED {
        Internal: 0,
        InternalHigh: 0,
        Anonymous: OVERLAPPED_0 {
            Anonymous: OVERLAPPED_0_0 {
                Offset: 0,
                OffsetHigh: FAR,
            },
        },
        hEvent: std::ptr::null_mut(),
    }
}
