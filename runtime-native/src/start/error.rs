//! What is said when a container cannot be started.

use std::io;

use runtime::{InitPlan, StartFailure, code};
use rustix::io::Errno;
use sys::clone::namespace;

use crate::step::reason;

/// Why a container could not be started, with nothing of it left.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.message)]
pub struct StartError(pub StartFailure);

impl StartError {
    pub(crate) fn engine(what: &str, error: &io::Error) -> Self {
        let why = Errno::from_io_error(error).map_or_else(|| error.to_string(), reason);
        Self(StartFailure {
            code: code::ENGINE,
            message: format!("cannot {what}: {why}"),
        })
    }
}

/// Why a clone with the namespaces of `flags` has failed.
pub(super) fn clone_failure(plan: &InitPlan, flags: u64, error: &io::Error) -> StartError {
    let what = "create the container's namespaces";
    let mut failure = StartError::engine(what, error);
    match error.raw_os_error() {
        // Who moves a process needs the group that is above both (cgroups(7), "Delegation").
        Some(libc_errno::EACCES) if plan.cgroup.clone_into.is_some() => {
            failure.0.message.push_str(
                " (the caller's control group and the container's are in no group of this user's: \
                 see `systemd-run --user --scope`)",
            );
        }
        Some(libc_errno::EPERM) if flags & namespace::USER != 0 => {
            failure.0.message.push_str(
                " (user namespaces are switched off: see the sysctls kernel.unprivileged_userns_clone and user.max_user_namespaces)",
            );
        }
        Some(libc_errno::ENOSPC) => {
            failure
                .0
                .message
                .push_str(" (a limit of user.max_*_namespaces is reached)");
        }
        _ => {}
    }
    failure
}

/// The errors that get a hint.
mod libc_errno {
    pub(super) const EPERM: i32 = 1;
    pub(super) const EACCES: i32 = 13;
    pub(super) const ENOSPC: i32 = 28;
}
