//! The client of HTTP servers: so many connections, each with one request on its way until the time is over, and every
//! answer checked.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::call::Interrupted;
use crate::job::Wrong;
use crate::watch::Waiting;

/// Connections: enough that the server always has something to do on two processors, and so few that what is
/// measured is no queue.
pub(crate) const CONNECTIONS: u32 = 8;

/// How long requests are sent.
const TIME: Duration = Duration::from_millis(200);
/// How long a server may be silent.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often it is looked whether the user wants no more.
const TICK: Duration = Duration::from_millis(100);
/// Requests on each connection that are not counted.
const FIRST: u32 = 10;

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n";
/// What both servers answer to it.
const ANSWER: &[u8] = b"hello\n";

/// Sends requests for a while: how many were answered, and how long that took.
pub(crate) fn requests(
    streams: Vec<TcpStream>,
    measure: &'static str,
    until: Waiting,
) -> anyhow::Result<(u64, Duration)> {
    let mut connections: Vec<Connection> = streams.into_iter().map(Connection::new).collect();
    for connection in &mut connections {
        for _ in 0..FIRST {
            connection.send()?;
            while !connection.receive(measure)? {}
        }
    }
    let began = Instant::now();
    for connection in &mut connections {
        connection.send()?;
    }
    let mut answered = 0;
    let mut heard = began;
    while connections.iter().any(|one| one.is_waiting) {
        let ready = ready(&connections)?;
        let now = Instant::now();
        if ready.is_empty() {
            if until.is_over() {
                return Err(Interrupted.into());
            }
            if now - heard >= PATIENCE {
                bail!("the server does not answer any more");
            }
            continue;
        }
        heard = now;
        for index in ready {
            let Some(connection) = connections.get_mut(index) else {
                continue;
            };
            if connection.receive(measure)? {
                answered += 1;
                if began.elapsed() < TIME {
                    connection.send()?;
                }
            }
        }
    }
    Ok((answered, began.elapsed()))
}

/// Which of those that wait for an answer can be read.
fn ready(connections: &[Connection]) -> anyhow::Result<Vec<usize>> {
    let waiting: Vec<usize> = connections
        .iter()
        .enumerate()
        .filter_map(|(index, one)| one.is_waiting.then_some(index))
        .collect();
    let mut fds: Vec<PollFd> = connections
        .iter()
        .filter(|one| one.is_waiting)
        .map(|one| PollFd::new(&one.stream, PollFlags::IN))
        .collect();
    let timeout = Timespec::try_from(TICK).context("cannot wait that long")?;
    match poll(&mut fds, Some(&timeout)) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(error) => return Err(error).context("cannot wait for answers"),
    }
    let ready = waiting.into_iter().zip(&fds);
    Ok(ready
        .filter(|(_, fd)| !fd.revents().is_empty())
        .map(|(index, _)| index)
        .collect())
}

struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    is_waiting: bool,
}

impl Connection {
    fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            buffer: Vec::with_capacity(1024),
            is_waiting: false,
        }
    }

    fn send(&mut self) -> anyhow::Result<()> {
        self.stream
            .write_all(REQUEST)
            .context("cannot send a request")?;
        self.is_waiting = true;
        Ok(())
    }

    /// Reads what is there; whether the answer is complete, and then it is right.
    fn receive(&mut self, measure: &'static str) -> anyhow::Result<bool> {
        let mut bytes = [0; 4096];
        let got = self.stream.read(&mut bytes);
        match got.context("cannot read an answer")? {
            0 => bail!("the server has closed a connection"),
            got => self.buffer.extend(bytes.get(..got).unwrap_or_default()),
        }
        let Some(body) = body(&self.buffer, measure)? else {
            return Ok(false);
        };
        if body != ANSWER {
            let what = format!("a body of {} bytes", body.len());
            return Err(Wrong { measure, what }.into());
        }
        self.buffer.clear();
        self.is_waiting = false;
        Ok(true)
    }
}

/// The body of an answer, when all of it is there (RFC 9112, section 6.2).
fn body<'a>(answer: &'a [u8], measure: &'static str) -> anyhow::Result<Option<&'a [u8]>> {
    let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(None);
    };
    let (head, rest) = answer.split_at(end);
    let head = std::str::from_utf8(head).context("the head of an answer is no text")?;
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap_or_default();
    if !status.starts_with("HTTP/1.1 200 ") {
        let what = format!("`{status}`");
        return Err(Wrong { measure, what }.into());
    }
    let length = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.trim().parse::<usize>().ok())?
    });
    let length = length.context("an answer has no length")?;
    let body = rest.get(4..).unwrap_or_default();
    Ok((body.len() >= length).then_some(body))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, TcpListener};

    use crate::watch::Watch;

    /// A server that answers every request with these bytes, in two pieces.
    fn served(answer: &'static [u8]) -> anyhow::Result<(u64, Duration)> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let streams: Vec<TcpStream> = (0..3)
            .map(|_| TcpStream::connect(address).unwrap())
            .collect();
        for stream in listener.incoming().take(3) {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let mut request = [0; REQUEST.len()];
                while stream.read_exact(&mut request).is_ok() {
                    let (first, second) = answer.split_at(answer.len() / 2);
                    for piece in [first, second] {
                        if stream.write_all(piece).is_err() {
                            return;
                        }
                    }
                }
            });
        }
        requests(streams, "net.http", Waiting::new(&Watch::default()))
    }

    #[test]
    fn right_answers_are_counted() {
        let (answered, took) =
            served(b"HTTP/1.1 200 OK\r\nServer: x\r\nContent-Length: 6\r\n\r\nhello\n").unwrap();

        assert!(answered >= 3 && took >= TIME, "{answered} in {took:?}");
    }

    #[test]
    fn wrong_answers_are_errors_of_their_own() {
        for answer in [
            b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nhallo\n".as_slice(),
            b"HTTP/1.1 500 Oh\r\ncontent-length: 6\r\n\r\nhello\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nhello\n\n",
        ] {
            let error = served(answer).unwrap_err();

            assert!(error.is::<Wrong>(), "{error:#}");
        }
    }
}
