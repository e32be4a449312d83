//! The notifications of a seccomp filter go to a program of the user's: it gets the descriptor and
//! the state of the container over a socket (runtime-spec v1.2 `config-linux.md#seccomp`,
//! `listenerPath`).

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use runtime::SeccompListener;
use rustix::io::Errno;
use rustix::process::{PidfdGetfdFlags, pidfd_getfd};
use serde::Serialize;

use crate::hooks::HookState;
use crate::start::StartError;

/// `ContainerProcessState` of the specification.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ProcessState<'a> {
    oci_version: &'static str,
    fds: [&'static str; 1],
    pid: i32,
    metadata: &'a str,
    state: &'a HookState<'a>,
}

/// Reaches the listener. Its socket is a file of the host's, which a process that has entered a
/// container does not find.
pub(crate) fn connect(listener: &SeccompListener) -> Result<OwnedFd, StartError> {
    let path = Path::new(OsStr::from_bytes(listener.path.to_bytes()));
    sys::socket::connect_stream(path).map_err(|errno| failed(listener, errno))
}

fn failed(listener: &SeccompListener, errno: Errno) -> StartError {
    let path = listener.path.to_string_lossy();
    let what = format!("hand the seccomp notifications to `{path}`");
    StartError::engine(&what, &errno.into())
}

/// Hands descriptor `number` of process `pid` to the listener, over the socket that [`connect`] gave.
///
/// The descriptor is taken out of the process rather than sent by it: a filter may hold back the
/// very calls that sending takes.
pub(crate) fn pass(
    (listener, socket): (&SeccompListener, BorrowedFd<'_>),
    state: &HookState<'_>,
    pid: i32,
    pidfd: BorrowedFd<'_>,
    number: i32,
) -> Result<(), StartError> {
    let failed = |errno| failed(listener, errno);
    let notifications = pidfd_getfd(pidfd, number, PidfdGetfdFlags::empty()).map_err(failed)?;
    let message = serde_json::to_vec(&ProcessState {
        oci_version: crate::OCI_VERSION,
        fds: ["seccompFd"],
        pid,
        metadata: &listener.metadata,
        state,
    })
    .map_err(|_| failed(Errno::INVAL))?;
    sys::socket::send(socket, &message, &[notifications.as_fd()]).map_err(failed)
}
