//! One request to a plugin. HTTP/1.0 asks for an answer in one piece, which ends with the
//! connection, and every server understands it.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::net::sockopt::{Timeout, set_socket_timeout};

use crate::Address;

/// What plugins expect as `Accept` and `Content-Type`.
const MEDIA_TYPE: &str = "application/vnd.docker.plugins.v1.1+json";

/// No answer is longer.
const MAX_ANSWER: usize = 4 << 20;

/// Either kind of connection.
enum Connection {
    Unix(std::fs::File),
    Tcp(TcpStream),
}

impl Connection {
    fn open(address: &Address, patience: Duration) -> io::Result<Self> {
        Ok(match address {
            Address::Unix(path) => {
                let socket: OwnedFd = sys::socket::connect_stream_within(path, patience)?;
                Self::Unix(socket.into())
            }
            Address::Tcp(address) => Self::Tcp(TcpStream::connect_timeout(address, patience)?),
        })
    }

    /// What comes or goes later than this has failed.
    fn limit(&self, deadline: Instant) -> io::Result<()> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let fd = match self {
            Self::Unix(file) => file.as_fd(),
            Self::Tcp(stream) => stream.as_fd(),
        };
        set_socket_timeout(fd, Timeout::Recv, Some(left))?;
        Ok(set_socket_timeout(fd, Timeout::Send, Some(left))?)
    }
}

impl Read for Connection {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Unix(file) => file.read(buffer),
            Self::Tcp(stream) => stream.read(buffer),
        }
    }
}

impl Write for Connection {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Unix(file) => file.write(bytes),
            Self::Tcp(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Posts a body; the status and the body of the answer.
pub(crate) fn post(
    address: &Address,
    path: &str,
    body: &[u8],
    patience: Duration,
) -> io::Result<(u16, Vec<u8>)> {
    let deadline = Instant::now() + patience;
    let late = |error: io::Error| match error.kind() {
        // The socket's own limit.
        io::ErrorKind::WouldBlock => io::ErrorKind::TimedOut.into(),
        _ => error,
    };
    let mut connection = Connection::open(address, patience).map_err(late)?;
    connection.limit(deadline)?;
    let length = body.len();
    let mut request = format!(
        "POST /{path} HTTP/1.0\r\nHost: localhost\r\nAccept: {MEDIA_TYPE}\r\nContent-Type: {MEDIA_TYPE}\r\nContent-Length: {length}\r\n\r\n"
    )
    .into_bytes();
    request.extend_from_slice(body);
    connection.write_all(&request).map_err(late)?;
    let mut answer = Vec::new();
    let mut buffer = [0; 16 * 1024];
    loop {
        connection.limit(deadline)?;
        match connection.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => answer.extend_from_slice(buffer.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(late(error)),
        }
        if answer.len() > MAX_ANSWER {
            return Err(invalid("its answer is too long"));
        }
        if is_complete(&answer) {
            break;
        }
    }
    parse(&answer)
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// The header and what is behind it.
fn split(answer: &[u8]) -> Option<(&str, &[u8])> {
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n")?;
    let (header, body) = answer.split_at_checked(end)?;
    Some((std::str::from_utf8(header).ok()?, body.get(4..)?))
}

/// Whether all is there that was announced: a server may keep the connection open.
fn is_complete(answer: &[u8]) -> bool {
    let Some((header, body)) = split(answer) else {
        return false;
    };
    let length = header.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        let is_length = key.eq_ignore_ascii_case("content-length");
        value.trim().parse::<usize>().ok().filter(|_| is_length)
    });
    length.is_some_and(|length| body.len() >= length)
}

fn parse(answer: &[u8]) -> io::Result<(u16, Vec<u8>)> {
    let (header, body) = split(answer).ok_or_else(|| invalid("its answer is no HTTP"))?;
    let status = header.split(' ').nth(1).and_then(|text| text.parse().ok());
    let status = status.ok_or_else(|| invalid("its answer has no status"))?;
    Ok((status, body.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answer_has_status_and_body() {
        let (status, body) = parse(b"HTTP/1.0 200 OK\r\nA: b\r\n\r\n{}").unwrap();
        assert_eq!((status, body.as_slice()), (200, &b"{}"[..]));
        for bad in [&b""[..], b"HTTP/1.0\r\n\r\n", b"nothing at all"] {
            assert!(parse(bad).is_err());
        }
    }

    #[test]
    fn announced_length_ends_an_answer() {
        assert!(is_complete(
            b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"
        ));
        assert!(!is_complete(
            b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n{}"
        ));
        assert!(!is_complete(b"HTTP/1.1 200 OK\r\n\r\n{}"));
    }
}
