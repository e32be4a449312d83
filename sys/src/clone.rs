//! A new process in new namespaces: `clone3(2)` (Linux 5.3) with a pidfd.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::Errno;

/// `CLONE_INTO_CGROUP` (`linux/sched.h`, Linux 5.7). The constant of `libc` overflows to 0.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// The namespaces that can be created or joined, as in `linux/sched.h`.
pub mod namespace {
    /// Time (`CLONE_NEWTIME`).
    pub const TIME: u64 = 0x80;
    /// Mounts.
    pub const MOUNT: u64 = 0x2_0000;
    /// Control groups.
    pub const CGROUP: u64 = 0x200_0000;
    /// Host name.
    pub const UTS: u64 = 0x400_0000;
    /// System V and POSIX message queues.
    pub const IPC: u64 = 0x800_0000;
    /// Users.
    pub const USER: u64 = 0x1000_0000;
    /// Processes.
    pub const PID: u64 = 0x2000_0000;
    /// Network.
    pub const NET: u64 = 0x4000_0000;
}

/// Which side of [`clone_process`] this is.
#[derive(Debug)]
pub enum Side {
    /// The process that called.
    Parent {
        /// The new process.
        pid: i32,
        /// Its descriptor; readable when the process has ended.
        pidfd: OwnedFd,
    },
    /// The new process: a copy of the caller.
    Child,
}

/// Creates a process in the namespaces of `flags`, and on cgroup v2 in `cgroup`.
///
/// The child may run only code that ends in `execve` or `_exit` ([`crate::exec`]): it must not
/// return into its caller's frames.
///
/// # Errors
/// As `clone3(2)`. [`io::ErrorKind::Unsupported`] when this process has more than one thread: the
/// child of a threaded process may find any lock taken for ever.
pub fn clone_process(flags: u64, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Side> {
    require_one_thread()?;
    clone_unchecked(flags, cgroup)
}

/// As [`clone_process`] without flags, for a process that was itself cloned by it: it has one
/// thread, and no procfs or heap to find that out with.
///
/// By `clone(2)`: a filter such as Docker's answers `clone3` with `ENOSYS`.
///
/// # Errors
/// As `clone(2)`.
pub fn clone_again() -> io::Result<Side> {
    let mut pidfd: libc::c_int = -1;
    let flags = libc::c_long::from(libc::SIGCHLD | libc::CLONE_PIDFD);
    // SAFETY: `pidfd` outlives the call; without CLONE_VM the child has its own copy of this stack.
    // The caller has one thread, so no lock is held by another.
    let result = unsafe { libc::syscall(libc::SYS_clone, flags, 0, &raw mut pidfd, 0, 0) };
    side(result, pidfd)
}

/// As [`clone_process`], for a process that was itself cloned by it; the new process is a child of
/// this one's parent (`CLONE_PARENT`).
///
/// # Errors
/// As `clone3(2)`.
pub fn clone_sibling(flags: u64) -> io::Result<Side> {
    clone_unchecked(flags | libc::CLONE_PARENT as u64, None)
}

fn clone_unchecked(flags: u64, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Side> {
    let mut pidfd: libc::c_int = -1;
    // SAFETY: `clone_args` is a C struct of integers, for which zero is a valid value.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = flags | libc::CLONE_PIDFD as u64;
    // A sibling has the exit signal of the caller (`copy_process` in `kernel/fork.c`).
    if flags & libc::CLONE_PARENT as u64 == 0 {
        args.exit_signal = libc::SIGCHLD as u64;
    }
    args.pidfd = (&raw mut pidfd).addr() as u64;
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = u64::try_from(cgroup.as_raw_fd()).map_err(|_| Errno::BADF)?;
    }
    // SAFETY: `args` and `pidfd` outlive the call and the size is passed; without CLONE_VM the child
    // has its own copy of this stack. One thread was counted by the callers, so no lock is held by
    // another.
    let result = unsafe {
        libc::syscall(
            libc::SYS_clone3,
            &raw const args,
            size_of::<libc::clone_args>(),
        )
    };
    side(result, pidfd)
}

/// What a call that creates a process has returned.
fn side(result: libc::c_long, pidfd: libc::c_int) -> io::Result<Side> {
    match result {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Side::Child),
        pid => {
            // SAFETY: the kernel has put a new descriptor there, which nobody else owns (CLONE_PIDFD).
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Side::Parent {
                pid: i32::try_from(pid).map_err(|_| Errno::OVERFLOW)?,
                pidfd,
            })
        }
    }
}

/// Gives this process a cgroup namespace rooted at the groups that it is in.
///
/// # Errors
/// As `unshare(2)`.
pub fn unshare_cgroup() -> Result<(), Errno> {
    // SAFETY: NEWCGROUP changes what paths are shown as; no descriptor and no memory is affected.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWCGROUP) }
}

/// Gives the children of this process a time namespace: its clocks can be set until the first of
/// them is there (time_namespaces(7)).
///
/// # Errors
/// As `unshare(2)`.
pub fn unshare_time() -> Result<(), Errno> {
    // SAFETY: NEWTIME holds for children only; no descriptor and no memory is affected.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWTIME) }
}

/// Moves this process into a new user namespace, where it has all capabilities and no id, and a new
/// mount namespace.
///
/// # Errors
/// As `unshare(2)`; [`io::ErrorKind::Unsupported`] when this process has more than one thread.
pub fn unshare_user_and_mounts() -> io::Result<()> {
    require_one_thread()?;
    let flags = rustix::thread::UnshareFlags::NEWUSER | rustix::thread::UnshareFlags::NEWNS;
    // SAFETY: this is the only thread, so no other is left behind with another root or other ids;
    // no descriptor and no memory is affected.
    unsafe { rustix::thread::unshare_unsafe(flags) }.map_err(Into::into)
}

/// Gives this process a mount namespace of its own.
///
/// # Errors
/// As `unshare(2)`.
pub fn unshare_mounts() -> Result<(), Errno> {
    // SAFETY: NEWNS gives a copy of the mounts (and of root and working directory, which implies
    // CLONE_FS); no descriptor and no memory is affected.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS) }
}

fn require_one_thread() -> io::Result<()> {
    // With procfs hidden the answer is unknown; ketch-init starts no thread.
    let threads = fs::read_dir("/proc/self/task").map_or(1, Iterator::count);
    if threads > 1 {
        return Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "a process with several threads can neither be cloned nor change its user namespace",
        ));
    }
    Ok(())
}
