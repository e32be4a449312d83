//! Locks of the standard library: `flock(2)`.

use std::fs::{File, TryLockError};
use std::io;

use super::Mode;

/// Takes the lock; false when somebody else has it.
pub(super) fn set(file: &File, mode: Mode) -> io::Result<bool> {
    let taken = match mode {
        Mode::Shared => file.try_lock_shared(),
        Mode::Exclusive => file.try_lock(),
    };
    match taken {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Whether somebody has a lock on the file. The only way to know is to take it: whoever wants it in
/// that moment waits a little longer, or, with [`super::FileLock::try_acquire`], takes it for held.
pub(super) fn is_taken(file: &File) -> io::Result<bool> {
    let is_free = set(file, Mode::Exclusive)?;
    if is_free {
        file.unlock()?;
    }
    Ok(!is_free)
}
