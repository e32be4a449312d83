//! A command that stays: passes signals on, shows the terminal on the caller's own, and waits.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use runtime::code;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{WaitId, WaitIdOptions, waitid};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize};

/// `SIGWINCH` (signal(7)).
const WINCH: i32 = 28;

/// Signals that are passed on: all that a program may handle and that are not this process's own
/// (its children, its terminal's job control, its pipes) or raised by an instruction.
const PASSED: [i32; 9] = [1, 2, 3, 10, 12, 14, 15, WINCH, 30];

/// Signals that are read instead of delivered.
pub(super) struct Signals {
    descriptor: OwnedFd,
}

impl Signals {
    /// Blocks them; what arrives from now on is kept.
    pub(super) fn block() -> io::Result<Self> {
        let descriptor = sys::signals::signal_fd(&PASSED)?;
        Ok(Self { descriptor })
    }
}

/// The caller's terminal in raw mode, until this is dropped.
struct Raw {
    before: Termios,
}

impl Raw {
    fn enter() -> Option<Self> {
        let stdin = io::stdin();
        let before = tcgetattr(&stdin).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&stdin, OptionalActions::Drain, &raw).ok()?;
        Some(Self { before })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // A terminal that is gone needs no mode.
        let _gone = tcsetattr(io::stdin(), OptionalActions::Drain, &self.before);
    }
}

/// Waits for the end of a process; `master` is its terminal. The exit code, 128 and more for a
/// signal.
pub(super) fn until_end(
    pidfd: BorrowedFd<'_>,
    master: Option<OwnedFd>,
    signals: &Signals,
) -> io::Result<u8> {
    let raw = master.as_ref().and_then(|_| Raw::enter());
    if let Some(master) = &master {
        copy_size(master.as_fd());
    }
    let mut relay = Relay {
        input: master.is_some(),
        master,
    };
    while !relay.turn(pidfd, signals)? {}
    relay.drain();
    drop(raw);
    let status = rustix::io::retry_on_intr(|| waitid(WaitId::PidFd(pidfd), WaitIdOptions::EXITED))?;
    let status = status.ok_or(Errno::CHILD)?;
    let number = |value: i32| u8::try_from(value & 0xff).unwrap_or(u8::MAX);
    Ok(match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => number(code),
        (None, signal) => code::SIGNAL_BASE.saturating_add(number(signal.unwrap_or(0))),
    })
}

fn copy_size(master: BorrowedFd<'_>) {
    if let Ok(size) = tcgetwinsize(io::stdin()) {
        // The container may have closed its terminal.
        let _closed = tcsetwinsize(master, size);
    }
}

struct Relay {
    /// Whether the caller still types.
    input: bool,
    master: Option<OwnedFd>,
}

impl Relay {
    /// Waits for something and handles it; says whether the process has ended.
    fn turn(&mut self, pidfd: BorrowedFd<'_>, signals: &Signals) -> io::Result<bool> {
        let stdin = io::stdin();
        let mut fds = vec![
            PollFd::from_borrowed_fd(pidfd, PollFlags::IN),
            PollFd::new(&signals.descriptor, PollFlags::IN),
        ];
        if let Some(master) = &self.master {
            fds.push(PollFd::new(master, PollFlags::IN));
            if self.input {
                fds.push(PollFd::new(&stdin, PollFlags::IN));
            }
        }
        rustix::io::retry_on_intr(|| poll(&mut fds, None))?;
        let mut ready = fds.iter().map(|fd| !fd.revents().is_empty());
        let mut next = || ready.next().unwrap_or(false);
        let (ended, signalled, output, input) = (next(), next(), next(), next());
        drop(fds);
        if signalled {
            self.pass_signal(pidfd, signals);
        }
        if output {
            self.show();
        }
        if input {
            self.typed();
        }
        Ok(ended)
    }

    fn pass_signal(&self, pidfd: BorrowedFd<'_>, signals: &Signals) {
        while let Ok(Some(signal)) = sys::signals::next_signal(signals.descriptor.as_fd()) {
            if let (WINCH, Some(master)) = (signal, &self.master) {
                copy_size(master.as_fd());
            } else {
                // It may have ended in this moment.
                let _ended = sys::signals::send(pidfd, signal);
            }
        }
    }

    /// Shows what the container has written; says whether there was something.
    fn show(&mut self) -> bool {
        let Some(master) = &self.master else {
            return false;
        };
        let mut buffer = [0; 8192];
        match rustix::io::retry_on_intr(|| rustix::io::read(master, &mut buffer)) {
            Ok(length) if length > 0 => {
                let bytes = buffer.get(..length).unwrap_or_default();
                // A caller that has gone away sees nothing.
                drop(io::Write::write_all(&mut io::stdout(), bytes));
                drop(io::Write::flush(&mut io::stdout()));
                true
            }
            // EIO: the last process has closed the terminal.
            _ => {
                self.master = None;
                false
            }
        }
    }

    fn typed(&mut self) {
        let mut buffer = [0; 4096];
        let length = rustix::io::retry_on_intr(|| rustix::io::read(io::stdin(), &mut buffer));
        match (length, &self.master) {
            (Ok(length), Some(master)) if length > 0 => {
                let bytes = buffer.get(..length).unwrap_or_default();
                // As at any terminal, what the program does not read is lost.
                let _lost = rustix::io::write(master, bytes);
            }
            _ => self.input = false,
        }
    }

    /// What is left in the terminal when the process has ended.
    fn drain(&mut self) {
        while let Some(master) = &self.master {
            let mut fds = [PollFd::new(master, PollFlags::IN)];
            let none = rustix::event::Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            };
            let ready = poll(&mut fds, Some(&none)).unwrap_or(0);
            if ready == 0 || !self.show() {
                return;
            }
        }
    }
}
