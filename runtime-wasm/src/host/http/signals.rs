//! The signals that ask a server for its end.

use std::io;
use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::Signal;
use tokio::sync::mpsc::UnboundedReceiver;

use crate::host::process::SIGNALS;

/// Signals as they come.
pub(super) struct Signals(UnboundedReceiver<i32>);

impl Signals {
    /// Reads them in a thread of their own: they are few. They are blocked before there are other
    /// threads, so that every thread has them blocked.
    pub(super) fn watch() -> io::Result<Self> {
        let signals = sys::signals::signal_fd(&SIGNALS.map(Signal::as_raw))?;
        let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
        std::thread::Builder::new()
            .name("signals".to_owned())
            .stack_size(64 << 10)
            .spawn(move || {
                let mut ready = [PollFd::new(&signals, PollFlags::IN)];
                while poll(&mut ready, None).is_ok() {
                    let Ok(signal) = sys::signals::next_signal(signals.as_fd()) else {
                        break;
                    };
                    if signal.is_some_and(|signal| sender.send(signal).is_err()) {
                        break;
                    }
                }
            })?;
        Ok(Self(receiver))
    }

    /// The next one. Safe to drop while it waits.
    pub(super) async fn next(&mut self) -> i32 {
        match self.0.recv().await {
            Some(signal) => signal,
            // Nobody reads them any more, so none comes.
            None => std::future::pending().await,
        }
    }
}

/// Ends the process as the signal would.
pub(super) fn end_by(signal: i32) -> ! {
    sys::signal::exit_now(128_i32.saturating_add(signal))
}
