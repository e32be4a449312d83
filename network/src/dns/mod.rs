//! The responder for names at 127.0.0.11 inside a container, served by its monitor. Its sockets have
//! ports of their own, so that a program of the container can have port 53; two rules in the
//! container's namespace lead there. What no container has as a name goes to the host's resolvers,
//! asked from the container's namespace, unless all of its networks are internal.

mod answer;
mod names;
mod stream;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant, SystemTime};

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use sys::netlink::nftables::{
    ChainType, Expression, Family, Field, Hook, Meta, Place, Register, Table,
};
use sys::netlink::{Batch, Netlink, Protocol, Refused, link};

use answer::{Outcome, settle};
use stream::Stream;

pub(crate) use answer::Outside;
pub(crate) use names::Names;

use crate::NetworkError;
use crate::files::{RESOLV_CONF, RESOLVER, Resolv};

/// Events of the responder begin here.
pub(crate) const FIRST: u64 = 1 << 48;
const UDP: u64 = FIRST;
const TCP: u64 = FIRST + 1;
const TIMER: u64 = FIRST + 2;

/// The port of name servers.
const PORT: u16 = 53;

/// How long a resolver has to answer before the next one is asked.
const PATIENCE: Duration = Duration::from_secs(2);

/// A connection on which nothing happens is closed.
const IDLE: Duration = Duration::from_secs(10);

/// Questions that are out at a time.
const MAX_PENDING: usize = 512;

/// Connections at a time.
const MAX_STREAMS: usize = 64;

/// Questions that are taken before others get their turn.
const AT_ONCE: usize = 64;

/// A question that a resolver of the host was asked.
#[derive(Debug)]
struct Pending {
    question: Vec<u8>,
    client: SocketAddr,
    socket: OwnedFd,
    /// Resolvers that were not asked yet.
    others: Vec<IpAddr>,
    deadline: Instant,
}

/// Where the resolvers come from.
#[derive(Debug)]
struct Resolvers {
    /// Asked for by the user.
    own: Vec<IpAddr>,
    host: Vec<IpAddr>,
    read_at: Option<SystemTime>,
}

impl Resolvers {
    /// The resolvers now: the host's file is read again when it has changed.
    fn now(&mut self) -> Vec<IpAddr> {
        if !self.own.is_empty() {
            return self.own.clone();
        }
        let modified = std::fs::metadata(RESOLV_CONF)
            .and_then(|meta| meta.modified())
            .ok();
        if modified.is_none() || modified != self.read_at {
            self.host = Resolv::of_host(false).servers;
            self.read_at = modified;
        }
        self.host.clone()
    }
}

/// The responder of one container.
#[derive(Debug)]
pub(crate) struct Responder {
    udp: OwnedFd,
    tcp: OwnedFd,
    timer: OwnedFd,
    netns: OwnedFd,
    names: Names,
    outside: Outside,
    resolvers: Resolvers,
    pending: BTreeMap<u64, Pending>,
    streams: BTreeMap<u64, Stream>,
    next: u64,
}

/// A socket of the responder.
fn listen(kind: SocketType) -> Result<(OwnedFd, u16), Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::INET, kind, flags, None)?;
    rustix::net::bind(&socket, &SocketAddr::from((RESOLVER, 0)))?;
    if kind == SocketType::STREAM {
        rustix::net::listen(&socket, 16)?;
    }
    let own = SocketAddr::try_from(rustix::net::getsockname(&socket)?)?;
    Ok((socket, own.port()))
}

/// A socket that talks to one resolver.
fn ask(server: IpAddr, kind: SocketType) -> Result<OwnedFd, Errno> {
    let family = if server.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, kind, flags, None)?;
    match rustix::net::connect(&socket, &SocketAddr::new(server, PORT)) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
        Err(errno) => Err(errno),
    }
}

/// The rules in the container's namespace.
const TABLE: Table = Table {
    family: Family::Ipv4,
    name: "ketch",
};

/// Whether an earlier responder of the container has left rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rules {
    /// There are none.
    New,
    /// They lead to sockets that are gone.
    Left,
}

/// Whether a container's names are asked for from a responder.
pub(crate) fn is_redirected(netns: BorrowedFd<'_>) -> Result<bool, NetworkError> {
    let exists = || TABLE.exists(&Netlink::open(Protocol::Netfilter)?);
    sys::net::within(netns, exists)
        .and_then(|exists| exists)
        .map_err(NetworkError::kernel("look at the container's rules"))
}

/// Leads port 53 of the resolver's address to the responder's ports, in the caller's namespace.
fn redirect(udp: u16, tcp: u16, rules: Rules) -> Result<(), Refused> {
    const CHAIN: &str = "resolver";
    const IPPROTO_TCP: u8 = 6;
    const IPPROTO_UDP: u8 = 17;
    let (key, value) = (Register(0), Register(8));
    let address = RESOLVER.octets();
    let mut batch = Batch::nftables();
    if rules == Rules::Left {
        TABLE.delete(&mut batch);
    }
    TABLE.create(&mut batch);
    let hook = Hook {
        chain_type: ChainType::Nat,
        place: Place::Output,
        priority: -100,
    };
    TABLE.create_chain(&mut batch, CHAIN, Some(hook));
    for (protocol, port) in [(IPPROTO_UDP, udp), (IPPROTO_TCP, tcp)] {
        let rule = [
            Expression::Field(Field::Destination4, key),
            Expression::Equal(key, &address),
            Expression::Meta(Meta::TransportProtocol, key),
            Expression::Equal(key, &[protocol]),
            Expression::Field(Field::DestinationPort, key),
            Expression::Equal(key, &PORT.to_be_bytes()),
            Expression::Load(value, &address),
            Expression::Load(Register(value.0 + 1), &port.to_be_bytes()),
            Expression::Destination(Family::Ipv4, value, Some(Register(value.0 + 1))),
        ];
        TABLE.add_rule(&mut batch, CHAIN, &rule);
    }
    Netlink::open(Protocol::Netfilter)?.execute(batch)
}

/// Makes the sockets and the rules, in the caller's namespace.
fn open(rules: Rules) -> Result<(OwnedFd, OwnedFd), Errno> {
    // Without the loopback link there is no such address; the container's init brings it up too.
    let routing = Netlink::open(Protocol::Route)?;
    let mut batch = Batch::route();
    link::set_up(&mut batch, routing.link_index("lo")?);
    routing.execute(batch).map_err(|refused| refused.errno)?;
    let (udp, udp_port) = listen(SocketType::DGRAM)?;
    let (tcp, tcp_port) = listen(SocketType::STREAM)?;
    redirect(udp_port, tcp_port, rules).map_err(|refused| refused.errno)?;
    Ok((udp, tcp))
}

impl Responder {
    /// Starts to answer inside a container.
    pub(crate) fn start(
        netns: OwnedFd,
        (names, outside): (Names, Outside),
        servers: &[IpAddr],
        epoll: &OwnedFd,
        rules: Rules,
    ) -> Result<Self, NetworkError> {
        let what = "serve names in the container";
        let (udp, tcp) = sys::net::within(netns.as_fd(), || open(rules))
            .and_then(|opened| opened)
            .map_err(NetworkError::kernel(what))?;
        let timer = timerfd_create(
            TimerfdClockId::Boottime,
            TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK,
        );
        let timer = timer.map_err(NetworkError::kernel(what))?;
        for (fd, token) in [(&udp, UDP), (&tcp, TCP), (&timer, TIMER)] {
            epoll::add(epoll, fd, EventData::new_u64(token), EventFlags::IN)
                .map_err(NetworkError::kernel(what))?;
        }
        Ok(Self {
            udp,
            tcp,
            timer,
            netns,
            names,
            outside,
            resolvers: Resolvers {
                own: servers.to_vec(),
                host: Vec::new(),
                read_at: None,
            },
            pending: BTreeMap::new(),
            streams: BTreeMap::new(),
            next: TIMER,
        })
    }

    /// The container is on other networks now.
    pub(crate) fn change(&mut self, names: Names, outside: Outside) {
        self.names = names;
        self.outside = outside;
    }

    /// Handles one event.
    pub(crate) fn handle(&mut self, token: u64, epoll: &OwnedFd, buffer: &mut [u8]) {
        match token {
            UDP => self.questions(epoll, buffer),
            TCP => self.accept(epoll),
            TIMER => self.tick(epoll),
            token if self.pending.contains_key(&token) => self.resolved(token, buffer),
            token => self.serve_stream(token, epoll, buffer),
        }
    }

    fn token(&mut self) -> u64 {
        // A stream's own token and its resolver's are neighbours.
        self.next += 2;
        self.next
    }

    fn questions(&mut self, epoll: &OwnedFd, buffer: &mut [u8]) {
        for _ in 0..AT_ONCE {
            let received = rustix::net::recvfrom(&self.udp, &mut *buffer, RecvFlags::DONTWAIT);
            let Ok((_, length, Some(client))) = received else {
                return;
            };
            let Ok(client) = SocketAddr::try_from(client) else {
                continue;
            };
            let question = buffer.get(..length).unwrap_or_default();
            match settle(question, &mut self.names, self.outside) {
                Outcome::Answer(answer) => self.send(&answer, client),
                Outcome::Forward => {
                    let servers = self.resolvers.now();
                    self.forward(question.to_vec(), client, servers, epoll);
                }
                Outcome::Drop => {}
            }
        }
    }

    fn send(&self, answer: &[u8], client: SocketAddr) {
        // An answer that is not taken is asked for again.
        let _lost = rustix::net::sendto(&self.udp, answer, SendFlags::DONTWAIT, &client);
    }

    /// Asks the first resolver that can be asked; without any the question has failed.
    fn forward(
        &mut self,
        question: Vec<u8>,
        client: SocketAddr,
        mut servers: Vec<IpAddr>,
        epoll: &OwnedFd,
    ) {
        if self.pending.len() >= MAX_PENDING {
            servers.clear();
        }
        while !servers.is_empty() {
            let server = servers.remove(0);
            let Ok(socket) = self.connect(server, SocketType::DGRAM) else {
                continue;
            };
            let token = self.token();
            let asked = rustix::net::send(&socket, &question, SendFlags::DONTWAIT).and_then(|_| {
                epoll::add(epoll, &socket, EventData::new_u64(token), EventFlags::IN)
            });
            if asked.is_err() {
                continue;
            }
            if self.pending.is_empty() && self.streams.is_empty() {
                self.set_timer(true);
            }
            self.pending.insert(
                token,
                Pending {
                    question,
                    client,
                    socket,
                    others: servers,
                    deadline: Instant::now() + PATIENCE,
                },
            );
            return;
        }
        if let Some(answer) = answer::failure(&question) {
            self.send(&answer, client);
        }
    }

    /// A socket to a resolver: from the container's namespace, unless the resolver is on the host's
    /// own loopback addresses.
    fn connect(&self, server: IpAddr, kind: SocketType) -> Result<OwnedFd, Errno> {
        if server.is_loopback() {
            return ask(server, kind);
        }
        sys::net::within(self.netns.as_fd(), || ask(server, kind))?
    }

    fn resolved(&mut self, token: u64, buffer: &mut [u8]) {
        let Some(pending) = self.pending.get(&token) else {
            return;
        };
        match rustix::net::recv(&pending.socket, &mut *buffer, RecvFlags::DONTWAIT) {
            Ok((_, length)) => {
                let answer = buffer.get(..length).unwrap_or_default();
                // The number must be the question's: anything else is somebody's guess.
                if answer.get(..2) == pending.question.get(..2) {
                    self.send(answer, pending.client);
                    self.pending.remove(&token);
                }
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            // Refused: the next resolver is asked at the next tick.
            Err(_) => {
                if let Some(pending) = self.pending.get_mut(&token) {
                    pending.deadline = Instant::now();
                }
            }
        }
    }

    fn set_timer(&self, on: bool) {
        let step = Timespec {
            tv_sec: 0,
            tv_nsec: if on { 250_000_000 } else { 0 },
        };
        let times = Itimerspec {
            it_interval: step,
            it_value: step,
        };
        // Without a timer a silent resolver is given up by the next question.
        drop(timerfd_settime(
            &self.timer,
            TimerfdTimerFlags::empty(),
            &times,
        ));
    }

    /// Gives up on silent resolvers and idle connections.
    fn tick(&mut self, epoll: &OwnedFd) {
        let mut count = [0; 8];
        let _spurious = rustix::io::read(&self.timer, &mut count);
        let now = Instant::now();
        let late: Vec<u64> = self
            .pending
            .iter()
            .filter(|(_, pending)| pending.deadline <= now)
            .map(|(token, _)| *token)
            .collect();
        for token in late {
            if let Some(pending) = self.pending.remove(&token) {
                self.forward(pending.question, pending.client, pending.others, epoll);
            }
        }
        self.streams
            .retain(|_, stream| now.duration_since(stream.used()) < IDLE);
        if self.pending.is_empty() && self.streams.is_empty() {
            self.set_timer(false);
        }
    }

    fn accept(&mut self, epoll: &OwnedFd) {
        for _ in 0..AT_ONCE {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let Ok(socket) = rustix::net::accept_with(&self.tcp, flags) else {
                return;
            };
            if self.streams.len() >= MAX_STREAMS {
                continue;
            }
            let token = self.token();
            let watched = epoll::add(epoll, &socket, EventData::new_u64(token), EventFlags::IN);
            if watched.is_ok() {
                if self.pending.is_empty() && self.streams.is_empty() {
                    self.set_timer(true);
                }
                self.streams.insert(token, Stream::new(token, socket));
            }
        }
    }

    fn serve_stream(&mut self, token: u64, epoll: &OwnedFd, buffer: &mut [u8]) {
        // The resolver's end has the next number.
        let owner = token & !1;
        let Some(mut stream) = self.streams.remove(&owner) else {
            return;
        };
        let mut go_on = stream.pump(epoll, buffer);
        while go_on && let Some(question) = stream.question() {
            match settle(&question, &mut self.names, self.outside) {
                Outcome::Answer(answer) => stream.answer(&answer),
                Outcome::Forward => {
                    let servers = self.resolvers.now();
                    let connect = |server| self.connect(server, SocketType::STREAM);
                    if !stream.forward(&question, servers, connect, epoll)
                        && let Some(answer) = answer::failure(&question)
                    {
                        stream.answer(&answer);
                    }
                }
                Outcome::Drop => go_on = false,
            }
        }
        if go_on && stream.flush(epoll) {
            self.streams.insert(owner, stream);
        }
    }
}
