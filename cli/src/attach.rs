//! A person at a container: streams passed on, signals and sizes forwarded, the terminal put back.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use engine::{EngineError, Session, Streams};
use runtime::{Console, ExitStatus, Request};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::termios::{OptionalActions, Termios};

/// Signals that go to the container instead of ending this program.
const FORWARDED: [i32; 6] = [1, 2, 3, 10, 12, 15];

/// SIGWINCH.
const WINDOW_CHANGED: i32 = 28;

/// Blocks the signals that are forwarded. Called before the container is started, so that none is
/// lost.
pub(crate) fn block_signals() -> io::Result<OwnedFd> {
    let mut signals = FORWARDED.to_vec();
    signals.push(WINDOW_CHANGED);
    sys::signals::signal_fd(&signals)
}

/// The size of the caller's terminal, zeros when there is none.
pub(crate) fn console() -> Console {
    match rustix::termios::tcgetwinsize(io::stdin()) {
        Ok(size) => Console {
            rows: size.ws_row,
            columns: size.ws_col,
        },
        Err(_) => Console {
            rows: 0,
            columns: 0,
        },
    }
}

/// A terminal in raw mode, put back when dropped.
pub(crate) struct RawTerminal {
    before: Termios,
}

impl RawTerminal {
    /// Puts standard input into raw mode.
    pub(crate) fn enter() -> Result<Self, Errno> {
        let before = rustix::termios::tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        rustix::termios::tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;
        Ok(Self { before })
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        // Nothing is left to be done for a terminal that is gone.
        let _gone = rustix::termios::tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}

/// Passes everything on until the container has ended and its output is written.
pub(crate) fn serve(
    session: &Session,
    mut streams: Streams,
    signals: &OwnedFd,
) -> Result<ExitStatus, EngineError> {
    let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
    loop {
        let ready = wait(session, &streams, signals, stdin.as_fd())?;
        if ready.stdout {
            copy(&mut streams.stdout, stdout.as_fd());
        }
        if ready.stderr {
            copy(&mut streams.stderr, stderr.as_fd());
        }
        if ready.stdin && !pass(stdin.as_fd(), streams.stdin.as_ref()) {
            // The end of standard input reaches the program as the end of its own.
            streams.stdin = None;
        }
        if ready.signals {
            forward(session, signals);
        }
        let output_over = streams.stdout.is_none() && streams.stderr.is_none();
        if ready.session && output_over {
            return session.wait_exited();
        }
    }
}

struct Ready {
    session: bool,
    signals: bool,
    stdout: bool,
    stderr: bool,
    stdin: bool,
}

fn wait(
    session: &Session,
    streams: &Streams,
    signals: &OwnedFd,
    stdin: BorrowedFd<'_>,
) -> Result<Ready, EngineError> {
    let output_over = streams.stdout.is_none() && streams.stderr.is_none();
    let mut fds = vec![PollFd::new(signals, PollFlags::IN)];
    // While output comes, the report of the end waits: it is always the last.
    if output_over {
        fds.push(PollFd::from_borrowed_fd(session.as_fd(), PollFlags::IN));
    }
    for output in [&streams.stdout, &streams.stderr].into_iter().flatten() {
        fds.push(PollFd::new(output, PollFlags::IN));
    }
    if streams.stdin.is_some() {
        fds.push(PollFd::from_borrowed_fd(stdin, PollFlags::IN));
    }
    match poll(&mut fds, None) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(errno) => {
            let what = "wait for the container";
            return Err(EngineError::Io {
                what,
                source: errno.into(),
            });
        }
    }
    let mut results = fds.iter().map(|fd| !fd.revents().is_empty());
    let mut next = |present: bool| present && results.next().unwrap_or(false);
    Ok(Ready {
        signals: next(true),
        session: next(output_over),
        stdout: next(streams.stdout.is_some()),
        stderr: next(streams.stderr.is_some()),
        stdin: next(streams.stdin.is_some()),
    })
}

/// Copies what is there; a stream that has ended, or that nobody takes, is closed.
fn copy(from: &mut Option<OwnedFd>, to: BorrowedFd<'_>) {
    if let Some(fd) = from
        && !pass(fd.as_fd(), Some(to))
    {
        *from = None;
    }
}

/// Passes one read on; says whether there can be more.
fn pass(from: BorrowedFd<'_>, to: Option<impl AsFd>) -> bool {
    let mut buffer = [0; 64 * 1024];
    let length = match rustix::io::read(from, &mut buffer) {
        Ok(0) => return false,
        Ok(length) => length,
        Err(Errno::AGAIN | Errno::INTR) => return true,
        Err(_) => return false,
    };
    let Some(to) = to else { return false };
    let mut bytes = buffer.get(..length).unwrap_or_default();
    while !bytes.is_empty() {
        match rustix::io::write(&to, bytes) {
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                let mut fds = [PollFd::new(&to, PollFlags::OUT)];
                // Interrupted: the write is tried again.
                let _interrupted = poll(&mut fds, None);
            }
            Err(_) => return false,
        }
    }
    true
}

fn forward(session: &Session, signals: &OwnedFd) {
    while let Ok(Some(signal)) = sys::signals::next_signal(signals.as_fd()) {
        let request = if signal == WINDOW_CHANGED {
            let size = console();
            Request::Resize {
                rows: size.rows,
                columns: size.columns,
            }
        } else {
            Request::Signal(signal)
        };
        // A container that is ending takes no more requests; its end is reported all the same.
        drop(session.tell(&request));
    }
}
