//! Sockets of a container's network namespace for a monitor that cannot enter it and come back: a
//! small process of its own goes there, makes each socket that it is asked for, and hands it over.
//! It ends with the monitor.

use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::NetworkError;

/// What a socket is asked for by: family and kind.
const KINDS: [(u8, AddressFamily, SocketType); 4] = [
    (0, AddressFamily::INET, SocketType::STREAM),
    (1, AddressFamily::INET6, SocketType::STREAM),
    (2, AddressFamily::INET, SocketType::DGRAM),
    (3, AddressFamily::INET6, SocketType::DGRAM),
];

/// The monitor's end.
#[derive(Debug)]
pub(crate) struct Dialer {
    socket: Option<OwnedFd>,
    child: Child,
}

impl Dialer {
    /// Starts the process, which is this program once more.
    pub(super) fn start(netns: OwnedFd) -> Result<Self, NetworkError> {
        let what = "start the process that makes sockets in the container";
        let (ours, theirs) = sys::socket::pair().map_err(NetworkError::kernel(what))?;
        let child = Command::new("/proc/self/exe")
            .arg("sockets")
            .env_clear()
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::from(netns))
            .stderr(Stdio::null())
            .spawn()
            .map_err(NetworkError::kernel(what))?;
        Ok(Self {
            socket: Some(ours),
            child,
        })
    }

    /// A socket in the container.
    pub(crate) fn socket(&self, family: AddressFamily, kind: SocketType) -> Result<OwnedFd, Errno> {
        let wanted = KINDS.iter().find(|(_, f, k)| (*f, *k) == (family, kind));
        let number = wanted.map(|(number, ..)| *number).ok_or(Errno::INVAL)?;
        let socket = self.socket.as_ref().ok_or(Errno::PIPE)?.as_fd();
        sys::socket::send(socket, &[number], &[])?;
        let mut buffer = [0; 8];
        let mut received = sys::socket::receive(socket, &mut buffer)?;
        received.descriptors.pop().ok_or(Errno::MFILE)
    }
}

impl Drop for Dialer {
    fn drop(&mut self) {
        // Without its socket it ends.
        self.socket = None;
        drop(self.child.wait());
    }
}

/// The other process: standard input is the monitor's socket, standard output the namespace.
/// Returns when the monitor is gone.
///
/// # Errors
/// When the namespace cannot be entered.
pub fn serve() -> std::io::Result<()> {
    let (monitor, netns) = (std::io::stdin(), std::io::stdout());
    move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network))?;
    let mut buffer = [0; 8];
    loop {
        let received = sys::socket::receive(monitor.as_fd(), &mut buffer)?;
        if received.length == 0 {
            return Ok(());
        }
        let wanted = KINDS.iter().find(|(number, ..)| *number == buffer[0]);
        let made = wanted.and_then(|(_, family, kind)| {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            rustix::net::socket_with(*family, *kind, flags, None).ok()
        });
        match &made {
            Some(socket) => sys::socket::send(monitor.as_fd(), b"s", &[socket.as_fd()])?,
            None => sys::socket::send(monitor.as_fd(), b"-", &[])?,
        }
    }
}
