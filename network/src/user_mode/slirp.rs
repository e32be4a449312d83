//! slirp4netns: where there is no pasta. It stays a child of the monitor and on a leash, a pipe that
//! ends with the monitor.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use rustix::io::FdFlags;
use rustix::pipe::{PipeFlags, pipe_with};

use super::LINK;
use super::helper::{self, Helper, Running};
use crate::NetworkError;

const SLIRP: Helper = Helper::Slirp4netns;

/// The largest that it takes: fewer packets are copied.
const MTU: &str = "65520";

/// Starts it for the container whose init is `pid`.
pub(super) fn start(pid: i32) -> Result<Running, NetworkError> {
    let failed = |error: io::Error| SLIRP.failed(error.to_string());
    let pipe = || pipe_with(PipeFlags::CLOEXEC).map_err(|errno| failed(errno.into()));
    let (ready, tell) = pipe()?;
    let (end, leash) = pipe()?;
    for inherited in [&tell, &end] {
        rustix::io::fcntl_setfd(inherited, FdFlags::empty()).map_err(|e| failed(e.into()))?;
    }
    let mut child = SLIRP
        .command()?
        .args(["--configure", "--enable-ipv6", "--disable-host-loopback"])
        .args(["--enable-sandbox", "--enable-seccomp"])
        .arg(format!("--mtu={MTU}"))
        .arg(format!("--ready-fd={}", tell.as_fd().as_raw_fd()))
        .arg(format!("--exit-fd={}", end.as_fd().as_raw_fd()))
        .arg("--netns-type=path")
        .arg(format!("/proc/{pid}/ns/net"))
        .arg(LINK)
        .spawn()
        .map_err(failed)?;
    drop((tell, end));
    if !helper::wait_ready(&ready) {
        drop(leash);
        drop(child.kill());
        drop(child.wait());
        return Err(SLIRP.failed(helper::complaint(&mut child)));
    }
    Running::child(child, leash).map_err(failed)
}
