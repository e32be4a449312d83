//! Locks as open-file-description locks (`fcntl(2)`, `F_OFD_SETLK`, Linux 3.15) on files that are
//! never deleted: the lock goes with the last descriptor of its holder, however that ends.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// How a lock is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Beside other shared holders.
    Shared,
    /// Alone.
    Exclusive,
}

/// A lock that is held. Dropping it releases it.
#[derive(Debug)]
pub struct FileLock {
    file: File,
}

impl FileLock {
    /// Takes the lock when it is free, `None` when someone else holds it.
    ///
    /// # Errors
    /// When the lock file cannot be opened.
    pub fn try_acquire(path: &Path, mode: Mode) -> io::Result<Option<Self>> {
        let file = open(path)?;
        Ok(set(&file, mode)?.then_some(Self { file }))
    }

    /// Waits for the lock, at most `timeout`.
    ///
    /// # Errors
    /// [`io::ErrorKind::TimedOut`] when it stayed taken.
    pub fn acquire(path: &Path, mode: Mode, timeout: Duration) -> io::Result<Self> {
        let file = open(path)?;
        let deadline = Instant::now() + timeout;
        let mut pause = Duration::from_micros(200);
        loop {
            if set(&file, mode)? {
                return Ok(Self { file });
            }
            if Instant::now() >= deadline {
                return Err(io::ErrorKind::TimedOut.into());
            }
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }

    /// The open lock file, for a holder that hands the lock to another program.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }
}

/// Whether somebody holds the lock now. An absent file is a free lock.
///
/// # Errors
/// When the file cannot be opened or asked.
pub fn is_held(path: &Path) -> io::Result<bool> {
    let file = match OpenOptions::new().read(true).write(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    let mut lock = description(Mode::Exclusive);
    // SAFETY: F_OFD_GETLK reads and writes one `struct flock` (fcntl(2)); `lock` is one, lives over
    // the call, and the descriptor is open.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_GETLK, &raw mut lock) };
    if result == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(i32::from(lock.l_type) != libc::F_UNLCK)
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
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

fn set(file: &File, mode: Mode) -> io::Result<bool> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exclusive_lock_excludes_and_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        assert!(!is_held(&path).unwrap());
        let held = FileLock::try_acquire(&path, Mode::Exclusive)
            .unwrap()
            .unwrap();
        assert!(is_held(&path).unwrap());
        assert!(
            FileLock::try_acquire(&path, Mode::Shared)
                .unwrap()
                .is_none()
        );
        let error = FileLock::acquire(&path, Mode::Shared, Duration::from_millis(5)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(held);
        assert!(!is_held(&path).unwrap());
    }

    #[test]
    fn shared_locks_stand_beside_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let _one = FileLock::try_acquire(&path, Mode::Shared).unwrap().unwrap();
        let _two = FileLock::try_acquire(&path, Mode::Shared).unwrap().unwrap();
        assert!(
            FileLock::try_acquire(&path, Mode::Exclusive)
                .unwrap()
                .is_none()
        );
    }
}
