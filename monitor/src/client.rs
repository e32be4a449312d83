//! One caller of the control socket, and the pipes that carry the container's streams to it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use runtime::{ControlError, Event, MAX_MESSAGE, Request, Response};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};

/// A caller.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) socket: OwnedFd,
    /// It asked for events.
    pub(crate) watches: bool,
    /// It is answered when the container has ended.
    pub(crate) waits_for_end: bool,
    /// Pipes that carry standard output and standard error.
    pub(crate) outputs: [Option<Output>; 2],
    /// The read end of a pipe that carries what it types at a terminal.
    pub(crate) input: Option<OwnedFd>,
    pub(crate) gone: bool,
}

/// What a caller sent.
pub(crate) enum Message {
    Request(Request),
    /// [`Request::KeepExec`].
    Exec(OwnedFd),
    Nothing,
    Gone,
}

impl Client {
    pub(crate) fn new(socket: OwnedFd) -> Self {
        Self {
            socket,
            watches: false,
            waits_for_end: false,
            outputs: [None, None],
            input: None,
            gone: false,
        }
    }

    pub(crate) fn receive(&self) -> Message {
        let mut buffer = vec![0; MAX_MESSAGE];
        let mut received = match sys::socket::receive(self.socket.as_fd(), &mut buffer) {
            Ok(received) => received,
            Err(Errno::AGAIN) => return Message::Nothing,
            Err(_) => return Message::Gone,
        };
        match Request::decode(buffer.get(..received.length).unwrap_or_default()) {
            Ok(_) if received.length == 0 => Message::Gone,
            Ok(Request::KeepExec) => match received.descriptors.pop() {
                Some(session) => Message::Exec(session),
                None => Message::Gone,
            },
            Ok(request) => Message::Request(request),
            Err(_) => Message::Gone,
        }
    }

    /// Answers; a caller that cannot be reached is gone.
    pub(crate) fn send(&mut self, response: &Response, descriptors: &[BorrowedFd<'_>]) {
        let sent = response.encode().map_err(|_: ControlError| Errno::INVAL);
        let sent =
            sent.and_then(|bytes| sys::socket::send(self.socket.as_fd(), &bytes, descriptors));
        if sent.is_err() {
            self.gone = true;
        }
    }

    /// The last message: nothing is heard any more.
    pub(crate) fn send_last(&mut self, response: &Response) {
        // A caller that is gone hears nothing.
        let _gone = sys::socket::stop_receiving(self.socket.as_fd());
        self.send(response, &[]);
    }

    pub(crate) fn send_event(&mut self, event: &Event) {
        if self.watches {
            self.send(&Response::Event(event.clone()), &[]);
        }
    }

    /// How many bytes wait for this caller.
    pub(crate) fn backlog(&self) -> usize {
        self.outputs
            .iter()
            .flatten()
            .map(|output| output.backlog.len())
            .sum()
    }
}

/// A pipe to a caller, with what it has not taken yet.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) pipe: OwnedFd,
    backlog: Vec<u8>,
}

impl Output {
    /// Makes the pipe; the second end is the caller's.
    pub(crate) fn new() -> Result<(Self, OwnedFd), Errno> {
        let (theirs, ours) = pipe_with(PipeFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&ours, true)?;
        Ok((
            Self {
                pipe: ours,
                backlog: Vec::new(),
            },
            theirs,
        ))
    }

    pub(crate) fn has_backlog(&self) -> bool {
        !self.backlog.is_empty()
    }

    /// Passes bytes on, in order; what the pipe does not take waits.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<(), Errno> {
        if !self.backlog.is_empty() {
            self.backlog.extend_from_slice(bytes);
            return Ok(());
        }
        let written = write_some(self.pipe.as_fd(), bytes)?;
        self.backlog
            .extend_from_slice(bytes.get(written..).unwrap_or_default());
        Ok(())
    }

    /// Passes on what waits.
    pub(crate) fn flush(&mut self) -> Result<(), Errno> {
        let written = write_some(self.pipe.as_fd(), &self.backlog)?;
        self.backlog.drain(..written);
        Ok(())
    }
}

/// Writes as much as fits now.
pub(crate) fn write_some(fd: BorrowedFd<'_>, bytes: &[u8]) -> Result<usize, Errno> {
    let mut written = 0;
    while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
        match rustix::io::retry_on_intr(|| rustix::io::write(fd, rest)) {
            Ok(length) => written += length,
            Err(Errno::AGAIN) => break,
            Err(errno) => return Err(errno),
        }
    }
    Ok(written)
}
