//! What happens, told to everyone who waits for it. One thread reads the log of events, which every
//! ketch and every monitor writes to: who started or ended a container does not matter.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use engine::Engine;
use state::{EventRecord, nanoseconds_now};
use tokio::sync::broadcast;

use crate::error::chain;

/// How many events a slow waiter may be behind; one that is further behind looks for itself.
const BEHIND: usize = 1024;

/// How long the end of the daemon waits for the reader at most.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// The events.
#[derive(Debug)]
pub(crate) struct Hub {
    sender: broadcast::Sender<Arc<EventRecord>>,
    ended: AtomicBool,
}

impl Default for Hub {
    fn default() -> Self {
        Self {
            sender: broadcast::Sender::new(BEHIND),
            ended: AtomicBool::new(false),
        }
    }
}

impl Hub {
    /// Everything that happens from now on.
    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Arc<EventRecord>> {
        self.sender.subscribe()
    }

    /// Makes [`Hub::read`] end.
    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    /// Reads events until [`Hub::end`].
    pub(crate) fn read(&self, engine: &Engine) {
        while !self.is_ended() {
            let read = engine.events(nanoseconds_now()).and_then(|mut reader| {
                let failed = |source| engine::EngineError::Io {
                    what: "read the log of events",
                    source,
                };
                while !self.is_ended() {
                    while let Some(event) = reader.next_event().map_err(failed)? {
                        // Nobody waits: nothing to do.
                        drop(self.sender.send(Arc::new(event)));
                    }
                    reader.wait(LOOK_AGAIN).map_err(failed)?;
                }
                Ok(())
            });
            if let Err(error) = read {
                tracing::warn!(error = chain(&error), "cannot read events; trying again");
                std::thread::sleep(LOOK_AGAIN);
            }
        }
    }
}
