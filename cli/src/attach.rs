//! A person at a container: streams passed on, signals and sizes forwarded, the terminal put back.
//! Nothing here waits for one stream alone: signals reach the container while its input is full or
//! nobody takes its output.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use engine::{EngineError, Session, Streams, Wanted};
use runtime::{Console, ExitStatus, Request};
use rustix::io::Errno;
use rustix::termios::{OptionalActions, Termios};

use crate::relay::{Flow, Relay, Turn};
use engine::DetachKeys;

/// Signals that go to the container instead of ending this program.
const FORWARDED: [i32; 6] = [1, 2, 3, 10, 12, 15];

/// SIGWINCH.
pub(crate) const WINDOW_CHANGED: i32 = 28;

/// Whether signals go to the container instead of ending this program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SignalProxy {
    /// All but those that cannot be caught.
    On,
    /// None.
    Off,
}

/// Blocks the signals that are forwarded. Called before the container is started, so that none is
/// lost.
pub(crate) fn block_signals(proxy: SignalProxy) -> io::Result<OwnedFd> {
    let mut signals = match proxy {
        SignalProxy::On => FORWARDED.to_vec(),
        SignalProxy::Off => Vec::new(),
    };
    signals.push(WINDOW_CHANGED);
    sys::signals::signal_fd(&signals)
}

/// The size of the caller's terminal, zeros when there is none.
pub(crate) fn console() -> Console {
    match rustix::termios::tcgetwinsize(io::stdin()) {
        Ok(size) => Console {
            rows: size.ws_row,
            columns: size.ws_col,
            ..Console::UNKNOWN
        },
        Err(_) => Console::UNKNOWN,
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

/// How a foreground program ended for this process.
pub(crate) enum End {
    /// It ended itself.
    Exited(ExitStatus),
    /// Nobody reads this program's standard output any more; the other one goes on.
    OutputClosed,
    /// Somebody has left its terminal; it goes on.
    Detached,
}

/// The exit code of a program that writes to a closed pipe: 128 + SIGPIPE.
pub(crate) const OUTPUT_CLOSED: u8 = 141;

/// Whether the program has a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Terminal {
    /// One of its own.
    Yes,
    /// Pipes.
    No,
}

impl Terminal {
    /// By `--tty`.
    pub(crate) fn given(tty: bool) -> Self {
        if tty { Self::Yes } else { Self::No }
    }

    /// The streams that a foreground program is asked for.
    pub(crate) fn wanted(self, interactive: bool) -> Wanted {
        Wanted {
            stdin: interactive,
            stdout: true,
            stderr: self == Self::No,
        }
    }
}

/// Serves a program that was started with `wanted` streams until it ends.
pub(crate) fn foreground(
    session: &Session,
    wanted: Wanted,
    terminal: Terminal,
    signals: &OwnedFd,
    keys: &DetachKeys,
) -> Result<End, EngineError> {
    session.wait_started()?;
    let streams = session.attached(wanted)?;
    let raw = match terminal {
        Terminal::Yes if wanted.stdin => RawTerminal::enter().ok(),
        _ => None,
    };
    if terminal == Terminal::Yes && rustix::termios::isatty(io::stdin()) {
        // It may have changed since it was looked at.
        resize(session);
    }
    let keys = (terminal == Terminal::Yes).then(|| keys.clone());
    let end = serve(session, streams, signals, keys);
    drop(raw);
    end
}

/// Passes everything on until the program has ended and its output is written.
fn serve(
    session: &Session,
    streams: Streams,
    signals: &OwnedFd,
    keys: Option<DetachKeys>,
) -> Result<End, EngineError> {
    let failed = |errno: Errno| EngineError::Io {
        what: "pass on the container's streams",
        source: errno.into(),
    };
    let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
    let mut relay = Relay::new(session.as_fd(), signals.as_fd());
    if let Some(pipe) = streams.stdin {
        relay.input(Flow::new(stdin.as_fd(), pipe).detached_by(keys));
    }
    if let Some(pipe) = streams.stdout {
        relay.output(Flow::new(pipe, stdout.as_fd()));
    }
    if let Some(pipe) = streams.stderr {
        relay.error(Flow::new(pipe, stderr.as_fd()));
    }
    let mut exited = None;
    loop {
        match relay.turn().map_err(failed)? {
            Turn::Session if exited.is_none() => {
                exited = session.next_exit()?;
                if exited.is_some() {
                    relay.finish();
                }
            }
            Turn::Signals => {
                let interrupted = forward(session, signals);
                if let Some(status) = exited.take_if(|_| interrupted) {
                    return Ok(End::Exited(status));
                }
            }
            Turn::OutputClosed => return Ok(End::OutputClosed),
            Turn::Detached => {
                session.ask(&Request::Detach)?;
                return Ok(End::Detached);
            }
            Turn::Finished => {
                if let Some(status) = exited {
                    return Ok(End::Exited(status));
                }
            }
            Turn::Session | Turn::Passed => {}
        }
    }
}

fn resize(session: &Session) {
    let size = console();
    let request = Request::Resize {
        rows: size.rows,
        columns: size.columns,
    };
    // A container that is ending takes no more requests; its end is reported all the same.
    drop(session.tell(&request));
}

/// Forwards what waits; says whether a signal was among it that asks to end.
fn forward(session: &Session, signals: &OwnedFd) -> bool {
    let mut interrupted = false;
    while let Ok(Some(signal)) = sys::signals::next_signal(signals.as_fd()) {
        if signal == WINDOW_CHANGED {
            resize(session);
        } else {
            interrupted = true;
            // As above.
            drop(session.tell(&Request::Signal(signal)));
        }
    }
    interrupted
}
