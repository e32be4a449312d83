//! Signals as data: blocked, then read from a descriptor (signalfd(2)); never handled in a handler.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

use rustix::io::Errno;

/// Blocks `signals` in this thread and gives a descriptor that they are read from, non-blocking.
///
/// # Errors
/// As `signalfd(2)`.
pub fn signal_fd(signals: &[i32]) -> io::Result<OwnedFd> {
    // SAFETY: zero is a valid empty set (sigset_t is an array of integers).
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    for signal in signals {
        // SAFETY: `set` is a valid set; a number that is no signal gives an error and no effect.
        unsafe { libc::sigaddset(&raw mut set, *signal) };
    }
    // SAFETY: `set` lives over the call and the old set is not asked for.
    unsafe { libc::sigprocmask(libc::SIG_BLOCK, &raw const set, ptr::null_mut()) };
    // SAFETY: -1 asks for a new descriptor; `set` lives over the call.
    let fd = unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
    if fd == -1 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The next signal that waits, `None` when there is none.
///
/// # Errors
/// As `read(2)`.
pub fn next_signal(fd: BorrowedFd<'_>) -> Result<Option<i32>, Errno> {
    // `ssi_signo` is the first field of `struct signalfd_siginfo`, 128 bytes long (signalfd(2)).
    let mut record = [0_u8; 128];
    match rustix::io::read(fd.as_fd(), &mut record) {
        Ok(length) if length == record.len() => {
            let number = u32::from_ne_bytes([record[0], record[1], record[2], record[3]]);
            Ok(i32::try_from(number).ok())
        }
        Ok(_) | Err(Errno::AGAIN | Errno::INTR) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Sends a signal by number to the process behind a pidfd (pidfd_send_signal(2)).
///
/// # Errors
/// `ESRCH` when it has ended, `EINVAL` for a number that is no signal.
pub fn send(pidfd: BorrowedFd<'_>, signal: i32) -> Result<(), Errno> {
    // SAFETY: no `siginfo_t` is passed; the other arguments are integers (pidfd_send_signal(2)).
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    if result == -1 {
        return Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO));
    }
    Ok(())
}

/// Sends a signal to a process by its number. Only for processes of a control group that is being
/// emptied, where a pidfd would be one system call more for each.
///
/// # Errors
/// `ESRCH` when there is none.
pub fn send_to_pid(pid: i32, signal: i32) -> Result<(), Errno> {
    if pid <= 0 {
        return Err(Errno::SRCH);
    }
    // SAFETY: `kill` takes two integers.
    let result = unsafe { libc::kill(pid, signal) };
    if result == -1 {
        return Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO));
    }
    Ok(())
}
