//! The programs that carry an ordinary user's packets: which there are, and one that runs.

use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::Access;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};

use crate::NetworkError;

/// Where the programs are, whatever `PATH` says.
const PROGRAM_DIRS: [&str; 4] = ["/usr/bin", "/bin", "/usr/local/bin", "/run/wrappers/bin"];

/// Both make a tap link.
const TUN: &str = "/dev/net/tun";

/// A helper takes milliseconds to be ready; a machine under load some hundred.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// No helper says more that is worth reading when it fails.
const MAX_COMPLAINT: u64 = 4096;

const SIGTERM: i32 = 15;

/// A program that carries packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Helper {
    /// From passt.
    Pasta,
    /// From rootless-containers.
    Slirp4netns,
}

impl Helper {
    /// In the order in which they are chosen.
    const ALL: [Self; 2] = [Self::Pasta, Self::Slirp4netns];

    /// Its name, which is the name of the network.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pasta => "pasta",
            Self::Slirp4netns => "slirp4netns",
        }
    }

    /// The helper of a name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|helper| helper.name() == name)
    }

    /// Where it is installed.
    pub(super) fn path(self) -> Option<PathBuf> {
        let paths = PROGRAM_DIRS.iter();
        paths
            .map(|dir| Path::new(dir).join(self.name()))
            .find(|path| path.exists())
    }

    /// The first helper that this user can have.
    ///
    /// # Errors
    /// Why there is none.
    pub fn choose() -> Result<Self, String> {
        let installed = Self::ALL.into_iter().find(|helper| helper.path().is_some());
        let helper = installed.ok_or("neither pasta nor slirp4netns is installed")?;
        helper.check().map(|()| helper)
    }

    /// Whether this user can have the helper.
    ///
    /// # Errors
    /// Why not.
    pub fn check(self) -> Result<(), String> {
        if self.path().is_none() {
            return Err(format!("{} is not installed", self.name()));
        }
        rustix::fs::access(TUN, Access::READ_OK | Access::WRITE_OK).map_err(|errno| {
            let why = match errno {
                rustix::io::Errno::NOENT => "there is none",
                _ => "this user may not open it",
            };
            format!("{} needs `{TUN}`: {why}", self.name())
        })
    }

    /// A command that runs it, with nothing of this process's environment.
    pub(super) fn command(self) -> Result<Command, NetworkError> {
        let path = self
            .path()
            .ok_or_else(|| self.failed("it is not installed"))?;
        let mut command = Command::new(path);
        command
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        Ok(command)
    }

    /// It could not be started.
    pub(super) fn failed(self, why: impl Into<String>) -> NetworkError {
        NetworkError::Helper {
            program: self.name(),
            why: why.into(),
        }
    }
}

/// A helper that runs; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Running {
    pidfd: OwnedFd,
    /// Its parent, when that is this process, has to take it off the list of processes.
    child: Option<Child>,
    /// It ends when the other end is closed, however that happens.
    _leash: Option<OwnedFd>,
}

impl Running {
    /// A helper that has left this process.
    pub(super) fn detached(pidfd: OwnedFd) -> Self {
        Self {
            pidfd,
            child: None,
            _leash: None,
        }
    }

    /// A helper that is a child of this process.
    pub(super) fn child(child: Child, leash: OwnedFd) -> std::io::Result<Self> {
        Ok(Self {
            pidfd: open(i32::try_from(child.id()).unwrap_or(0))?,
            child: Some(child),
            _leash: Some(leash),
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // One that has ended needs no word.
        let _ended = sys::signals::send(self.pidfd.as_fd(), SIGTERM);
        if !is_ready(&self.pidfd, START_TIMEOUT) {
            let _ended = sys::signals::send(self.pidfd.as_fd(), 9);
        }
        if let Some(child) = &mut self.child {
            drop(child.wait());
        }
    }
}

/// A descriptor of a process.
pub(super) fn open(pid: i32) -> std::io::Result<OwnedFd> {
    let pid = Pid::from_raw(pid).ok_or(std::io::ErrorKind::NotFound)?;
    Ok(pidfd_open(pid, PidfdFlags::empty())?)
}

/// Waits until something can be read, or it has ended.
pub(super) fn is_ready(fd: &impl AsFd, timeout: Duration) -> bool {
    let timeout = Timespec::try_from(timeout).ok();
    let mut fds = [PollFd::new(fd, PollFlags::IN)];
    matches!(poll(&mut fds, timeout.as_ref()), Ok(count) if count > 0)
}

/// Waits for a child that ends by itself.
pub(super) fn wait(child: &mut Child) -> Option<ExitStatus> {
    let pidfd = open(i32::try_from(child.id()).unwrap_or(0)).ok()?;
    if !is_ready(&pidfd, START_TIMEOUT) {
        drop(child.kill());
    }
    child.wait().ok()
}

/// Waits until a helper says that it is ready, by a byte or the end of a pipe.
pub(super) fn wait_ready(pipe: &OwnedFd) -> bool {
    let mut byte = [0; 1];
    is_ready(pipe, START_TIMEOUT)
        && rustix::io::read(pipe, &mut byte).is_ok_and(|length| length == 1)
}

/// The last line of what a child that has failed says.
pub(super) fn complaint(child: &mut Child) -> String {
    let mut bytes = Vec::new();
    if let Some(stderr) = child.stderr.take() {
        // What is not there does not come any more: another process may hold the pipe open.
        let _blocking = rustix::io::ioctl_fionbio(&stderr, true);
        drop(stderr.take(MAX_COMPLAINT).read_to_end(&mut bytes));
    }
    last_line(&String::from_utf8_lossy(&bytes))
}

/// The last line that says something about the failure.
pub(super) fn last_line(text: &str) -> String {
    let lines = text.lines().map(str::trim);
    let mut said = lines.filter(|line| !line.is_empty() && !line.contains("to syslog"));
    said.next_back().unwrap_or("it gives no reason").to_owned()
}
