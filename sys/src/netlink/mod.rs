//! Netlink (netlink(7)): messages built into a batch, sent by one call, answered before it returns.
//! Links, addresses and routes are in [`link`] and [`address`], packet filtering in [`nftables`],
//! tracked connections in [`conntrack`]. Numbers are those of `include/uapi/linux`.

pub mod address;
pub mod conntrack;
pub mod link;
mod message;
pub mod nftables;

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

pub use message::{Attributes, Batch};
use message::{Parsed, messages, read_u32};

/// A buffer that holds every datagram of the kernel: `NLMSG_GOODSIZE` is at most this.
const BUFFER: usize = 32 * 1024;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;

/// Which part of the kernel is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Links, addresses, routes.
    Route,
    /// nftables and connection tracking.
    Netfilter,
}

/// A request that the kernel refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The place of the refused message in its batch.
    pub message: usize,
    /// Why.
    pub errno: Errno,
}

impl From<Errno> for Refused {
    fn from(errno: Errno) -> Self {
        Self { message: 0, errno }
    }
}

impl From<Refused> for std::io::Error {
    fn from(refused: Refused) -> Self {
        refused.errno.into()
    }
}

/// A netlink socket. It belongs to the network namespace in which it was made, whatever becomes of
/// the calling thread.
#[derive(Debug)]
pub struct Netlink {
    socket: OwnedFd,
}

impl Netlink {
    /// Opens a socket in the network namespace of the calling thread.
    ///
    /// # Errors
    /// As `socket(2)`.
    pub fn open(protocol: Protocol) -> Result<Self, Errno> {
        Self::open_in_groups(protocol, 0)
    }

    /// Opens a socket that also gets the messages of multicast `groups` (a bit mask).
    ///
    /// # Errors
    /// As `socket(2)` and `bind(2)`.
    pub fn open_in_groups(protocol: Protocol, groups: u32) -> Result<Self, Errno> {
        let number = match protocol {
            Protocol::Route => None,
            Protocol::Netfilter => Some(rustix::net::netlink::NETFILTER),
        };
        let flags = SocketFlags::CLOEXEC;
        let socket =
            rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, number)?;
        if groups != 0 {
            rustix::net::bind(&socket, &SocketAddrNetlink::new(0, groups))?;
        }
        Ok(Self { socket })
    }

    /// Sends a batch and waits for the kernel's answer to its last message; the earlier ones are
    /// answered only when they are refused. nftables takes all of a batch or nothing; elsewhere the
    /// messages before and after a refused one are in force.
    ///
    /// # Errors
    /// The first message that was refused. An empty batch is no error.
    pub fn execute(&self, batch: Batch) -> Result<(), Refused> {
        let Some((bytes, last)) = batch.finish() else {
            return Ok(());
        };
        rustix::net::sendto(
            &self.socket,
            &bytes,
            SendFlags::empty(),
            &SocketAddrNetlink::new(0, 0),
        )?;
        let mut refused = None;
        let mut buffer = vec![0; BUFFER];
        loop {
            let length = self.receive(&mut buffer)?;
            for message in messages(buffer.get(..length).unwrap_or_default()) {
                if message.kind != NLMSG_ERROR {
                    continue;
                }
                let errno = error_of(&message);
                // Number 0 is the frame of a netfilter batch, which stands for the whole of it.
                let place = usize::try_from(message.sequence).unwrap_or(0);
                if let Some(errno) = errno
                    && refused.is_none()
                {
                    refused = Some(Refused {
                        message: place.saturating_sub(1),
                        errno,
                    });
                }
                if message.sequence == last || message.sequence == 0 {
                    return refused.map_or(Ok(()), Err);
                }
            }
        }
    }

    /// Sends one request and gives every message of the answer to `each`: its type and what follows
    /// its netlink header.
    ///
    /// # Errors
    /// As `sendto(2)`, or the error that the kernel answers with.
    pub fn dump(&self, request: Batch, mut each: impl FnMut(u16, &[u8])) -> Result<(), Errno> {
        let Some((bytes, _)) = request.finish() else {
            return Ok(());
        };
        rustix::net::sendto(
            &self.socket,
            &bytes,
            SendFlags::empty(),
            &SocketAddrNetlink::new(0, 0),
        )?;
        let mut buffer = vec![0; BUFFER];
        loop {
            let length = self.receive(&mut buffer)?;
            for message in messages(buffer.get(..length).unwrap_or_default()) {
                match message.kind {
                    NLMSG_DONE => return Ok(()),
                    NLMSG_ERROR => return error_of(&message).map_or(Ok(()), Err),
                    kind => each(kind, message.body),
                }
            }
        }
    }

    /// Takes everything that has come without waiting, and says whether anything has.
    ///
    /// # Errors
    /// As `recv(2)`; `ENOBUFS` when messages were lost, which is news as well.
    pub fn take_news(&self) -> Result<bool, Errno> {
        let mut buffer = [0; 4096];
        let mut any = false;
        loop {
            match rustix::net::recv(&self.socket, &mut buffer[..], RecvFlags::DONTWAIT) {
                Ok(_) | Err(Errno::NOBUFS) => any = true,
                Err(Errno::AGAIN) => return Ok(any),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
    }

    /// Of the messages of nftables hears only those that begin with the deletion of a table, a chain,
    /// a rule or a set: what a flush of all rules sends, and a change of elements does not.
    ///
    /// # Errors
    /// As `setsockopt(2)`.
    pub fn hear_deletions_only(&self) -> Result<(), Errno> {
        // NFT_MSG_DELTABLE, DELCHAIN, DELRULE, DELSET: the low byte of the message's type.
        const KINDS: [u32; 4] = [2, 5, 8, 11];
        let at = if cfg!(target_endian = "little") { 4 } else { 5 };
        let step = |code: u32, jt: usize, k: u32| libc::sock_filter {
            code: u16::try_from(code).unwrap_or(0),
            jt: u8::try_from(jt).unwrap_or(0),
            jf: 0,
            k,
        };
        let mut program = vec![step(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, 0, at)];
        for (place, kind) in KINDS.into_iter().enumerate() {
            let code = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
            program.push(step(code, KINDS.len() - place, kind));
        }
        program.push(step(libc::BPF_RET | libc::BPF_K, 0, 0));
        program.push(step(libc::BPF_RET | libc::BPF_K, 0, u32::MAX));
        attach_filter(self.socket.as_fd(), &mut program)
    }

    fn receive(&self, buffer: &mut [u8]) -> Result<usize, Errno> {
        let (_, length) = rustix::io::retry_on_intr(|| {
            rustix::net::recv(&self.socket, &mut *buffer, RecvFlags::empty())
        })?;
        Ok(length)
    }

    /// The index of the link with this name in the socket's namespace.
    ///
    /// # Errors
    /// `ENODEV` when there is none.
    pub fn link_index(&self, name: &str) -> Result<u32, Errno> {
        rustix::net::netdevice::name_to_index(&self.socket, name)
    }

    /// The name of the link with this index.
    ///
    /// # Errors
    /// `ENODEV` when there is none.
    pub fn link_name(&self, index: u32) -> Result<String, Errno> {
        rustix::net::netdevice::index_to_name(&self.socket, index)
    }
}

impl AsFd for Netlink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Attaches a classic BPF program to a socket (socket(7), `SO_ATTACH_FILTER`).
fn attach_filter(socket: BorrowedFd<'_>, program: &mut [libc::sock_filter]) -> Result<(), Errno> {
    let description = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(|_| Errno::INVAL)?,
        filter: program.as_mut_ptr(),
    };
    let size =
        libc::socklen_t::try_from(size_of::<libc::sock_fprog>()).map_err(|_| Errno::INVAL)?;
    // SAFETY: SO_ATTACH_FILTER reads one `sock_fprog` of the size that is passed and the `len`
    // instructions that it points to; both live over the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const description).cast(),
            size,
        )
    };
    if result == -1 {
        return Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO));
    }
    Ok(())
}

/// The error in an `NLMSG_ERROR`; none when it is an acknowledgement.
fn error_of(message: &Parsed<'_>) -> Option<Errno> {
    let code = read_u32(message.body, 0)?.cast_signed();
    (code != 0).then(|| Errno::from_raw_os_error(code.saturating_neg()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refused_message_is_named_by_its_place() {
        let netlink = Netlink::open(Protocol::Route).unwrap();
        let mut batch = Batch::route();
        link::set_up(&mut batch, 1);
        link::set_up(&mut batch, 0x7fff_fff0);
        let refused = netlink.execute(batch).unwrap_err();
        // An ordinary user is refused the first already.
        if refused.errno != Errno::PERM {
            assert_eq!((refused.message, refused.errno), (1, Errno::NODEV));
        }
    }

    #[test]
    fn empty_batch_is_no_error() {
        let netlink = Netlink::open(Protocol::Route).unwrap();
        netlink.execute(Batch::route()).unwrap();
    }

    #[test]
    fn loopback_has_an_index_and_a_name() {
        let netlink = Netlink::open(Protocol::Route).unwrap();
        let index = netlink.link_index("lo").unwrap();
        assert_eq!(netlink.link_name(index).unwrap(), "lo");
    }
}
