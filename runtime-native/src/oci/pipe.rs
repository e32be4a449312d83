//! The two named pipes between `create`, which leaves a container waiting, and `start`.
//!
//! Its init has both open for reading and writing and needs no system call but `read` and `write`
//! for them: whatever a seccomp filter holds back, a filter that refuses these two could start no
//! program.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use runtime::StartFailure;
use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat};
use rustix::io::Errno;

use super::OciError;
use super::record::{REPORT, START};
use crate::start::Gate;
use crate::step::Failure;

/// Makes both.
pub(super) fn make(dir: &Path) -> Result<(), OciError> {
    for name in [REPORT, START] {
        let path = dir.join(name);
        let mode = Mode::RUSR | Mode::WUSR;
        mknodat(CWD, &path, FileType::Fifo, mode, 0)
            .map_err(|errno| OciError::io("make the pipe", path)(errno.into()))?;
    }
    Ok(())
}

/// Opens both for the init: with its own reading and writing ends it waits for nobody.
pub(super) fn gate(dir: &Path) -> io::Result<Gate> {
    let open = |name: &str| -> io::Result<OwnedFd> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        Ok(rustix::fs::open(dir.join(name), flags, Mode::empty())?)
    };
    Ok(Gate {
        start: open(START)?,
        report: open(REPORT)?,
    })
}

/// Lets a created container's program start.
#[derive(Debug)]
pub(super) struct Opener {
    start: File,
    report: File,
}

impl Opener {
    /// Claims the start: of two callers one gets the pipe's name away.
    ///
    /// # Errors
    /// `NotFound` when it was started before, `ENXIO` when its init is gone.
    pub(super) fn claim(dir: &Path) -> io::Result<Self> {
        let report = File::open(dir.join(REPORT))?;
        let nonblock = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or(0);
        let start = File::options()
            .write(true)
            .custom_flags(nonblock)
            .open(dir.join(START))?;
        rustix::fs::unlink(dir.join(START))?;
        Ok(Self { start, report })
    }

    /// Lets go, and waits until the program runs (the pipe ends) or its last steps fail.
    pub(super) fn open(mut self, failed: impl Fn(Failure) -> StartFailure) -> Result<(), OciError> {
        let broken = |what| OciError::io(what, REPORT);
        self.start
            .write_all(b"s")
            .map_err(broken("let the program start"))?;
        let mut bytes = [0; Failure::SIZE];
        match self.report.read_exact(&mut bytes) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(broken("hear from the container")(error)),
        }
        let failure = Failure::decode(bytes).unwrap_or(Failure {
            step: crate::step::Step::Gate,
            index: 0,
            errno: Errno::IO,
        });
        Err(OciError::Start(failed(failure)))
    }
}
