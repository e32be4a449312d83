//! One run of the container's program: from a start to its end.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use ::network::Live;
use runtime::{CgroupPlan, ExitStatus, GuestReport};
use runtime_native::{Process, Stdio, cgroup};
use state::{Pipes, clock};

use crate::health::Health;
use crate::log::Partial;
use crate::output::Stream;
use crate::reap::{reap, reap_foreign};

pub(crate) const SIGKILL: i32 = 9;

/// A program that runs, with what belongs to this run of it.
pub(crate) struct Running {
    pub(crate) pid: i32,
    pub(crate) pidfd: OwnedFd,
    pub(crate) parent: Parent,
    pub(crate) guest_report: Option<OwnedFd>,
    /// Of what is read, for another monitor that may have to take over.
    pub(crate) pipes: Option<Pipes>,
    pub(crate) streams: Vec<Stream>,
    /// The write end of standard input, until a caller has taken it over.
    pub(crate) stdin: Option<OwnedFd>,
    pub(crate) is_terminal: bool,
    pub(crate) is_paused: bool,
    pub(crate) health: Option<Health>,
    pub(crate) network: Option<Live>,
    /// Held so that the program's end is known before they are torn down, which takes 0.5 ms and more.
    pub(crate) namespaces: [Option<OwnedFd>; 2],
    pub(crate) started_at: String,
    pub(crate) since: Instant,
}

/// Whose child the program is.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Parent {
    /// This process's.
    Us,
    /// The child of whoever takes orphans in: the monitor that has started it was killed.
    Reaper {
        /// When it was started (see [`sys::process::start_time`]).
        start_time: u64,
    },
}

impl Running {
    pub(crate) fn new((process, network): (Process, Option<Live>)) -> Self {
        let stream = |is_stderr, fd| Stream {
            is_stderr,
            fd: Some(fd),
            partial: Partial::default(),
        };
        let (streams, stdin, is_terminal) = match process.stdio {
            Stdio::Pipes {
                stdin,
                stdout,
                stderr,
            } => (
                vec![stream(false, stdout), stream(true, stderr)],
                stdin,
                false,
            ),
            Stdio::Console(master) => {
                let input = master.try_clone().ok();
                (vec![stream(false, master)], input, true)
            }
            Stdio::Inherited => (Vec::new(), None, false),
        };
        for stream in &streams {
            if let Some(fd) = &stream.fd {
                // A descriptor that cannot be made non-blocking is read when poll says so.
                let _blocking = rustix::io::ioctl_fionbio(fd, true);
            }
        }
        let pipes = match &streams[..] {
            [stdout, stderr] => pipes([&stdout.fd, &stderr.fd, &process.guest_report]),
            _ => None,
        };
        Self {
            pid: process.pid,
            parent: Parent::Us,
            pipes,
            namespaces: sys::process::namespaces(process.pidfd.as_fd()),
            pidfd: process.pidfd,
            guest_report: process.guest_report,
            streams,
            stdin,
            is_terminal,
            is_paused: false,
            health: None,
            network,
            started_at: clock::now(),
            since: Instant::now(),
        }
    }

    /// Kills every process of the container.
    pub(crate) fn kill_all(&self, groups: &CgroupPlan) -> std::io::Result<()> {
        sys::signals::send(self.pidfd.as_fd(), SIGKILL)?;
        cgroup::kill(groups)
    }

    /// Ends the container at once, with nothing recorded.
    pub(crate) fn destroy(&self, groups: &CgroupPlan) {
        // What has ended by itself cannot be killed, which is as well.
        drop(self.kill_all(groups));
        reap(self.pidfd.as_fd());
        drop(cgroup::remove(groups));
    }

    /// How the program has ended.
    pub(crate) fn reap(&self, groups: &CgroupPlan) -> ExitStatus {
        let status = match self.parent {
            Parent::Us => reap(self.pidfd.as_fd()),
            Parent::Reaper { start_time } => reap_foreign(self.pidfd.as_fd(), self.pid, start_time),
        };
        let guest = self.guest_report.as_ref().and_then(read_report);
        ExitStatus {
            oom_killed: cgroup::oom_kills(groups) > 0
                || guest.as_ref().is_some_and(|guest| guest.out_of_memory),
            error: guest.map(|guest| guest.error).or(status.error),
            code: status.code,
            signal: status.signal,
        }
    }
}

/// The inodes of the pipes of a program that has no terminal.
fn pipes([stdout, stderr, guest_report]: [&Option<OwnedFd>; 3]) -> Option<Pipes> {
    let inode = |fd: &Option<OwnedFd>| Some(rustix::fs::fstat(fd.as_ref()?).ok()?.st_ino);
    Some(Pipes {
        stdout: inode(stdout)?,
        stderr: inode(stderr)?,
        guest_report: inode(guest_report),
    })
}

/// What a wasm host that has ended left in the pipe.
fn read_report(pipe: &OwnedFd) -> Option<GuestReport> {
    rustix::io::ioctl_fionbio(pipe, true).ok()?;
    let mut buffer = [0; GuestReport::MAX_SIZE];
    let length = rustix::io::read(pipe, &mut buffer).ok()?;
    GuestReport::decode(buffer.get(..length)?)
}
