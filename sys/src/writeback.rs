//! Writing large files without a rush at their end: what is written goes to the disk while more
//! comes, so that the barrier that makes it durable has little left to wait for.

use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd};

/// How much is written between two starts: large enough for the disk, small beside a layer.
const STEP: u64 = 8 * 1024 * 1024;

/// How far a file that is written from one end to the other has come.
#[derive(Debug, Default)]
pub struct Writeback {
    written: u64,
    started: u64,
}

impl Writeback {
    /// Of a file that is gone on with at `offset`.
    #[must_use]
    pub const fn from(offset: u64) -> Self {
        Self {
            written: offset,
            started: offset,
        }
    }

    /// Notes that `count` more bytes were written to `file`. Every 8 MiB the disk gets to work, and
    /// nobody waits for it (`sync_file_range(2)`). It is advice: a file system that has no such
    /// thing writes everything at the barrier.
    pub fn wrote(&mut self, file: impl AsFd, count: usize) {
        self.written += count as u64;
        let length = self.written - self.started;
        if length < STEP {
            return;
        }
        if let (Ok(offset), Ok(length)) = (self.started.try_into(), length.try_into()) {
            let fd = file.as_fd().as_raw_fd();
            // SAFETY: no memory is passed, and the descriptor is borrowed for the call.
            unsafe {
                libc::sync_file_range(fd, offset, length, libc::SYNC_FILE_RANGE_WRITE);
            }
        }
        self.started = self.written;
    }
}

/// Writes to a new file, and keeps the disk at work.
#[derive(Debug)]
pub struct WriteBehind<F> {
    file: F,
    writeback: Writeback,
}

impl<F: Write + AsFd> WriteBehind<F> {
    /// Wraps `file`, which is empty.
    pub const fn new(file: F) -> Self {
        Self {
            file,
            writeback: Writeback::from(0),
        }
    }

    /// The file; nothing of it is buffered here.
    pub fn into_inner(self) -> F {
        self.file
    }
}

impl<F: Write + AsFd> Write for WriteBehind<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.writeback.wrote(&self.file, count);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
