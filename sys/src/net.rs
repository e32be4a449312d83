//! Network namespaces and their links.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// The network namespace of a process, or of the calling thread.
///
/// # Errors
/// As `open(2)`: `ENOENT` when there is no such process.
pub fn namespace_of(pid: Option<i32>) -> Result<OwnedFd, Errno> {
    let path = match pid {
        Some(pid) => format!("/proc/{pid}/ns/net"),
        None => "/proc/thread-self/ns/net".to_owned(),
    };
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
}

/// Runs `inside` in another network namespace: sockets that it makes belong there for ever.
///
/// # Errors
/// As `setns(2)`, before anything was run.
///
/// # Panics
/// When the way back is barred, which the kernel does to nobody who could leave.
pub fn within<T>(netns: BorrowedFd<'_>, inside: impl FnOnce() -> T) -> Result<T, Errno> {
    let own = namespace_of(None)?;
    move_into_link_name_space(netns, Some(LinkNameSpaceType::Network))?;
    let result = inside();
    move_into_link_name_space(own.as_fd(), Some(LinkNameSpaceType::Network))
        .expect("a namespace that was left can be entered again");
    Ok(result)
}

/// Brings the link `name` of the calling process's network namespace up (netdevice(7),
/// `SIOCSIFFLAGS`). Uses no heap.
///
/// # Errors
/// As `ioctl(2)`: `ENODEV` when there is no such link.
pub fn link_up(name: &CStr) -> Result<(), Errno> {
    let socket = rustix::net::socket_with(
        AddressFamily::INET,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    // SAFETY: `ifreq` is a C struct of integers and byte arrays, for which zero is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    let bytes = name.to_bytes_with_nul();
    if bytes.len() > request.ifr_name.len() {
        return Err(Errno::NODEV);
    }
    for (to, from) in request.ifr_name.iter_mut().zip(bytes) {
        *to = libc::c_char::from_ne_bytes([*from]);
    }
    #[expect(
        clippy::cast_possible_truncation,
        reason = "flags of netdevice(7) fit a short"
    )]
    {
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    }
    // SAFETY: SIOCSIFFLAGS reads one `ifreq`, which lives over the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_ioctl,
            socket.as_raw_fd(),
            libc::SIOCSIFFLAGS,
            &raw const request,
        )
    };
    if result == -1 {
        return Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO));
    }
    Ok(())
}
