//! Facts about a process that its number alone does not tell.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// When a process was started, in clock ticks since boot (field 22 of `/proc/<pid>/stat`, proc(5)):
/// with it a number that was given to another process is noticed.
///
/// # Errors
/// When there is no such process, or its record cannot be read.
pub fn start_time(pid: i32) -> io::Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The second field is the program's name in parentheses and may hold anything.
    let rest = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    let field = rest.split(' ').nth(19).ok_or(io::ErrorKind::InvalidData)?;
    field.parse().map_err(|_| io::ErrorKind::InvalidData.into())
}

/// The number of a process in the innermost of its pid namespaces (`NSpid` of `/proc/<pid>/status`,
/// proc(5)): the one that it sees itself.
///
/// # Errors
/// When there is no such process, or its record cannot be read.
pub fn innermost_pid(pid: i32) -> io::Result<i32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    let last = line.and_then(|line| line.split_whitespace().last());
    last.and_then(|text| text.parse().ok())
        .ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// The mount and the network namespace of a process, as far as the kernel gives them (`linux/pidfd.h`,
/// Linux 6.11). Whoever holds them keeps the process's end from waiting until they are torn down.
#[must_use]
pub fn namespaces(pidfd: BorrowedFd<'_>) -> [Option<OwnedFd>; 2] {
    const PIDFD_GET_MNT_NAMESPACE: libc::c_long = 0xff03;
    const PIDFD_GET_NET_NAMESPACE: libc::c_long = 0xff04;
    [PIDFD_GET_MNT_NAMESPACE, PIDFD_GET_NET_NAMESPACE].map(|request| {
        // SAFETY: these requests take no argument, which has to be 0, and touch no memory.
        let fd = unsafe { libc::syscall(libc::SYS_ioctl, pidfd.as_raw_fd(), request, 0) };
        let fd = i32::try_from(fd).unwrap_or(-1);
        // SAFETY: the kernel has just made this descriptor, and nobody else has it.
        (fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(fd) })
    })
}

/// Whether a process is there and not a zombie (field 3 of `/proc/<pid>/stat`, proc(5)), and the
/// same that was started at `start_time`.
#[must_use]
pub fn is_alive(pid: i32, start_time: u64) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return false;
    };
    let Some((_, rest)) = stat.rsplit_once(") ") else {
        return false;
    };
    let mut fields = rest.split(' ');
    let is_there = fields
        .next()
        .is_some_and(|state| !["Z", "X"].contains(&state));
    is_there && fields.nth(18).and_then(|text| text.parse().ok()) == Some(start_time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_time_of_init_is_before_ours() {
        let ours = i32::try_from(std::process::id()).unwrap();
        assert!(start_time(1).unwrap() <= start_time(ours).unwrap());
    }

    #[test]
    fn is_alive_knows_a_process_by_its_start() {
        let ours = i32::try_from(std::process::id()).unwrap();
        let started = start_time(ours).unwrap();
        assert!(is_alive(ours, started));
        assert!(!is_alive(ours, started + 1));
        assert_eq!(innermost_pid(ours).unwrap(), ours);
    }
}
