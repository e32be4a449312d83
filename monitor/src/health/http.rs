//! A probe that asks an HTTP server in the container: for wasm, which has no program to run.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::Outcome;

/// The head of an answer is no longer, or not looked at further.
const MAX_HEAD: usize = 8 * 1024;

/// One question and its answer.
#[derive(Debug)]
pub(crate) struct HttpProbe {
    socket: OwnedFd,
    /// What is still to be sent.
    request: Vec<u8>,
    answer: Vec<u8>,
}

impl HttpProbe {
    /// Connects to the port on the loopback address of the namespace that process `pid` is in.
    pub(crate) fn start(pid: i32, port: u16, target: &str) -> Result<Self, Errno> {
        let netns = sys::net::namespace_of(Some(pid))?;
        let socket = sys::net::within(netns.as_fd(), || {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)
        })??;
        match rustix::net::connect(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(errno) => return Err(errno),
        }
        let request = format!(
            "GET {target} HTTP/1.1\r\nHost: localhost:{port}\r\nUser-Agent: ketch\r\nAccept: */*\r\nConnection: close\r\n\r\n"
        );
        Ok(Self {
            socket,
            request: request.into_bytes(),
            answer: Vec::new(),
        })
    }

    pub(crate) fn descriptor(&self) -> (BorrowedFd<'_>, PollFlags) {
        let flags = if self.request.is_empty() {
            PollFlags::IN
        } else {
            PollFlags::OUT
        };
        (self.socket.as_fd(), flags)
    }

    /// Goes on as far as it can; how it ended.
    pub(crate) fn turn(&mut self) -> Option<Outcome> {
        match self.talk() {
            Err(Errno::AGAIN | Errno::NOTCONN | Errno::INTR) => None,
            Err(errno) => Some(Outcome::failed(&runtime_native::reason(errno))),
            Ok(()) => Some(outcome(&self.answer)),
        }
    }

    fn talk(&mut self) -> Result<(), Errno> {
        while !self.request.is_empty() {
            let flags = rustix::net::SendFlags::NOSIGNAL;
            let sent = rustix::net::send(&self.socket, &self.request, flags)?;
            self.request.drain(..sent);
        }
        let mut buffer = [0; 1024];
        loop {
            let length = rustix::io::read(&self.socket, &mut buffer)?;
            self.answer
                .extend_from_slice(buffer.get(..length).unwrap_or_default());
            let has_head = self.answer.windows(4).any(|bytes| bytes == b"\r\n\r\n");
            if length == 0 || has_head || self.answer.len() > MAX_HEAD {
                return Ok(());
            }
        }
    }
}

/// A status below 400 is success (RFC 9110 section 15).
fn outcome(answer: &[u8]) -> Outcome {
    let line = answer.split(|byte| *byte == b'\r').next();
    let line = String::from_utf8_lossy(line.unwrap_or_default());
    let status = line
        .strip_prefix("HTTP/1.")
        .and_then(|rest| rest.get(2..5)?.parse::<u16>().ok());
    match status {
        Some(status) => Outcome {
            exit_code: i32::from(!(100..400).contains(&status)),
            output: line.as_bytes().to_vec(),
        },
        None => Outcome::failed("the answer is not HTTP/1.1"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_decides() {
        let code = |answer: &[u8]| outcome(answer).exit_code;
        assert_eq!(code(b"HTTP/1.1 200 OK\r\n\r\n"), 0);
        assert_eq!(code(b"HTTP/1.0 302 Found\r\n\r\n"), 0);
        assert_eq!(code(b"HTTP/1.1 503 Service Unavailable\r\n\r\n"), 1);
        assert_eq!(code(b"SSH-2.0\r\n"), -1);
        assert_eq!(code(b""), -1);
    }
}
