//! A person at a container: streams passed on, signals and sizes forwarded, the terminal put back.
//! Nothing here waits for one stream alone: signals reach the container while its input is full or
//! nobody takes its output.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use engine::{Engine, EngineError, Rejoined, Session, Streams, Wanted};
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

/// A program in the foreground.
pub(crate) struct Foreground<'a> {
    /// The streams that it was asked for.
    pub(crate) wanted: Wanted,
    pub(crate) terminal: Terminal,
    pub(crate) signals: &'a OwnedFd,
    pub(crate) keys: &'a DetachKeys,
    /// The container whose program it is, which another monitor takes over when its own is killed.
    /// Nothing for a further program, which ends for its caller with its parent.
    pub(crate) container: Option<(&'a Engine, &'a str)>,
}

impl Foreground<'_> {
    /// Serves the program until it ends.
    pub(crate) fn serve(&self, session: &Session) -> Result<End, EngineError> {
        session.wait_started()?;
        let streams = session.attached(self.wanted)?;
        let raw = match self.terminal {
            Terminal::Yes if self.wanted.stdin => RawTerminal::enter().ok(),
            _ => None,
        };
        if self.terminal == Terminal::Yes && rustix::termios::isatty(io::stdin()) {
            // It may have changed since it was looked at.
            resize(session);
        }
        let end = self.pass_on(session, streams);
        drop(raw);
        end
    }

    /// Passes everything on until the program has ended and its output is written.
    fn pass_on(&self, first: &Session, streams: Streams) -> Result<End, EngineError> {
        let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
        let mut relay = Relay::new(descriptor(first)?, self.signals.as_fd());
        if let Some(pipe) = streams.stdin {
            let keys = (self.terminal == Terminal::Yes).then(|| self.keys.clone());
            relay.input(Flow::new(stdin.as_fd(), pipe).detached_by(keys));
        }
        let mut outputs = [streams.stdout, streams.stderr];
        let (mut exited, mut next) = (None, None);
        loop {
            let [output, error] = std::mem::take(&mut outputs);
            if let Some(pipe) = output {
                relay.output(Flow::new(pipe, stdout.as_fd()));
            }
            if let Some(pipe) = error {
                relay.error(Flow::new(pipe, stderr.as_fd()));
            }
            let session = next.as_ref().unwrap_or(first);
            match self.step(&mut relay, session, &mut exited)? {
                Step::On => {}
                Step::Over(end) => return Ok(end),
                Step::Lost(error) => match self.rejoin(&mut relay, error)? {
                    Rejoined::Ended(status) => return Ok(End::Exited(status)),
                    Rejoined::Running(session, streams) => {
                        relay.listen(descriptor(&session)?);
                        outputs = [streams.stdout, streams.stderr];
                        next = Some(session);
                    }
                },
            }
        }
    }

    /// Waits for something, and does what follows from it.
    fn step(
        &self,
        relay: &mut Relay<'_>,
        session: &Session,
        exited: &mut Option<ExitStatus>,
    ) -> Result<Step, EngineError> {
        match relay.turn().map_err(not_passed_on)? {
            Turn::Session if exited.is_none() => match session.next_exit() {
                Ok(status) => {
                    if status.is_some() {
                        relay.finish();
                    }
                    *exited = status;
                }
                Err(error) => return Ok(Step::Lost(error)),
            },
            Turn::Signals => {
                let interrupted = forward(session, self.signals);
                if let Some(status) = exited.take_if(|_| interrupted) {
                    return Ok(Step::Over(End::Exited(status)));
                }
            }
            Turn::OutputClosed => return Ok(Step::Over(End::OutputClosed)),
            Turn::Detached => {
                session.ask(&Request::Detach)?;
                return Ok(Step::Over(End::Detached));
            }
            Turn::Finished => {
                if let Some(status) = exited.take() {
                    return Ok(Step::Over(End::Exited(status)));
                }
            }
            Turn::Session | Turn::Passed => {}
        }
        Ok(Step::On)
    }

    /// Finds the container again whose monitor is gone, when what that had passed on is written.
    /// Standard input stays as it is: its pipe is this process's, and leads to the program.
    fn rejoin(&self, relay: &mut Relay<'_>, lost: EngineError) -> Result<Rejoined, EngineError> {
        let Some((engine, id)) = self.container else {
            return Err(lost);
        };
        relay.lose_session();
        while relay.has_output() {
            if relay.turn().map_err(not_passed_on)? == Turn::OutputClosed {
                break;
            }
        }
        engine.rejoin(
            id,
            Wanted {
                stdin: false,
                ..self.wanted
            },
        )
    }
}

/// What one turn of the relay has led to.
enum Step {
    /// It goes on.
    On,
    /// That was it.
    Over(End),
    /// The program's parent is gone.
    Lost(EngineError),
}

fn not_passed_on(errno: Errno) -> EngineError {
    EngineError::Io {
        what: "pass on the container's streams",
        source: errno.into(),
    }
}

/// A session's own descriptor, to be waited for.
fn descriptor(session: &Session) -> Result<OwnedFd, EngineError> {
    let descriptor = session.as_fd().try_clone_to_owned();
    descriptor.map_err(|source| EngineError::Io {
        what: "listen to the container's monitor",
        source,
    })
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
