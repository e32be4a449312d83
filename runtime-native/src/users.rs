//! A container in a user namespace that exists already. Its other namespaces must belong to that one,
//! so whoever clones it has to stand there; the parent must not, which keeps its rights on the host.
//! A process in between enters the namespace, clones the init as its own sibling, and is gone.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, pidfd_open, waitid};
use sys::clone::{Side, clone_process, clone_sibling};
use sys::exec::exit_now;

/// Clones the init into the user namespace behind `path`, with new namespaces of the kinds in `flags`
/// and in the control group `cgroup`. The other side of the child is the caller.
pub(crate) fn clone_into(
    path: &CStr,
    flags: u64,
    cgroup: Option<BorrowedFd<'_>>,
) -> io::Result<Side> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
    let (between, pidfd) = match clone_process(0, cgroup)? {
        Side::Parent { pid, pidfd } => (pid, pidfd),
        Side::Child => {
            let number = match enter(path).and_then(|()| clone_sibling(flags)) {
                Ok(Side::Child) => return Ok(Side::Child),
                Ok(Side::Parent { pid, .. }) => pid,
                Err(error) => {
                    let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
                    -errno.raw_os_error()
                }
            };
            // The caller may be gone; then there is nobody to tell.
            let _gone = rustix::io::write(&write, &number.to_ne_bytes());
            exit_now(0)
        }
    };
    drop(write);
    let mut bytes = [0; 4];
    let length = rustix::io::retry_on_intr(|| rustix::io::read(&read, &mut bytes))?;
    waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED)?;
    if length != bytes.len() {
        return Err(io::Error::other(format!(
            "process {between} gave no answer"
        )));
    }
    let number = i32::from_ne_bytes(bytes);
    match Pid::from_raw(number).filter(|_| number > 0) {
        Some(pid) => Ok(Side::Parent {
            pid: number,
            pidfd: pidfd_open(pid, PidfdFlags::empty())?,
        }),
        None => Err(Errno::from_raw_os_error(-number).into()),
    }
}

fn enter(path: &CStr) -> io::Result<()> {
    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let kind = rustix::thread::LinkNameSpaceType::User;
    Ok(rustix::thread::move_into_link_name_space(
        file.as_fd(),
        Some(kind),
    )?)
}
