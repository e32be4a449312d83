//! Writing large files without a rush at their end: what is written goes to the disk while more
//! comes, so that the barrier that makes it durable has little left to wait for.

use std::fs::File;
use std::io::{self, Write};

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
    /// nobody waits for it.
    pub fn wrote(&mut self, file: &File, count: usize) {
        self.written += count as u64;
        if self.written - self.started >= STEP {
            start(file, self.started, self.written - self.started);
            self.started = self.written;
        }
    }
}

/// `sync_file_range(2)`. It is advice: a file system that has no such thing writes everything at the
/// barrier.
#[cfg(target_os = "linux")]
fn start(file: &File, offset: u64, length: u64) {
    use std::os::fd::AsRawFd as _;

    if let (Ok(offset), Ok(length)) = (offset.try_into(), length.try_into()) {
        // SAFETY: no memory is passed, and the descriptor is borrowed for the call.
        unsafe {
            libc::sync_file_range(
                file.as_raw_fd(),
                offset,
                length,
                libc::SYNC_FILE_RANGE_WRITE,
            );
        }
    }
}

/// Other systems write when they like.
#[cfg(not(target_os = "linux"))]
fn start(_file: &File, _offset: u64, _length: u64) {}

/// Writes to a new file, and keeps the disk at work.
#[derive(Debug)]
pub struct WriteBehind {
    file: File,
    writeback: Writeback,
}

impl WriteBehind {
    /// Wraps `file`, which is empty.
    #[must_use]
    pub const fn new(file: File) -> Self {
        Self {
            file,
            writeback: Writeback::from(0),
        }
    }

    /// The file; nothing of it is buffered here.
    #[must_use]
    pub fn into_inner(self) -> File {
        self.file
    }
}

impl Write for WriteBehind {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.writeback.wrote(&self.file, count);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
