//! Questions over TCP (RFC 1035 section 4.2.2): each message after its length in two bytes.

use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

/// What a client may send before it takes its answers.
const MAX_BACKLOG: usize = 128 * 1024;

/// A client's connection, and the one to a resolver when it needs that.
#[derive(Debug)]
pub(super) struct Stream {
    token: u64,
    client: OwnedFd,
    resolver: Option<OwnedFd>,
    incoming: Vec<u8>,
    to_client: Vec<u8>,
    to_resolver: Vec<u8>,
    used: Instant,
}

impl Stream {
    pub(super) fn new(token: u64, client: OwnedFd) -> Self {
        Self {
            token,
            client,
            resolver: None,
            incoming: Vec::new(),
            to_client: Vec::new(),
            to_resolver: Vec::new(),
            used: Instant::now(),
        }
    }

    /// When something happened last.
    pub(super) fn used(&self) -> Instant {
        self.used
    }

    /// Reads what has come from both ends; false at the end.
    pub(super) fn pump(&mut self, epoll: &OwnedFd, buffer: &mut [u8]) -> bool {
        self.used = Instant::now();
        let mut resolver_gone = false;
        if let Some(resolver) = &self.resolver {
            match rustix::net::recv(resolver, &mut *buffer, RecvFlags::DONTWAIT) {
                Ok((_, length)) if length > 0 => {
                    let bytes = buffer.get(..length).unwrap_or_default();
                    self.to_client.extend_from_slice(bytes);
                }
                Err(Errno::AGAIN | Errno::INTR | Errno::NOTCONN) => {}
                _ => resolver_gone = true,
            }
        }
        if resolver_gone && let Some(resolver) = self.resolver.take() {
            // Closing it ends the watching as well.
            let _gone = epoll::delete(epoll, &resolver);
        }
        match rustix::net::recv(&self.client, &mut *buffer, RecvFlags::DONTWAIT) {
            Ok((_, 0)) => false,
            Ok((_, length)) => {
                let bytes = buffer.get(..length).unwrap_or_default();
                self.incoming.extend_from_slice(bytes);
                self.incoming.len() + self.to_resolver.len() < MAX_BACKLOG
            }
            Err(Errno::AGAIN | Errno::INTR) => true,
            Err(_) => false,
        }
    }

    /// The next whole question.
    pub(super) fn question(&mut self) -> Option<Vec<u8>> {
        let prefix = self.incoming.get(..2)?;
        let length = usize::from(u16::from_be_bytes([prefix[0], prefix[1]]));
        let question = self.incoming.get(2..2 + length)?.to_vec();
        self.incoming.drain(..2 + length);
        Some(question)
    }

    /// An answer to the client.
    pub(super) fn answer(&mut self, answer: &[u8]) {
        push(&mut self.to_client, answer);
    }

    /// Passes a question on; false when no resolver can be reached.
    pub(super) fn forward(
        &mut self,
        question: &[u8],
        servers: Vec<IpAddr>,
        connect: impl Fn(IpAddr) -> Result<OwnedFd, Errno>,
        epoll: &OwnedFd,
    ) -> bool {
        if self.resolver.is_none() {
            let data = EventData::new_u64(self.token + 1);
            self.resolver = servers.into_iter().find_map(|server| {
                let socket = connect(server).ok()?;
                epoll::add(epoll, &socket, data, EventFlags::IN | EventFlags::OUT).ok()?;
                Some(socket)
            });
        }
        push(&mut self.to_resolver, question);
        self.resolver.is_some()
    }

    /// Sends what can be sent; false when the client is gone.
    pub(super) fn flush(&mut self, epoll: &OwnedFd) -> bool {
        let sent = send(&self.client, &mut self.to_client);
        let watch = |socket: &OwnedFd, token: u64, waiting: bool| {
            let mut interest = EventFlags::IN;
            if waiting {
                interest |= EventFlags::OUT;
            }
            epoll::modify(epoll, socket.as_fd(), EventData::new_u64(token), interest)
        };
        if let Some(resolver) = &self.resolver {
            // A resolver that is gone shows when it is read.
            let _gone = send(resolver, &mut self.to_resolver);
            let waiting = !self.to_resolver.is_empty();
            let _gone = watch(resolver, self.token + 1, waiting);
        }
        sent.is_ok() && watch(&self.client, self.token, !self.to_client.is_empty()).is_ok()
    }
}

fn push(queue: &mut Vec<u8>, message: &[u8]) {
    let length = u16::try_from(message.len()).unwrap_or(u16::MAX);
    queue.extend_from_slice(&length.to_be_bytes());
    queue.extend_from_slice(message);
}

fn send(socket: &OwnedFd, queue: &mut Vec<u8>) -> Result<(), Errno> {
    if queue.is_empty() {
        return Ok(());
    }
    match rustix::net::send(socket, queue, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
        Ok(length) => {
            queue.drain(..length);
            Ok(())
        }
        Err(Errno::AGAIN | Errno::INTR | Errno::NOTCONN) => Ok(()),
        Err(errno) => Err(errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_cut_at_their_lengths() {
        let (client, _other) = rustix::net::socketpair(
            rustix::net::AddressFamily::UNIX,
            rustix::net::SocketType::STREAM,
            rustix::net::SocketFlags::empty(),
            None,
        )
        .unwrap();
        let mut stream = Stream::new(2, client);
        stream.incoming = vec![0, 2, 7, 8, 0, 1, 9, 0];
        assert_eq!(stream.question(), Some(vec![7, 8]));
        assert_eq!(stream.question(), Some(vec![9]));
        assert_eq!(stream.question(), None);
    }
}
