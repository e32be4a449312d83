//! Attaches to containers that do not run yet: they wait for the start, so that nothing is lost that
//! a program prints first.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use engine::{Session, Streams, Wanted};
use tokio::sync::oneshot;

/// No container has more of them.
const MAX_WAITING: usize = 64;

/// The streams of a container that was started, and the conversation that they belong to.
#[derive(Debug)]
pub(crate) struct Attached {
    pub(crate) session: Session,
    pub(crate) streams: Streams,
}

/// An attach that waits.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) wanted: Wanted,
    pub(crate) sender: oneshot::Sender<Attached>,
}

/// All of them, by the container's id.
#[derive(Debug, Default)]
pub(crate) struct Attaches {
    waiting: Mutex<HashMap<String, Vec<Waiting>>>,
}

impl Attaches {
    /// Waits for the start of a container; `None` when too many do already.
    pub(crate) fn wait(&self, id: &str, wanted: Wanted) -> Option<oneshot::Receiver<Attached>> {
        let (sender, receiver) = oneshot::channel();
        let mut all = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        // Who has hung up meanwhile waits no more.
        all.retain(|_, list| {
            list.retain(|waiting| !waiting.sender.is_closed());
            !list.is_empty()
        });
        let list = all.entry(id.to_owned()).or_default();
        if list.len() >= MAX_WAITING {
            return None;
        }
        list.push(Waiting { wanted, sender });
        Some(receiver)
    }

    /// Takes those of a container that is being started.
    pub(crate) fn take(&self, id: &str) -> Vec<Waiting> {
        let mut all = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let mut list = all.remove(id).unwrap_or_default();
        list.retain(|waiting| !waiting.sender.is_closed());
        list
    }
}
