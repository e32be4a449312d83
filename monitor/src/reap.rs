//! How a child of this program ended, or a program that has lost its parent.

use std::os::fd::BorrowedFd;
use std::time::Duration;

use runtime::{ExitStatus, code};
use rustix::process::{WaitId, WaitIdOptions, WaitIdStatus, waitid};
use sys::ended::{Ended, how_ended};

/// How long whoever takes orphans in may take to wait for one: it looks every few seconds in some
/// machines.
const REAPER_PATIENCE: Duration = Duration::from_secs(10);

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

/// The same for a program whose parent was killed; with the reason where the kernel does not tell.
pub(crate) fn reap_foreign(pidfd: BorrowedFd<'_>, pid: i32, start_time: u64) -> ExitStatus {
    let ended = how_ended(pidfd, pid, start_time, REAPER_PATIENCE);
    let (code, signal, error) = match ended {
        Ok(Ended::Exited(code)) => (code, None, None),
        Ok(Ended::Killed(signal)) => {
            let number = u8::try_from(signal).unwrap_or(0);
            (code::SIGNAL_BASE.saturating_add(number), Some(signal), None)
        }
        Err(error) => {
            let why = format!(
                "how the container ended is not known: its monitor was killed before, and the kernel does not tell another one ({error})"
            );
            (u8::MAX, None, Some(why))
        }
    };
    ExitStatus {
        code,
        signal,
        oom_killed: false,
        error,
    }
}
