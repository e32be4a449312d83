//! Sealed memory files: bytes that a program hands to another one and can no longer change.

use std::fs::{self, File};
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

/// Opens the memory file that a process has under this name (`proc_pid_fd(5)`).
///
/// # Errors
/// `NotFound` when it has none; when the process may not be looked into.
pub fn find(pid: i32, name: &str) -> io::Result<File> {
    let wanted = format!("/memfd:{name}");
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let path = entry?.path();
        // One that is closed in this moment is not the one.
        let link = fs::read_link(&path).unwrap_or_default();
        let link = link.to_string_lossy();
        if link.strip_suffix(" (deleted)").unwrap_or(&link) == wanted {
            return File::open(path);
        }
    }
    Err(io::ErrorKind::NotFound.into())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn find_knows_a_memory_file_by_its_whole_name() {
        let own = i32::try_from(std::process::id()).unwrap();
        let mut file = File::from(open("sys-find-this").unwrap());
        file.write_all(b"7").unwrap();
        let mut found = find(own, "sys-find-this").unwrap();
        io::Seek::rewind(&mut found).unwrap();
        let mut bytes = Vec::new();
        found.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, b"7");
        let error = find(own, "sys-find").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
