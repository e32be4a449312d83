//! Lines to a server. While there is none, the first line waits for it a while, and the container with
//! it unless it has a ring; then lines are lost, which the server is told when it is there again.

use std::ffi::OsStr;
use std::io::{self, Write};
use std::net::{TcpStream, ToSocketAddrs, UdpSocket};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use runtime::{LogAddress, LogDestination, LogReceiver};
use state::nanoseconds_now;

use super::{fluentd, journald, syslog};
use crate::log::Frame;

/// How long the first line waits for a server that does not answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Between two tries; while lines are lost it is tried no more often either.
const PAUSE: Duration = Duration::from_millis(500);

/// How long connecting, or writing to a server that reads no more, may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Where the journal listens (systemd's native protocol).
const JOURNAL: &str = "/run/systemd/journal/socket";

/// The way to a server.
pub(super) struct Sender<'a> {
    receiver: &'a LogReceiver,
    connection: Option<Connection>,
    /// Since when lines are lost, and when it is tried again.
    away: Option<Instant>,
    lost: u64,
}

enum Connection {
    Stream(Box<dyn Write>),
    Datagram(UnixDatagram),
    Udp(UdpSocket),
}

impl<'a> Sender<'a> {
    pub(super) fn new(receiver: &'a LogReceiver) -> Self {
        Self {
            receiver,
            connection: None,
            away: None,
            lost: 0,
        }
    }

    pub(super) fn send(&mut self, frame: &Frame) {
        if self.away.is_some_and(|until| Instant::now() < until) {
            self.lost += 1;
            return;
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.try_send(frame) {
                Ok(()) => {
                    self.away = None;
                    return;
                }
                Err(_) if self.away.is_none() && Instant::now() < deadline => thread::sleep(PAUSE),
                Err(_) => {
                    self.away = Some(Instant::now() + PAUSE);
                    self.lost += 1;
                    return;
                }
            }
        }
    }

    fn try_send(&mut self, frame: &Frame) -> io::Result<()> {
        if self.connection.is_none() {
            self.connection = Some(connect(&self.receiver.destination)?);
        }
        if self.lost > 0 {
            let text = format!(
                "ketch: {} lines were lost while this server was away\n",
                self.lost
            );
            self.write(&Frame {
                time: nanoseconds_now(),
                is_stderr: true,
                bytes: text.into_bytes(),
            })?;
            self.lost = 0;
        }
        self.write(frame)
    }

    fn write(&mut self, frame: &Frame) -> io::Result<()> {
        let receiver = self.receiver;
        let message = match &receiver.destination {
            LogDestination::Syslog {
                facility,
                format,
                hostname,
                ..
            } => syslog::message(receiver, (*facility, *format), hostname, frame),
            LogDestination::Fluentd { sub_second, .. } => {
                fluentd::message(receiver, *sub_second, frame)
            }
            LogDestination::Journald => journald::message(receiver, frame),
        };
        let done = match &mut self.connection {
            Some(Connection::Stream(stream)) => stream.write_all(&message),
            Some(Connection::Datagram(socket)) => socket.send(&message).map(drop),
            Some(Connection::Udp(socket)) => match socket.send(&message) {
                // Somebody said that nobody was there for an earlier message (udp(7)); this one is
                // on its way, as UDP has it.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
                other => other.map(drop),
            },
            None => Err(io::ErrorKind::NotConnected.into()),
        };
        if done.is_err() {
            self.connection = None;
        }
        done
    }
}

fn connect(destination: &LogDestination) -> io::Result<Connection> {
    match destination {
        LogDestination::Syslog { address, .. } | LogDestination::Fluentd { address, .. } => {
            match address {
                LogAddress::UnixStream(path) => {
                    let stream = UnixStream::connect(OsStr::from_bytes(path.to_bytes()))?;
                    stream.set_write_timeout(Some(TIMEOUT))?;
                    Ok(Connection::Stream(Box::new(stream)))
                }
                LogAddress::UnixDatagram(path) => {
                    datagram(Path::new(OsStr::from_bytes(path.to_bytes())))
                }
                LogAddress::Tcp(text) => tcp(text),
                LogAddress::Udp(text) => udp(text),
            }
        }
        LogDestination::Journald => datagram(Path::new(JOURNAL)),
    }
}

fn datagram(path: &Path) -> io::Result<Connection> {
    let socket = UnixDatagram::unbound()?;
    socket.connect(path)?;
    socket.set_write_timeout(Some(TIMEOUT))?;
    Ok(Connection::Datagram(socket))
}

fn tcp(text: &str) -> io::Result<Connection> {
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in text.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, TIMEOUT) {
            Ok(stream) => {
                stream.set_write_timeout(Some(TIMEOUT))?;
                return Ok(Connection::Stream(Box::new(stream)));
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn udp(text: &str) -> io::Result<Connection> {
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in text.to_socket_addrs()? {
        let any = if address.is_ipv4() {
            "0.0.0.0:0"
        } else {
            "[::]:0"
        };
        let socket = UdpSocket::bind(any)?;
        match socket.connect(address) {
            Ok(()) => return Ok(Connection::Udp(socket)),
            Err(error) => last = error,
        }
    }
    Err(last)
}
