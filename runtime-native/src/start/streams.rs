//! A container's standard streams.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use runtime::{Console, InitPlan, StdinMode};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};

use super::StartError;
use crate::init::ConsoleRequest;

/// The monitor's ends of the container's streams.
#[derive(Debug)]
pub enum Stdio {
    /// A pipe for each stream.
    Pipes {
        /// Write end of standard input, when it is open.
        stdin: Option<OwnedFd>,
        /// Read end of standard output.
        stdout: OwnedFd,
        /// Read end of standard error.
        stderr: OwnedFd,
    },
    /// The master side of the terminal.
    Console(OwnedFd),
    /// The caller's own, which the container has now.
    Inherited,
}

/// Where a container's standard streams come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Streams {
    /// A pipe for each.
    Pipes(StdinMode),
    /// A terminal.
    Console(Console),
    /// The caller's own.
    Inherited,
}

/// The child's ends, closed in the parent after the clone.
pub(super) struct ChildEnds {
    pub(super) stdio: Option<[OwnedFd; 3]>,
    pub(super) console: Option<OwnedFd>,
}

/// Our ends of the streams before the child has answered.
pub(super) enum Ours {
    Ready(Stdio),
    Console(OwnedFd),
}

impl Ours {
    /// With a terminal, takes the master side that the child has sent.
    pub(super) fn collect(self) -> Result<Stdio, StartError> {
        match self {
            Self::Ready(stdio) => Ok(stdio),
            Self::Console(socket) => {
                let mut buffer = [0; 8];
                let failed =
                    |e: Errno| StartError::engine("get the container's terminal", &e.into());
                let received = sys::socket::receive(socket.as_fd(), &mut buffer).map_err(failed)?;
                let master = received.descriptors.into_iter().next().ok_or(Errno::PIPE);
                Ok(Stdio::Console(master.map_err(failed)?))
            }
        }
    }
}

/// A pipe for what the container writes. Its own end can be read as well, so the pipe always has a
/// reader: when the monitor is killed, who writes waits for another one to read on (`ketch-init
/// rescue`) instead of being killed by SIGPIPE. The end of the stream comes as with any other pipe.
pub(super) fn lasting_pipe() -> Result<(OwnedFd, OwnedFd), Errno> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
    let path = format!("/proc/self/fd/{}", write.as_raw_fd());
    let both = rustix::fs::open(path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    Ok((read, both))
}

/// Both ends of the streams.
pub(super) fn streams(wanted: Streams) -> Result<(Ours, ChildEnds), Errno> {
    let none = ChildEnds {
        stdio: None,
        console: None,
    };
    let stdin = match wanted {
        Streams::Pipes(stdin) => stdin,
        Streams::Inherited => return Ok((Ours::Ready(Stdio::Inherited), none)),
        Streams::Console(_) => {
            let (ours, theirs) = sys::socket::pair()?;
            let console = Some(theirs);
            return Ok((Ours::Console(ours), ChildEnds { console, ..none }));
        }
    };
    let (in_theirs, in_ours) = match stdin {
        StdinMode::Null => {
            let flags = OFlags::RDWR | OFlags::CLOEXEC;
            (rustix::fs::open(c"/dev/null", flags, Mode::empty())?, None)
        }
        StdinMode::Once | StdinMode::Keep => {
            let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
            (read, Some(write))
        }
    };
    let (stdout, out_theirs) = lasting_pipe()?;
    let (stderr, err_theirs) = lasting_pipe()?;
    let ours = Ours::Ready(Stdio::Pipes {
        stdin: in_ours,
        stdout,
        stderr,
    });
    let stdio = Some([in_theirs, out_theirs, err_theirs]);
    Ok((ours, ChildEnds { stdio, ..none }))
}

/// What the init needs for a terminal.
pub(super) fn console_request<'a>(
    ends: &'a ChildEnds,
    streams: Streams,
    plan: &InitPlan,
) -> Option<ConsoleRequest<'a>> {
    let Streams::Console(size) = streams else {
        return None;
    };
    let socket = ends.console.as_ref()?.as_fd();
    Some(ConsoleRequest {
        socket,
        size,
        owner: plan.process.uid,
    })
}

/// What a terminal still holds whose other side is closed: as much as an error message can show.
pub(super) fn left_in(master: BorrowedFd<'_>) -> String {
    const SHOWN: usize = 1024;
    let mut bytes = [0; SHOWN];
    let mut length = 0;
    // A descriptor that somebody else has kept open must not hold us up.
    if rustix::io::ioctl_fionbio(master, true).is_err() {
        return String::new();
    }
    while let Some(room) = bytes.get_mut(length..).filter(|room| !room.is_empty()) {
        match rustix::io::read(master, room) {
            Ok(0) | Err(_) => break,
            Ok(more) => length += more,
        }
    }
    let text = String::from_utf8_lossy(bytes.get(..length).unwrap_or_default());
    // A program's text, not a command to whatever shows the message.
    let plain = |c: &char| !c.is_control() || *c == '\n';
    text.trim().chars().filter(plain).collect()
}
