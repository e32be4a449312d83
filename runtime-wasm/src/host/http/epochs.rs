//! Ticks that make a busy instance give way: only while there are instances, so that an idle server
//! sleeps.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, Thread};
use std::time::Duration;

use wasmtime::Engine;

/// How long an instance may keep a thread.
const TICK: Duration = Duration::from_millis(10);

/// The ticking of one engine.
#[derive(Debug, Clone)]
pub(super) struct Epochs {
    users: Arc<AtomicUsize>,
    thread: Thread,
}

impl Epochs {
    /// Starts the thread, which sleeps until somebody needs it.
    pub(super) fn start(engine: Engine) -> io::Result<Self> {
        let users = Arc::new(AtomicUsize::new(0));
        let watched = Arc::clone(&users);
        let handle = thread::Builder::new()
            .name("epochs".to_owned())
            .stack_size(64 << 10)
            .spawn(move || {
                loop {
                    while watched.load(Ordering::Acquire) > 0 {
                        thread::sleep(TICK);
                        engine.increment_epoch();
                    }
                    thread::park();
                }
            })?;
        Ok(Self {
            users,
            thread: handle.thread().clone(),
        })
    }

    /// Ticks at least as long as the answer lives.
    pub(super) fn keep(&self) -> Ticking {
        if self.users.fetch_add(1, Ordering::AcqRel) == 0 {
            self.thread.unpark();
        }
        Ticking(Arc::clone(&self.users))
    }
}

/// Somebody needs the ticks.
#[derive(Debug)]
pub(super) struct Ticking(Arc<AtomicUsize>);

impl Drop for Ticking {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}
