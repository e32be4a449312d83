//! Passing on what the kernel cannot translate: connections to loopback addresses, from IPv6 to a
//! container that has IPv4 alone, and everything with `publish=proxy`. One event loop, no threads;
//! what the other side does not take yet is kept, and nothing more is read meanwhile.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, Shutdown, SocketFlags, SocketType};

use crate::ports::{Bound, Transport};
use crate::user_mode::Dialer;

/// A flow of UDP datagrams ends when it was silent for so long.
const FLOW_LIFETIME: Duration = Duration::from_secs(90);

/// How many flows there can be; the one that was silent for longest makes room.
const MAX_FLOWS: usize = 1024;

/// How much is read at once.
const READ: usize = 64 * 1024;

/// Connections taken, or datagrams passed on, before others get their turn.
const AT_ONCE: usize = 64;

/// What an event is about.
type Token = u64;

/// All proxies of one container.
#[derive(Debug)]
pub(crate) struct Proxies {
    ports: Vec<Bound>,
    first_port: Token,
    next: Token,
    relays: BTreeMap<Token, Relay>,
    /// The second socket of a relay.
    peers: BTreeMap<Token, Token>,
    flows: BTreeMap<Token, Flow>,
    /// Connects from inside the container.
    dialer: Option<Dialer>,
}

/// A TCP connection and the one to the container.
#[derive(Debug)]
struct Relay {
    tokens: [Token; 2],
    sockets: [OwnedFd; 2],
    /// What came from a socket and the other did not take yet.
    backlog: [Vec<u8>; 2],
    /// Nothing more comes from a socket, and the other was told.
    finished: [bool; 2],
    /// The connection to the container stands.
    connected: bool,
}

/// The datagrams of one peer of a port.
#[derive(Debug)]
struct Flow {
    port: usize,
    peer: SocketAddr,
    socket: OwnedFd,
    used: Instant,
}

fn family(address: SocketAddr) -> AddressFamily {
    if address.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    }
}

/// A socket on its way to an address, from this process's namespace or from the container's.
fn connect(
    dialer: Option<&Dialer>,
    address: SocketAddr,
    kind: SocketType,
) -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = match dialer {
        Some(dialer) => dialer.socket(family(address), kind)?,
        None => rustix::net::socket_with(family(address), kind, flags, None)?,
    };
    match rustix::net::connect(&socket, &address) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
        Err(errno) => Err(errno),
    }
}

impl Proxies {
    /// Listens on every port; tokens are taken from `first` on.
    pub(crate) fn new(ports: Vec<Bound>, first: Token, epoll: &OwnedFd) -> Result<Self, Errno> {
        let mut next = first;
        for port in &ports {
            if let Some(socket) = &port.socket {
                epoll::add(epoll, socket, EventData::new_u64(next), EventFlags::IN)?;
            }
            next += 1;
        }
        Ok(Self {
            ports,
            first_port: first,
            next,
            relays: BTreeMap::new(),
            peers: BTreeMap::new(),
            flows: BTreeMap::new(),
            dialer: None,
        })
    }

    /// The same, connecting from inside the container.
    pub(crate) fn through(self, dialer: Dialer) -> Self {
        Self {
            dialer: Some(dialer),
            ..self
        }
    }

    /// The published ports.
    pub(crate) fn ports(&self) -> &[Bound] {
        &self.ports
    }

    fn token(&mut self) -> Token {
        self.next += 1;
        self.next
    }

    /// Handles one event.
    pub(crate) fn handle(
        &mut self,
        token: Token,
        flags: EventFlags,
        epoll: &OwnedFd,
        buffer: &mut [u8],
    ) {
        let place = token.checked_sub(self.first_port);
        let place = place.and_then(|place| usize::try_from(place).ok());
        if let Some(index) = place.filter(|place| *place < self.ports.len()) {
            match self.ports.get(index).map(|port| port.mapping.transport) {
                Some(Transport::Tcp) => self.accept(index, epoll),
                Some(Transport::Udp) => self.datagrams(index, epoll, buffer),
                _ => {}
            }
        } else if self.flows.contains_key(&token) {
            self.answers(token, buffer);
        } else {
            let owner = self.peers.get(&token).copied().unwrap_or(token);
            let over = self.relays.get_mut(&owner).is_some_and(|relay| {
                let side = usize::from(owner != token);
                // Nothing is read from a side that has finished, so its end is seen here alone.
                let gone = flags.intersects(EventFlags::ERR | EventFlags::HUP);
                (gone && relay.finished[side]) || relay.pump(epoll, buffer).is_err()
            });
            if over && let Some(relay) = self.relays.remove(&owner) {
                self.peers.remove(&relay.tokens[1]);
            }
        }
    }

    fn accept(&mut self, index: usize, epoll: &OwnedFd) {
        for _ in 0..AT_ONCE {
            let Some(port) = self.ports.get(index) else {
                return;
            };
            let Some(listener) = &port.socket else { return };
            let target = port.mapping.container;
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let Ok(client) = rustix::net::accept_with(listener, flags) else {
                return;
            };
            // A container that cannot be reached: the client sees its connection end.
            let Ok(upstream) = connect(self.dialer.as_ref(), target, SocketType::STREAM) else {
                continue;
            };
            let tokens = [self.token(), self.token()];
            let watched = epoll::add(
                epoll,
                &client,
                EventData::new_u64(tokens[0]),
                EventFlags::empty(),
            )
            .and_then(|()| {
                let data = EventData::new_u64(tokens[1]);
                epoll::add(epoll, &upstream, data, EventFlags::OUT)
            });
            if watched.is_ok() {
                self.peers.insert(tokens[1], tokens[0]);
                self.relays.insert(
                    tokens[0],
                    Relay {
                        tokens,
                        sockets: [client, upstream],
                        backlog: [Vec::new(), Vec::new()],
                        finished: [false, false],
                        connected: false,
                    },
                );
            }
        }
    }

    fn datagrams(&mut self, index: usize, epoll: &OwnedFd, buffer: &mut [u8]) {
        for _ in 0..AT_ONCE {
            let Some(port) = self.ports.get(index) else {
                return;
            };
            let Some(listener) = &port.socket else { return };
            let target = port.mapping.container;
            let received = rustix::net::recvfrom(listener, &mut *buffer, RecvFlags::DONTWAIT);
            let Ok((_, length, Some(peer))) = received else {
                return;
            };
            let Ok(peer) = SocketAddr::try_from(peer) else {
                continue;
            };
            let known = self
                .flows
                .iter()
                .find(|(_, flow)| flow.port == index && flow.peer == peer)
                .map(|(token, _)| *token);
            let token = match known {
                Some(token) => token,
                None => match self.open_flow(index, peer, target, epoll) {
                    Ok(token) => token,
                    Err(_) => continue,
                },
            };
            if let Some(flow) = self.flows.get_mut(&token) {
                flow.used = Instant::now();
                let bytes = buffer.get(..length).unwrap_or_default();
                // A datagram that is not taken is lost, as on any way.
                let _lost = rustix::net::send(&flow.socket, bytes, SendFlags::DONTWAIT);
            }
        }
    }

    fn open_flow(
        &mut self,
        port: usize,
        peer: SocketAddr,
        target: SocketAddr,
        epoll: &OwnedFd,
    ) -> Result<Token, Errno> {
        let now = Instant::now();
        self.flows
            .retain(|_, flow| now.duration_since(flow.used) < FLOW_LIFETIME);
        if self.flows.len() >= MAX_FLOWS {
            let oldest = self.flows.iter().min_by_key(|(_, flow)| flow.used);
            if let Some(token) = oldest.map(|(token, _)| *token) {
                self.flows.remove(&token);
            }
        }
        let socket = connect(self.dialer.as_ref(), target, SocketType::DGRAM)?;
        let token = self.token();
        epoll::add(epoll, &socket, EventData::new_u64(token), EventFlags::IN)?;
        self.flows.insert(
            token,
            Flow {
                port,
                peer,
                socket,
                used: now,
            },
        );
        Ok(token)
    }

    fn answers(&mut self, token: Token, buffer: &mut [u8]) {
        let Some(flow) = self.flows.get_mut(&token) else {
            return;
        };
        flow.used = Instant::now();
        let listener = self
            .ports
            .get(flow.port)
            .and_then(|port| port.socket.as_ref());
        let Some(listener) = listener else { return };
        for _ in 0..AT_ONCE {
            // An error is a refusal by the container, which its peer cannot be told.
            let Ok((_, length)) =
                rustix::net::recv(&flow.socket, &mut *buffer, RecvFlags::DONTWAIT)
            else {
                return;
            };
            let bytes = buffer.get(..length).unwrap_or_default();
            let _lost = rustix::net::sendto(listener, bytes, SendFlags::DONTWAIT, &flow.peer);
        }
    }
}

impl Relay {
    /// Moves what can be moved, both ways. An error is the end of both connections.
    fn pump(&mut self, epoll: &OwnedFd, buffer: &mut [u8]) -> Result<(), Errno> {
        if !self.connected {
            rustix::net::sockopt::socket_error(&self.sockets[1])??;
            self.connected = true;
        }
        for from in 0..2 {
            self.move_from(from, buffer)?;
        }
        let empty = self.backlog.iter().all(Vec::is_empty);
        if empty && self.finished == [true, true] {
            return Err(Errno::PIPE);
        }
        for side in 0..2 {
            let mut interest = EventFlags::empty();
            if self.backlog[side].is_empty() && !self.finished[side] {
                interest |= EventFlags::IN;
            }
            if !self.backlog[1 - side].is_empty() {
                interest |= EventFlags::OUT;
            }
            let data = EventData::new_u64(self.tokens[side]);
            epoll::modify(epoll, self.sockets[side].as_fd(), data, interest)?;
        }
        Ok(())
    }

    fn move_from(&mut self, from: usize, buffer: &mut [u8]) -> Result<(), Errno> {
        let to = 1 - from;
        if !self.backlog[from].is_empty() {
            let sent = send(&self.sockets[to], &self.backlog[from])?;
            self.backlog[from].drain(..sent);
            if !self.backlog[from].is_empty() {
                return Ok(());
            }
            // An idle connection keeps no buffer.
            self.backlog[from] = Vec::new();
        }
        if self.finished[from] {
            return Ok(());
        }
        match rustix::net::recv(&self.sockets[from], &mut *buffer, RecvFlags::DONTWAIT) {
            Ok((_, 0)) => {
                self.finished[from] = true;
                rustix::net::shutdown(&self.sockets[to], Shutdown::Write)
            }
            Ok((_, length)) => {
                let bytes = buffer.get(..length).unwrap_or_default();
                let sent = send(&self.sockets[to], bytes)?;
                self.backlog[from].extend_from_slice(bytes.get(sent..).unwrap_or_default());
                Ok(())
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(()),
            Err(errno) => Err(errno),
        }
    }
}

fn send(socket: &OwnedFd, bytes: &[u8]) -> Result<usize, Errno> {
    match rustix::net::send(socket, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
        Err(Errno::AGAIN | Errno::INTR) => Ok(0),
        other => other,
    }
}

/// The buffer that all proxies of a container share.
pub(crate) fn buffer() -> Vec<u8> {
    vec![0; READ]
}
