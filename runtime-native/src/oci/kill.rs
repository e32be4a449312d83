//! `kill`: a signal for a container.

use std::os::fd::AsFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use sys::clone::namespace;

use super::{Container, OciError, Status};

/// How long a killed container has until it is gone: callers wait no longer themselves.
const DEADLINE: Duration = Duration::from_secs(10);

const SIGKILL: i32 = 9;

/// Who gets a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// The container's init.
    Init,
    /// Every process of its control group.
    All,
}

/// Sends a signal.
///
/// # Errors
/// [`OciError::NotRunning`] for a container that has ended, unless all of its group are meant.
pub fn kill(container: &Container, signal: i32, reach: Reach) -> Result<(), OciError> {
    let status = container.status();
    // Without a pid namespace the others outlive their first process.
    let all = reach == Reach::All || (signal == SIGKILL && !has_own_pids(container)?);
    if status == Status::Stopped || status == Status::Creating {
        let left = all && !container.group(&container.spec()?)?.processes()?.is_empty();
        return match reach {
            Reach::All => kill_group(container, signal),
            Reach::Init if left => kill_group(container, signal),
            Reach::Init => Err(OciError::NotRunning(container.id().to_owned())),
        };
    }
    match all {
        true => kill_group(container, signal),
        false => kill_init(container, signal),
    }
}

fn has_own_pids(container: &Container) -> Result<bool, OciError> {
    let spec = container.spec()?;
    Ok(crate::plan::has_new_namespace(&spec, namespace::PID))
}

fn kill_init(container: &Container, signal: i32) -> Result<(), OciError> {
    let gone = || OciError::NotRunning(container.id().to_owned());
    let pid = container.pid().and_then(Pid::from_raw).ok_or_else(gone)?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).map_err(|_| gone())?;
    // The number may have been given away between the two.
    container.pid().ok_or_else(gone)?;
    match sys::signals::send(pidfd.as_fd(), signal) {
        Ok(()) => Ok(()),
        Err(Errno::SRCH) => Err(gone()),
        Err(errno) => Err(OciError::io("send a signal to", &container.dir)(
            errno.into(),
        )),
    }
}

fn kill_group(container: &Container, signal: i32) -> Result<(), OciError> {
    let group = container.group(&container.spec()?)?;
    if signal == SIGKILL {
        return Ok(group.kill()?);
    }
    for pid in group.processes()? {
        match sys::signals::send_to_pid(pid, signal) {
            Ok(()) | Err(Errno::SRCH) => {}
            Err(errno) => {
                return Err(OciError::io("send a signal to", &container.dir)(
                    errno.into(),
                ));
            }
        }
    }
    Ok(())
}

/// Kills a container and waits until its init is gone.
pub(super) fn kill_and_wait(container: &Container, reach: Reach) -> Result<(), OciError> {
    let pid = container.pid().and_then(Pid::from_raw);
    let pidfd = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    match kill(container, SIGKILL, reach) {
        Ok(()) | Err(OciError::NotRunning(_)) => {}
        Err(error) => return Err(error),
    }
    let Some(pidfd) = pidfd else { return Ok(()) };
    // Outside of every group there is still the init.
    let _ended = sys::signals::send(pidfd.as_fd(), SIGKILL);
    let limit = Timespec::try_from(DEADLINE).ok();
    let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
    match rustix::io::retry_on_intr(|| poll(&mut fds, limit.as_ref())) {
        Ok(0) => Err(OciError::Deadline(container.id().to_owned())),
        Ok(_) => Ok(()),
        Err(errno) => Err(OciError::io("wait for", &container.dir)(errno.into())),
    }
}
