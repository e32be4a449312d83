//! Watches over what was started, in a thread of its own: what takes too long is killed, and what the user wants no more.
//! Who starts and times a program only waits for it, as anybody would; nothing of this is in the times.

use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process};

/// How long one program may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often it is looked.
const TICK: Duration = Duration::from_millis(100);

/// Why a program was killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Killed {
    /// It took too long.
    Late,
    /// The user wants no more.
    Interrupted,
}

/// A child that nobody has waited for yet, so that its number is its own.
#[derive(Debug)]
struct Target {
    pid: Pid,
    deadline: Instant,
    heed: Heed,
    killed: Option<Killed>,
}

/// Whether an interrupt ends a program: not when it tidies up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Heed {
    Interrupt,
    Nothing,
}

/// All children that are watched.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    targets: Mutex<Vec<Target>>,
    interrupted: AtomicBool,
    ended: AtomicBool,
}

impl Watch {
    /// Watches until [`Ending`] is dropped. `interrupt` is readable when the user wants no more.
    pub(crate) fn guard(&self, interrupt: Option<BorrowedFd>) {
        while !self.ended.load(Ordering::Acquire) {
            match interrupt {
                Some(fd) if !self.interrupted.load(Ordering::Acquire) => {
                    if is_readable_within_tick(fd) {
                        self.interrupted.store(true, Ordering::Release);
                    }
                }
                _ => std::thread::sleep(TICK),
            }
            self.look();
        }
    }

    fn look(&self) {
        let interrupted = self.interrupted.load(Ordering::Acquire);
        let now = Instant::now();
        for target in self.lock().iter_mut().filter(|one| one.killed.is_none()) {
            target.killed = if interrupted && target.heed == Heed::Interrupt {
                Some(Killed::Interrupted)
            } else if now >= target.deadline {
                Some(Killed::Late)
            } else {
                continue;
            };
            // It may have ended just now; its number is kept until it is taken off this list.
            let _ended = kill_process(target.pid, Signal::KILL);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Target>> {
        self.targets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_readable_within_tick(fd: BorrowedFd) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    let timeout = Timespec::try_from(TICK).ok();
    poll(&mut fds, timeout.as_ref()).is_ok_and(|ready| ready > 0)
}

/// Ends the watch when dropped.
#[derive(Debug)]
pub(crate) struct Ending<'a>(pub(crate) &'a Watch);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.ended.store(true, Ordering::Release);
    }
}

/// What may end the waiting for a program.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Waiting<'a> {
    watch: &'a Watch,
    heed: Heed,
}

impl<'a> Waiting<'a> {
    /// Time, and the user.
    pub(crate) fn new(watch: &'a Watch) -> Self {
        Self {
            watch,
            heed: Heed::Interrupt,
        }
    }

    /// Time alone, for what tidies up.
    pub(crate) fn whatever_happens(self) -> Self {
        Self {
            heed: Heed::Nothing,
            ..self
        }
    }

    /// Whether the user wants no more.
    pub(crate) fn is_over(self) -> bool {
        self.heed == Heed::Interrupt && self.watch.interrupted.load(Ordering::Acquire)
    }

    /// Has a child watched, until [`Waiting::take_off`]: before that nobody may wait for it.
    pub(crate) fn put_on(self, pid: Pid) {
        self.watch.lock().push(Target {
            pid,
            deadline: Instant::now() + PATIENCE,
            heed: self.heed,
            killed: None,
        });
    }

    /// Whether it was killed.
    pub(crate) fn take_off(self, pid: Pid) -> Option<Killed> {
        let mut targets = self.watch.lock();
        let at = targets.iter().position(|target| target.pid == pid)?;
        targets.swap_remove(at).killed
    }
}
