//! The pipes of a container whose monitor was killed: opened again through the processes that hold
//! their other ends.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};

/// The end of a pipe that is read, by the pipe's inode; `None` when none of these processes holds the
/// other end any more, which is the end of the stream.
///
/// # Errors
/// When it cannot be seen what they hold.
pub(crate) fn reopen(inode: u64, pids: &[i32]) -> io::Result<Option<OwnedFd>> {
    let wanted = format!("pipe:[{inode}]");
    for pid in pids {
        let entries = match fs::read_dir(format!("/proc/{pid}/fd")) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Err(error),
            // It has ended.
            Err(_) => continue,
        };
        for entry in entries.flatten() {
            if is(&entry.path(), &wanted)
                && let Some(pipe) = open(&entry.path(), &wanted)?
            {
                return Ok(Some(pipe));
            }
        }
    }
    Ok(None)
}

fn is(link: &Path, wanted: &str) -> bool {
    fs::read_link(link).is_ok_and(|target| target.as_os_str() == wanted)
}

/// The process may put any other file in the place of the pipe meanwhile, and to open that could have
/// consequences: what is there is taken first without being opened, and looked at.
fn open(path: &Path, wanted: &str) -> io::Result<Option<OwnedFd>> {
    let there = match rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) {
        Ok(there) => there,
        Err(rustix::io::Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(errno.into()),
    };
    let own = format!("/proc/self/fd/{}", there.as_raw_fd());
    if !is(Path::new(&own), wanted) {
        return Ok(None);
    }
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(Some(rustix::fs::open(own, flags, Mode::empty())?))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    fn inode(fd: &OwnedFd) -> u64 {
        rustix::fs::fstat(fd).unwrap().st_ino
    }

    #[test]
    fn pipe_is_found_by_who_holds_it_and_gives_what_was_written() {
        let own = i32::try_from(std::process::id()).unwrap();
        let (read, write) = io::pipe().unwrap();
        let (read, write) = (OwnedFd::from(read), OwnedFd::from(write));
        let wanted = inode(&read);
        drop(read);
        let again = reopen(wanted, &[own]).unwrap().unwrap();
        assert_eq!(inode(&again), wanted);
        let mut writer = fs::File::from(write);
        writer.write_all(b"line\n").unwrap();
        drop(writer);
        let mut text = String::new();
        fs::File::from(again).read_to_string(&mut text).unwrap();
        assert_eq!(text, "line\n");
        // Now nobody holds it.
        assert!(reopen(wanted, &[own]).unwrap().is_none());
    }
}
