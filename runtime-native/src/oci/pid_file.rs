//! `--pid-file`.

use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags};

/// A file that is written once the number of a process is known, when its directory may be out of
/// sight.
#[derive(Debug)]
pub(super) struct Late {
    dir: OwnedFd,
    name: CString,
}

impl Late {
    /// Finds the directory while it is in sight.
    pub(super) fn open(file: &CStr) -> io::Result<Self> {
        let file = Path::new(OsStr::from_bytes(file.to_bytes()));
        let name = file.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let dir = file.parent().filter(|dir| !dir.as_os_str().is_empty());
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(dir.unwrap_or(Path::new(".")), flags, Mode::empty())?;
        Ok(Self {
            dir,
            name: CString::new(name.as_bytes())?,
        })
    }

    /// Writes the number, under another name first: whoever waits for the file sees all of it.
    pub(super) fn write(&self, pid: i32) -> io::Result<()> {
        let mut temporary = b".".to_vec();
        temporary.extend_from_slice(self.name.as_bytes());
        let temporary = CString::new(temporary)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o644);
        let file = rustix::fs::openat(&self.dir, &*temporary, flags, mode)?;
        File::from(file).write_all(pid.to_string().as_bytes())?;
        let renamed = rustix::fs::renameat(&self.dir, &*temporary, &self.dir, &*self.name);
        if renamed.is_err() {
            let _left = rustix::fs::unlinkat(&self.dir, &*temporary, AtFlags::empty());
        }
        Ok(renamed?)
    }
}
