//! The last steps before `execve(2)`, all async-signal-safe: nothing here allocates, locks or
//! unwinds, except [`CStringArray::new`], which runs before the process is cloned.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{WaitId, WaitIdOptions, waitid};

use crate::clone::Side;

/// Strings as `execve` wants them: an array of pointers that ends with a null pointer.
#[derive(Debug)]
pub struct CStringArray {
    strings: Vec<CString>,
    pointers: Vec<*const libc::c_char>,
}

impl CStringArray {
    /// Takes the strings over.
    #[must_use]
    pub fn new(strings: Vec<CString>) -> Self {
        let mut pointers: Vec<_> = strings.iter().map(|string| string.as_ptr()).collect();
        pointers.push(ptr::null());
        Self { strings, pointers }
    }

    /// The strings.
    #[must_use]
    pub fn strings(&self) -> &[CString] {
        &self.strings
    }
}

/// Replaces this process. Returns only when that failed.
#[must_use]
pub fn execve(path: &CStr, args: &CStringArray, env: &CStringArray) -> Errno {
    // SAFETY: `path` ends with NUL; both arrays end with a null pointer and own their strings
    // (`CStringArray::new`), which live over the call (execve(2)).
    unsafe { libc::execve(path.as_ptr(), args.pointers.as_ptr(), env.pointers.as_ptr()) };
    last_errno()
}

/// Replaces this process by the program behind `file` (`execveat(2)` with `AT_EMPTY_PATH`).
#[must_use]
pub fn execve_fd(file: BorrowedFd<'_>, args: &CStringArray, env: &CStringArray) -> Errno {
    // SAFETY: the descriptor is open, the path is an empty string, and both arrays end with a null
    // pointer and own their strings, which live over the call (execveat(2)).
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            file.as_raw_fd(),
            c"".as_ptr(),
            args.pointers.as_ptr(),
            env.pointers.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    last_errno()
}

/// As [`execve_fd`], with two arguments, a name and a number, and no environment: without the heap.
#[must_use]
pub fn execve_fd_with_number(file: BorrowedFd<'_>, name: &CStr, number: i32) -> Errno {
    let mut digits = [0_u8; 12];
    let mut at = digits.len() - 1;
    let mut rest = number.unsigned_abs();
    // The last byte stays zero; ten digits and a sign fit.
    loop {
        at -= 1;
        digits[at] = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    let number = digits[at..].as_ptr().cast::<libc::c_char>();
    let args = [name.as_ptr(), number, ptr::null()];
    let env: [*const libc::c_char; 1] = [ptr::null()];
    // SAFETY: the descriptor is open, the path is an empty string; both arrays end with a null
    // pointer, their strings end with NUL, and all live over the call (execveat(2)).
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            file.as_raw_fd(),
            c"".as_ptr(),
            args.as_ptr(),
            env.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    last_errno()
}

/// Ends this process without running anything of it, also under a filter that refuses to end it.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: `exit_group` takes an integer and has no precondition (exit_group(2)). The C library's
    // `_exit` would try for ever what a filter refuses.
    let _refused = unsafe { libc::syscall(libc::SYS_exit_group, code) };
    // Ends in an instruction that faults: no filter is asked, and no handler is left.
    std::process::abort()
}

/// Marks every descriptor from `first` on as closed by the next `execve`.
///
/// # Errors
/// As `close_range(2)` (Linux 5.11 for the flag).
pub fn close_on_exec_from(first: u32) -> Result<(), Errno> {
    // SAFETY: `close_range` with CLOSE_RANGE_CLOEXEC closes nothing now; it takes three integers.
    let result = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            first,
            u32::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(last_errno())
    }
}

/// Closes every descriptor from `first` on but those of `keep`, at once: until the `execve` another
/// process of the container could look at what is only marked (CVE-2016-9962, CVE-2024-21626).
///
/// Nothing in this process may use what is closed afterwards: it is about to be replaced.
///
/// # Errors
/// As `close_range(2)`; EINVAL for more than [`MAX_KEPT`] of them.
pub fn close_all_but(first: u32, keep: &[Option<BorrowedFd<'_>>]) -> Result<(), Errno> {
    let mut numbers = [u32::MAX; MAX_KEPT];
    let numbers = numbers.get_mut(..keep.len()).ok_or(Errno::INVAL)?;
    for (number, fd) in numbers.iter_mut().zip(keep) {
        *number = fd.map_or(u32::MAX, |fd| fd.as_raw_fd().unsigned_abs());
    }
    numbers.sort_unstable();
    let mut first = first;
    for number in numbers.iter().filter(|number| **number != u32::MAX) {
        if *number > first {
            close_from_to(first, *number - 1)?;
        }
        first = first.max(number.saturating_add(1));
    }
    close_from_to(first, u32::MAX)
}

/// How many descriptors [`close_all_but`] can keep: it has no heap.
pub const MAX_KEPT: usize = 16;

fn close_from_to(first: u32, last: u32) -> Result<(), Errno> {
    // SAFETY: `close_range` takes three integers; that nothing uses what it closes is what the
    // caller promises.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    if result == 0 {
        Ok(())
    } else {
        Err(last_errno())
    }
}

/// Duplicates `from` onto the number `to`, open over `execve`. What was there is closed.
///
/// # Errors
/// As `dup2(2)`.
pub fn place_descriptor(from: BorrowedFd<'_>, to: i32) -> Result<(), Errno> {
    if from.as_raw_fd() == to {
        return rustix::io::fcntl_setfd(from, rustix::io::FdFlags::empty());
    }
    // SAFETY: `dup2` takes two integers; that nothing in this process still uses `to` is the
    // caller's plan: it is one of 0 to 4, in a process that is about to be replaced.
    let result = unsafe { libc::dup2(from.as_raw_fd(), to) };
    if result == -1 {
        Err(last_errno())
    } else {
        Ok(())
    }
}

/// Duplicates `from` to a number of at least `lowest`, closed by `execve`, and gives the number:
/// out of the way of [`place_descriptor`].
///
/// # Errors
/// As `fcntl(2)`.
pub fn move_descriptor_above(from: BorrowedFd<'_>, lowest: i32) -> Result<OwnedFd, Errno> {
    rustix::io::fcntl_dupfd_cloexec(from, lowest)
}

/// Gives every signal its default disposition and unblocks all: Rust ignores SIGPIPE, and an
/// ignored or blocked signal stays so over `execve` (signal(7)).
pub fn reset_signals() {
    // `struct sigaction` of the kernel, longer on some machines than on others: SIG_DFL, no flags,
    // an empty mask are all zero. The C library's own call refuses 32 to 34, which it keeps for
    // itself and which are inherited like any other.
    let default = [0_u64; 4];
    for signal in 1..=64_i32 {
        // SAFETY: the kernel reads at most 32 bytes of `default`, which lives over the call, and the
        // old action is not asked for; numbers that cannot be set (SIGKILL, SIGSTOP) give an error
        // that is of no interest (rt_sigaction(2)).
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                ptr::null_mut::<u64>(),
                size_of::<u64>(),
            )
        };
    }
    // SAFETY: zero is a valid empty set (sigset_t is an array of integers).
    let empty: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: `empty` lives over the call and the old set is not asked for (sigprocmask(2)).
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const empty, ptr::null_mut()) };
}

/// A new, empty session keyring (keyctl(2)): the container must not search the caller's keys.
///
/// # Errors
/// `ENOSYS` and `EPERM` where there are no keys; `EDQUOT` when the user has too many.
pub fn join_new_session_keyring() -> Result<(), Errno> {
    // SAFETY: KEYCTL_JOIN_SESSION_KEYRING with a null name takes no pointer (keyctl(2)).
    let result = unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            libc::KEYCTL_JOIN_SESSION_KEYRING,
            ptr::null::<u8>(),
        )
    };
    if result == -1 {
        Err(last_errno())
    } else {
        Ok(())
    }
}

/// Loads a cBPF program as a seccomp filter of this process (seccomp(2)). With
/// `SECCOMP_FILTER_FLAG_NEW_LISTENER` gives the descriptor that notifications are read from.
///
/// # Errors
/// `EINVAL` for a program that the kernel refuses, `EACCES` without `no_new_privs` and
/// `CAP_SYS_ADMIN`.
pub fn load_seccomp(program: &[u8], flags: u32) -> Result<Option<OwnedFd>, Errno> {
    const INSTRUCTION: usize = size_of::<libc::sock_filter>();
    if program.is_empty() || !program.len().is_multiple_of(INSTRUCTION) {
        return Err(Errno::INVAL);
    }
    let length = u16::try_from(program.len() / INSTRUCTION).map_err(|_| Errno::INVAL)?;
    let description = libc::sock_fprog {
        len: length,
        filter: program.as_ptr().cast_mut().cast::<libc::sock_filter>(),
    };
    // SAFETY: the kernel copies `len` instructions of 8 bytes from `filter`, which lie in `program`;
    // it reads them byte by byte (copy_from_user), so their alignment is of no account.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            &raw const description,
        )
    };
    if result == -1 {
        return Err(last_errno());
    }
    if u64::from(flags) & libc::SECCOMP_FILTER_FLAG_NEW_LISTENER == 0 {
        return Ok(None);
    }
    let number = i32::try_from(result).map_err(|_| Errno::BADF)?;
    // SAFETY: the kernel has just made this descriptor and nobody else owns it (seccomp(2)).
    Ok(Some(unsafe { OwnedFd::from_raw_fd(number) }))
}

/// How a program ended that [`run_program`] waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// By itself, with this exit code.
    Exited(i32),
    /// By this signal.
    Signalled(i32),
    /// It took too long and was killed.
    TimedOut,
}

/// Runs a program with `stdin` as its standard input and this process's other two streams, and
/// waits for its end, at most `timeout_ms`. Uses no heap: for a process that [`clone_process`]
/// made.
///
/// [`clone_process`]: crate::clone::clone_process
///
/// # Errors
/// When it cannot be cloned or waited for. One that cannot be executed exits with 127.
pub fn run_program(
    path: &CStr,
    args: &CStringArray,
    env: &CStringArray,
    stdin: BorrowedFd<'_>,
    timeout_ms: Option<u64>,
) -> Result<Ended, Errno> {
    let side = crate::clone::clone_again();
    let pidfd = match side.map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))? {
        Side::Parent { pidfd, .. } => pidfd,
        Side::Child => {
            if place_descriptor(stdin, 0).is_ok() && close_on_exec_from(3).is_ok() {
                reset_signals();
                // It returns only when the program cannot be executed.
                let _errno = execve(path, args, env);
            }
            exit_now(127)
        }
    };
    let mut timed_out = false;
    if let Some(limit) = timeout_ms {
        let limit = Timespec {
            tv_sec: i64::try_from(limit / 1000).unwrap_or(i64::MAX),
            tv_nsec: i64::try_from(limit % 1000 * 1_000_000).unwrap_or(0),
        };
        let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
        let ready = rustix::io::retry_on_intr(|| poll(&mut fds, Some(&limit)))?;
        if ready == 0 {
            timed_out = true;
            // It may have ended in this moment.
            let _ended = crate::signals::send(pidfd.as_fd(), libc::SIGKILL);
        }
    }
    let status =
        rustix::io::retry_on_intr(|| waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED))?;
    let status = status.ok_or(Errno::CHILD)?;
    Ok(match (status.exit_status(), status.terminating_signal()) {
        _ if timed_out => Ended::TimedOut,
        (Some(code), _) => Ended::Exited(code),
        (None, signal) => Ended::Signalled(signal.unwrap_or(0)),
    })
}

/// `setrlimit(2)` by the number of the resource.
///
/// # Errors
/// `EPERM` above the hard limit without `CAP_SYS_RESOURCE`, `EINVAL` for an unknown resource.
pub fn set_rlimit(resource: u32, soft: u64, hard: u64) -> Result<(), Errno> {
    let limit = libc::rlimit64 {
        rlim_cur: soft,
        rlim_max: hard,
    };
    // SAFETY: `limit` lives over the call, the old limit is not asked for (prlimit(2)).
    let result = unsafe {
        libc::syscall(
            libc::SYS_prlimit64,
            0,
            resource,
            &raw const limit,
            ptr::null::<libc::rlimit64>(),
        )
    };
    if result == -1 {
        Err(last_errno())
    } else {
        Ok(())
    }
}

/// `getrlimit(2)` by the number of the resource: soft and hard limit.
///
/// # Errors
/// `EINVAL` for an unknown resource.
pub fn rlimit(resource: u32) -> Result<(u64, u64), Errno> {
    let mut limit = libc::rlimit64 {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: no new limit is given and `limit` lives over the call (prlimit(2)).
    let result = unsafe {
        libc::syscall(
            libc::SYS_prlimit64,
            0,
            resource,
            ptr::null::<libc::rlimit64>(),
            &raw mut limit,
        )
    };
    if result == -1 {
        Err(last_errno())
    } else {
        Ok((limit.rlim_cur, limit.rlim_max))
    }
}

fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}
