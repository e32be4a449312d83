//! Streams between this process and a program: each direction with one buffer of its own, all of
//! them in one poll, none of them blocking the others.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use engine::DetachKeys;

/// How much is read at once.
const BUFFER: usize = 64 * 1024;

/// How much a pipe or a terminal that is ready takes without blocking (`PIPE_BUF`, pipe(7)). The
/// descriptors of the caller are shared with it, so they cannot be made non-blocking.
const WRITE: usize = 4096;

/// How much is still passed on after the program has ended: what the pipes held at that moment, and
/// not what a program that it left behind goes on to write.
const MAX_AFTER_END: usize = 1 << 20;

/// One direction.
pub(crate) struct Flow<F, T> {
    /// `None` at its end.
    from: Option<F>,
    /// `None` when it takes no more.
    to: Option<T>,
    pending: Vec<u8>,
    written: usize,
    /// What leaves the terminal when it is read.
    detach: Option<DetachKeys>,
    is_detached: bool,
    /// It could not be written.
    is_broken: bool,
}

impl<F: AsFd, T: AsFd> Flow<F, T> {
    /// From `from` to `to`.
    pub(crate) fn new(from: F, to: T) -> Self {
        Self {
            from: Some(from),
            to: Some(to),
            pending: Vec::new(),
            written: 0,
            detach: None,
            is_detached: false,
            is_broken: false,
        }
    }

    /// Leaves when these keys are read.
    pub(crate) fn detached_by(mut self, keys: Option<DetachKeys>) -> Self {
        self.detach = keys;
        self
    }

    fn has_pending(&self) -> bool {
        self.written < self.pending.len()
    }

    /// What the direction waits for: to write what it holds, or to read more.
    fn poll_fd(&self, reading: Reading) -> Option<PollFd<'_>> {
        let to = self.to.as_ref()?;
        if self.has_pending() {
            return Some(PollFd::from_borrowed_fd(to.as_fd(), PollFlags::OUT));
        }
        let from = self.from.as_ref().filter(|_| reading == Reading::On)?;
        Some(PollFd::from_borrowed_fd(from.as_fd(), PollFlags::IN))
    }

    /// Reads or writes once; the number of bytes that were read.
    fn step(&mut self) -> usize {
        if self.has_pending() {
            self.write();
            return 0;
        }
        self.read()
    }

    fn read(&mut self) -> usize {
        let Some(from) = &self.from else { return 0 };
        self.pending.resize(BUFFER, 0);
        self.written = 0;
        let length = match rustix::io::read(from, &mut self.pending) {
            Ok(0) => {
                self.from = None;
                0
            }
            Ok(length) => length,
            Err(Errno::AGAIN | Errno::INTR) => 0,
            // EIO: the other side of the terminal is closed.
            Err(_) => {
                self.from = None;
                0
            }
        };
        self.pending.truncate(length);
        if let Some(keys) = &mut self.detach {
            self.is_detached |= keys.scan(&mut self.pending);
        }
        self.close_if_done();
        length
    }

    fn write(&mut self) {
        let Some(to) = &self.to else { return };
        let end = self.pending.len().min(self.written + WRITE);
        let bytes = self.pending.get(self.written..end).unwrap_or_default();
        match rustix::io::write(to, bytes) {
            Ok(length) => self.written += length,
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => {
                (self.from, self.to) = (None, None);
                self.pending.clear();
                self.is_broken = true;
            }
        }
        self.close_if_done();
    }

    /// The end of the source becomes the end of the target.
    fn close_if_done(&mut self) {
        if self.from.is_none() && !self.has_pending() {
            self.to = None;
        }
    }
}

/// Whether more is read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reading {
    On,
    Off,
}

/// What one turn brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// The session can be read.
    Session,
    /// Signals wait.
    Signals,
    /// Bytes were passed on, or nothing happened.
    Passed,
    /// Nobody takes the output.
    OutputClosed,
    /// The keys that leave the terminal were typed.
    Detached,
    /// After [`Relay::finish`]: all output is written.
    Finished,
}

/// All directions and what else is waited for.
pub(crate) struct Relay<'a> {
    /// `None` when nobody is at its other end any more.
    session: Option<OwnedFd>,
    signals: BorrowedFd<'a>,
    input: Option<Flow<BorrowedFd<'a>, OwnedFd>>,
    output: Option<Flow<OwnedFd, BorrowedFd<'a>>>,
    error: Option<Flow<OwnedFd, BorrowedFd<'a>>>,
    /// How much may still be read, once the program has ended.
    rest: Option<usize>,
}

impl<'a> Relay<'a> {
    /// Without any direction.
    pub(crate) fn new(session: OwnedFd, signals: BorrowedFd<'a>) -> Self {
        Self {
            session: Some(session),
            signals,
            input: None,
            output: None,
            error: None,
            rest: None,
        }
    }

    /// Standard input. Its pipe is this process's own and is made non-blocking.
    pub(crate) fn input(&mut self, flow: Flow<BorrowedFd<'a>, OwnedFd>) {
        if let Some(pipe) = &flow.to {
            // It blocks then, as it would have.
            let _blocking = rustix::io::ioctl_fionbio(pipe, true);
        }
        self.input = Some(flow);
    }

    /// Standard output.
    pub(crate) fn output(&mut self, flow: Flow<OwnedFd, BorrowedFd<'a>>) {
        self.output = Some(flow);
    }

    /// Standard error.
    pub(crate) fn error(&mut self, flow: Flow<OwnedFd, BorrowedFd<'a>>) {
        self.error = Some(flow);
    }

    /// Nobody is at the session's other end any more; what the streams still hold is passed on.
    pub(crate) fn lose_session(&mut self) {
        self.session = None;
    }

    /// Another session is listened to.
    pub(crate) fn listen(&mut self, session: OwnedFd) {
        self.session = Some(session);
    }

    /// Whether output may still come.
    pub(crate) fn has_output(&self) -> bool {
        let mut outputs = [&self.output, &self.error].into_iter().flatten();
        outputs.any(|flow| flow.to.is_some())
    }

    /// The program has ended: what is in its pipes now is the last.
    pub(crate) fn finish(&mut self) {
        self.input = None;
        self.rest = Some(MAX_AFTER_END);
    }

    /// Waits until something can be done, and does it.
    pub(crate) fn turn(&mut self) -> Result<Turn, Errno> {
        let ready = self.poll()?;
        let mut read = 0;
        if let (true, Some(flow)) = (ready.input, &mut self.input) {
            // What the program is given says nothing about its end.
            let _length = flow.step();
            if flow.is_detached && !flow.has_pending() {
                return Ok(Turn::Detached);
            }
        }
        if let (true, Some(flow)) = (ready.output, &mut self.output) {
            read += flow.step();
            if flow.is_broken {
                return Ok(Turn::OutputClosed);
            }
        }
        if let (true, Some(flow)) = (ready.error, &mut self.error) {
            read += flow.step();
        }
        if let Some(rest) = &mut self.rest {
            *rest = rest.saturating_sub(read);
            let is_idle = !(ready.output || ready.error || self.is_writing());
            if is_idle && !ready.signals {
                return Ok(Turn::Finished);
            }
        }
        Ok(match (ready.signals, ready.session) {
            (true, _) => Turn::Signals,
            (false, true) => Turn::Session,
            (false, false) => Turn::Passed,
        })
    }

    fn poll(&self) -> Result<Ready, Errno> {
        let reading = if self.rest == Some(0) {
            Reading::Off
        } else {
            Reading::On
        };
        let session = self.session.as_ref().filter(|_| self.rest.is_none());
        let asked = [
            Some(PollFd::from_borrowed_fd(self.signals, PollFlags::IN)),
            session.map(|fd| PollFd::new(fd, PollFlags::IN)),
            self.input.as_ref().and_then(|flow| flow.poll_fd(reading)),
            self.output.as_ref().and_then(|flow| flow.poll_fd(reading)),
            self.error.as_ref().and_then(|flow| flow.poll_fd(reading)),
        ];
        let present: Vec<bool> = asked.iter().map(Option::is_some).collect();
        let mut fds: Vec<PollFd<'_>> = asked.into_iter().flatten().collect();
        // After the end there is nothing to wait for but whoever takes the output.
        let waits = self.rest.is_none() || self.is_writing();
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        match poll(&mut fds, (!waits).then_some(&now)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
        let mut ready = fds.iter().map(|fd| !fd.revents().is_empty());
        let mut present = present.into_iter();
        let mut next = || present.next() == Some(true) && ready.next() == Some(true);
        Ok(Ready {
            signals: next(),
            session: next(),
            input: next(),
            output: next(),
            error: next(),
        })
    }

    fn is_writing(&self) -> bool {
        let outputs = [&self.output, &self.error];
        outputs
            .into_iter()
            .flatten()
            .any(|flow| flow.to.is_some() && flow.has_pending())
    }
}

/// What poll said.
struct Ready {
    signals: bool,
    session: bool,
    input: bool,
    output: bool,
    error: bool,
}
