//! Unix sockets that keep message boundaries and carry descriptors (unix(7), `SOCK_SEQPACKET`).

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::sockopt::Timeout;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};

/// As many descriptors as one message carries: stdin, stdout, stderr.
const MAX_DESCRIPTORS: usize = 3;

/// Two sockets that talk to each other.
///
/// # Errors
/// As `socketpair(2)`.
pub fn pair() -> Result<(OwnedFd, OwnedFd), Errno> {
    let flags = SocketFlags::CLOEXEC;
    rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
}

/// Listens at `path`, non-blocking.
///
/// # Errors
/// As `bind(2)`.
pub fn listen(path: &Path) -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    let (address, _dir) = address(path)?;
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, 64)?;
    Ok(socket)
}

/// The address of `path`. One that is too long for `sun_path` (108 bytes, unix(7)) goes through the
/// descriptor of its directory, which must stay open until the address has been used.
fn address(path: &Path) -> Result<(SocketAddrUnix, Option<OwnedFd>), Errno> {
    match SocketAddrUnix::new(path) {
        Err(Errno::NAMETOOLONG) => {}
        other => return Ok((other?, None)),
    }
    let (dir, name) = path.parent().zip(path.file_name()).ok_or(Errno::INVAL)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = rustix::fs::open(dir, flags, Mode::empty())?;
    let short = Path::new("/proc/self/fd")
        .join(dir.as_raw_fd().to_string())
        .join(name);
    Ok((SocketAddrUnix::new(&short)?, Some(dir)))
}

/// Takes one caller of a listening socket.
///
/// # Errors
/// `EAGAIN` when there is none.
pub fn accept(socket: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    rustix::net::accept_with(socket, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)
}

/// Connects to `path`.
///
/// # Errors
/// As `connect(2)`: `ECONNREFUSED` and `ENOENT` when nobody listens.
pub fn connect(path: &Path) -> Result<OwnedFd, Errno> {
    connect_as(path, SocketType::SEQPACKET)
}

/// Connects to a stream socket at `path`: one of another program's.
///
/// # Errors
/// As [`connect`].
pub fn connect_stream(path: &Path) -> Result<OwnedFd, Errno> {
    connect_as(path, SocketType::STREAM)
}

/// As [`connect_stream`], to a program that may take nobody: it is given up after a while.
///
/// # Errors
/// As [`connect`]; `EAGAIN` when the time is over.
pub fn connect_stream_within(path: &Path, patience: Duration) -> Result<OwnedFd, Errno> {
    connect_limited(path, SocketType::STREAM, Some(patience))
}

fn connect_as(path: &Path, kind: SocketType) -> Result<OwnedFd, Errno> {
    connect_limited(path, kind, None)
}

fn connect_limited(
    path: &Path,
    kind: SocketType,
    patience: Option<Duration>,
) -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, kind, flags, None)?;
    if patience.is_some() {
        // A full queue of callers is waited for as long as sending is (unix(7)).
        rustix::net::sockopt::set_socket_timeout(&socket, Timeout::Send, patience)?;
    }
    let (address, _dir) = address(path)?;
    rustix::net::connect(&socket, &address)?;
    Ok(socket)
}

/// The user at the other end (`SO_PEERCRED`).
///
/// # Errors
/// As `getsockopt(2)`.
pub fn peer_uid(socket: BorrowedFd<'_>) -> Result<u32, Errno> {
    Ok(rustix::net::sockopt::socket_peercred(socket)?.uid.as_raw())
}

/// Sends one message with at most three descriptors.
///
/// # Errors
/// As `sendmsg(2)`; `EPIPE` when the other end is gone (no SIGPIPE is raised).
pub fn send(
    socket: BorrowedFd<'_>,
    message: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(Errno::TOOBIG);
    }
    rustix::io::retry_on_intr(|| {
        rustix::net::sendmsg(
            socket,
            &[IoSlice::new(message)],
            &mut control,
            SendFlags::NOSIGNAL,
        )
    })?;
    Ok(())
}

/// Refuses what the other end would still send and drops what it has sent: a socket that is closed
/// with unread messages takes its own last ones along (`ECONNRESET`, unix(7)).
///
/// # Errors
/// As `shutdown(2)`.
pub fn stop_receiving(socket: BorrowedFd<'_>) -> Result<(), Errno> {
    rustix::net::shutdown(socket, rustix::net::Shutdown::Read)?;
    let mut buffer = [0; 64];
    while matches!(
        rustix::net::recv(socket, &mut buffer[..], RecvFlags::DONTWAIT),
        Ok((_, length)) if length > 0
    ) {}
    Ok(())
}

/// One message with its descriptors.
#[derive(Debug)]
pub struct Received {
    /// How many bytes of the buffer it fills; 0 when the other end is gone.
    pub length: usize,
    /// Its descriptors, closed on exec.
    pub descriptors: Vec<OwnedFd>,
}

/// Receives one message.
///
/// # Errors
/// As `recvmsg(2)`; `EMSGSIZE` for a message longer than `buffer`.
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<Received, Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let result = rustix::io::retry_on_intr(|| {
        rustix::net::recvmsg(
            socket.as_fd(),
            &mut [IoSliceMut::new(buffer)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        )
    })?;
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    if result.flags.contains(rustix::net::ReturnFlags::TRUNC) {
        return Err(Errno::MSGSIZE);
    }
    Ok(Received {
        length: result.bytes,
        descriptors,
    })
}

/// How many bytes that were sent the other side has not read yet: 0 means that it has everything
/// (`SIOCOUTQ`, unix(7) and tcp(7); over a network, that the other host has it).
///
/// # Errors
/// As `ioctl(2)`.
pub fn unread_by_peer(socket: BorrowedFd<'_>) -> Result<u32, Errno> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: SIOCOUTQ, which is TIOCOUTQ, writes one `int`, which lives over the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_ioctl,
            socket.as_raw_fd(),
            libc::TIOCOUTQ,
            &raw mut bytes,
        )
    };
    if result == -1 {
        return Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO));
    }
    Ok(u32::try_from(bytes).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    #[test]
    fn message_with_descriptor_arrives_whole() {
        let (one, two) = pair().unwrap();
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        send(one.as_fd(), b"hello", &[writer.as_fd()]).unwrap();
        drop(writer);
        let mut buffer = [0; 16];
        let received = receive(two.as_fd(), &mut buffer).unwrap();
        assert_eq!(&buffer[..received.length], b"hello");
        let mut writer = std::fs::File::from(received.descriptors.into_iter().next().unwrap());
        writer.write_all(b"x").unwrap();
        drop(writer);
        let mut text = String::new();
        std::fs::File::from(reader)
            .read_to_string(&mut text)
            .unwrap();
        assert_eq!(text, "x");
    }

    #[test]
    fn path_longer_than_an_address_is_reached() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("d".repeat(120));
        std::fs::create_dir(&dir).unwrap();
        let path = dir.join("ctl.sock");
        let listener = listen(&path).unwrap();
        connect(&path).unwrap();
        accept(listener.as_fd()).unwrap();
    }

    #[test]
    fn last_message_survives_unread_requests() {
        let (one, two) = pair().unwrap();
        send(one.as_fd(), b"request", &[]).unwrap();
        stop_receiving(two.as_fd()).unwrap();
        assert_eq!(send(one.as_fd(), b"late", &[]), Err(Errno::PIPE));
        send(two.as_fd(), b"last", &[]).unwrap();
        drop(two);
        let mut buffer = [0; 16];
        assert_eq!(receive(one.as_fd(), &mut buffer).unwrap().length, 4);
    }

    #[test]
    fn unread_bytes_are_counted_until_the_other_side_has_them() {
        use std::io::{Read, Write};
        let (mut one, mut two) = std::os::unix::net::UnixStream::pair().unwrap();
        one.write_all(b"abc").unwrap();
        assert!(unread_by_peer(one.as_fd()).unwrap() > 0);
        two.read_exact(&mut [0; 3]).unwrap();
        assert_eq!(unread_by_peer(one.as_fd()), Ok(0));
    }

    #[test]
    fn receive_from_closed_peer_gives_zero() {
        let (one, two) = pair().unwrap();
        drop(one);
        let mut buffer = [0; 4];
        assert_eq!(receive(two.as_fd(), &mut buffer).unwrap().length, 0);
    }
}
