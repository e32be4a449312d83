//! A conversation with a container's monitor.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use runtime::{Event, ExitStatus, MAX_MESSAGE, Request, Response};
use rustix::io::Errno;

use crate::EngineError;

/// The container's streams, as far as they were asked for.
#[derive(Debug, Default)]
pub struct Streams {
    /// Write end of standard input.
    pub stdin: Option<OwnedFd>,
    /// Read end of standard output.
    pub stdout: Option<OwnedFd>,
    /// Read end of standard error.
    pub stderr: Option<OwnedFd>,
}

/// Which streams of a container are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// Write to standard input.
    pub stdin: bool,
    /// Read standard output.
    pub stdout: bool,
    /// Read standard error; a container with a terminal has none.
    pub stderr: bool,
}

/// One connection.
#[derive(Debug)]
pub struct Session {
    socket: OwnedFd,
}

impl Session {
    pub(crate) fn new(socket: OwnedFd) -> Self {
        Self { socket }
    }

    fn send(&self, request: &Request) -> Result<(), EngineError> {
        let bytes = request.encode().map_err(io::Error::other);
        let bytes = bytes.map_err(EngineError::io("talk to the container's monitor"))?;
        sys::socket::send(self.socket.as_fd(), &bytes, &[])
            .map_err(|errno| EngineError::io("talk to the container's monitor")(errno.into()))
    }

    fn receive(&self) -> Result<(Response, Vec<OwnedFd>), EngineError> {
        let failed = EngineError::io("hear from the container's monitor");
        let mut buffer = vec![0; MAX_MESSAGE];
        let received = sys::socket::receive(self.socket.as_fd(), &mut buffer)
            .map_err(|errno| failed(errno.into()))?;
        if received.length == 0 {
            return Err(failed(Errno::PIPE.into()));
        }
        let bytes = buffer.get(..received.length).unwrap_or_default();
        let response = Response::decode(bytes).map_err(|error| failed(io::Error::other(error)))?;
        Ok((response, received.descriptors))
    }

    /// Waits until the program runs.
    ///
    /// # Errors
    /// Why it could not start.
    pub fn wait_started(&self) -> Result<i32, EngineError> {
        match self.receive()?.0 {
            Response::Event(Event::Started { pid }) => Ok(pid),
            Response::Event(Event::Failed(failure)) => Err(EngineError::Start {
                code: failure.code,
                message: failure.message,
            }),
            other => Err(unexpected(&other)),
        }
    }

    /// Waits until another monitor has taken a container over: it goes on, or has ended.
    ///
    /// # Errors
    /// Why it could not be taken over.
    pub(crate) fn wait_taken_over(&self) -> Result<(), EngineError> {
        match self.receive()?.0 {
            Response::Event(Event::Started { .. } | Event::Exited(_)) => Ok(()),
            Response::Event(Event::Failed(failure)) => Err(EngineError::Start {
                code: failure.code,
                message: failure.message,
            }),
            other => Err(unexpected(&other)),
        }
    }

    /// Asks for streams of a container that runs.
    ///
    /// # Errors
    /// When the monitor refuses.
    pub fn attach(&self, wanted: Wanted) -> Result<Streams, EngineError> {
        self.ask_streams(wanted)?;
        self.attached(wanted)
    }

    /// Asks for streams; [`Session::attached`] takes them.
    ///
    /// # Errors
    /// When the monitor is gone.
    pub fn ask_streams(&self, wanted: Wanted) -> Result<(), EngineError> {
        let Wanted {
            stdin,
            stdout,
            stderr,
        } = wanted;
        self.send(&Request::Attach {
            stdin,
            stdout,
            stderr,
        })
    }

    /// Takes the streams that were asked for when the container was started.
    ///
    /// # Errors
    /// When the monitor refuses.
    pub fn attached(&self, wanted: Wanted) -> Result<Streams, EngineError> {
        match self.receive()? {
            (Response::Attached, descriptors) => {
                let mut descriptors = descriptors.into_iter();
                let mut next = |wanted: bool| if wanted { descriptors.next() } else { None };
                Ok(Streams {
                    stdin: next(wanted.stdin),
                    stdout: next(wanted.stdout),
                    stderr: next(wanted.stderr),
                })
            }
            (other, _) => Err(unexpected(&other)),
        }
    }

    /// Waits for the container's end.
    ///
    /// # Errors
    /// When the monitor is gone.
    pub fn wait_exited(&self) -> Result<ExitStatus, EngineError> {
        loop {
            if let Some(status) = self.next_exit()? {
                return Ok(status);
            }
        }
    }

    /// Takes one message: the exit status when it is the report of the end, `None` when it is the
    /// answer to a request that nobody waited for.
    ///
    /// # Errors
    /// When the monitor is gone.
    pub fn next_exit(&self) -> Result<Option<ExitStatus>, EngineError> {
        match self.receive()?.0 {
            Response::Event(Event::Exited(status)) => Ok(Some(status)),
            _ => Ok(None),
        }
    }

    /// The connection, to be polled: readable when [`Session::next_exit`] has something to take.
    #[must_use]
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Asks for events from now on.
    ///
    /// # Errors
    /// When the monitor is gone.
    pub fn watch(&self) -> Result<(), EngineError> {
        self.send(&Request::Watch)
    }

    /// Asks for something and waits until it is done.
    ///
    /// # Errors
    /// When the monitor refuses.
    pub fn ask(&self, request: &Request) -> Result<(), EngineError> {
        self.send(request)?;
        loop {
            match self.receive()?.0 {
                Response::Done => return Ok(()),
                Response::Refused(reason) => return Err(EngineError::Unsupported(reason)),
                Response::Event(_) | Response::Attached | Response::LinearMemory(_) => {}
            }
        }
    }

    /// Hands the connection to a further program's parent over, and waits until it is taken.
    pub(crate) fn keep_exec(&self, exec: &Self) -> Result<(), EngineError> {
        let failed = EngineError::io("talk to the container's monitor");
        let bytes = Request::KeepExec.encode().map_err(io::Error::other);
        let bytes = bytes.map_err(&failed)?;
        sys::socket::send(self.socket.as_fd(), &bytes, &[exec.socket.as_fd()])
            .map_err(|errno| failed(errno.into()))?;
        match self.receive()?.0 {
            Response::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// How much linear memory wasm guests have, as the monitor sees it.
    ///
    /// # Errors
    /// When the monitor is gone, or of a version that does not know the question.
    pub fn linear_memory(&self) -> Result<Option<u64>, EngineError> {
        self.send(&Request::LinearMemory)?;
        match self.receive()?.0 {
            Response::LinearMemory(bytes) => Ok(bytes),
            other => Err(unexpected(&other)),
        }
    }

    /// Asks without waiting for the answer: for signals and sizes while events are read.
    ///
    /// # Errors
    /// When the monitor is gone.
    pub fn tell(&self, request: &Request) -> Result<(), EngineError> {
        self.send(request)
    }
}

fn unexpected(response: &Response) -> EngineError {
    match response {
        Response::Refused(reason) => EngineError::Unsupported(reason.clone()),
        other => EngineError::io("understand the container's monitor")(io::Error::other(format!(
            "unexpected answer {other:?}"
        ))),
    }
}
