//! Attaches to containers that do not run yet: they wait for the start, so that nothing is lost that
//! a program prints first.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use engine::{Rejoined, Session, Streams, Wanted};
use tokio::sync::oneshot;

use crate::daemon::Daemon;

/// No container has more of them.
const MAX_WAITING: usize = 64;

/// The streams of a container that was started, and the conversation that they belong to.
#[derive(Debug)]
pub(crate) struct Attached {
    pub(crate) session: Session,
    pub(crate) streams: Streams,
    /// Where they come from when the monitor is killed; a further program's end with their parent.
    pub(crate) again: Option<Again>,
}

/// What a client is attached to.
#[derive(Debug)]
pub(crate) struct Again {
    pub(crate) daemon: Arc<Daemon>,
    pub(crate) container: String,
    pub(crate) wanted: Wanted,
}

impl Again {
    /// Joins the container under its next monitor; `None` when it has ended. Standard input stays as it
    /// is: its pipe leads to the program.
    pub(crate) async fn join(&self) -> Option<Attached> {
        let (id, wanted) = (self.container.clone(), self.wanted);
        let wanted = Wanted {
            stdin: false,
            ..wanted
        };
        let joined = self
            .daemon
            .run(move |engine| Ok(engine.rejoin(&id, wanted)?));
        match joined.await {
            Ok(Rejoined::Running(session, streams)) => Some(Attached {
                session,
                streams,
                again: None,
            }),
            Ok(Rejoined::Ended(_)) => None,
            Err(error) => {
                tracing::warn!(error = error.message, "a container's streams are lost");
                None
            }
        }
    }
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
