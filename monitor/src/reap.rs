//! How a child of this program ended.

use std::os::fd::BorrowedFd;

use runtime::{ExitStatus, code};
use rustix::process::{WaitId, WaitIdOptions, WaitIdStatus, waitid};

/// Waits for the child behind `pidfd` and gives its exit code as a shell would show it.
pub(crate) fn reap(pidfd: BorrowedFd<'_>) -> ExitStatus {
    let status = waitid(WaitId::PidFd(pidfd), WaitIdOptions::EXITED);
    let status = status.ok().flatten();
    let signal = status.as_ref().and_then(WaitIdStatus::terminating_signal);
    let code = match (status.as_ref().and_then(WaitIdStatus::exit_status), signal) {
        (Some(code), _) => u8::try_from(code & 0xff).unwrap_or(code::ENGINE),
        (None, Some(signal)) => code::SIGNAL_BASE.saturating_add(u8::try_from(signal).unwrap_or(0)),
        (None, None) => u8::MAX,
    };
    ExitStatus {
        code,
        signal,
        oom_killed: false,
        error: None,
    }
}
