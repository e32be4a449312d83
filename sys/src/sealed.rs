//! Sealed memory files: bytes that a program hands to another one and can no longer change.

use std::fs::File;
use std::io;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

/// A sealed memory file with `bytes`, read from the start.
///
/// # Errors
/// As `memfd_create(2)` and `fcntl(2)`.
pub fn seal(name: &str, bytes: &[u8]) -> io::Result<OwnedFd> {
    let fd = memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut file = File::from(fd);
    file.write_all(bytes)?;
    io::Seek::rewind(&mut file)?;
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    fcntl_add_seals(file.as_fd(), seals)?;
    Ok(file.into())
}

/// An empty memory file that stays open for writing; others find it by its name below
/// `/proc/<pid>/fd`.
///
/// # Errors
/// As `memfd_create(2)`.
pub fn open(name: &str) -> io::Result<OwnedFd> {
    Ok(memfd_create(name, MemfdFlags::CLOEXEC)?)
}

/// Everything in a file that [`seal`] made.
///
/// # Errors
/// As `read(2)`; `OutOfMemory` when it is longer than `max`.
pub fn read(fd: OwnedFd, max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::from(fd).take(max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max {
        return Err(io::ErrorKind::OutOfMemory.into());
    }
    Ok(bytes)
}
