//! How a process ended that is not this one's child. Its parent gets its status from wait(2) and
//! nobody else; but the kernel keeps a copy for whoever holds a descriptor of it, and shows it in the
//! process table until the parent has waited.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// By itself, with this exit code.
    Exited(u8),
    /// By this signal.
    Killed(i32),
}

impl Ended {
    /// From a status of wait(2).
    fn from_status(status: i32) -> Self {
        let [low, high, ..] = status.to_le_bytes();
        match low & 0x7f {
            0 => Self::Exited(high),
            signal => Self::Killed(i32::from(signal)),
        }
    }
}

/// `struct pidfd_info` of `linux/pidfd.h` as it was first published (Linux 6.13).
#[repr(C)]
#[derive(Debug, Default)]
struct PidfdInfo {
    mask: u64,
    _cgroup: u64,
    _ids: [u32; 11],
    exit_code: i32,
}

const PIDFD_INFO_EXIT: u64 = 1 << 3;

/// `_IOWR(0xFF, 11, struct pidfd_info)`.
const PIDFD_GET_INFO: libc::c_ulong = 0xc040_ff0b;

/// Waits until the process behind `pidfd` has ended and says how: its number is `pid`, and it was
/// started at `start_time` (see [`crate::process::start_time`]). `patience` is how long its parent may
/// take to wait for it where only then the kernel says.
///
/// # Errors
/// When the kernel does not tell: before Linux 6.15 once the parent has waited, and where this process
/// may not look into the other one.
pub fn how_ended(
    pidfd: BorrowedFd<'_>,
    pid: i32,
    start_time: u64,
    patience: Duration,
) -> io::Result<Ended> {
    wait(pidfd, PollFlags::IN, None)?;
    if let Some(status) = of_zombie(pid, start_time) {
        return Ok(Ended::from_status(status));
    }
    let deadline = Instant::now() + patience;
    loop {
        if let Some(status) = kept(pidfd)? {
            return Ok(Ended::from_status(status));
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        // Without a wanted event poll tells of the hang-up alone: the parent has waited.
        wait(pidfd, PollFlags::empty(), Some(left))?;
    }
}

fn wait(pidfd: BorrowedFd<'_>, flags: PollFlags, most: Option<Duration>) -> io::Result<()> {
    let timeout = most.and_then(|most| Timespec::try_from(most).ok());
    let mut fds = [PollFd::from_borrowed_fd(pidfd, flags)];
    rustix::io::retry_on_intr(|| poll(&mut fds, timeout.as_ref()))?;
    Ok(())
}

/// The status that the kernel keeps, once the parent has waited (Linux 6.15).
fn kept(pidfd: BorrowedFd<'_>) -> io::Result<Option<i32>> {
    let mut info = PidfdInfo {
        mask: PIDFD_INFO_EXIT,
        ..PidfdInfo::default()
    };
    // SAFETY: the request reads and writes one `struct pidfd_info` of the size that its number holds;
    // `info` is one and lives over the call, and the descriptor is open.
    let result = unsafe {
        libc::syscall(
            libc::SYS_ioctl,
            pidfd.as_raw_fd(),
            PIDFD_GET_INFO,
            &raw mut info,
        )
    };
    if result == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok((info.mask & PIDFD_INFO_EXIT != 0).then_some(info.exit_code))
}

/// The status of a process whose parent has not waited yet: the last field of `/proc/<pid>/stat`
/// (proc(5)). It reads as 0 to whom it is not for, so what is for the same readers is looked at first.
fn of_zombie(pid: i32, start_time: u64) -> Option<i32> {
    fs::read_link(format!("/proc/{pid}/ns/user")).ok()?;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.trim_end().rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split(' ').collect();
    let is_it = fields.first() == Some(&"Z")
        && fields.get(19).and_then(|field| field.parse().ok()) == Some(start_time);
    // Field 52; the first of these is field 3.
    fields
        .get(49)
        .filter(|_| is_it)
        .and_then(|field| field.parse().ok())
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::fd::AsFd;
    use std::process::{Command, Stdio};

    use rustix::process::{Pid, PidfdFlags, pidfd_open};

    use super::*;

    /// Starts a grandchild that runs `script` when it is given a line; how that ended.
    fn ended(script: &str) -> Ended {
        let command = format!("(read line; {script}) <&3 >/dev/null & echo $!");
        let mut child = Command::new("sh")
            .args(["-c", &format!("{{ {command}; }} 3<&0")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut text = String::new();
        let mut stdout = child.stdout.take().unwrap();
        stdout.read_to_string(&mut text).unwrap();
        assert!(child.wait().unwrap().success());
        let pid: i32 = text.trim().parse().unwrap();
        let start_time = crate::process::start_time(pid).unwrap();
        let pidfd = pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::empty()).unwrap();
        child.stdin.take().unwrap().write_all(b"\n").unwrap();
        how_ended(pidfd.as_fd(), pid, start_time, Duration::from_mins(1)).unwrap()
    }

    #[test]
    fn end_of_a_process_that_is_no_child_is_known() {
        assert_eq!(ended("exit 7"), Ended::Exited(7));
        assert_eq!(ended("exit 0"), Ended::Exited(0));
        assert_eq!(
            ended("kill -9 $(exec sh -c 'echo $PPID')"),
            Ended::Killed(9)
        );
    }

    #[test]
    fn kept_status_is_the_childs_after_it_was_waited_for() {
        let mut child = Command::new("sh").args(["-c", "exit 3"]).spawn().unwrap();
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(3));
        // Before Linux 6.15 it is an error, and never another status.
        if let Ok(status) = kept(pidfd.as_fd()) {
            assert_eq!(status.map(Ended::from_status), Some(Ended::Exited(3)));
        }
    }
}
