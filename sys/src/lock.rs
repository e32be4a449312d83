//! Locks on files that are never deleted: the lock goes with the last descriptor of its holder,
//! however that ends. On Linux they are open-file-description locks.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

#[cfg(target_os = "linux")]
#[path = "lock/ofd.rs"]
mod kernel;
#[cfg(all(unix, not(target_os = "linux")))]
#[path = "lock/flock.rs"]
mod kernel;
#[cfg(windows)]
#[path = "lock/windows.rs"]
mod kernel;

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
        Ok(kernel::set(&file, mode)?.then_some(Self { file }))
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
            if kernel::set(&file, mode)? {
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
    kernel::is_taken(&file)
}

fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
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
